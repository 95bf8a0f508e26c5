"""The way to one server: reach it, greet it, notice when it is gone, say in one sentence what is wrong, try again.

No threads and no blocking: everything happens in `poll`, which is to be called a few times a second. libzmq would
reconnect by itself, but at the same pace whether a key is refused or a cable is out; so each attempt is one socket,
made and closed here, and the socket's monitor tells how the attempt went.
"""

import math
import re
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import zmq

from .codec import Frame, VersionError, WireError, decode, encode
from .keys import ClientKeys
from .messages import REPLIES, Error, Hello, Limits, Reply, Welcome
from .probe import Probe

ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+):([0-9]{1,5})", re.ASCII)
# Messages in either direction that libzmq holds; the rest waits on this side of it.
HIGH_WATER_MARK = 64
# A frame beyond this ends the connection before it is held in memory; the server's own limits are checked later.
LARGEST_FRAME = 1 << 30
# Milliseconds until libzmq would connect again: later than any attempt lasts.
NEVER = 3_600_000
# What one poll may do before it returns: it shares its thread with a user interface.
POLL_SECONDS, POLL_MESSAGES = 0.005, 64


class State(StrEnum):
    """What has become of the connection; all but CLOSED go on trying."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    """it was connected, and will be again by itself"""
    REFUSED = "refused"
    """the keys do not fit"""
    INCOMPATIBLE = "incompatible"
    """the server speaks another version"""


@dataclass(frozen=True)
class StateChanged:
    """The connection's state, or the reason for it, is another than before."""

    state: State
    reason: str


@dataclass(frozen=True)
class Timing:
    """Seconds. A test shortens them."""

    greeting: float = 5.0
    """from an attempt's begin to the server's greeting"""
    heartbeat: float = 2.0
    """of our silence until a `hello` says that we are there"""
    silence: float = 30.0
    """without an answer until the server counts as gone; a large result on a slow line holds up all other answers"""
    first_retry: float = 0.1
    longest_retry: float = 3.0
    """between attempts; doubled from the first with each one that fails"""
    refused_retry: float = 15.0
    """between attempts with keys that were refused, each of which is a line in the server's log"""


class Connection:
    """A connection that keeps itself up; `state` and `reason` say how it does, `welcome` what the server said."""

    def __init__(self, address: str, keys: ClientKeys | None, key_name: str, hello: Hello, timing: Timing) -> None:
        """`key_name` is what a user calls the keys. Raises `ValueError` for an address that cannot be one."""
        match = ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[3]) < 1 << 16:
            raise ValueError(f"{address!r} is not an address; use tcp://HOST:PORT, for example tcp://127.0.0.1:5577")
        self.address, self.timing = address, timing
        self.state, self.reason = State.CONNECTING, f"connecting to {address}"
        self.welcome: Welcome | None = None
        self._keys, self._key_name, self._hello = keys, key_name, encode(hello)
        self._context = zmq.Context()
        self._attempt: _Attempt | None = None
        self._probe: Probe | None = None
        self._outbox: deque[Sequence[Frame]] = deque()
        self._news: list[Reply | StateChanged] = []
        self._was_connected = False
        self._failures = 0
        self._silence = timing.silence
        self._retry_at = self._deadline = self._sent_at = self._polled_at = time.monotonic()
        self._unanswered_since: float | None = None

    @property
    def limits(self) -> Limits:
        """What the server takes, as far as it is known."""
        return self.welcome.limits if self.welcome else Limits()

    def send(self, frames: Sequence[Frame]) -> None:
        """Send as soon as possible; what a lost connection did not take is forgotten."""
        self._outbox.append(frames)

    def poll(self) -> list[Reply | StateChanged]:
        """What has happened since. Does a little work and returns, however much there is to do."""
        if self.state is not State.CLOSED:
            now = time.monotonic()
            self._excuse(now)
            if self._attempt:
                self._watch(self._attempt, now)
            elif self._probe:
                self._ask(self._probe, now)
            elif now >= self._retry_at:
                self._begin(now)
        news, self._news = self._news, []
        return news

    def _excuse(self, now: float) -> None:
        """Time in which nobody polled, a computer that slept for one, is not the server's silence."""
        held_up, self._polled_at = now - self._polled_at, now
        if held_up > self.timing.heartbeat:
            self._deadline += held_up
            if self._unanswered_since is not None:
                self._unanswered_since += held_up

    def wait(self, seconds: float) -> None:
        """Block until there is something to poll for, or `seconds` have passed."""
        poller = zmq.Poller()
        if self._attempt:
            poller.register(self._attempt.monitor, zmq.POLLIN)
            poller.register(self._attempt.socket, zmq.POLLIN | (zmq.POLLOUT if self._can_send() else 0))
        elif self._probe:
            poller.register(self._probe.socket, zmq.POLLIN)
        else:
            seconds = min(seconds, self._retry_at - time.monotonic())
        poller.poll(max(0, math.ceil(seconds * 1000)))

    def close(self) -> None:
        """End it; what waits to be sent is forgotten. May be called twice."""
        if self.state is not State.CLOSED:
            self._drop()
            self._context.destroy(linger=0)
            self._change(State.CLOSED, f"the connection to {self.address} was closed")

    # --- an attempt: reach, shake hands, greet ----------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        self._deadline = now + self.timing.greeting
        self._attempt = _Attempt(self._context, self._keys)
        try:
            self._attempt.connect(self.address)
        except zmq.ZMQError as error:
            self._fail(f"{self.address} cannot be connected to ({error.strerror}); correct the address", now)

    def _watch(self, attempt: "_Attempt", now: float) -> None:
        """Go on with an attempt. Its end is looked for first and acted on last: what arrived before it still counts."""
        for event, value in attempt.events():
            match event:
                case zmq.EVENT_CONNECTED:
                    attempt.reached = True
                case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    attempt.agreed = True
                    self._outbox.appendleft(self._hello)
                case zmq.EVENT_DISCONNECTED if attempt.agreed:
                    attempt.ended = True
                case _:
                    return self._explain(event, value, now)
        self._flush(attempt, now)
        drained = self._receive(attempt, now)
        if self._attempt is None or not drained:
            return None
        if attempt.ended:
            return self._fail(f"the connection to {self.address} has ended; trying again", now)
        return self._check_clocks(attempt, now)

    def _explain(self, event: int, value: int, now: float) -> None:
        """An attempt has failed before the greeting; say why."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refuse(
                f"the server at {self.address} does not know the key in {self._key_name}; "
                "ask its operator to authorise it, or for another key file",
                now,
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            self._refuse(self._mismatch("NULL" if self._keys else "CURVE"), now)
        elif event == zmq.EVENT_CLOSED:
            self._fail(f"no server listens at {self.address}; start the backend there, or correct the address", now)
        else:
            self._drop()
            self._deadline = now + self.timing.greeting
            self._probe = Probe(self._context, self.address)

    def _ask(self, probe: Probe, now: float) -> None:
        mechanism = probe.mechanism()
        if mechanism is None and now < self._deadline:
            return
        mine = "CURVE" if self._keys else "NULL"
        if not mechanism:
            self._fail(f"what listens at {self.address} is no backend; correct the address", now)
        elif mechanism != mine:
            self._refuse(self._mismatch(mechanism), now)
        elif self._keys:
            self._refuse(
                f"the server at {self.address} has not the key that {self._key_name} expects of it; "
                "ask its operator for a new key file, and make sure that the address is right",
                now,
            )
        else:
            self._fail(f"the server at {self.address} hung up while it was greeted; trying again", now)

    def _mismatch(self, mechanism: str) -> str:
        if mechanism == "CURVE":
            return f"the server at {self.address} requires a key; give the key file that its operator made for you"
        return f"the server at {self.address} works without keys; connect without {self._key_name}"

    def _check_clocks(self, attempt: "_Attempt", now: float) -> None:
        if self.state is State.CONNECTED:
            if self._unanswered_since is not None and now - self._unanswered_since > self._silence:
                # Perhaps it was only a slow line, on which the same result would be too late again.
                self._silence *= 2
                waited = f"{now - self._unanswered_since:.0f} s"
                self._fail(f"the server at {self.address} has not answered for {waited}; trying again", now)
            elif now - self._sent_at >= self.timing.heartbeat and not self._outbox:
                self.send(self._hello)
                self._flush(attempt, now)
        elif now >= self._deadline:
            waited = f"in {self.timing.greeting:g} s"
            if attempt.agreed:
                self._fail(
                    f"what listens at {self.address} has not greeted {waited}; "
                    "if it is a backend look at its log, otherwise correct the address",
                    now,
                )
            elif attempt.reached:
                self._fail(
                    f"what listens at {self.address} is no backend, no handshake came {waited}; correct the address",
                    now,
                )
            else:
                self._fail(f"no answer from {self.address} {waited}; check address, network and firewall", now)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _can_send(self) -> bool:
        return bool(self._outbox) and self._attempt is not None and self._attempt.agreed

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
        """Take what has arrived; False where there may be more."""
        for _ in range(POLL_MESSAGES):
            try:
                frames = attempt.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return True
            self._unanswered_since = None
            try:
                self._take(decode(frames, REPLIES, self.limits), now)
            except VersionError as error:
                self._fail(str(error), now, State.INCOMPATIBLE)
            except WireError as error:
                # A later server may say more than is understood here.
                if error.code != "bad_kind":
                    self._take(Error(error.code, f"an answer cannot be used: {error}", error.job), now)
            if self._attempt is None or time.monotonic() - now > POLL_SECONDS:
                return False
        return False

    def _take(self, message: Reply, now: float) -> None:
        match message:
            case Welcome():
                self._greeted(message)
            case Error(code="version"):
                self._fail(message.message, now, State.INCOMPATIBLE)
            case Error(code="not_authorised"):
                self._refuse(message.message, now)
            case Error(job=None) if self.state is not State.CONNECTED:
                state = State.INCOMPATIBLE if message.code.startswith("bad_") else None
                self._fail(f"{self.address} has not taken our greeting: {message.message}", now, state)
            case _:
                self._news.append(message)

    def _greeted(self, welcome: Welcome) -> None:
        changed, self.welcome = welcome != self.welcome, welcome
        if self.state is not State.CONNECTED:
            again = " again" if self._was_connected else ""
            self._was_connected, self._failures = True, 0
            self._change(State.CONNECTED, f"connected{again} to {self.address}, {welcome.software}")
        if changed:
            self._news.append(welcome)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _refuse(self, reason: str, now: float) -> None:
        self._fail(reason, now, State.REFUSED)

    def _fail(self, reason: str, now: float, state: State | None = None) -> None:
        """Close the attempt, and set the time of the next."""
        self._drop()
        if state is None:
            state = State.LOST if self._was_connected else State.CONNECTING
            pause = min(self.timing.first_retry * 2 ** min(self._failures, 16), self.timing.longest_retry)
        else:
            pause = self.timing.refused_retry
        self._failures += 1
        self._retry_at = now + pause
        self._change(state, reason)

    def _drop(self) -> None:
        """Leave the present attempt, and what was to be sent in it."""
        if self._attempt:
            self._attempt.close()
        if self._probe:
            self._probe.close()
        self._attempt = self._probe = None
        self._outbox.clear()
        self._unanswered_since = None

    def _change(self, state: State, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._news.append(StateChanged(state, reason))


class _Attempt:
    """One socket on its way to the server, and the monitor that tells how it fares."""

    def __init__(self, context: zmq.Context, keys: ClientKeys | None) -> None:
        self.reached = self.agreed = self.ended = False
        self.socket = context.socket(zmq.DEALER)
        # Reconnecting is put off and not forbidden, and IMMEDIATE not set: with either, libzmq drops what has arrived
        # and was not read when the connection ends, a server's last words among it. Nothing is sent before the
        # handshake. libzmq's own heartbeat would take a frame of many seconds for silence; ours has more patience.
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
        """Begin; raises `ZMQError` for an address that libzmq does not take."""
        # With IPv6 switched on, `localhost` would be ::1, where a server on 127.0.0.1 is not found.
        self.socket.setsockopt(zmq.IPV6, int("[" in address))
        self.socket.connect(address)

    def events(self) -> Iterator[tuple[int, int]]:
        """Events and their values, as `zmq_socket_monitor` sends them: 16 bits and 32 bits in the first frame."""
        while self.monitor.poll(0):
            yield struct.unpack("=Hi", self.monitor.recv_multipart()[0])

    def close(self) -> None:
        """Close both sockets."""
        self.socket.disable_monitor()
        self.socket.close(linger=0)
