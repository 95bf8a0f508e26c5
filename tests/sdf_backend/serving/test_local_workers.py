"""Local workers without a server: how they are reached, and that nobody else reaches them."""

import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from backend_process import PATIENCE

from sdf_backend.serving import local_workers
from sdf_backend.serving.auth import Gate
from sdf_backend.serving.local_workers import LocalWorkers, WorkerSettings
from sdf_backend.serving.worker_pool import Event, Lost, Ready, Reply
from sdf_backend.threads import PATIENT_THREADS
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.messages import REPLIES, Hello, Limits, Result, Source, Submit

ECHO = Submit("0123456789", "echo", sources=(Source(np.eye(3, dtype=np.float32)),))


class Running:
    """Workers, and the little of a server that they need."""

    def __init__(self, models: Path) -> None:
        self.context = zmq.Context()
        self.gate = Gate(self.context)
        self.workers = LocalWorkers(self.context, self.gate, WorkerSettings("cpu", models=models))
        self.workers.start(time.monotonic())

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            self.gate.answer()
            for event in self.workers.events(time.monotonic()):
                if wanted(event):
                    return event
            time.sleep(0.005)
        raise AssertionError("waited in vain for a worker")

    def result(self) -> Result:
        reply = self.until(lambda event: isinstance(event, Reply) and event.header.kind == "result")
        assert isinstance(reply, Reply)
        return decode(list(reply.frames), REPLIES, Limits())

    def stop(self) -> None:
        self.workers.stop()
        self.gate.close()
        self.context.term()


@pytest.fixture(params=[True, False], ids=["socket file", "keys"])
def running(request: pytest.FixtureRequest, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Both ways to a worker, whichever this system takes by itself."""
    if request.param and not local_workers.SOCKET_FILES:
        pytest.skip("this system has no socket files")
    monkeypatch.setattr(local_workers, "SOCKET_FILES", request.param)
    running = Running(models_folder)
    yield running
    running.stop()


def test_a_job_goes_to_a_worker_and_back(running: Running) -> None:
    running.until(lambda event: isinstance(event, Ready))
    assert running.workers.give("worker-0", [encode(ECHO)])
    np.testing.assert_array_equal(running.result().sources[0].vertices, np.eye(3))


def test_strangers_do_not_reach_the_workers(running: Running) -> None:
    running.until(lambda event: isinstance(event, Ready))
    address = running.workers._address
    if address.startswith("ipc://"):
        folder = Path(address.removeprefix("ipc://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        return
    with running.context.socket(zmq.DEALER) as stranger:
        stranger.set(zmq.LINGER, 0)
        stranger.set(zmq.ROUTING_ID, b"worker-0.1")
        stranger.connect(address)
        stranger.send_multipart(encode(Hello()))
        for _ in range(30):
            running.gate.answer()
            assert not any(isinstance(event, Reply | Lost) for event in running.workers.events(time.monotonic()))
            assert not stranger.poll(10)
    assert running.workers.give("worker-0", [encode(ECHO)])
    assert running.result().sources


@pytest.mark.parametrize("running", [True], ids=["socket file"], indirect=True)
def test_nothing_is_left_where_the_socket_was(running: Running) -> None:
    folder = Path(running.workers._address.removeprefix("ipc://")).parent
    running.until(lambda event: isinstance(event, Ready))
    assert folder.exists()
    running.workers.stop()
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="what a process was started with is read from /proc")
def test_threads_of_a_worker_leave_the_cores_to_others_while_they_wait(running: Running) -> None:
    running.until(lambda event: isinstance(event, Ready))
    [worker] = running.workers.describe()
    environment = Path(f"/proc/{worker.pid}/environ").read_text().split("\0")
    assert {f"{name}={value}" for name, value in PATIENT_THREADS.items()} <= set(environment)
