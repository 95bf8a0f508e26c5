"""The clients of a server: one ROUTER socket, the connected clients, and the messages that they have not read yet.

Nothing here blocks. A client that does not read fills its backlog and is then treated as disconnected; when it sends
again it gets the final messages of its jobs again.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

import zmq

from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.authenticator import CLIENTS, Peers
from sdf_backend.serving.connection_guard import ConnectionGuard
from sdf_backend.serving.jobs import count_bytes
from sdf_backend.serving.tcp_meter import TcpMeter
from sdf_backend.wire.codec import Frame
from sdf_backend.wire.messages import Hello, Limits

# Messages that libzmq buffers for one client in each direction; results can be large.
HIGH_WATER_MARK = 8
# TCP keepalive: probes a silent peer, and closes the connection of one that acknowledges nothing.
PROBE_AFTER_SECONDS, PROBE_SECONDS, PROBES, TIMEOUT_SECONDS = 10, 5, 4, 30
# Milliseconds until a handshake must have ended; the reference client waits as long for its greeting.
HANDSHAKE_MS = 5000
# Frames of one message that are read in one call.
FRAMES_A_CALL = 10_000
BACKLOG_MESSAGES, BACKLOG_BYTES = 256, 256 << 20
# Routing ids that libzmq generates begin with this; a client cannot choose one of them.
GENERATED_ID = b"\x00"


class Incoming(NamedTuple):
    """A received message; `frames` is None for one that was too large to be kept."""

    peer: bytes
    owner: str
    """the public key that the connection has proved to have; without keys what `Clients.greet` made of its secret"""
    frames: list[zmq.Frame] | None
    returned: bool
    """whether the peer is new, or had been treated as disconnected"""


class Outgoing(NamedTuple):
    """A message that waits for its client to read; `flush` returns its tag when it is handed to libzmq."""

    frames: Sequence[Frame]
    tag: object


@dataclass
class Client:
    """A connected client; `last_heard` is in seconds of the clock of the server."""

    peer: bytes
    owner: str
    user: str
    """the name of the owner, for the log"""
    address: str
    last_heard: float
    descriptor: int = -1
    meter: TcpMeter | None = None
    """of its connection, once the guard knows it"""
    name: str = ""
    """empty before its first greeting"""
    backlog: deque[Outgoing] = field(default_factory=deque)


class Clients:
    """The ROUTER socket and its clients."""

    def __init__(
        self,
        context: zmq.Context,
        limits: Limits,
        silence: float,
        user_of: Callable[[str], str | None] = str,
        peers: Peers = CLIENTS,
    ) -> None:
        """Make the socket.

        Parameters
        ----------
        silence : a client that sends nothing for so many seconds is treated as disconnected
        user_of : the name of the owner of a key, for the log
        peers : what connects here, for the log
        """
        self.limits, self.silence, self._user_of = limits, silence, user_of
        self.socket = context.socket(zmq.ROUTER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.ROUTER_MANDATORY, 1)
        self.socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
        self.socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        self.socket.set(zmq.MAXMSGSIZE, limits.frame_bytes)
        # TCP closes the connection of a peer that has vanished. The heartbeat of ZMTP would also close one with a frame
        # that takes longer than its timeout, since an answer cannot overtake the frame.
        self.socket.set(zmq.TCP_KEEPALIVE, 1)
        self.socket.set(zmq.TCP_KEEPALIVE_IDLE, PROBE_AFTER_SECONDS)
        self.socket.set(zmq.TCP_KEEPALIVE_INTVL, PROBE_SECONDS)
        self.socket.set(zmq.TCP_KEEPALIVE_CNT, PROBES)
        self.socket.set(zmq.TCP_MAXRT, 1000 * TIMEOUT_SECONDS)
        self.socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.guard = ConnectionGuard(context, self.socket, limits, silence, peers)
        self._clients: dict[bytes, Client] = {}
        self._disconnected: list[bytes] = []
        self._log = Throttle()
        self._partial: list[zmq.Frame] = []
        self._partial_bytes = self._partial_frames = 0
        self._oversized = False

    def __len__(self) -> int:
        """Number of clients that have sent a greeting."""
        return sum(bool(client.name) for client in self._clients.values())

    def get(self, peer: bytes) -> Client | None:
        """The connected client with this routing id."""
        return self._clients.get(peer)

    def greet(self, peer: bytes, hello: Hello) -> Client | None:
        """Take name and secret from the first greeting of a client; None where it has greeted already, or is gone."""
        client = self._clients.get(peer)
        if client is None or client.name:
            return None
        client.name = hello.client[:64] or "unnamed"
        if hello.secret and not client.owner:
            client.owner = "secret " + sha256(hello.secret.encode()).hexdigest()
        return client

    def receive(self, now: float) -> Incoming | None:
        """Receive the next message; None if there is none, or not all of it was read yet.

        One call reads a bounded number of frames, and keeps no more than the limits allow.
        """
        for _ in range(FRAMES_A_CALL):
            try:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            self._keep(frame)
            if not frame.more:
                return self._complete(frame, now)
        return None

    def send(self, peer: bytes, frames: Sequence[Frame], *, tag: object = None, droppable: bool = False) -> bool:
        """Hand a message to libzmq, or else add it to the backlog of its client.

        Parameters
        ----------
        tag : returned by `flush` when a message of the backlog is sent
        droppable : drop the message instead of adding it to the backlog

        Returns
        -------
        Whether the message was handed to libzmq now.
        """
        client = self._clients.get(peer)
        sent = not (client and client.backlog) and self._send(peer, frames)
        if not sent and client and peer in self._clients and not droppable:
            self._add_to_backlog(client, Outgoing(frames, tag))
        return sent

    def flush(self) -> list[object]:
        """Send as much of the backlogs as possible; returns the tags of the sent messages."""
        tags = []
        for client in [client for client in self._clients.values() if client.backlog]:
            while client.backlog and self._send(client.peer, client.backlog[0].frames):
                tags.append(client.backlog.popleft().tag)
        return tags

    @property
    def has_backlog(self) -> bool:
        """Whether any message waits for a client to read."""
        return any(client.backlog for client in self._clients.values())

    def take_disconnected(self, now: float) -> list[bytes]:
        """Clients that have disconnected since the last call, or are silent for too long."""
        for client in list(self._clients.values()):
            self._meter(client)
            if client.meter:  # bytes of an incomplete message are a sign of life
                client.last_heard = max(client.last_heard, client.meter.advanced_at)
            if client.meter and client.meter.closed:
                self._remove(client.peer, "disconnected")
            elif now - client.last_heard > self.silence:
                self._remove(client.peer, "silent")
        disconnected, self._disconnected = self._disconnected, []
        return [peer for peer in disconnected if peer not in self._clients]  # some have returned already

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count a time in which the server itself was suspended as silence of the clients."""
        for client in self._clients.values():
            client.last_heard += seconds

    def cut_off(self, owner: str, reason: str) -> None:
        """Close the connections of an owner; where the system does not meter connections, they only lose their jobs."""
        for client in [client for client in self._clients.values() if client.owner == owner]:
            if client.meter:
                client.meter.shut_down()
            self._remove(client.peer, reason)

    def close(self, linger: int) -> None:
        """Close the socket; libzmq sends what it has buffered for up to `linger` milliseconds."""
        self.guard.close()
        self.socket.close(linger)

    def _keep(self, frame: zmq.Frame) -> None:
        """Keep a frame of an incoming message; of an oversized one only its routing id."""
        self._partial_bytes += len(frame)
        self._partial_frames += 1
        # Besides the arrays there are the routing id, the version and the header.
        most = self.limits.message_bytes + self.limits.header_bytes + 512
        self._oversized |= self._partial_bytes > most or len(self._partial) >= self.limits.frames + 3
        if self._oversized:
            del self._partial[1:]
        else:
            self._partial.append(frame)

    def _complete(self, last: zmq.Frame, now: float) -> Incoming:
        [identity, *frames], oversized = self._partial, self._oversized
        size, count = self._partial_bytes, self._partial_frames
        self._partial, self._partial_bytes, self._partial_frames, self._oversized = [], 0, 0, False
        peer, owner = identity.bytes, _metadata(last, "User-Id")
        returned = peer not in self._clients
        if returned:
            user, address = self._user_of(owner) or "", _metadata(last, "Peer-Address")
            self._clients[peer] = Client(peer, owner, user, address, now)
        client = self._clients[peer]
        client.last_heard, client.descriptor = now, _descriptor(last)
        self._meter(client, size, count)
        return Incoming(peer, owner or client.owner, None if oversized else frames, returned)

    def _meter(self, client: Client, size: int = 0, frames: int = 0) -> None:
        """Count a complete message of a client; the guard may learn of its connection later."""
        client.meter = client.meter or self.guard.meter(client.descriptor)
        if client.meter and (size or not client.meter.greeted):
            client.meter.user = client.user
            client.meter.deliver(size, frames, client.last_heard)

    def _send(self, peer: bytes, frames: Sequence[Frame]) -> bool:
        try:
            self.socket.send_multipart([peer, *frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._remove(peer, "disconnected")
            return False
        client = self._clients.get(peer)
        if client and client.meter:
            client.meter.send(count_bytes(frames))
        return True

    def _add_to_backlog(self, client: Client, outgoing: Outgoing) -> None:
        client.backlog.append(outgoing)
        size = sum(count_bytes(message.frames) for message in client.backlog)
        if len(client.backlog) > BACKLOG_MESSAGES or (len(client.backlog) > 1 and size > BACKLOG_BYTES):
            self._log.warning(
                (client.address, client.user),
                "client does not read",
                client=client.name,
                user=client.user,
                address=client.address,
                messages=len(client.backlog),
                bytes=size,
            )
            # Its next message counts as its return, and it is sent what it has missed.
            self._remove(client.peer, "does not read")

    def _remove(self, peer: bytes, reason: str) -> None:
        client = self._clients.pop(peer, None)
        if client:
            self._disconnected.append(peer)
            if client.name:
                logger.info(line("client disconnected", client=client.name, user=client.user, reason=reason))


def _descriptor(frame: zmq.Frame) -> int:
    """The descriptor of the connection that a frame came from; -1 if libzmq does not tell."""
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
