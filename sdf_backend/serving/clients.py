"""The side of the server that faces its clients: one ROUTER socket, who is there, and what could not be sent yet.

Nothing here waits. A client that does not read fills its own backlog and then loses it; when it is heard of again, the
ends of its jobs are sent again.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import zmq

from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.jobs import size_of
from sdf_backend.serving.tcp_meter import FRAME_BYTES, Meter
from sdf_backend.wire.codec import Frame
from sdf_backend.wire.messages import Limits

# Messages that wait inside libzmq for one client, either way; results can be large.
HIGH_WATER = 8
# Bytes that a connection may have brought besides messages: what the system and libzmq hold of its stream.
STREAM_BYTES = 16 << 20
# TCP asks a peer that has said nothing whether it is there, and gives up one that acknowledges nothing.
PROBE_AFTER_SECONDS, PROBE_SECONDS, PROBES, GIVE_UP_SECONDS = 10, 5, 4, 30
# Frames of one message that are read in one go.
FRAMES_A_CALL = 10_000
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
    descriptor: int = -1
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
        # A connection whose other end vanished without a word is closed by TCP. ZMTP's own heartbeat would close one
        # whose large frame takes longer than its timeout: an answer to it cannot overtake the frame.
        self.socket.set(zmq.TCP_KEEPALIVE, 1)
        self.socket.set(zmq.TCP_KEEPALIVE_IDLE, PROBE_AFTER_SECONDS)
        self.socket.set(zmq.TCP_KEEPALIVE_INTVL, PROBE_SECONDS)
        self.socket.set(zmq.TCP_KEEPALIVE_CNT, PROBES)
        self.socket.set(zmq.TCP_MAXRT, 1000 * GIVE_UP_SECONDS)
        self._meters: dict[int, Meter] = {}
        self._clients: dict[bytes, Client] = {}
        self._gone: list[bytes] = []
        self._lines = Throttle()
        self._partial: list[zmq.Frame] = []
        self._partial_bytes = self._partial_frames = 0
        self._overlong = False

    def __len__(self) -> int:
        """Clients that have greeted and are there."""
        return sum(bool(client.name) for client in self._clients.values())

    def get(self, peer: bytes) -> Client | None:
        """What is known of a client that is there."""
        return self._clients.get(peer)

    def receive(self, now: float) -> Incoming | None:
        """The next message; None where none is there, or not all of it was read yet.

        However many frames a message has, a call reads a bounded number of them, and keeps what the limits allow.
        """
        for _ in range(FRAMES_A_CALL):
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
        self._measure(now)
        for client in [client for client in self._clients.values() if now - client.heard > self.silence]:
            self._forget(client.peer, "silent")
        gone, self._gone = self._gone, []
        return [peer for peer in gone if peer not in self._clients]  # some have come back already

    def excuse(self, seconds: float) -> None:
        """The server itself was held up for so long; that is no client's silence."""
        for client in self._clients.values():
            client.heard += seconds

    def opened(self, descriptor: int) -> None:
        """A connection has begun, though perhaps not its client's."""
        if Meter.available():
            with suppress(OSError):
                self._meters[descriptor] = Meter(descriptor)

    def closed(self, descriptor: int) -> None:
        """A connection has ended, and so has its client, if it was one."""
        if meter := self._meters.pop(descriptor, None):
            meter.close()
        for client in [client for client in self._clients.values() if client.descriptor == descriptor]:
            self._forget(client.peer, "disconnected")

    def close(self, linger: int) -> None:
        """Close the socket; what was handed over has `linger` milliseconds to leave."""
        self.socket.close(linger)
        for meter in self._meters.values():
            meter.close()

    def _measure(self, now: float) -> None:
        """Hear of those that are in the midst of a message, and cut off those whose message does not end."""
        largest = self.limits.message_bytes + self.limits.header_bytes + self.limits.frames * FRAME_BYTES
        heard = {descriptor for descriptor, meter in self._meters.items() if meter.read()}
        for client in self._clients.values():
            if client.descriptor in heard:
                client.heard = now
        for descriptor, meter in self._meters.items():
            # Whole messages are read as soon as they are there; one more may be on its way.
            if meter.waiting > 2 * largest + STREAM_BYTES:
                users = [one.user for one in self._clients.values() if one.descriptor == descriptor]
                values = {"address": meter.address, "user": ", ".join(users), "bytes": meter.waiting}
                self._lines.warning((meter.address,), "client cut off", **values)
                meter.cut()

    def _keep(self, frame: zmq.Frame) -> None:
        """Keep a frame of the message that is coming in; of an overlong one, only from whom it is."""
        self._partial_bytes += len(frame)
        self._partial_frames += 1
        # Besides the arrays there are the peer's identity, the version and the header.
        most = self.limits.message_bytes + self.limits.header_bytes + 512
        self._overlong |= self._partial_bytes > most or len(self._partial) >= self.limits.frames + 3
        if self._overlong:
            del self._partial[1:]
        else:
            self._partial.append(frame)

    def _finished(self, last: zmq.Frame, now: float) -> Incoming:
        [identity, *frames], overlong = self._partial, self._overlong
        descriptor = _descriptor(last)
        if meter := self._meters.get(descriptor):
            meter.deliver(self._partial_bytes, self._partial_frames)
        self._partial, self._partial_bytes, self._partial_frames, self._overlong = [], 0, 0, False
        peer, user = identity.bytes, _metadata(last, "User-Id")
        returned = peer not in self._clients
        if returned:
            self._clients[peer] = Client(peer, user, _metadata(last, "Peer-Address"), now)
        self._clients[peer].heard, self._clients[peer].descriptor = now, descriptor
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
            # Its next word counts as its return, and then it is sent again what it missed.
            self._forget(client.peer, "does not read")

    def _forget(self, peer: bytes, reason: str) -> None:
        client = self._clients.pop(peer, None)
        if client:
            self._gone.append(peer)
            if client.name:
                logger.info(line("client gone", client=client.name, user=client.user, reason=reason))


def _descriptor(frame: zmq.Frame) -> int:
    """The connection that a frame came by; -1 where libzmq does not tell."""
    try:
        value = frame.get(zmq.SRCFD)
    except zmq.ZMQError:
        return -1
    return value if isinstance(value, int) else -1


def _metadata(frame: zmq.Frame, name: str) -> str:
    try:
        value = frame.get(name)
    except zmq.ZMQError:
        return ""
    return value if isinstance(value, str) else ""
