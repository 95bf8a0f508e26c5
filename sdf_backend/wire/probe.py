"""Finds out which security mechanism a ZeroMQ peer requires, from its greeting.

If two peers use different mechanisms, the server often closes the connection before it has sent its greeting, and
libzmq can only report that the handshake failed. The probe connects again with a raw TCP socket and sends half a
greeting: the peer answers with all of its own and waits. https://rfc.zeromq.org/spec/23/, "Greeting".
"""

from enum import StrEnum

import zmq


class Mechanism(StrEnum):
    """Security mechanisms of ZMTP that matter here."""

    NULL = "NULL"
    CURVE = "CURVE"


SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
MAJOR_VERSION = b"\x03"
GREETING_BYTES = 64
MECHANISM_BYTES = slice(12, 32)


class Probe:
    """One probe of an address; call `mechanism` repeatedly until it is not None. Never blocks."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.STREAM)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IPV6, int("[" in address))
        self._greeting = b""
        self._greeted = False
        self.socket.connect(address)

    def mechanism(self) -> str | None:
        """NULL, PLAIN or CURVE; "" for a peer that does not speak ZeroMQ; None while unknown."""
        while len(self._greeting) < GREETING_BYTES:
            try:
                peer, received = self.socket.recv_multipart(zmq.NOBLOCK)
                # The first empty message reports the connection, the second its end.
                if not received and self._greeted:
                    return ""
                if not received:
                    self.socket.send_multipart([peer, SIGNATURE + MAJOR_VERSION], zmq.NOBLOCK)
                    self._greeted = True
            except zmq.Again:
                return None
            except zmq.ZMQError:
                return ""
            self._greeting += received
        if self._greeting[0] != SIGNATURE[0] or self._greeting[9] != SIGNATURE[9]:
            return ""
        return self._greeting[MECHANISM_BYTES].rstrip(b"\0").decode("ascii", "replace")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
