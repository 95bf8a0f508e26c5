"""Counts the bytes of a TCP connection of libzmq, which shows a message only when all of it has arrived."""

import os
import socket
import struct
import sys
from contextlib import suppress

# struct tcp_info of linux/tcp.h: tcpi_bytes_received is a u64 at this offset.
BYTES_RECEIVED = 128
# Overhead of a frame on the wire; an upper estimate, see `TcpMeter.update`.
FRAME_BYTES = 128


class TcpMeter:
    """The bytes received on one connection, identified by its descriptor in libzmq."""

    def __init__(self, descriptor: int) -> None:
        """Raises `OSError` if the connection is closed already."""
        self._copy = socket.socket(fileno=os.dup(descriptor))
        self.received = self.delivered = 0
        self.address = str(self._copy.getpeername()[0])

    @staticmethod
    def available() -> bool:
        """Whether the system counts bytes; elsewhere slow and endless messages cannot be told from silence."""
        return sys.platform == "linux"

    @property
    def pending(self) -> int:
        """Bytes received that are not part of a complete message yet."""
        return self.received - self.delivered

    def update(self) -> bool:
        """Read the counter; returns whether bytes have arrived since the last call."""
        try:
            info = self._copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            received = struct.unpack_from("=Q", info, BYTES_RECEIVED)[0]
        except (OSError, struct.error):
            return False
        advanced, self.received = received > self.received, received
        # The overhead of frames is an estimate; it must not accumulate as a credit.
        self.delivered = min(self.delivered, received)
        return advanced

    def deliver(self, content: int, frames: int) -> None:
        """Count a complete message of that many bytes and frames."""
        self.delivered += content + frames * FRAME_BYTES

    def shut_down(self) -> None:
        """End the connection; libzmq then drops its partial message."""
        with suppress(OSError):
            self._copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop metering."""
        self._copy.close()
