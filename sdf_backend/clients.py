"""The side of the server that faces its clients: one ROUTER socket, who is there, and what could not be sent yet.

Nothing here waits. A client that does not read fills its own backlog and then loses it; it can ask for its jobs again.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import zmq

from sdf_backend.jobs import size_of
from sdf_backend.log import Throttle, line, logger
from sdf_backend.wire.codec import Frame
from sdf_backend.wire.messages import Limits

# Messages that wait inside libzmq for one client, either way; results can be large.
HIGH_WATER = 8
BACKLOG_MESSAGES, BACKLOG_BYTES = 256, 256 << 20
# libzmq's own names for connections begin so; a client cannot choose such a name.
OWN_IDENTITY = b"\x00"


class Incoming(NamedTuple):
    """A message as it came; `frames` is None where it was too large to be kept."""

    peer: bytes
    user: str
    frames: list[zmq.Frame] | None
    returned: bool
    """whether the peer is new, or was thought gone"""


class Outgoing(NamedTuple):
    """A message that waits for its client to read; `tag` comes back when it could be handed over."""

    frames: Sequence[Frame]
    tag: object


@dataclass
class Client:
    """One connection that was heard of; `heard` in seconds of the server's clock."""

    peer: bytes
    user: str
    address: str
    heard: float
    name: str = ""
    backlog: deque[Outgoing] = field(default_factory=deque)


class Clients:
    """The ROUTER socket and the clients on it.

    `silence` : seconds after which a client that says nothing counts as gone.
    """

    def __init__(self, context: zmq.Context, limits: Limits, silence: float) -> None:
        self.limits, self.silence = limits, silence
        self.socket = context.socket(zmq.ROUTER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.ROUTER_MANDATORY, 1)
        self.socket.set(zmq.SNDHWM, HIGH_WATER)
        self.socket.set(zmq.RCVHWM, HIGH_WATER)
        self.socket.set(zmq.MAXMSGSIZE, limits.frame_bytes)
        # A connection whose other end vanished without a word is closed by libzmq.
        self.socket.set(zmq.HEARTBEAT_IVL, 5_000)
        self.socket.set(zmq.HEARTBEAT_TIMEOUT, 20_000)
        self._clients: dict[bytes, Client] = {}
        self._gone: list[bytes] = []
        self._lines = Throttle()
        self._partial: list[zmq.Frame] = []
        self._partial_bytes = 0
        self._overlong = False

    def __len__(self) -> int:
        """Clients that have greeted and are there."""
        return sum(bool(client.name) for client in self._clients.values())

    def get(self, peer: bytes) -> Client | None:
        """What is known of a client that is there."""
        return self._clients.get(peer)

    def receive(self, now: float, most_frames: int = 10_000) -> Incoming | None:
        """The next message; None where none is there, or not all of it yet.

        However many frames a message has, a call reads `most_frames` of them, and keeps no more than the limits allow.
        """
        for _ in range(most_frames):
            try:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            self._keep(frame)
            if not frame.more:
                return self._finished(frame, now)
        return None

    def send(self, peer: bytes, frames: Sequence[Frame], *, tag: object = None, droppable: bool = False) -> bool:
        """Hand a message over; False where that was not possible, or not yet.

        A droppable message does not wait for its client. Of one that did wait, `flush` gives the tag back.
        """
        client = self._clients.get(peer)
        sent = not (client and client.backlog) and self._send(peer, frames)
        if not sent and client and peer in self._clients and not droppable:
            self._put_back(client, Outgoing(frames, tag))
        return sent

    def flush(self) -> list[object]:
        """Try again what waits; gives the tags of what could be handed over."""
        tags = []
        for client in [client for client in self._clients.values() if client.backlog]:
            while client.backlog and self._send(client.peer, client.backlog[0].frames):
                tags.append(client.backlog.popleft().tag)
        return tags

    @property
    def waiting(self) -> bool:
        """Whether anything waits for a client to read."""
        return any(client.backlog for client in self._clients.values())

    def gone(self, now: float) -> list[bytes]:
        """Clients that have gone since the last call: their connection is closed, or they are silent for too long."""
        for client in [client for client in self._clients.values() if now - client.heard > self.silence]:
            self._forget(client.peer, "silent")
        gone, self._gone = self._gone, []
        return gone

    def excuse(self, seconds: float) -> None:
        """The server itself was held up for so long; that is no client's silence."""
        for client in self._clients.values():
            client.heard += seconds

    def close(self, linger: int) -> None:
        """Close the socket; what was handed over has `linger` milliseconds to leave."""
        self.socket.close(linger)

    def _keep(self, frame: zmq.Frame) -> None:
        """Keep a frame of the message that is coming in; of an overlong one, only from whom it is."""
        self._partial_bytes += len(frame)
        # Besides the arrays there are the peer's identity, the version and the header.
        most = self.limits.message_bytes + self.limits.header_bytes + 512
        self._overlong |= self._partial_bytes > most or len(self._partial) >= self.limits.frames + 3
        if self._overlong:
            del self._partial[1:]
        else:
            self._partial.append(frame)

    def _finished(self, last: zmq.Frame, now: float) -> Incoming:
        [identity, *frames], overlong = self._partial, self._overlong
        self._partial, self._partial_bytes, self._overlong = [], 0, False
        peer, user = identity.bytes, _metadata(last, "User-Id")
        returned = peer not in self._clients
        if returned:
            self._clients[peer] = Client(peer, user, _metadata(last, "Peer-Address"), now)
        self._clients[peer].heard = now
        return Incoming(peer, user, None if overlong else frames, returned)

    def _send(self, peer: bytes, frames: Sequence[Frame]) -> bool:
        try:
            self.socket.send_multipart([peer, *frames], zmq.NOBLOCK, copy=False)
            return True
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(peer, "disconnected")
            return False

    def _put_back(self, client: Client, outgoing: Outgoing) -> None:
        client.backlog.append(outgoing)
        size = sum(size_of(waiting.frames) for waiting in client.backlog)
        if len(client.backlog) > BACKLOG_MESSAGES or (len(client.backlog) > 1 and size > BACKLOG_BYTES):
            self._lines.warning(
                (client.address, client.user),
                "client does not read",
                client=client.name,
                user=client.user,
                address=client.address,
                messages=len(client.backlog),
                bytes=size,
            )
            client.backlog.clear()

    def _forget(self, peer: bytes, reason: str) -> None:
        client = self._clients.pop(peer, None)
        if client:
            self._gone.append(peer)
            if client.name:
                logger.info(line("client gone", client=client.name, user=client.user, reason=reason))


def _metadata(frame: zmq.Frame, name: str) -> str:
    try:
        value = frame.get(name)
    except zmq.ZMQError:
        return ""
    return value if isinstance(value, str) else ""
