"""Ports for tests, which run beside other tests that ask the system for ports too."""

import socket

_reserved: list[socket.socket] = []


def reserve_port() -> int:
    """A TCP port of the loopback at which nothing listens, and which no other process is given before this one ends.

    A server of the same machine that sets SO_REUSEADDR, as those of ZeroMQ do, can still listen at it.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    _reserved.append(reserved)
    return reserved.getsockname()[1]


def is_listening(port: int) -> bool:
    """Whether a server listens at a port of the loopback."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
