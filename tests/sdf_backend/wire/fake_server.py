"""A scriptable backend for tests of clients: a bare ROUTER, driven step by step by the thread of the test.

It answers greetings, and sends what the test tells it to. It has no workers, queue, limits, jobs or clock.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from ports import is_listening, reserve_port

from sdf_backend.wire.codec import Frame, decode, encode
from sdf_backend.wire.messages import REQUESTS, Hello, Limits, Request, Welcome

# Generous, since tests share two cores with other work; a passing test never waits for all of it.
PATIENCE = 60.0


class FakeServer:
    """One ROUTER on the loopback, at a port of its own if `port` is 0."""

    def __init__(
        self, port: int = 0, curve: tuple[bytes, bytes] | None = None, context: zmq.Context | None = None
    ) -> None:
        self.context = context or zmq.Context()
        self._owns_context = context is None
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.set(zmq.ROUTER_MANDATORY, 1)
        if curve:
            self.socket.set(zmq.CURVE_SERVER, 1)
            self.socket.set(zmq.CURVE_PUBLICKEY, curve[0])
            self.socket.set(zmq.CURVE_SECRETKEY, curve[1])
        self.port = port or reserve_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.socket.bind(self.address)
        self.welcome: Welcome | None = Welcome("fake 1.0")
        self.peer = b""
        self.hellos = 0
        self.requests: list[Any] = []
        self.secrets: list[str] = []
        """of all greetings"""

    def step(self) -> None:
        """Receive: greetings are answered with `welcome`, other messages are added to `requests`."""
        while self.socket.poll(0):
            self.peer, *frames = self.socket.recv_multipart()
            request: Request = decode(frames, REQUESTS, Limits())
            if not isinstance(request, Hello):
                self.requests.append(request)
                continue
            self.hellos += 1
            self.secrets.append(request.secret)
            if self.welcome:
                self.send(self.welcome)

    def send(self, *messages: Any) -> None:
        """Send messages to the last sender."""
        for message in messages:
            self.send_frames(encode(message))

    def send_frames(self, frames: Sequence[Frame]) -> None:
        self.socket.send_multipart([self.peer, *frames])

    def close(self, linger: int = 0) -> None:
        """Close the socket; returns when nothing listens at the address any more."""
        self.socket.close(linger)
        if self._owns_context:
            self.context.term()
        until(lambda: not is_listening(self.port))  # a context closes sockets in a thread of its own


def until(condition: Callable[[], Any], *steps: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Repeat the steps until the condition holds; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition never held"
        for step in steps:
            step()
        time.sleep(0.001)
    return value
