"""Inputs that are much work: refused early, heard of twice a second, and cancelled without the loss of a worker."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from backend_process import Backend, Listener, complete, half_sphere, until

from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.client import ClientError
from sdf_backend.wire.messages import Error, Progress, Result, Source, Submit

THOROUGH = TaskSettings(resolution=192, pose=Pose.UPRIGHT, up="+y", front="-z", quality=Quality.FINE)


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("backend"), "--models", models_folder) as backend:
        yield backend
    assert "Traceback" not in backend.log()


@pytest.fixture
def client(backend: Backend) -> Iterator[Listener]:
    backend.until_idle()
    with backend.client() as client:
        yield client


def soup(count: int) -> Source:
    """Triangles at random."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-1, 1, (count, 1, 3)) + 0.5 * rng.normal(size=(count, 3, 3))
    return Source(corners.reshape(-1, 3), np.arange(3 * count, dtype=np.int32).reshape(-1, 3))


def ball(subdivisions: int) -> Source:
    mesh = trimesh.creation.icosphere(subdivisions, 0.5)
    return Source(np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int32))


@pytest.mark.parametrize("count", [200, 20_000])
def test_triangle_soup_is_refused_before_the_work_is_done(backend: Backend, client: Listener, count: int) -> None:
    before, start = backend.worker(), time.monotonic()
    # Triangles of which no two share a corner are taken for a cloud.
    with pytest.raises(ClientError, match="a point cloud has no inside") as refusal:
        client.run(complete(task="reconstruct", sources=(soup(count),)))
    assert refusal.value.code == "bad_input"
    assert time.monotonic() - start < 60  # on a busy machine; the work takes minutes
    after = backend.until_idle()
    assert after.pid == before.pid and after.memory_bytes < before.memory_bytes + (300 << 20)


def job(**changes: Any) -> Submit:
    return complete(**{"settings": THOROUGH} | changes)


# Each phase lasts for seconds; refining never does, so that a cancellation cannot be aimed at it.
JOBS = {
    "observing": job(task="reconstruct", sources=(ball(6),)),
    "posing": job(sources=(Source(half_sphere(20_000)),)),
    "fitting": job(task="reconstruct", sources=(ball(3),) * 8),
    "extracting": job(task="sample", sources=(), count=16, settings=TaskSettings(256)),
}


def until_phase(client: Listener, submit: Submit, phase: str) -> bool:
    """Wait until a job is in a phase; False if it ended before one was heard."""

    def heard() -> str | None:
        client.poll()
        own = [event for event in client.heard if getattr(event, "job", None) == submit.job]
        in_phase = any(isinstance(event, Progress) and event.phase == phase for event in own)
        return "in it" if in_phase else "ended" if any(isinstance(event, Result | Error) for event in own) else None

    return until(heard, f"{phase} of {submit.job}") == "in it"


@pytest.mark.parametrize("phase", JOBS)
def test_a_job_is_cancelled_in_every_phase_without_the_loss_of_its_worker(
    backend: Backend, client: Listener, phase: str
) -> None:
    worker = backend.worker()
    submit = JOBS[phase]
    client.submit(submit)
    assert until_phase(client, submit, phase)
    for _ in range(20):  # into the midst of it
        client.poll()
        time.sleep(0.02)
    client.cancel(submit.job)
    assert client.end(submit.job).code == "cancelled"
    assert backend.until_idle().pid == worker.pid, backend.log()


def progress_gaps(client: Listener) -> np.ndarray:
    """Seconds between the messages of a job that observes a large mesh."""
    client.submit(complete(task="reconstruct", sources=(ball(6),), settings=TaskSettings(64, Pose.KNOWN)))
    times: list[float] = []

    def ended() -> bool:
        for event in client.poll():
            if isinstance(event, Progress) and event.phase == "observing":
                times.append(time.monotonic())
            if isinstance(event, Result | Error):
                return isinstance(event, Result)
        return False

    until(ended, "the result")
    assert len(times) > 2  # it takes two seconds and more
    return np.diff(times)


def test_progress_of_a_large_mesh_comes_twice_a_second(client: Listener) -> None:
    """On a busy machine some messages are late, so in one of a few attempts."""
    assert any(np.quantile(progress_gaps(client), 0.9) < 0.6 for _ in range(3))


def test_a_job_that_needs_more_memory_than_a_worker_has_fails_alone(models_folder: Path, tmp_path: Path) -> None:
    options = ("--models", models_folder, "--worker-memory-mib", "768")
    with Backend(tmp_path, *options) as backend, backend.client() as client:
        worker = backend.until_idle()
        large = Source(half_sphere(4_000_000))
        with pytest.raises(ClientError, match="ran out of memory") as refusal:
            client.run(complete(sources=(large, large)))
        assert refusal.value.code == "out_of_memory"
        assert isinstance(client.run(complete()), Result)
        assert backend.until_idle().pid == worker.pid
