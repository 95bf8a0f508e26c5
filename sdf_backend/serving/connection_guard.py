"""Guards the server against its peers: closes connections that cost it too much, and logs failed handshakes.

libzmq gives a message to the server when all of it has arrived, and has no limit for what has not. So a thread of its
own watches all connections from outside of libzmq, by the counters of the system, whatever the server is doing. It also
reads the events of libzmq's monitor: libzmq waits for whoever does not.
"""

import struct
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from typing import ClassVar

import zmq

from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.authenticator import CLIENTS, Peers
from sdf_backend.serving.memory import release_free_memory, resident_bytes
from sdf_backend.serving.tcp_meter import FRAME_BYTES, TcpMeter
from sdf_backend.wire.messages import Limits

# Milliseconds between two checks, and while there are strangers.
CHECK_MS, STRANGERS_CHECK_MS = 50, 5
# Events that are read between two checks.
EVENTS_A_CALL = 1000
# A stranger is a peer that has not proved its key yet, or, where there are no keys, has sent no message yet.
STRANGER_BYTES, STRANGERS_AN_ADDRESS = 64 << 10, 256
# With keys, the system knows that a peer is no stranger: it has acknowledged the greeting of CURVE (64 bytes), WELCOME
# (170) and READY (at least 60), and not just ERROR (12). Without, this thread may be ahead of the one that reads.
ADMITTED_BYTES = 64 + 170 + 30
UNREAD_SECONDS = 0.25
# Bytes that all strangers together may have sent meanwhile: in a quarter of a second one can send hundreds of MB.
STRANGERS_BYTES = 24 << 20
# A connection that is silent for this many times the silence that the server puts up with is closed.
IDLE_SILENCES = 6
# Connections at the same time; fewer if there are fewer descriptors, two for each and the rest for files and workers.
CONNECTIONS, OTHER_DESCRIPTORS = 4096, 64
# Bytes of a connection that the system and libzmq may buffer besides complete messages.
STREAM_BYTES = 16 << 20
# Memory beyond that of one message of the largest size that may be on its way, in and out, on all connections.
TRANSIT_BYTES = 128 << 20
# libzmq frees the memory of a closed connection within this time.
SETTLE_SECONDS = 0.1
# A check that is this late means that the process was suspended, which is no silence of its peers.
SUSPENDED_SECONDS = 1.0


class ConnectionGuard:
    """Watches the connections of a socket; made before the socket listens."""

    REASONS: ClassVar[dict[int, str]] = {
        int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "one side of the connection encrypts, the other does not",
        int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "it expects a server with another key",
    }
    # If the other side closes the connection first, the reason is lost.
    UNKNOWN = "the handshake failed; perhaps only one side of the connection encrypts"
    EVENTS = (
        zmq.EVENT_ACCEPTED
        | zmq.EVENT_DISCONNECTED
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    )

    def __init__(
        self, context: zmq.Context, guarded: zmq.Socket, limits: Limits, silence: float, peers: Peers = CLIENTS
    ) -> None:
        self.expected: float = 0
        """bytes that the server holds for its jobs; the server updates it"""
        self._guarded, self._limits, self._silence, self._peers = guarded, limits, silence, peers
        guarded.monitor(f"inproc://guard-{id(self)}", self.EVENTS)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # if its pipe were full, libzmq would wait
        self._monitor.connect(f"inproc://guard-{id(self)}")
        self._meters: dict[int, TcpMeter] = {}
        self._reason = ""
        self._log = Throttle()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection guard", daemon=True)
        self._port, self._keys = 0, False
        self._most_connections = _most_connections()
        self._memory_limit = limits.message_bytes + limits.header_bytes + TRANSIT_BYTES
        self._checked_at = self._settled_at = time.monotonic()

    def start(self, port: int, *, keys: bool) -> None:
        """Begin, when the socket listens on that port, with keys or without."""
        self._port, self._keys = port, keys
        self._memory_limit += resident_bytes()
        self._thread.start()

    def meter(self, descriptor: int) -> TcpMeter | None:
        """The meter of a connection; None if it is not known yet."""
        return self._meters.get(descriptor)

    def close(self) -> None:
        """Stop, before the socket is closed."""
        self._stopped.set()
        if self._thread.ident:
            self._thread.join()
        self._guarded.disable_monitor()
        self._monitor.close(0)
        for meter in self._meters.values():
            meter.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                strangers = any(map(self._is_stranger, self._meters.values()))
                self._monitor.poll(STRANGERS_CHECK_MS if strangers else CHECK_MS)
                self._read_events()
                self._check(time.monotonic())
            except Exception:
                logger.error(line("internal error", traceback=traceback.format_exc()))
                self._stopped.wait(CHECK_MS / 1000)

    # --- events ---

    def _read_events(self) -> None:
        with suppress(zmq.Again):
            for _ in range(EVENTS_A_CALL):
                event, value = struct.unpack("=Hi", self._monitor.recv_multipart(zmq.NOBLOCK)[0])
                self._handle(event, value)

    def _handle(self, event: int, value: int) -> None:
        """Handle an event; its value is the descriptor of the connection, or the reason of a failed handshake."""
        if event == zmq.EVENT_ACCEPTED:
            self._open(value)
        elif event == zmq.EVENT_DISCONNECTED:
            meter = self._meters.pop(value, None)
            if meter:
                meter.close()
            if self._reason:  # libzmq reports the failed handshake before its descriptor
                address = meter.address if meter else ""
                self._log.warning((address, self._reason), self._peers.refused, address=address, reason=self._reason)
                self._reason = ""
        else:
            self._reason = self.REASONS.get(value, self.UNKNOWN)

    def _open(self, descriptor: int) -> None:
        with suppress(OSError):  # it is closed already
            meter = TcpMeter(descriptor, time.monotonic())
            if meter.port == self._port:
                self._meters[descriptor] = meter
            else:  # the descriptor belongs to something else by now
                meter.close()

    # --- limits ---

    def _check(self, now: float) -> None:
        """Close the connections that cost too much."""
        late, self._checked_at = now - self._checked_at, now
        if not TcpMeter.available():
            return
        meters = [meter for meter in self._meters.values() if not meter.cut]
        for meter in meters:
            meter.advanced_at += late if late > SUSPENDED_SECONDS else 0.0
            meter.update(now)
        for meter in meters:
            if reason := self._excess(meter, now):
                self._cut_off(meter, reason)
        self._check_strangers(meters)
        self._check_number(meters)
        self._check_memory(meters, now)

    def _excess(self, meter: TcpMeter, now: float) -> str:
        """Why a connection costs too much, whatever others do; empty if it does not."""
        largest = self._limits.message_bytes + self._limits.header_bytes + self._limits.frames * FRAME_BYTES
        if self._is_stranger(meter) and meter.received > STRANGER_BYTES:
            meter.excessive_since = meter.excessive_since or now
            if self._keys or now - meter.excessive_since > UNREAD_SECONDS:
                return "it sent too much before its first message"
        if meter.pending > 2 * largest + STREAM_BYTES:  # complete messages are read at once; one more may follow
            return "it sent a message without an end"
        if now - meter.advanced_at > IDLE_SILENCES * self._silence:
            return "it was silent for too long"
        return ""

    def _check_strangers(self, meters: list[TcpMeter]) -> None:
        """Of too many strangers from one address, close the oldest connections; of all, those that sent too much."""
        strangers = [meter for meter in meters if self._is_stranger(meter)]
        for address, count in Counter(meter.address for meter in strangers).items():
            oldest = [meter for meter in strangers if meter.address == address]
            for meter in oldest[: max(0, count - STRANGERS_AN_ADDRESS)]:
                self._cut_off(meter, "too many connections of its address sent no message")
        total = 0
        for meter in sorted(strangers, key=lambda one: one.received):
            total += meter.received
            if total > STRANGERS_BYTES and not meter.cut:
                self._cut_off(meter, "it sent too much before its first message")

    def _check_number(self, meters: list[TcpMeter]) -> None:
        """Of too many connections, close those of whoever has most, the longest silent first."""
        left = [meter for meter in meters if not meter.cut]
        while len(left) > self._most_connections:
            [(most, _)] = Counter(map(_holder, left)).most_common(1)
            silent = min((meter for meter in left if _holder(meter) == most), key=lambda meter: meter.advanced_at)
            self._cut_off(silent, "there were too many connections, most of them its own")
            left.remove(silent)

    def _check_memory(self, meters: list[TcpMeter], now: float) -> None:
        """When what is on its way takes too much memory, close the connection that holds most."""
        if now < self._settled_at or not self._memory_is_short():
            return
        release_free_memory()
        self._settled_at = now + SETTLE_SECONDS
        left = [meter for meter in meters if not meter.cut and meter.held]
        if left and self._memory_is_short():
            self._cut_off(max(left, key=lambda meter: meter.held), "memory was short, and it held most")

    def _memory_is_short(self) -> bool:
        return resident_bytes() > self._memory_limit + self.expected

    def _is_stranger(self, meter: TcpMeter) -> bool:
        return not meter.greeted and not (self._keys and meter.acknowledged >= ADMITTED_BYTES)

    def _cut_off(self, meter: TcpMeter, reason: str) -> None:
        values = {"address": meter.address, "user": meter.user, "reason": reason, "bytes": meter.held}
        self._log.warning((meter.address, meter.user, reason), self._peers.cut_off, **values)
        meter.shut_down()


def _holder(meter: TcpMeter) -> str:
    """Whose connection it is."""
    return meter.user or meter.address


def _most_connections() -> int:
    """How many connections there may be, as the descriptors of this process are limited."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return CONNECTIONS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if limit == resource.RLIM_INFINITY else min(CONNECTIONS, max(1, limit - OTHER_DESCRIPTORS) // 2)
