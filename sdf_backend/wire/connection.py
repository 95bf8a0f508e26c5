"""The connection to one server: connects, exchanges heartbeats, detects failures, explains them, and reconnects.

No threads and no blocking: everything happens in `poll`, to be called a few times a second. libzmq can reconnect by
itself, but at the same rate whether a key is refused or a cable is unplugged; so each attempt has a socket of its own,
and the monitor of that socket reports how the attempt went.
"""

import math
import re
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import zmq

from .codec import Frame, VersionError, WireError, decode
from .errors import MALFORMED, ErrorCode
from .keys import ClientKeys
from .messages import REPLIES, Error, Limits, Reply, Welcome
from .probe import Mechanism, Probe

ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+):([0-9]{1,5})", re.ASCII)
# Messages that libzmq buffers in each direction; further ones wait in the outbox.
HIGH_WATER_MARK = 64
# A larger frame closes the connection before it is buffered; the limits of the server are checked later.
LARGEST_FRAME = 1 << 30
# Milliseconds until libzmq reconnects by itself: longer than any attempt lasts.
NEVER = 3_600_000
# Bounds of one poll, which shares its thread with a user interface.
POLL_SECONDS, POLL_MESSAGES = 0.005, 64


class State(StrEnum):
    """The state of a connection; in every state but CLOSED it keeps trying."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    """it was connected, and is reconnecting"""
    REFUSED = "refused"
    """the keys do not match"""
    INCOMPATIBLE = "incompatible"
    """the server uses another protocol version"""


@dataclass(frozen=True)
class StateChanged:
    """The state of the connection, or the reason for it, has changed."""

    state: State
    reason: str


@dataclass(frozen=True)
class Timing:
    """Timeouts in seconds; tests shorten them."""

    greeting: float = 5.0
    """from the start of an attempt to the greeting of the server"""
    heartbeat: float = 2.0
    """between two messages to the server; a `hello` is sent if there is nothing else to send"""
    silence: float = 30.0
    """without an answer until the connection counts as lost; a large result on a slow line delays all other answers"""
    first_retry: float = 0.1
    longest_retry: float = 3.0
    """between attempts; doubled from `first_retry` after each failure"""
    refused_retry: float = 15.0
    """between attempts with refused keys, each of which is a line in the log of the server"""


def decode_reply(frames: Sequence[Frame], limits: Limits) -> Reply:
    """Decode what a server sends to its clients; raises `WireError`."""
    return decode(frames, REPLIES, limits)


class Connection:
    """A connection that reconnects by itself; `welcome` is the last greeting of the server."""

    def __init__(
        self,
        address: str,
        keys: ClientKeys | None,
        key_name: str,
        hello: Callable[[], Sequence[Frame]],
        timing: Timing,
        decode_reply: Callable[[Sequence[Frame], Limits], Any] = decode_reply,
    ) -> None:
        """Begin to connect.

        Parameters
        ----------
        key_name : the name of the keys in error messages
        hello : makes the greeting and the heartbeat, which the server answers with a `Welcome`
        decode_reply : decodes what the server sends; whatever is neither a greeting nor an error about it comes as it
            is from `poll`

        Raises
        ------
        ValueError : for an invalid address
        """
        match = ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[3]) < 1 << 16:
            raise ValueError(f"{address!r} is not an address; use tcp://HOST:PORT, for example tcp://127.0.0.1:5577")
        self.address, self.timing = address, timing
        self.state, self.reason = State.CONNECTING, f"connecting to {address}"
        self.welcome: Welcome | None = None
        self._keys, self._key_name, self._hello, self._decode = keys, key_name, hello, decode_reply
        self._context = zmq.Context()
        self._attempt: _Attempt | None = None
        self._probe: Probe | None = None
        self._outbox: deque[Sequence[Frame]] = deque()
        self._received: list[Any] = []
        self._was_connected = False
        self._failures = 0
        self._silence = timing.silence
        self._retry_at = self._deadline = self._sent_at = self._polled_at = time.monotonic()
        self._unanswered_since: float | None = None

    @property
    def limits(self) -> Limits:
        """The limits of the server, or the defaults before its greeting."""
        return self.welcome.limits if self.welcome else Limits()

    def send(self, frames: Sequence[Frame]) -> None:
        """Queue a message; messages that are not sent when the connection is lost are dropped."""
        self._outbox.append(frames)

    def poll(self) -> list[Any]:
        """Process pending work, for a bounded time, and return what was received: messages and `StateChanged`."""
        if self.state is not State.CLOSED:
            now = time.monotonic()
            self._extend_deadlines(now)
            if self._attempt:
                self._advance(self._attempt, now)
            elif self._probe:
                self._check_probe(self._probe, now)
            elif now >= self._retry_at:
                self._start_attempt(now)
        news, self._received = self._received, []
        return news

    def _extend_deadlines(self, now: float) -> None:
        """Time without polls, for instance while the computer slept, does not count against the server."""
        suspended, self._polled_at = now - self._polled_at, now
        if suspended > self.timing.heartbeat:
            self._deadline += suspended
            if self._unanswered_since is not None:
                self._unanswered_since += suspended

    def wait(self, seconds: float, others: Sequence[zmq.Socket] = ()) -> None:
        """Block until there is something to poll for, or to read from other sockets, for at most `seconds`."""
        poller = zmq.Poller()
        for other in others:
            poller.register(other, zmq.POLLIN)
        if self._attempt:
            poller.register(self._attempt.monitor, zmq.POLLIN)
            poller.register(self._attempt.socket, zmq.POLLIN | (zmq.POLLOUT if self._can_send() else 0))
        elif self._probe:
            poller.register(self._probe.socket, zmq.POLLIN)
        else:
            seconds = min(seconds, self._retry_at - time.monotonic())
        poller.poll(max(0, math.ceil(seconds * 1000)))

    def close(self) -> None:
        """Close the connection and drop unsent messages. May be called twice."""
        if self.state is not State.CLOSED:
            self._abandon()
            self._context.destroy(linger=0)
            self._set_state(State.CLOSED, f"the connection to {self.address} was closed")

    # --- an attempt: connect, handshake, greeting ---------------------------------------------------------------------

    def _start_attempt(self, now: float) -> None:
        self._deadline = now + self.timing.greeting
        self._attempt = _Attempt(self._context, self._keys)
        try:
            self._attempt.connect(self.address)
        except zmq.ZMQError as error:
            self._fail(f"cannot connect to {self.address} ({error.strerror}); correct the address", now)

    def _advance(self, attempt: "_Attempt", now: float) -> None:
        """Advance an attempt. A disconnection is detected first and handled last, after the messages before it."""
        for event, value in attempt.events():
            match event:
                case zmq.EVENT_CONNECTED:
                    attempt.connected = True
                case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    attempt.handshake_done = True
                    self._outbox.appendleft(self._hello())
                case zmq.EVENT_DISCONNECTED if attempt.handshake_done:
                    attempt.disconnected = True
                case _:
                    return self._handle_failure(event, value, now)
        self._flush(attempt, now)
        complete = self._receive(attempt, now)
        if self._attempt is None or not complete:
            return None
        if attempt.disconnected:
            return self._fail(f"the connection to {self.address} has ended; trying again", now)
        return self._check_clocks(attempt, now)

    def _handle_failure(self, event: int, value: int, now: float) -> None:
        """Report why an attempt has failed before the greeting."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refuse(
                f"the server at {self.address} does not know the key in {self._key_name}; "
                "ask its operator to authorise it, or for another key file",
                now,
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            self._refuse(self._mismatch(Mechanism.NULL if self._keys else Mechanism.CURVE), now)
        elif event == zmq.EVENT_CLOSED:
            self._fail(f"no server listens at {self.address}; start the backend there, or correct the address", now)
        else:
            self._abandon()
            self._deadline = now + self.timing.greeting
            self._probe = Probe(self._context, self.address)

    def _check_probe(self, probe: Probe, now: float) -> None:
        mechanism = probe.mechanism()
        if mechanism is None and now < self._deadline:
            return
        mine = Mechanism.CURVE if self._keys else Mechanism.NULL
        if not mechanism:
            self._fail(f"the program at {self.address} is not a backend; correct the address", now)
        elif mechanism != mine:
            self._refuse(self._mismatch(mechanism), now)
        elif self._keys:
            self._refuse(
                f"the key of the server at {self.address} does not match {self._key_name}; "
                "ask its operator for a new key file, and check the address",
                now,
            )
        else:
            self._fail(f"the server at {self.address} closed the connection during the handshake; trying again", now)

    def _mismatch(self, mechanism: str) -> str:
        if mechanism == Mechanism.CURVE:
            return f"the server at {self.address} requires a key; give the key file that its operator made for you"
        return f"the server at {self.address} works without keys; connect without {self._key_name}"

    def _check_clocks(self, attempt: "_Attempt", now: float) -> None:
        if self.state is State.CONNECTED:
            if self._unanswered_since is not None and now - self._unanswered_since > self._silence:
                # It may only be a slow line, on which the same result would be late again.
                self._silence *= 2
                waited = f"{now - self._unanswered_since:.0f} s"
                self._fail(f"the server at {self.address} has not answered for {waited}; trying again", now)
            elif now - self._sent_at >= self.timing.heartbeat and not self._outbox:
                self.send(self._hello())
                self._flush(attempt, now)
        elif now >= self._deadline:
            waited = f"within {self.timing.greeting:g} s"
            if attempt.handshake_done:
                self._fail(
                    f"the program at {self.address} sent no greeting {waited}; "
                    "if it is a backend look at its log, otherwise correct the address",
                    now,
                )
            elif attempt.connected:
                self._fail(
                    f"the program at {self.address} is not a backend: no handshake {waited}; correct the address",
                    now,
                )
            else:
                self._fail(
                    f"no answer from {self.address} {waited}; check the address, the network and the firewall", now
                )

    # --- messages ----------------------------------------------------------------------------------------------------

    def _can_send(self) -> bool:
        return bool(self._outbox) and self._attempt is not None and self._attempt.handshake_done

    def _flush(self, attempt: "_Attempt", now: float) -> None:
        while self._can_send() and time.monotonic() - now < POLL_SECONDS:
            try:
                attempt.socket.send_multipart(self._outbox[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self._outbox.popleft()
            self._sent_at = now
            if self._unanswered_since is None:
                self._unanswered_since = now

    def _receive(self, attempt: "_Attempt", now: float) -> bool:
        """Handle received messages; returns False if there may be more."""
        for _ in range(POLL_MESSAGES):
            try:
                frames = attempt.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return True
            self._unanswered_since = None
            try:
                self._handle(self._decode(frames, self.limits), now)
            except VersionError as error:
                self._fail(str(error), now, State.INCOMPATIBLE)
            except WireError as error:
                # A later server may send further kinds of messages.
                if error.code != ErrorCode.BAD_KIND:
                    self._handle(Error(error.code, f"invalid message from the server: {error}", error.job), now)
            if self._attempt is None or time.monotonic() - now > POLL_SECONDS:
                return False
        return False

    def _handle(self, message: Any, now: float) -> None:
        match message:
            case Welcome():
                self._handle_welcome(message)
            case Error(code=ErrorCode.VERSION):
                self._fail(message.message, now, State.INCOMPATIBLE)
            case Error(code=ErrorCode.NOT_AUTHORISED):
                self._refuse(message.message, now)
            case Error(job=None) if self.state is not State.CONNECTED:
                state = State.INCOMPATIBLE if message.code in MALFORMED else None
                self._fail(f"{self.address} rejected the greeting: {message.message}", now, state)
            case _:
                self._received.append(message)

    def _handle_welcome(self, welcome: Welcome) -> None:
        changed, self.welcome = welcome != self.welcome, welcome
        if self.state is not State.CONNECTED:
            again = " again" if self._was_connected else ""
            self._was_connected, self._failures = True, 0
            self._set_state(State.CONNECTED, f"connected{again} to {self.address}, {welcome.software}")
        if changed:
            self._received.append(welcome)

    # --- failures ----------------------------------------------------------------------------------------------------

    def _refuse(self, reason: str, now: float) -> None:
        self._fail(reason, now, State.REFUSED)

    def _fail(self, reason: str, now: float, state: State | None = None) -> None:
        """Close the attempt and schedule the next."""
        self._abandon()
        if state is None:
            state = State.LOST if self._was_connected else State.CONNECTING
            pause = min(self.timing.first_retry * 2 ** min(self._failures, 16), self.timing.longest_retry)
        else:
            pause = self.timing.refused_retry
        self._failures += 1
        self._retry_at = now + pause
        self._set_state(state, reason)

    def _abandon(self) -> None:
        """Abandon the current attempt and its unsent messages."""
        if self._attempt:
            self._attempt.close()
        if self._probe:
            self._probe.close()
        self._attempt = self._probe = None
        self._outbox.clear()
        self._unanswered_since = None

    def _set_state(self, state: State, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._received.append(StateChanged(state, reason))


class _Attempt:
    """One socket that connects to the server, and its monitor."""

    def __init__(self, context: zmq.Context, keys: ClientKeys | None) -> None:
        self.connected = self.handshake_done = self.disconnected = False
        self.socket = context.socket(zmq.DEALER)
        # Reconnecting is postponed rather than disabled, and IMMEDIATE not set: with either, libzmq drops received but
        # unread messages when the connection ends, the final error of a server among them. Nothing is sent before the
        # handshake. ZMTP heartbeats are off: they would time out during a frame that takes many seconds.
        options = {
            zmq.LINGER: 0,
            zmq.RECONNECT_IVL: NEVER,
            zmq.SNDHWM: HIGH_WATER_MARK,
            zmq.RCVHWM: HIGH_WATER_MARK,
            zmq.MAXMSGSIZE: LARGEST_FRAME,
        }
        if keys:
            options |= {
                zmq.CURVE_PUBLICKEY: keys.public,
                zmq.CURVE_SECRETKEY: keys.secret,
                zmq.CURVE_SERVERKEY: keys.server,
            }
        for option, value in options.items():
            self.socket.setsockopt(option, value)
        self.monitor = self.socket.get_monitor_socket(
            zmq.EVENT_CONNECTED
            | zmq.EVENT_CLOSED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )

    def connect(self, address: str) -> None:
        """Begin to connect; raises `ZMQError` for an address that libzmq does not accept."""
        # With IPv6 on, `localhost` would be ::1, where a server on 127.0.0.1 is not found.
        self.socket.setsockopt(zmq.IPV6, int("[" in address))
        self.socket.connect(address)

    def events(self) -> Iterator[tuple[int, int]]:
        """Pending events and values of the monitor: 16 and 32 bits of its first frame (zmq_socket_monitor)."""
        while self.monitor.poll(0):
            yield struct.unpack("=Hi", self.monitor.recv_multipart()[0])

    def close(self) -> None:
        """Close both sockets."""
        self.socket.disable_monitor()
        self.socket.close(linger=0)
