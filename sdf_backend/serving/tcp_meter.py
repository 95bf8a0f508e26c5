"""How much a connection has brought, where the system tells it: libzmq shows a message only when all of it is there."""

import os
import socket
import struct
import sys
from contextlib import suppress

# struct tcp_info of linux/tcp.h: tcpi_bytes_received is a u64 at this offset.
BYTES_RECEIVED = 128
# Of each frame on the wire, besides its content; rather too much, see `Meter.read`.
FRAME_BYTES = 128


class Meter:
    """The bytes of one connection, known by the descriptor that libzmq has for it."""

    def __init__(self, descriptor: int) -> None:
        """Raises `OSError` where the connection is gone already."""
        self._copy = socket.socket(fileno=os.dup(descriptor))
        self.received = self.delivered = 0
        self.address = str(self._copy.getpeername()[0])

    @staticmethod
    def available() -> bool:
        """Whether this system tells; where it does not, slow and endless messages cannot be told from silence."""
        return sys.platform == "linux"

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not read as part of a message."""
        return self.received - self.delivered

    def read(self) -> bool:
        """Look again; whether more has come since the last look."""
        try:
            about = self._copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            received = struct.unpack_from("=Q", about, BYTES_RECEIVED)[0]
        except (OSError, struct.error):
            return False
        moved, self.received = received > self.received, received
        # What was counted for frames is an estimate; it must not become a credit.
        self.delivered = min(self.delivered, received)
        return moved

    def deliver(self, content: int, frames: int) -> None:
        """A message of so many bytes in so many frames was read."""
        self.delivered += content + frames * FRAME_BYTES

    def cut(self) -> None:
        """End the connection; libzmq then drops what it holds of it."""
        with suppress(OSError):
            self._copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Look no more."""
        self._copy.close()
