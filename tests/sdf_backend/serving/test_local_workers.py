"""The local worker pool without a server: the server reaches the workers, and other programs cannot."""

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
from sdf_backend.serving.authenticator import Authenticator
from sdf_backend.serving.local_workers import LocalWorkerPool, WorkerSettings
from sdf_backend.serving.worker_pool import WorkerEvent, WorkerLost, WorkerReady, WorkerReply
from sdf_backend.threads import PATIENT_THREADS
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.messages import REPLIES, Hello, Limits, Result, Source, Submit

ECHO = Submit("0123456789", "echo", sources=(Source(np.eye(3, dtype=np.float32)),))


class Running:
    """A pool, and the parts of a server that it needs."""

    def __init__(self, models: Path) -> None:
        self.context = zmq.Context()
        self.authenticator = Authenticator(self.context)
        self.pool = LocalWorkerPool(self.context, self.authenticator, WorkerSettings("cpu", models=models))
        self.pool.start(time.monotonic())

    def until(self, wanted: Callable[[WorkerEvent], bool]) -> WorkerEvent:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            self.authenticator.process()
            for event in self.pool.poll(time.monotonic()):
                if wanted(event):
                    return event
            time.sleep(0.005)
        raise AssertionError("waited in vain for a worker")

    def result(self) -> Result:
        reply = self.until(lambda event: isinstance(event, WorkerReply) and event.header.kind == "result")
        assert isinstance(reply, WorkerReply)
        return decode(list(reply.frames), REPLIES, Limits())

    def stop(self) -> None:
        self.pool.stop()
        self.authenticator.close()
        self.context.term()


@pytest.fixture(params=[True, False], ids=["socket file", "keys"])
def running(request: pytest.FixtureRequest, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Both transports, whichever this system uses by default."""
    if request.param and not local_workers.SOCKET_FILES:
        pytest.skip("this system has no socket files")
    monkeypatch.setattr(local_workers, "SOCKET_FILES", request.param)
    running = Running(models_folder)
    yield running
    running.stop()


def test_a_worker_answers_a_job(running: Running) -> None:
    running.until(lambda event: isinstance(event, WorkerReady))
    assert running.pool.submit("worker-0", [encode(ECHO)])
    np.testing.assert_array_equal(running.result().sources[0].vertices, np.eye(3))


def test_other_programs_cannot_reach_the_workers(running: Running) -> None:
    running.until(lambda event: isinstance(event, WorkerReady))
    address = running.pool._address
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
            running.authenticator.process()
            assert not any(isinstance(event, WorkerReply | WorkerLost) for event in running.pool.poll(time.monotonic()))
            assert not stranger.poll(10)
    assert running.pool.submit("worker-0", [encode(ECHO)])
    assert running.result().sources


@pytest.mark.parametrize("running", [True], ids=["socket file"], indirect=True)
def test_the_socket_folder_is_removed(running: Running) -> None:
    folder = Path(running.pool._address.removeprefix("ipc://")).parent
    running.until(lambda event: isinstance(event, WorkerReady))
    assert folder.exists()
    running.pool.stop()
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="what a process was started with is read from /proc")
def test_waiting_threads_of_a_worker_sleep(running: Running) -> None:
    running.until(lambda event: isinstance(event, WorkerReady))
    [worker] = running.pool.describe()
    environment = Path(f"/proc/{worker.pid}/environ").read_text().split("\0")
    assert {f"{name}={value}" for name, value in PATIENT_THREADS.items()} <= set(environment)
