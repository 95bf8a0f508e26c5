"""A machine that works for a server elsewhere, `python -m sdf_backend work`: runs workers, and relays their messages.

Its workers are a `LocalWorkerPool`; `joined_machines.py` is the other side of the connection. When the connection is
lost its jobs are cancelled, since the server runs them elsewhere, and it connects again.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from sdf_backend.errors import InputError
from sdf_backend.log import line, logger
from sdf_backend.serving.authenticator import Authenticator
from sdf_backend.serving.kept_content import KeptContent
from sdf_backend.serving.local_workers import LocalWorkerPool, WorkerSettings
from sdf_backend.serving.machine_messages import (
    TO_MACHINE,
    Assign,
    CancelJob,
    KillWorker,
    Leave,
    MachineHello,
    MachineWorker,
    Notice,
    Part,
    Reply,
    check_name,
    pack,
    unpack,
)
from sdf_backend.serving.software import SOFTWARE
from sdf_backend.serving.worker_pool import WorkerEvent, WorkerLost, WorkerReady, WorkerReply
from sdf_backend.wire.codec import Frame, read_header
from sdf_backend.wire.connection import Connection, State, StateChanged, Timing
from sdf_backend.wire.keys import read_client_keys
from sdf_backend.wire.messages import Error, Limits, Progress, Welcome

TICK_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0
# A worker that has not stopped the jobs of a lost connection after this time is killed.
STOP_SECONDS = 1.0
# When the machine leaves, the server is told, and answers, within this time.
LEAVE_SECONDS = 2.0


@dataclass(frozen=True)
class MachineSettings:
    """Which server a machine joins, and how."""

    join: str
    """tcp://HOST:PORT, where the server listens for machines"""
    name: str
    """unique among the machines of the server"""
    key: Path | None = None
    """key file of this machine, for a server with keys"""
    silence: float = 30.0
    """seconds after which a silent server counts as lost; a large result on a slow line delays its answers"""
    grace: float = 10.0
    """seconds that running jobs are given to finish when the machine is stopped"""


class Machine:
    """The workers of this machine, and the connection to the server that they work for."""

    def __init__(self, settings: MachineSettings, workers: WorkerSettings) -> None:
        """Raises `InputError` for an invalid name, address or key file."""
        check_name(settings.name)
        self.settings = settings
        self._workers = workers
        self._instance = secrets.token_hex(8)
        try:
            keys = read_client_keys(settings.key) if settings.key else None
            # Its news are the heartbeat; the connection itself would repeat the greeting, which is longer.
            timing = Timing(heartbeat=2 * HEARTBEAT_SECONDS, silence=settings.silence)
            self._connection = Connection(settings.join, keys, str(settings.key), self._greeting, timing, _read)
        except ValueError as error:
            raise InputError(str(error)) from error
        self._context = zmq.Context()
        self._authenticator = Authenticator(self._context)
        self._pool: LocalWorkerPool | None = None
        self._ready: set[str] = set()
        self._jobs: dict[str, set[str]] = {}  # those that run, by worker
        self._reasons: dict[str, str] = {}  # why each worker was lost last
        self._kept: KeptContent[Frame] = KeptContent()
        self._stop_at = float("inf")
        self._heartbeat_at = 0.0
        self._stop_requests: list[float] = []  # the times of the calls of `stop`
        self._is_draining = False
        self._leaves_at: float | None = None
        self._has_left = False

    def run(self) -> None:
        """Work until `stop`.

        Raises
        ------
        InputError : if the server refuses this machine, or no worker can run with its settings
        """
        try:
            while not self._has_left:
                self._connection.wait(TICK_SECONDS, self._sockets())
                self._turn(time.monotonic())
        finally:
            if self._pool:
                self._pool.stop()
            self._connection.close()
            self._authenticator.close()
            self._context.term()

    def stop(self) -> None:
        """Take no more jobs, and leave when those that run have ended or the grace is over; a second call, at once.

        For signal handlers and other threads.
        """
        self._stop_requests.append(time.monotonic())

    def _sockets(self) -> Sequence[zmq.Socket]:
        return [self._authenticator.socket, *(self._pool.sockets() if self._pool else ())]

    def _turn(self, now: float) -> None:
        self._authenticator.process()
        for news in self._connection.poll():
            self._handle(news, now)
        if self._pool:
            for event in self._pool.poll(now):
                self._relay(event)
            if reason := self._pool.configuration_error():
                raise InputError(reason)
        if now >= self._stop_at:
            self._kill_stale()
        if self._stop_requests:
            self._drain(now)
        if now >= self._heartbeat_at:
            self._tell()

    # --- the server ---

    def _greeting(self) -> Sequence[Frame]:
        return pack(replace(self._hello(), kept=self._kept.sizes()))

    def _hello(self) -> MachineHello:
        name, instance, draining = self.settings.name, self._instance, self._is_draining
        if self._pool is None:
            return MachineHello(name, instance, SOFTWARE, draining)
        workers = tuple(
            MachineWorker(
                info, info.name in self._ready, self._pool.capacity(info.name), self._reasons.get(info.name, "")
            )
            for info in self._pool.describe()
        )
        return MachineHello(name, instance, SOFTWARE, draining, workers, self._pool.models(), dict(self._pool.digests))

    def _tell(self) -> None:
        """Send the news of this machine, which are its heartbeat, too."""
        self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        if self._is_connected:
            self._connection.send(pack(self._hello()))

    @property
    def _is_connected(self) -> bool:
        return self._connection.state is State.CONNECTED

    def _handle(self, news: Any, now: float) -> None:
        match news:
            case StateChanged(state, reason):
                self._follow(state, reason, now)
            case Welcome():
                self._start_workers(news.limits, now)
            case Error():
                logger.warning(line("server error", reason=news.message))
            case Notice(text):
                logger.warning(line("notice of the server", text=text))
            case Leave():
                self._has_left = True
            case (Assign() as assignment, carried):
                self._assign(assignment, list(carried))
            case CancelJob(worker, job) if self._pool and worker in self._ready:
                self._pool.cancel(worker, job)
            case KillWorker(worker, reason) if self._pool and worker in self._ready:
                self._pool.kill(worker, reason)

    def _follow(self, state: State, reason: str, now: float) -> None:
        """Handle a change of the connection."""
        if state in (State.REFUSED, State.INCOMPATIBLE):
            raise InputError(reason)
        log = logger.info if state is State.CONNECTED else logger.warning
        log(line("server joined" if state is State.CONNECTED else "server not reached", reason=reason))
        if state is not State.CONNECTED:
            self._drop_jobs(now)

    def _start_workers(self, limits: Limits, now: float) -> None:
        """Start the workers with the limits of the server; again, if they have changed."""
        if limits == self._workers.limits and self._pool:
            return
        if self._pool:
            self._pool.stop()
        self._ready, self._jobs = set(), {}
        self._workers = replace(self._workers, limits=limits)
        self._pool = LocalWorkerPool(self._context, self._authenticator, self._workers)
        self._pool.start(now)

    # --- jobs ---

    def _assign(self, assignment: Assign, carried: list[Frame]) -> None:
        """Hand jobs to a worker; one that was lost meanwhile needs no answer, since the server is told."""
        jobs = [[self._frame(part, carried) for part in job] for job in assignment.jobs]
        if self._pool and assignment.worker in self._ready:
            names = (read_header(frames, self._workers.limits).job or "" for frames in jobs)
            self._jobs.setdefault(assignment.worker, set()).update(names)
            self._pool.submit(assignment.worker, jobs)

    def _frame(self, part: Part, carried: list[Frame]) -> Frame:
        """A frame of a job, carried or kept."""
        if not part.carried:
            frame = self._kept.use(part.digest)
            assert frame is not None, "the server and this machine disagree on what is kept"
            return frame
        frame = carried.pop(0)
        if part.digest:
            self._kept.add(part.digest, len(frame), frame)
        return frame

    def _relay(self, event: WorkerEvent) -> None:
        """Handle an event of the local pool."""
        match event:
            case WorkerReady(worker):
                self._ready.add(worker)
                self._tell()
            case WorkerLost(worker, reason):
                self._reasons[worker] = reason
                self._ready.discard(worker)
                self._jobs.pop(worker, None)
                self._tell()
            case WorkerReply(worker, header, frames):
                if worker in self._ready and self._is_connected:
                    self._connection.send(pack(Reply(worker), frames))
                if header.kind != Progress.kind:
                    self._end(worker, header.job or "")

    def _end(self, worker: str, job: str) -> None:
        """Note the end of a job; a worker that has ended those of a lost connection is ready again."""
        jobs = self._jobs.get(worker, set())
        jobs.discard(job)
        if not jobs:
            self._jobs.pop(worker, None)
            if worker not in self._ready:
                self._ready.add(worker)
                self._tell()

    def _drop_jobs(self, now: float) -> None:
        """Cancel all jobs: the server runs them elsewhere, and knows nothing of them when it is back."""
        for worker, jobs in self._jobs.items():
            self._ready.discard(worker)
            for job in jobs:
                assert self._pool
                self._pool.cancel(worker, job)
            self._stop_at = now + STOP_SECONDS

    def _kill_stale(self) -> None:
        """Kill the workers that still run jobs of a lost connection."""
        self._stop_at = float("inf")
        for worker in self._jobs.keys() - self._ready:
            assert self._pool
            self._pool.kill(worker, "it did not stop the jobs of a lost connection")

    # --- the end ---

    def _drain(self, now: float) -> None:
        """Leave when no job runs, or the grace is over; the server is told at once that it is to send no more."""
        if not self._is_draining:
            self._is_draining = True
            logger.info(line("machine stopping", running=sum(map(len, self._jobs.values()))))
            self._tell()
        is_over = now - self._stop_requests[0] >= self.settings.grace or len(self._stop_requests) > 1
        if self._leaves_at is None and (is_over or not self._jobs):
            self._leaves_at = now + LEAVE_SECONDS
            self._connection.send(pack(Leave()))
        if self._leaves_at is not None and (now >= self._leaves_at or not self._is_connected):
            self._has_left = True


def _read(frames: Sequence[Frame], limits: Limits) -> Any:
    """Decode a message of the server; jobs come with the frames that they carry. Raises `WireError`."""
    message, carried = unpack(frames, TO_MACHINE, limits)
    return (message, carried) if isinstance(message, Assign) else message
