"""Misbehaving connections: slow uploads are accepted, endless messages are not, and unresponsive clients may return."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import raw_zmtp
import zmq
from backend_process import SECRET, Backend, complete, until, until_logged

from sdf_backend.serving import clients
from sdf_backend.serving.clients import Clients, Incoming
from sdf_backend.serving.tcp_meter import TcpMeter
from sdf_backend.wire.client import new_job
from sdf_backend.wire.codec import encode
from sdf_backend.wire.messages import Accepted, Hello, Limits, Result

MIB = 1 << 20
SILENCE = 2.0


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    options = ["--models", models_folder, "--device", "cpu", "--silence", SILENCE]
    options += ["--limit", f"frame_bytes={MIB}", "--limit", f"message_bytes={2 * MIB}"]
    with Backend(tmp_path_factory.mktemp("clients"), *map(str, options)) as backend:
        backend.until_idle()
        yield backend
    assert "Traceback" not in backend.log()


@pytest.mark.skipif(not TcpMeter.available(), reason="this system does not count the bytes of a connection")
def test_an_endless_message_is_cut_off(backend: Backend) -> None:
    before, sent = backend.status().memory_bytes, 0
    with raw_zmtp.connect(backend.address) as stream, suppress(OSError):
        while sent < 400:
            stream.sendall(raw_zmtp.frame(bytes(MIB), more=True))
            sent += 1
            time.sleep(0.005)
    assert sent < 400
    until_logged(backend, "client cut off", "address=127.0.0.1")
    with backend.client() as client:
        assert isinstance(client.run(complete()), Result)
    until(lambda: backend.status().memory_bytes < before + 60 * MIB, "the memory is not released")


@pytest.mark.skipif(not TcpMeter.available(), reason="this system does not count the bytes of a connection")
def test_a_slow_upload_does_not_count_as_silence(backend: Backend) -> None:
    job, vertices = new_job(), np.zeros((MIB // 12, 3), np.float32)
    arrays = [{"dtype": "<f4", "shape": list(vertices.shape)}]
    first = {"kind": "submit", "job": job, "task": "sample", "model": "spheres", "count": 64, "keep": 0}
    upload = {"kind": "submit", "job": new_job(), "task": "echo", "sources": [{"vertices": {"array": 0}}]}
    with raw_zmtp.connect(backend.address) as stream:
        stream.sendall(raw_zmtp.message({"kind": "hello", "secret": SECRET}))
        stream.sendall(raw_zmtp.message(first | {"settings": {"resolution": 400, "pose": "known"}}))
        backend.until_running(job)
        content = memoryview(raw_zmtp.message(upload | {"arrays": arrays}, vertices.tobytes()))
        pieces = np.array_split(np.arange(len(content)), 40)
        for piece in pieces:  # for three times the permitted silence
            stream.sendall(content[piece[0] : piece[-1] + 1])
            time.sleep(3 * SILENCE / len(pieces))
        until_logged(backend, "job queued", upload["job"])
        assert backend.worker().job == job
    until_logged(backend, "job ended", job, "code=cancelled")


def test_a_disconnection_is_detected_at_once(backend: Backend) -> None:
    with raw_zmtp.connect(backend.address) as stream:
        stream.sendall(raw_zmtp.message({"kind": "hello", "client": "fleeting"}))
        until_logged(backend, "client connected", "client=fleeting")
    until_logged(backend, "client disconnected", "client=fleeting", "reason=disconnected")


# --- without a server ---


@pytest.fixture
def here() -> Iterator[Clients]:
    context = zmq.Context()
    here = Clients(context, Limits(), silence=1e9)
    yield here
    here.close(0)
    context.term()


@pytest.fixture
def peer(here: Clients) -> Iterator[zmq.Socket]:
    port = here.socket.bind_to_random_port("tcp://127.0.0.1")
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.set(zmq.RCVHWM, 1)
        peer.set(zmq.LINGER, 0)
        peer.connect(f"tcp://127.0.0.1:{port}")
        yield peer


def received(here: Clients) -> Incoming:
    return until(lambda: here.receive(0.0), "a message")


def test_a_client_that_does_not_read_counts_as_returned_when_it_sends_again(
    here: Clients, peer: zmq.Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BACKLOG_MESSAGES", 4)
    peer.send_multipart(encode(Hello()))
    first = received(here)
    assert first.returned
    large = [*encode(Accepted("job-00000000")), bytes(4 * MIB)]
    for _ in range(100):
        if here.get(first.peer) is None:
            break
        here.send(first.peer, large)
    assert here.get(first.peer) is None
    assert here.take_disconnected(0.0) == [first.peer]
    peer.send_multipart(encode(Hello()))
    assert received(here).returned


def test_a_client_that_has_returned_is_not_reported_as_disconnected(here: Clients, peer: zmq.Socket) -> None:
    peer.send_multipart(encode(Hello()))
    first = received(here)
    here._remove(first.peer, "for the test")
    peer.send_multipart(encode(Hello()))
    assert received(here).returned
    assert here.take_disconnected(0.0) == []
