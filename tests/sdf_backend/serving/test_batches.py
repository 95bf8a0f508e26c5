"""Jobs of several clients that one worker does together: each gets its own end, and one's fault is not the others'."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from backend_process import Backend, Listener, complete, half_sphere, logged, long_job, until

from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.messages import Cancelling, Error, Result, Source


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("batches"), "--models", models_folder, "--batch", "4") as backend:
        backend.until_idle()
        yield backend
    assert "Traceback" not in backend.log()


@pytest.fixture
def clients(backend: Backend) -> Iterator[list[Listener]]:
    backend.until_idle()
    clients = [backend.client(f"artist {number}") for number in range(3)]
    yield clients
    for client in clients:
        client.close()


def queued_behind_a_long_one(backend: Backend, clients: list[Listener], submissions: list) -> list[str]:
    """The names of jobs, one a client, that come to the worker at once."""
    first = clients[0].send(long_job())
    backend.until_running(first)
    names: list[str] = []
    for client, submit in zip(clients, submissions, strict=True):
        names.append(client.send(submit))
        # One after the other: what clients send at once comes in any order.
        until(lambda: backend.status().queued == len(names), "the jobs do not wait")
    clients[0].cancel(first)
    clients[0].end(first)
    return names


def test_jobs_of_several_clients_are_done_together(backend: Backend, clients: list[Listener]) -> None:
    sizes = (0.45, 0.5, 0.55)
    submissions = [complete(sources=(Source(half_sphere(radius=radius)),)) for radius in sizes]
    names = queued_behind_a_long_one(backend, clients, submissions)
    for client, name, radius in zip(clients, names, sizes, strict=True):
        end = client.end(name)
        assert isinstance(end, Result)
        found = np.linalg.norm(end.shapes[0].vertices, axis=1)
        assert abs(np.median(found) - radius) < 0.03
        assert logged(backend, "job started", name, "batch=3")


def test_a_bad_input_costs_its_own_job_only(backend: Backend, clients: list[Listener]) -> None:
    flat = Source(np.zeros((200, 3)))
    names = queued_behind_a_long_one(backend, clients, [complete(), complete(sources=(flat,)), complete()])
    first, bad, last = (client.end(name) for client, name in zip(clients, names, strict=True))
    assert isinstance(first, Result)
    assert isinstance(last, Result)
    assert isinstance(bad, Error)
    assert bad.code == "bad_input"
    assert all(logged(backend, "job started", name, "batch=3") for name in names)


def test_one_of_several_can_be_cancelled(backend: Backend, clients: list[Listener]) -> None:
    slow = TaskSettings(resolution=32, pose=Pose.FREE, quality=Quality.FINE)
    names = queued_behind_a_long_one(backend, clients, [complete(settings=slow) for _ in clients])
    worker = until(lambda: backend.worker() if backend.worker().job in names else None, "they do not run")
    clients[1].cancel(names[1])
    clients[1].until_heard(Cancelling, "the answer to the wish", 0.5, names[1])
    end = clients[1].end(names[1], 2.0)
    assert isinstance(end, Error)
    assert end.code == "cancelled"
    for client, name in ((clients[0], names[0]), (clients[2], names[2])):
        assert isinstance(client.end(name), Result)
    assert backend.worker().pid == worker.pid
    assert all(logged(backend, "job started", name, "batch=3") for name in names)


def test_other_settings_are_another_batch(backend: Backend, clients: list[Listener]) -> None:
    other = TaskSettings(resolution=40, pose=Pose.KNOWN, quality=Quality.PREVIEW)
    names = queued_behind_a_long_one(backend, clients, [complete(), complete(settings=other), complete()])
    for client, name in zip(clients, names, strict=True):
        assert isinstance(client.end(name), Result)
    assert logged(backend, "job started", names[1], "batch=1")


def test_a_batch_that_takes_too_long_is_tried_one_by_one(models_folder: Path, tmp_path: Path) -> None:
    slow = TaskSettings(resolution=32, pose=Pose.FREE, quality=Quality.STANDARD)
    options = ["--models", models_folder, "--batch", "4", "--limit", "job_seconds=6", "--device", "cpu"]
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(tmp_path, *options))
        backend.until_idle()
        heavy, light, first = (stack.enter_context(backend.client(name)) for name in ("heavy", "light", "first"))
        submissions = [
            complete(),
            complete(settings=slow, sources=(Source(half_sphere()),) * 16),
            complete(settings=slow),
        ]
        names = queued_behind_a_long_one(backend, [first, heavy, light], submissions)
        assert isinstance(light.end(names[2]), Result)
        end = heavy.end(names[1])
        assert isinstance(end, Error)
        assert end.code == "timed_out"
        assert logged(backend, "job started", names[2], "batch=2")
        assert logged(backend, "job started", names[2], "batch=1")
