"""Strangers cost next to nothing: each test attacks a real backend over real sockets, and serves a client meanwhile."""

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import raw_zmtp
from backend_process import Backend, until, until_logged

from sdf_backend.serving.server_keys import make_keys
from sdf_backend.serving.tcp_meter import TcpMeter

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not TcpMeter.available(), reason="this system does not count bytes of connections")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Backend]:
    with Backend(tmp_path / "plain") as backend:
        yield backend
    assert "Traceback" not in backend.log()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Backend]:
    make_keys(tmp_path / "keys", "alice")
    with Backend(tmp_path / "guarded", "--keys", tmp_path / "keys") as backend:
        backend.key = tmp_path / "keys" / "alice.key_secret"
        yield backend
    assert "Traceback" not in backend.log()


def server(backend: Backend) -> psutil.Process:
    assert backend.process
    return psutil.Process(backend.process.pid)


def connections(backend: Backend) -> int:
    """Open connections of the server."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in server(backend).net_connections("tcp"))


def connect(backend: Backend) -> socket.socket:
    host, _, port = backend.address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


@contextmanager
def peak_growth(backend: Backend) -> Iterator[Callable[[], int]]:
    """The largest growth of the server's memory within the block, bytes."""
    process, over = server(backend), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak - before
    finally:
        over.set()
        thread.join()


def pour(stream: socket.socket, content: bytes, most: int) -> None:
    """Send the same content again and again, until the server hangs up."""
    sent = 0
    with stream, suppress(OSError):
        while sent < most:
            stream.sendall(content)
            sent += len(content)


def pour_all(streams: list[socket.socket], content: bytes, most: int) -> None:
    threads = [threading.Thread(target=pour, args=(stream, content, most)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("fixture", "mechanism"), [("guarded", b"CURVE"), ("plain", b"NULL")])
def test_a_peer_that_has_not_finished_its_handshake_cannot_fill_the_memory(
    fixture: str, mechanism: bytes, request: pytest.FixtureRequest
) -> None:
    backend: Backend = request.getfixturevalue(fixture)
    with peak_growth(backend) as growth:
        streams = [connect(backend) for _ in range(8)]
        for stream in streams:
            stream.sendall(raw_zmtp.GREETING.replace(b"NULL".ljust(20, b"\0"), mechanism.ljust(20, b"\0")))
            stream.sendall(b"\x06" + struct.pack(">Q", 255 * MIB))  # the header of a long command
        pour_all(streams, bytes(MIB // 4), 255 * MIB)
    until_logged(backend, "client cut off", "address=127.0.0.1", "before its first message")
    backend.status()
    assert growth() < 64 * MIB


def test_frames_of_two_bytes_without_an_end_are_cut_off_by_their_memory(tmp_path: Path) -> None:
    """No connection sends more than messages may have, but each frame takes sixty bytes and more."""
    options = ("--limit", f"frame_bytes={MIB}", "--limit", f"message_bytes={2 * MIB}")
    with Backend(tmp_path, *options) as backend:
        streams = [raw_zmtp.connect(backend.address) for _ in range(3)]
        for stream in streams:
            stream.sendall(raw_zmtp.message({"kind": "hello"}))
        with peak_growth(backend) as growth:
            pour_all(streams, b"\x01\x02ab" * (1 << 16), 20 * MIB)
        until_logged(backend, "client cut off", "memory was short")
        assert growth() < 300 * MIB
        assert backend.status().software


def test_connections_that_send_nothing_are_few_and_short(plain: Backend) -> None:
    with ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connect(plain))
        assert plain.status().software
        until(lambda: connections(plain) < 270, "the oldest are closed", 4)
        until(lambda: connections(plain) < 5, "the others are closed too", 15)


HANG_UP = """
import socket, sys
host, port = sys.argv[1:]
address = host, int(port)
while True:
    try:
        for _ in range(100):
            stranger = socket.socket()
            stranger.connect(address)
            stranger.close()
        print(flush=True)
    except OSError:
        pass
"""


def test_a_server_stops_while_somebody_connects_and_hangs_up(plain: Backend) -> None:
    worker = plain.until_idle()
    host, _, port = plain.address.removeprefix("tcp://").rpartition(":")
    with ExitStack() as stack:
        strangers = []
        for _ in range(6):
            command = [sys.executable, "-c", HANG_UP, host, port]
            strangers.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE)))
            stack.callback(strangers[-1].kill)
        for stranger in strangers:
            assert stranger.stdout
            for _ in range(10):
                stranger.stdout.readline()
        assert plain.status().software
        os.kill(worker.pid, signal.SIGSTOP)  # the server waits for it a second, and reads nothing meanwhile
        plain.signal(signal.SIGTERM)
        assert plain.ended(30) == 0


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def test_connections_that_only_greet_keep_out_nobody(tmp_path: Path) -> None:
    with Backend(tmp_path).start(preexec_fn=few_descriptors) as backend, ExitStack() as stack:
        pid = backend.until_idle().pid
        for _ in range(150):
            stream = stack.enter_context(raw_zmtp.connect(backend.address))
            stream.sendall(raw_zmtp.message({"kind": "hello"}))
        with backend.client() as client:
            assert client.wait_status().clients
            os.kill(pid, signal.SIGKILL)
            until(lambda: (new := backend.worker()).state == "idle" and new.pid != pid, "another worker")
