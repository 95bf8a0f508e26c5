"""Counts the bytes of a TCP connection of libzmq, which shows a message only when all of it has arrived."""

import os
import socket
import struct
import sys
import threading
from contextlib import suppress

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked and tcpi_bytes_received are u64 at this offset.
COUNTERS = 120
# Overhead of a frame on the wire; an upper estimate, see `TcpMeter.update`.
FRAME_BYTES = 128


class TcpMeter:
    """One connection, identified by its descriptor in libzmq; times are in seconds of `time.monotonic`.

    One thread updates it, and another tells it of messages.
    """

    def __init__(self, descriptor: int, now: float) -> None:
        """Raises `OSError` if the connection is closed already, or there is no free descriptor."""
        copy = os.dup(descriptor)
        try:
            self._copy = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
        self._lock = threading.Lock()
        self.opened = self.advanced_at = now
        self.received = self.delivered = self.sent = self.acknowledged = 0
        self.excessive_since: float | None = None
        """when it began to exceed a limit that is not enforced at once"""
        self.user = ""
        self.greeted = self.cut = self.closed = False
        """whether a complete message has arrived, it was shut down here, it has ended"""
        self.address, self.port = _ends(self._copy)

    @staticmethod
    def available() -> bool:
        """Whether the system counts bytes; elsewhere slow and endless messages cannot be told from silence."""
        return sys.platform == "linux"

    @property
    def pending(self) -> int:
        """Bytes received that are not part of a complete message yet."""
        return self.received - self.delivered

    @property
    def held(self) -> int:
        """Bytes that the connection makes this process hold: of its messages, and of those that it has not read."""
        return self.pending + max(0, self.sent - self.acknowledged)

    def update(self, now: float) -> None:
        """Read the counters."""
        try:
            info = self._copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            acknowledged, received = struct.unpack_from("=QQ", info, COUNTERS)
        except (OSError, struct.error):
            return
        with self._lock:
            if received > self.received:
                self.advanced_at = now
            self.received, self.acknowledged = received, acknowledged
            # The overhead of frames is an estimate; it must not accumulate as a credit.
            self.delivered, self.sent = min(self.delivered, received), max(self.sent, acknowledged)

    def deliver(self, content: int, frames: int, now: float) -> None:
        """Count a complete message of that many bytes and frames."""
        with self._lock:
            self.delivered += content + frames * FRAME_BYTES
            self.greeted, self.advanced_at = True, now

    def send(self, content: int) -> None:
        """Count bytes that were handed to libzmq."""
        with self._lock:
            self.sent += content

    def shut_down(self) -> None:
        """End the connection; libzmq then drops its partial message."""
        self.cut = True
        with suppress(OSError):
            self._copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop metering."""
        self.closed = True
        self._copy.close()


def _ends(connection: socket.socket) -> tuple[str, int]:
    """The remote host and the local port; ("", 0) for what is no TCP connection."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return "", 0
    try:
        return str(connection.getpeername()[0]), connection.getsockname()[1]
    except OSError:
        return "", 0
