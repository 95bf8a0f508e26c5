"""Batches of several clients: each job gets its own end, and the failure of one does not affect the others."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from backend_process import Backend, Listener, complete, half_sphere, long_job, until, until_logged

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


def queue_behind_a_long_job(backend: Backend, clients: list[Listener], submissions: list) -> list[str]:
    """Queue one job of each client, so that the worker gets them together; returns their names."""
    first = clients[0].send(long_job())
    backend.until_running(first)
    names: list[str] = []
    for client, submit in zip(clients, submissions, strict=True):
        names.append(client.send(submit))
        # One after the other, to fix their order.
        until(lambda: backend.status().queued == len(names), "the jobs do not wait")
    clients[0].cancel(first)
    clients[0].end(first)
    return names


def test_jobs_of_several_clients_run_as_one_batch(backend: Backend, clients: list[Listener]) -> None:
    sizes = (0.45, 0.5, 0.55)
    submissions = [complete(sources=(Source(half_sphere(400, radius)),)) for radius in sizes]
    names = queue_behind_a_long_job(backend, clients, submissions)
    for client, name, radius in zip(clients, names, sizes, strict=True):
        end = client.end(name)
        assert isinstance(end, Result)
        found = np.linalg.norm(end.shapes[0].vertices, axis=1)
        assert abs(np.median(found) - radius) < 0.03
        until_logged(backend, "job started", name, "batch=3")


def test_a_bad_input_fails_only_its_own_job(backend: Backend, clients: list[Listener]) -> None:
    flat = Source(np.zeros((200, 3)))
    names = queue_behind_a_long_job(backend, clients, [complete(), complete(sources=(flat,)), complete()])
    first, bad, last = (client.end(name) for client, name in zip(clients, names, strict=True))
    assert isinstance(first, Result)
    assert isinstance(last, Result)
    assert isinstance(bad, Error)
    assert bad.code == "bad_input"
    for name in names:
        until_logged(backend, "job started", name, "batch=3")


def test_one_job_of_a_batch_can_be_cancelled(backend: Backend, clients: list[Listener]) -> None:
    slow = TaskSettings(resolution=32, pose=Pose.FREE, quality=Quality.FINE)
    names = queue_behind_a_long_job(backend, clients, [complete(settings=slow) for _ in clients])
    worker = until(lambda: backend.worker() if backend.worker().job in names else None, "they do not run")
    clients[1].cancel(names[1])
    clients[1].until_heard(Cancelling, "the confirmation", job=names[1])
    end = clients[1].end(names[1])
    assert isinstance(end, Error)
    assert end.code == "cancelled"
    for client, name in ((clients[0], names[0]), (clients[2], names[2])):
        assert isinstance(client.end(name), Result)
    assert backend.worker().pid == worker.pid
    for name in names:
        until_logged(backend, "job started", name, "batch=3")


def test_jobs_with_other_settings_run_in_another_batch(backend: Backend, clients: list[Listener]) -> None:
    other = TaskSettings(resolution=40, pose=Pose.KNOWN, quality=Quality.PREVIEW)
    names = queue_behind_a_long_job(backend, clients, [complete(), complete(settings=other), complete()])
    for client, name in zip(clients, names, strict=True):
        assert isinstance(client.end(name), Result)
    until_logged(backend, "job started", names[1], "batch=1")


def test_the_jobs_of_a_batch_that_takes_too_long_are_retried_alone(models_folder: Path, tmp_path: Path) -> None:
    """A stopped worker exceeds any time limit, however fast or slow the machine is."""
    heavy, light = complete(sources=(Source(half_sphere(5_000)),) * 16), complete()
    options = ["--models", models_folder, "--batch", "4", "--limit", "job_seconds=5", "--device", "cpu"]
    with Backend(tmp_path, *options) as backend, backend.client() as client:
        # Both are queued while the worker loads torch, so that they are its first batch.
        client.send(heavy)
        client.send(light)
        os.kill(backend.until_running(heavy.job), signal.SIGSTOP)
        until_logged(backend, "job retried", heavy.job, "a batch took longer")
        os.kill(backend.until_running(heavy.job), signal.SIGSTOP)
        end = client.end(heavy.job)
        assert isinstance(end, Error)
        assert end.code == "timed_out"
        assert isinstance(client.end(light.job), Result)
        for job in (heavy.job, light.job):
            until_logged(backend, "job started", job, "batch=2")
            until_logged(backend, "job started", job, "batch=1")
