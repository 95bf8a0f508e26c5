"""The thread of a worker that communicates with the server, while the main thread computes."""

import _thread
import math
import os
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import zmq

from sdf_backend.errors import Cancelled
from sdf_backend.log import line, logger
from sdf_backend.serving.worker_messages import Batch, Heartbeat, WorkerConfig
from sdf_backend.wire.codec import Frame, build, encode, encode_error, read_header
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import Cancel, Preview, Progress

PROGRESS_SECONDS = 0.4
# The phase of a job until it reports its first.
STARTING = "starting"
CANCELLED_MESSAGE = "the job was cancelled"


class ServerLink(threading.Thread):
    """Receives jobs and cancellations, and sends progress, results and heartbeats."""

    def __init__(self, config: WorkerConfig) -> None:
        super().__init__(name="server link", daemon=True)
        self.config = config
        self.heartbeat: Callable[[], Heartbeat] = Heartbeat
        """makes a heartbeat; called by this thread"""
        self._batches: queue.SimpleQueue[list[Sequence[Frame]]] = queue.SimpleQueue()
        self._incoming: list[Sequence[Frame]] = []
        self._batch_size = 1
        self._outgoing: deque[Sequence[Frame] | None] = deque()
        self._running: dict[str, None] = {}  # ordered; both threads remove from it
        self._current: Sequence[str] = ()
        self._progress = STARTING, 0.0
        self._cancelled: set[str] = set()
        self._interruptible = False
        self._context = zmq.Context()
        self._wake_receiver, self._wake_sender = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._wake_receiver.bind("inproc://wake")
        self._wake_sender.connect("inproc://wake")

    # --- called by the main thread ---

    def next_batch(self, seconds: float) -> list[Sequence[Frame]]:
        """Wait up to `seconds` for the frames of the jobs of the next batch; empty if none came."""
        try:
            return self._batches.get(timeout=seconds)
        except queue.Empty:
            return []

    def begin(self, jobs: Sequence[str]) -> None:
        """Begin to send progress of these jobs."""
        self._progress = STARTING, 0.0
        self._running = dict.fromkeys(jobs)
        self._cancelled.intersection_update(jobs)
        for job in list(self._cancelled):  # cancelled before they began
            self._end_in_batch(job)
        self._wake_sender.send(b"")

    def set_current(self, jobs: Sequence[str]) -> None:
        """Set which of the running jobs are computed now."""
        self._current = jobs

    def is_running(self, job: str) -> bool:
        """Whether the end of a job has not been sent yet."""
        return job in self._running

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if all current jobs are cancelled."""
        if self._cancelled.issuperset(self._current):
            raise Cancelled

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that ends in `Cancelled` as soon as all current jobs are cancelled, in whatever step it is.

        Only `interrupt` ends it so, which must be the handler of SIGINT.
        """
        try:
            self._interruptible = True
            yield
        finally:
            self._interruptible = False
        self.raise_if_cancelled()

    def interrupt(self, *_: object) -> None:
        """Raise `Cancelled` in an interruptible block whose jobs are cancelled."""
        if self._interruptible:
            self.raise_if_cancelled()

    def report(self, phase: str, fraction: float) -> None:
        """Report the progress of the current jobs. Raises `Cancelled` if all of them are cancelled."""
        self.raise_if_cancelled()
        self._progress = phase, min(max(fraction, 0.0), 1.0)

    def send_preview(self, job: str, preview: Preview) -> None:
        """Send a coarse mesh of a running job at once."""
        self.raise_if_cancelled()
        self.send(encode(Progress(job, *self._progress, preview)))

    def end(self, job: str, reply: Sequence[Frame]) -> None:
        """End a running job with this message; does nothing if it has ended already."""
        with suppress(KeyError):  # only one of two threads that end it succeeds
            del self._running[job]
            self.send(reply)

    def send(self, frames: Sequence[Frame]) -> None:
        """Queue a message; for both threads."""
        self._outgoing.append(frames)
        if threading.current_thread() is not self:
            self._wake_sender.send(b"")

    def close(self) -> None:
        """Send all queued messages and end the thread."""
        self._outgoing.append(None)
        self._wake_sender.send(b"")
        self.join(5)

    # --- the thread ---

    def run(self) -> None:
        """Communicate until `close`; the process ends if that fails."""
        try:
            self._communicate()
        except Exception:
            logger.error(line("worker failed", worker=self.config.name, traceback=traceback.format_exc()))
            os._exit(1)

    def _communicate(self) -> None:
        socket = self._connect()
        poller = zmq.Poller()
        for readable in (socket, self._wake_receiver):
            poller.register(readable, zmq.POLLIN)
        heartbeat_at = progress_at = 0.0
        while True:
            now = time.monotonic()
            if now >= heartbeat_at:
                self._outgoing.append(encode(self.heartbeat()))
                heartbeat_at = now + self.config.heartbeat
            running = list(self._running)
            if not running:
                progress_at = 0.0
            elif now >= progress_at:
                self._interrupt_cancelled()
                self._outgoing.extend(encode(Progress(job, *self._progress)) for job in running)
                progress_at = now + PROGRESS_SECONDS
            if not self._send_all(socket):
                break
            until = min(heartbeat_at, progress_at) if running else heartbeat_at
            readable = dict(poller.poll(math.ceil(1000 * max(0.0, until - now))))
            if self._wake_receiver in readable:
                self._wake_receiver.recv()
            if socket in readable:
                self._handle(socket.recv_multipart(copy=False))
        socket.close(linger=1000)

    def _connect(self) -> zmq.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 1000)
        socket.set(zmq.IDENTITY, self.config.identity.encode())
        if self.config.keys:
            options = (zmq.CURVE_SERVERKEY, zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY)
            for option, key in zip(options, self.config.keys, strict=True):
                socket.set(option, key.encode())
        socket.connect(self.config.address)
        return socket

    def _send_all(self, socket: zmq.Socket) -> bool:
        """Send all queued messages; False after `close`."""
        while self._outgoing:
            frames = self._outgoing.popleft()
            if frames is None:
                return False
            socket.send_multipart(frames, copy=False)
        return True

    def _handle(self, frames: Sequence[Frame]) -> None:
        header = read_header(frames, self.config.limits)
        job = header.job or ""
        if header.kind == Cancel.kind:
            self._cancelled.add(job)
            self._end_in_batch(job)
            self._interrupt_cancelled()
        elif header.kind == Batch.kind:
            self._incoming, self._batch_size = [], build(header, {Batch.kind: Batch}).jobs
        else:
            # A cancellation of an earlier job of this name may have come too late.
            self._cancelled.discard(job)
            self._incoming.append(frames)
            if len(self._incoming) == self._batch_size:
                self._batches.put(self._incoming)
                self._incoming, self._batch_size = [], 1

    def _interrupt_cancelled(self) -> None:
        """Let the main thread call `interrupt`, again and again, since an exception in a destructor is lost."""
        if self._interruptible and self._cancelled.issuperset(self._current):
            _thread.interrupt_main(signal.SIGINT)

    def _end_in_batch(self, job: str) -> None:
        """End a cancelled job at once, without waiting for the other jobs of its batch."""
        if len(self._running) > 1:
            self.end(job, encode_error(ErrorCode.CANCELLED, CANCELLED_MESSAGE, job))
