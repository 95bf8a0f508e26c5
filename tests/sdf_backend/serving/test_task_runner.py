"""Jobs of the wire, run on an engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdf_backend.content_cache import ContentCache
from sdf_backend.engine import Engine
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.model.store import ModelStore
from sdf_backend.serving.task_runner import TaskRunner, is_device_lost, is_out_of_memory
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.messages import REPLIES, Limits, Source, Submit

QUICK = TaskSettings(resolution=32, pose=Pose.KNOWN, quality=Quality.PREVIEW)


@pytest.fixture(scope="module")
def on_cpu(models_folder: Path) -> TaskRunner:
    return TaskRunner(Engine(ModelStore(models_folder), "cpu"))


def ball(radius: float) -> Source:
    points = np.random.default_rng(0).normal(size=(500, 3))
    return Source(radius * points / np.linalg.norm(points, axis=1, keepdims=True))


def run(on_cpu: TaskRunner, **changes):
    job = Submit(**{"job": "0123456789", "task": "sample", "model": "spheres", "settings": QUICK, "count": 2} | changes)
    [result] = on_cpu.run([job], lambda phase, fraction: None, lambda job, preview: None)
    return result


def test_results_are_as_precise_as_the_inputs(on_cpu: TaskRunner) -> None:
    for dtype in ("<f4", "<f8"):
        result = run(on_cpu, task="complete", sources=(Source(ball(0.5).vertices.astype(dtype)),))
        assert result.shapes[0].vertices.dtype == dtype
        assert result.shapes[0].faces.dtype == np.int32
        assert run(on_cpu, poses=POSES[:1].astype(dtype)).shapes[0].vertices.dtype == dtype
    assert run(on_cpu).shapes[0].vertices.dtype == np.float64


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_an_encoded_source_has_a_code_and_no_mesh_and_crosses_the_wire(on_cpu: TaskRunner, dtype: str) -> None:
    sources = (Source(ball(0.45).vertices.astype(dtype)), Source(ball(0.55).vertices.astype(dtype)))
    result = run(on_cpu, task="encode", sources=sources)
    assert not result.cached and len(result.shapes) == 2
    back = decode(encode(result), REPLIES, Limits())
    completed = run(on_cpu, task="complete", sources=sources)
    for shape, whole in zip(back.shapes, completed.shapes, strict=True):
        assert shape.vertices.dtype == dtype
        assert shape.vertices.shape == shape.faces.shape == (0, 3)
        assert shape.observed is None
        np.testing.assert_array_equal(shape.code, whole.code)
        np.testing.assert_array_equal(shape.pose, whole.pose)
        assert (shape.residual, shape.explained, shape.steps) == (whole.residual, whole.explained, whole.steps)


def test_what_was_encoded_before_is_said_to_be_cached(models_folder: Path, tmp_path: Path) -> None:
    tasks = TaskRunner(Engine(ModelStore(models_folder), "cpu", ContentCache(tmp_path / "cache")))
    cached = [run(tasks, task="encode", sources=(ball(size),)).cached for size in (0.45, 0.45, 0.5)]
    assert cached == [False, True, False]


CODES = np.array([[0.3, 0.1, -0.2], [-0.4, 0.2, 0.1]], dtype="<f4")
POSES = np.tile(np.diag([2.0, 2.0, 2.0, 1.0]), (2, 1, 1))


def test_weights_of_zero_give_the_meshes_of_the_codes(on_cpu: TaskRunner) -> None:
    plain = run(on_cpu, task="decode", codes=CODES, poses=POSES)
    moved = run(on_cpu, task="decode", codes=CODES, poses=POSES, weights=np.zeros((2, 2), "<f4"))
    for one, other in zip(plain.shapes, moved.shapes, strict=True):
        np.testing.assert_array_equal(one.vertices, other.vertices)
        np.testing.assert_array_equal(one.code, other.code)


def test_weights_alone_move_the_mean(on_cpu: TaskRunner) -> None:
    weights = np.array([[1.0, 0.5], [-1.0, -0.5]], "<f8")
    ahead, back = run(on_cpu, task="decode", weights=weights, poses=POSES).shapes
    mean = on_cpu.engine.model("spheres").mean.numpy()
    np.testing.assert_allclose((ahead.code + back.code)[0] / 2, mean, atol=1e-6)
    np.testing.assert_array_equal(ahead.pose, POSES[:1])
    assert len(ahead.faces) and not np.array_equal(ahead.code, back.code)


def test_weights_beyond_the_codes_length_are_refused(on_cpu: TaskRunner) -> None:
    with pytest.raises(InputError, match="at most 3"):
        run(on_cpu, task="decode", weights=np.zeros((1, 4), "<f4"))


def test_samples_stand_at_the_pose_that_is_given(on_cpu: TaskRunner) -> None:
    placed, canonical = run(on_cpu, poses=POSES[:1]).shapes, run(on_cpu).shapes
    for one, other in zip(placed, canonical, strict=True):
        np.testing.assert_array_equal(one.pose, POSES[:1])
        moved = other.vertices @ POSES[0, :3, :3].T + POSES[0, :3, 3]
        np.testing.assert_allclose(one.vertices, moved, atol=1e-6)


def test_samples_near_a_code_stand_at_its_pose(on_cpu: TaskRunner) -> None:
    near = run(on_cpu, codes=CODES[:1], spread=0.5, poses=POSES[:1], count=3).shapes
    nearer = run(on_cpu, codes=CODES[:1], spread=0.25, count=3).shapes
    assert len(near) == len(nearer) == 3
    for one, other in zip(near, nearer, strict=True):
        np.testing.assert_allclose(one.code - CODES[:1], 2 * (other.code - CODES[:1]), atol=1e-6)
        np.testing.assert_array_equal(one.pose, POSES[:1])
        np.testing.assert_array_equal(other.pose, np.eye(4)[None])


def test_progress_can_end_a_job(on_cpu: TaskRunner) -> None:
    def unwanted(phase: str, fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        on_cpu.run([Submit("0123456789", "sample", "spheres", QUICK)], unwanted, lambda job, preview: None)


def test_jobs_that_are_done_together_get_what_they_would_alone(on_cpu: TaskRunner) -> None:
    sources = {"first123": (ball(0.4), ball(0.6)), "second12": (ball(0.5),)}
    jobs = [Submit(name, "complete", "spheres", QUICK, sources=given) for name, given in sources.items()]
    previews = []
    results = on_cpu.run(jobs, lambda phase, fraction: None, lambda job, shown: previews.append((job, shown.source)))
    assert [result.job for result in results] == [job.job for job in jobs]
    assert sorted(previews) == [(jobs[0].job, 0), (jobs[0].job, 1), (jobs[1].job, 0)]
    for job, result in zip(jobs, results, strict=True):
        [alone] = on_cpu.run([job], lambda phase, fraction: None, lambda job, preview: None)
        assert len(result.shapes) == len(job.sources)
        for shape, expected in zip(result.shapes, alone.shapes, strict=True):
            # A batch is multiplied in another order than one shape is.
            np.testing.assert_allclose(shape.code, expected.code, atol=0.05)


def test_loaded_models_are_told(models_folder: Path) -> None:
    fresh = TaskRunner(Engine(ModelStore(models_folder), "cpu"))
    assert fresh.loaded == ()
    run(fresh)
    assert fresh.loaded == ("spheres",)


def test_running_out_of_memory_is_told_from_other_failures() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(RuntimeError) as allocation:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(allocation.value)
    with pytest.raises(MemoryError) as numpys:
        np.zeros(1 << 60, dtype=np.uint8)
    assert is_out_of_memory(numpys.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert is_device_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_device_lost(RuntimeError("shape mismatch"))


def test_jobs_that_are_done_together_get_their_own_candidates(on_cpu: TaskRunner) -> None:
    wanted = replace(QUICK, candidates=2)
    sources = {"first123": (ball(0.4), ball(0.6)), "second12": (ball(0.5),)}
    jobs = [Submit(name, "complete", "spheres", wanted, sources=given) for name, given in sources.items()]
    results = on_cpu.run(jobs, lambda phase, fraction: None, lambda job, shown: None)
    assert [len(result.shapes) for result in results] == [4, 2]
    for result, radii in zip(results, ((0.4, 0.4, 0.6, 0.6), (0.5, 0.5)), strict=True):
        found = [np.linalg.norm(shape.vertices, axis=1).mean() for shape in result.shapes]
        np.testing.assert_allclose(found, radii, atol=0.05)
