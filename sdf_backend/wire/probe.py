"""Which security a ZeroMQ peer wants, read from its greeting.

Where two sides want different security, the server often hangs up before its own greeting is out, and the client's
library can only say that the handshake failed. So ask once more, with a raw TCP socket and half a greeting: the peer
sends the whole of its own and waits. https://rfc.zeromq.org/spec/23/, "Greeting".
"""

import zmq

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
MAJOR_VERSION = b"\x03"
GREETING_BYTES = 64
MECHANISM = slice(12, 32)


class Probe:
    """One question; ask for `mechanism` now and then until it is no longer None. Never blocks."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.STREAM)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IPV6, int("[" in address))
        self._greeting = b""
        self._greeted = False
        self.socket.connect(address)

    def mechanism(self) -> str | None:
        """NULL, PLAIN or CURVE; "" for a peer that does not speak ZeroMQ; None while that is not known."""
        while len(self._greeting) < GREETING_BYTES:
            try:
                peer, received = self.socket.recv_multipart(zmq.NOBLOCK)
                # An empty message tells of the connection first, and of its end then.
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
        return self._greeting[MECHANISM].rstrip(b"\0").decode("ascii", "replace")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
