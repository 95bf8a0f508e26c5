"""What a request of the wire asks of the engine, and how its answer goes back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sdf_backend import tasks
from sdf_backend.engine import Engine
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.model_store import ModelStore
from sdf_backend.pose import Similarity
from sdf_backend.tasks import Tasks, is_device_lost, is_out_of_memory
from sdf_backend.wire.messages import JobSettings, Source, Submit

QUICK = JobSettings(resolution=32, pose="known", quality="preview")


@pytest.fixture(scope="module")
def on_cpu(models_folder: Path) -> Tasks:
    return Tasks(Engine(ModelStore(models_folder), "cpu"))


def run(on_cpu: Tasks, **changes):
    job = Submit(**{"job": "0123456789", "task": "sample", "model": "spheres", "settings": QUICK, "count": 2} | changes)
    return on_cpu.run(job, lambda phase, fraction: None, lambda preview: None)


@given(
    st.floats(1e-3, 1e3),
    st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    st.lists(st.floats(-100, 100), min_size=3, max_size=3),
)
def test_a_pose_survives_its_way_as_a_matrix(scale: float, turn: list, shift: list) -> None:
    pose = Similarity(scale, Rotation.from_rotvec(turn).as_matrix(), np.array(shift))
    back = tasks._similarity(tasks._matrix(pose), "pose")
    points = np.random.default_rng(0).normal(size=(10, 3))
    np.testing.assert_allclose(back.apply(points), pose.apply(points), atol=1e-6 * (scale + 100))


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((4, 4)), np.ones((4, 4)), np.diag([1, 1, 2, 1]), np.diag([-1, 1, 1, 1]), 2 * np.eye(4), -np.eye(4)],
)
def test_a_matrix_that_is_no_similarity_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="pose 3"):
        tasks._similarity(matrix.astype(np.float32), "pose 3")


def test_results_are_as_precise_as_the_inputs(on_cpu: Tasks) -> None:
    points = np.random.default_rng(0).normal(size=(500, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    for dtype in ("<f4", "<f8"):
        result = run(on_cpu, task="complete", sources=(Source(points.astype(dtype)),))
        assert result.shapes[0].vertices.dtype == dtype
        assert result.shapes[0].faces.dtype == np.int32
    assert run(on_cpu).shapes[0].vertices.dtype == np.float64


def test_progress_can_end_a_job(on_cpu: Tasks) -> None:
    def unwanted(phase: str, fraction: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        on_cpu.run(Submit("0123456789", "sample", "spheres", QUICK), unwanted, lambda preview: None)


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
