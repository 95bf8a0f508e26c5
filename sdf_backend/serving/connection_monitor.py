"""Monitors the connections of a socket, and logs handshakes that fail before the authenticator is asked."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

import zmq
from zmq.utils.monitor import recv_monitor_message

from sdf_backend.log import Throttle

# Bound of one call: strangers may connect faster than events can be handled.
EVENTS_A_CALL = 256


def _ignore(descriptor: int) -> None:
    """Ignore an event."""


class ConnectionMonitor:
    """Reports connections as they open and close, and logs failed handshakes.

    Those are of peers without encryption, or with the key of another server.
    """

    REASONS: ClassVar[dict[int, str]] = {
        int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "one side of the connection encrypts, the other does not",
        int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "it expects a server with another key",
    }
    # If the other side closes the connection first, the reason is lost.
    UNKNOWN = "the handshake failed; perhaps only one side of the connection encrypts"
    EVENTS = (
        zmq.EVENT_ACCEPTED
        | zmq.EVENT_DISCONNECTED
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    )

    def __init__(
        self, monitored: zmq.Socket, opened: Callable[[int], None] = _ignore, closed: Callable[[int], None] = _ignore
    ) -> None:
        """`opened` and `closed` are called with the descriptor of each connection."""
        self._monitored, self._opened, self._closed = monitored, opened, closed
        self.socket = monitored.get_monitor_socket(self.EVENTS)
        self._addresses: dict[int, str] = {}
        self._reason = ""
        self._log = Throttle()

    def process(self) -> None:
        """Handle all pending events."""
        with suppress(zmq.Again):
            for _ in range(EVENTS_A_CALL):
                event = recv_monitor_message(self.socket, zmq.NOBLOCK)
                self._handle(int(event["event"]), int(event["value"]))

    def close(self) -> None:
        """Stop monitoring."""
        self._monitored.disable_monitor()
        self.socket.close()

    def _handle(self, event: int, value: int) -> None:
        """Handle an event; its value is the descriptor of the connection, or the reason of a failed handshake."""
        if event == zmq.EVENT_ACCEPTED:
            self._addresses[value] = _peer_host(value)
            self._opened(value)
        elif event == zmq.EVENT_DISCONNECTED:
            address = self._addresses.pop(value, "")
            self._closed(value)
            if self._reason:  # libzmq reports the failed handshake before its descriptor
                self._log.warning((address, self._reason), "client refused", address=address, reason=self._reason)
                self._reason = ""
        else:
            self._reason = self.REASONS.get(value, self.UNKNOWN)


def _peer_host(descriptor: int) -> str:
    """The remote host of a connection of libzmq; empty if it is closed already."""
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return ""
    with copy:
        try:
            return str(copy.getpeername()[0])
        except (OSError, IndexError):
            return ""
