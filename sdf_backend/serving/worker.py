"""A process that owns one device and runs jobs: `python -m sdf_backend.serving.worker`, started by a server.

The main thread computes. One thread has the socket: it takes jobs and cancellations, sends progress while a job runs,
and signs of life. The process ends when its standard input does, so that none outlives its server.
"""

import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import zmq

from sdf_backend import log
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.log import line, logger
from sdf_backend.serving.memory import give_back, resident_bytes
from sdf_backend.serving.refusals import refusal
from sdf_backend.serving.worker_messages import Assignment, Batch, Heartbeat, WorkerHello
from sdf_backend.wire.codec import Frame, WireError, build, decode, encode, read_header
from sdf_backend.wire.messages import Cancel, Limits, Preview, Progress, Submit

if TYPE_CHECKING:  # torch takes seconds to load; the server hears why, should that fail
    from sdf_backend.serving.tasks import Tasks

PROGRESS_SECONDS = 0.4
# How often the folders of models are looked at while there is nothing to do.
MODELS_SECONDS = 2.0
FIRST_PHASE = "starting"
CANCELLED = "the job was cancelled"
# Jobs that are computed together. On a CPU eight take as long so as one after the other.
BATCH = {"cpu": 1, "cuda": 8}
Vitals = Callable[[], Heartbeat]


class Link(threading.Thread):
    """The thread that talks to the server."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(name="link", daemon=True)
        self.assignment = assignment
        self.vitals: Vitals = Heartbeat
        self._jobs: queue.SimpleQueue[list[Sequence[Frame]]] = queue.SimpleQueue()
        self._arriving: list[Sequence[Frame]] = []
        self._expected = 1
        self._outgoing: deque[Sequence[Frame] | None] = deque()
        self._running: dict[str, None] = {}  # in order; both threads take from it
        self._at_hand: Sequence[str] = ()
        self._at = FIRST_PHASE, 0.0
        self._cancelled: set[str] = set()
        self._context = zmq.Context()
        self._alarm, self._wake = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._alarm.bind("inproc://wake")
        self._wake.connect("inproc://wake")

    # --- called by the main thread ---

    def next_jobs(self, seconds: float) -> list[Sequence[Frame]]:
        """The frames of the jobs that are to be done next, together; none where none have come in that time."""
        try:
            return self._jobs.get(timeout=seconds)
        except queue.Empty:
            return []

    def begin(self, jobs: Sequence[str]) -> None:
        """From now on progress of these jobs is sent."""
        self._at = FIRST_PHASE, 0.0
        self._running = dict.fromkeys(jobs)
        self._cancelled.intersection_update(jobs)
        for job in list(self._cancelled):  # that were cancelled before they began
            self._let_go(job)
        self._wake.send(b"")

    def turn_to(self, jobs: Sequence[str]) -> None:
        """Of the running jobs, these are computed now."""
        self._at_hand = jobs

    def running(self, job: str) -> bool:
        """Whether the end of a job is still to be sent."""
        return job in self._running

    def check_wanted(self) -> None:
        """Raise `Cancelled` where none of the jobs at hand is wanted any more."""
        if self._cancelled.issuperset(self._at_hand):
            raise Cancelled

    def report(self, phase: str, fraction: float) -> None:
        """What the jobs at hand do now. Raises `Cancelled` where none of them is wanted any more."""
        self.check_wanted()
        self._at = phase, min(max(fraction, 0.0), 1.0)

    def show(self, job: str, preview: Preview) -> None:
        """A coarse mesh of a running job, sent at once."""
        self.check_wanted()
        self.post(encode(Progress(job, *self._at, preview)))

    def end(self, job: str, reply: Sequence[Frame]) -> None:
        """A running job has ended, with this message; nothing is sent where it had ended before."""
        with suppress(KeyError):  # of two threads that end it, one gets here first
            del self._running[job]
            self.post(reply)

    def post(self, frames: Sequence[Frame]) -> None:
        """Send a message; both threads may."""
        self._outgoing.append(frames)
        if threading.current_thread() is not self:
            self._wake.send(b"")

    def finish(self) -> None:
        """Send what is still to be sent, and end the thread."""
        self._outgoing.append(None)
        self._wake.send(b"")
        self.join(5)

    # --- the thread ---

    def run(self) -> None:
        """Talk to the server until `finish`; a process that cannot is of no use."""
        try:
            self._talk()
        except Exception:
            logger.error(line("worker failed", worker=self.assignment.name, traceback=traceback.format_exc()))
            os._exit(1)

    def _talk(self) -> None:
        socket = self._connected()
        poller = zmq.Poller()
        for readable in (socket, self._alarm):
            poller.register(readable, zmq.POLLIN)
        beat_at = progress_at = 0.0
        while True:
            now = time.monotonic()
            if now >= beat_at:
                self._outgoing.append(encode(self.vitals()))
                beat_at = now + self.assignment.heartbeat
            running = list(self._running)
            if not running:
                progress_at = 0.0
            elif now >= progress_at:
                self._outgoing.extend(encode(Progress(job, *self._at)) for job in running)
                progress_at = now + PROGRESS_SECONDS
            if not self._send_all(socket):
                break
            until = min(beat_at, progress_at) if running else beat_at
            readable = dict(poller.poll(math.ceil(1000 * max(0.0, until - now))))
            if self._alarm in readable:
                self._alarm.recv()
            if socket in readable:
                self._take(socket.recv_multipart(copy=False))
        socket.close(linger=1000)

    def _connected(self) -> zmq.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 1000)
        socket.set(zmq.IDENTITY, self.assignment.identity.encode())
        if self.assignment.keys:
            options = (zmq.CURVE_SERVERKEY, zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY)
            for option, key in zip(options, self.assignment.keys, strict=True):
                socket.set(option, key.encode())
        socket.connect(self.assignment.address)
        return socket

    def _send_all(self, socket: zmq.Socket) -> bool:
        """Send what is to be sent; False where that was all for ever."""
        while self._outgoing:
            frames = self._outgoing.popleft()
            if frames is None:
                return False
            socket.send_multipart(frames, copy=False)
        return True

    def _take(self, frames: Sequence[Frame]) -> None:
        header = read_header(frames, self.assignment.limits)
        job = header.job or ""
        if header.kind == Cancel.kind:
            self._cancelled.add(job)
            self._let_go(job)
        elif header.kind == Batch.kind:
            self._arriving, self._expected = [], build(header, {Batch.kind: Batch}).jobs
        else:
            # The same name may have been cancelled before: an order that came too late says nothing about this job.
            self._cancelled.discard(job)
            self._arriving.append(frames)
            if len(self._arriving) == self._expected:
                self._jobs.put(self._arriving)
                self._arriving, self._expected = [], 1

    def _let_go(self, job: str) -> None:
        """End a cancelled job at once where others go on, for which it should not wait."""
        if len(self._running) > 1:
            self.end(job, refusal("cancelled", CANCELLED, job))


def main() -> int:
    """Do jobs until standard input ends."""
    # Both are for the server, which lets running jobs end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.configure()
    assignment = Assignment.read(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, name="lifeline", daemon=True).start()
    link = Link(assignment)
    link.start()
    try:
        tasks = _tasks(assignment)
    except Exception as error:
        code = "bad_input" if isinstance(error, InputError) else "failed"
        if code == "failed":
            logger.error(line("worker failed", worker=assignment.name, traceback=traceback.format_exc()))
        link.post(refusal(code, str(error) or type(error).__name__))
        link.finish()
        return 1
    return _work(assignment, link, tasks)


def _end_with_input() -> None:
    """End the process with its server, whatever it does."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def _tasks(assignment: Assignment) -> "Tasks":
    from pathlib import Path

    import torch

    from sdf_backend.content_cache import ContentCache
    from sdf_backend.engine import Engine
    from sdf_backend.model.store import ModelStore
    from sdf_backend.serving.tasks import Tasks

    if assignment.threads:
        torch.set_num_threads(assignment.threads)
    folder = Path(assignment.models) if assignment.models else None
    cache = ContentCache(Path(assignment.cache), assignment.cache_bytes) if assignment.cache else None
    return Tasks(Engine(ModelStore(folder), assignment.device, cache))


def _work(assignment: Assignment, link: Link, tasks: "Tasks") -> int:
    import torch

    from sdf_backend.serving.tasks import device_bytes

    device = tasks.engine.device
    link.vitals = lambda: Heartbeat(tasks.loaded, resident_bytes(), device_bytes(device))
    capacity = assignment.batch or BATCH[device.type]
    hello, look_at = WorkerHello(str(device), torch.cuda.device_count(), capacity, tasks.models()), time.monotonic()
    # With its first sign of life, so that nobody sees a worker that holds no memory.
    link.post(encode(link.vitals()))
    link.post(encode(hello))
    while True:
        requests = link.next_jobs(MODELS_SECONDS)
        if requests and not _do(assignment, link, tasks, requests):
            link.finish()
            return 1
        if requests:
            give_back()
        if time.monotonic() - look_at >= MODELS_SECONDS:
            look_at, now = time.monotonic(), replace(hello, models=tasks.models())
            if now != hello:
                hello = now
                link.post(encode(hello))


def _do(assignment: Assignment, link: Link, tasks: "Tasks", requests: list[Sequence[Frame]]) -> bool:
    """Do jobs and send their ends; False where the process can do no more.

    Several are computed together, and where that fails one by one, so that a fault costs only the job that has it.
    """
    from sdf_backend.serving.tasks import free_memory, is_device_lost

    names = [read_header(frames, assignment.limits).job or "" for frames in requests]
    link.begin(names)
    if len(requests) > 1:
        try:
            for job, reply in _results(assignment, link, tasks, requests).items():
                link.end(job, reply)
            return True
        except Cancelled:
            pass
        except Exception as error:
            logger.warning(line("jobs tried one by one", worker=assignment.name, jobs=len(requests), reason=error))
            if is_device_lost(error):
                return False  # the server gives each to a new process, alone
        free_memory(tasks.engine.device)
    return all(
        _do_alone(assignment, link, tasks, job, frames)
        for job, frames in zip(names, requests, strict=True)
        if link.running(job)
    )


def _do_alone(assignment: Assignment, link: Link, tasks: "Tasks", job: str, frames: Sequence[Frame]) -> bool:
    from sdf_backend.serving.tasks import OUT_OF_MEMORY, free_memory, is_device_lost, is_out_of_memory

    usable = True
    try:
        [reply] = _results(assignment, link, tasks, [frames]).values()
    except WireError as error:
        reply = refusal(error.code, str(error), job)
    except Cancelled:
        reply = refusal("cancelled", CANCELLED, job)
    except InputError as error:
        reply = refusal("bad_input", str(error), job)
    except Exception as error:
        if is_out_of_memory(error):
            logger.warning(line("out of memory", worker=assignment.name, job=job, reason=error))
            reply = refusal("out_of_memory", OUT_OF_MEMORY, job)
        else:
            logger.error(line("job failed", worker=assignment.name, job=job, traceback=traceback.format_exc()))
            reply = refusal("failed", f"{type(error).__name__}: {error}", job)
            usable = not is_device_lost(error)
        del error
        if usable:
            free_memory(tasks.engine.device)
    link.end(job, reply)
    return usable


def _results(
    assignment: Assignment, link: Link, tasks: "Tasks", requests: list[Sequence[Frame]]
) -> dict[str, Sequence[Frame]]:
    """The results of jobs that are done together, as frames, by the jobs' names."""
    kinds = {Submit.kind: Submit}
    jobs = [decode(frames, kinds, assignment.limits) for frames in requests]
    link.turn_to([job.job for job in jobs])
    results = tasks.run(jobs, link.report, link.show)
    link.check_wanted()
    return {result.job: _within(encode(result), assignment.limits, result.job) for result in results}


def _within(frames: list, limits: Limits, job: str) -> list:
    """The frames of a result; raises `WireError` where they are more than a client reads."""
    sizes = [memoryview(frame).nbytes for frame in frames[2:]]
    if sum(sizes) > limits.message_bytes or max(sizes, default=0) > limits.frame_bytes or len(sizes) > limits.frames:
        raise WireError(
            "too_large",
            f"the result has {len(sizes)} arrays of {sum(sizes) >> 20} MiB; lower the resolution or ask for less",
            job,
        )
    return frames


if __name__ == "__main__":
    sys.exit(main())
