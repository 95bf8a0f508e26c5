"""A job of the wire done by the engine."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sdf_backend.engine import Engine
from sdf_backend.errors import Cancelled
from sdf_backend.model_store import ModelStore
from sdf_backend.tasks import Tasks, is_device_lost, is_out_of_memory
from sdf_backend.wire.messages import JobSettings, Source, Submit

QUICK = JobSettings(resolution=32, pose="known", quality="preview")


@pytest.fixture(scope="module")
def on_cpu(models_folder: Path) -> Tasks:
    return Tasks(Engine(ModelStore(models_folder), "cpu"))


def ball(radius: float) -> Source:
    points = np.random.default_rng(0).normal(size=(500, 3))
    return Source(radius * points / np.linalg.norm(points, axis=1, keepdims=True))


def run(on_cpu: Tasks, **changes):
    job = Submit(**{"job": "0123456789", "task": "sample", "model": "spheres", "settings": QUICK, "count": 2} | changes)
    [result] = on_cpu.run([job], lambda phase, fraction: None, lambda job, preview: None)
    return result


def test_results_are_as_precise_as_the_inputs(on_cpu: Tasks) -> None:
    for dtype in ("<f4", "<f8"):
        result = run(on_cpu, task="complete", sources=(Source(ball(0.5).vertices.astype(dtype)),))
        assert result.shapes[0].vertices.dtype == dtype
        assert result.shapes[0].faces.dtype == np.int32
    assert run(on_cpu).shapes[0].vertices.dtype == np.float64


def test_progress_can_end_a_job(on_cpu: Tasks) -> None:
    def unwanted(phase: str, fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        on_cpu.run([Submit("0123456789", "sample", "spheres", QUICK)], unwanted, lambda job, preview: None)


def test_jobs_that_are_done_together_get_what_they_would_alone(on_cpu: Tasks) -> None:
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
    fresh = Tasks(Engine(ModelStore(models_folder), "cpu"))
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
