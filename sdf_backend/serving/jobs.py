"""The jobs of a server: the queue, the running jobs, and the finished jobs that are kept for their clients.

A data structure without sockets and without a clock: callers pass the time, in seconds.

    queued -> running -> finished -> removed
       ^---------' (once, if its worker is lost)

Scheduling is round-robin over owners, or over clients where there are no keys, and first in, first out within each. A
job belongs to its owner, the key that may request it, and is attached to one client, which receives its messages.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

import zmq

from sdf_backend.wire.codec import Frame
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import JobState, Limits

# Most bytes of the submissions of one batch; larger inputs keep a device busy by themselves.
BATCH_BYTES = 64 << 20
# Pieces of a large frame that tell one submission from another.
PIECES, PIECE_BYTES = 1000, 64


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Termination(NamedTuple):
    """Why the server ends a job without a result."""

    code: ErrorCode
    message: str

    @property
    def outcome(self) -> Outcome:
        """How the job is counted."""
        return Outcome.CANCELLED if self.code is ErrorCode.CANCELLED else Outcome.FAILED


@dataclass(eq=False)
class Job:
    """One job; times are in seconds of the clock of the caller."""

    name: str
    owner: str
    client: bytes
    task: str
    model: str
    request: Sequence[Frame]
    """the frames of the submission"""
    keep: float
    """seconds that the job is kept while its client is absent, and its result after delivery"""
    submitted: float
    fingerprint: bytes = b""
    """of the submission; see `fingerprint`"""
    user: str = ""
    """the name of the owner, for the log"""
    batch_key: Hashable = None
    """jobs with the same key can run as one batch; a job with None runs alone"""
    state: JobState = JobState.QUEUED
    started: float = 0.0
    finished: float = 0.0
    worker: str = ""
    lost_workers: int = 0
    """worker processes that ended while they ran it"""
    lost_machines: int = 0
    """machines that were lost while they ran it"""
    batch_size: int = 1
    """jobs in the batch that it runs in"""
    termination: Termination | None = None
    """set while it runs, to end it as soon as its worker stops it"""
    kill_deadline: float = 0.0
    """when its worker is killed, if it has not stopped the job by then"""
    outcome: Outcome | None = None
    last_message: Sequence[Frame] | None = None
    """answers a client that requests the status of the job"""
    delivered: bool = False
    """whether the final message was handed to a client"""
    client_absent_since: float | None = None
    """None while its client is connected"""

    @property
    def request_bytes(self) -> int:
        """Bytes of the submission."""
        return count_bytes(self.request)


def fingerprint(frames: Sequence[Frame]) -> bytes:
    """Make a short hash of a message, to tell a submission that is repeated from another of the same name.

    Of a large frame it reads a thousand pieces only, since the server must not take long.
    """
    digest = hashlib.blake2b(digest_size=16)
    for frame in frames:
        content = (frame.buffer if isinstance(frame, zmq.Frame) else memoryview(frame)).cast("B")
        step = max(PIECE_BYTES, len(content) // PIECES)
        digest.update(len(content).to_bytes(8))
        for start in range(0, len(content), step):
            digest.update(content[start : start + PIECE_BYTES])
    return digest.digest()


def count_bytes(frames: Sequence[Frame] | None) -> int:
    """Count the bytes of the frames of a message."""
    return sum(frame.nbytes if isinstance(frame, memoryview) else len(frame) for frame in frames or ())


def any_job(job: Job) -> bool:
    """The condition that every job satisfies."""
    return True


@dataclass
class JobTable:
    """All jobs of a server."""

    limits: Limits = field(default_factory=Limits)
    queue_bytes: int = 2 << 30
    """most bytes of all queued submissions"""
    result_bytes: int = 1 << 30
    """most bytes of all kept results besides the newest"""
    finished_jobs: int = 4096
    """most finished jobs that are kept"""

    def __post_init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._queues: dict[str | bytes, deque[Job]] = {}  # in round-robin order
        self._retries: deque[Job] = deque()
        self._finished: dict[tuple[str, str], Job] = {}  # oldest first
        self._request_bytes = self._queued_bytes = self._result_bytes = 0

    # --- queries ---

    def find(self, owner: str, name: str) -> Job | None:
        """The job of that owner and name, in any state."""
        return self._jobs.get((owner, name))

    def owned_by(self, owner: str) -> list[Job]:
        """All jobs of an owner, in any state."""
        return [job for job in self._jobs.values() if job.owner == owner]

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def queue_length(self) -> int:
        """Number of queued jobs."""
        return len(self._retries) + sum(map(len, self._queues.values()))

    @property
    def running(self) -> list[Job]:
        """All running jobs."""
        return [job for job in self._jobs.values() if job.state is JobState.RUNNING]

    @property
    def queued(self) -> list[Job]:
        """All queued jobs, in no particular order."""
        return [job for job in self._jobs.values() if job.state is JobState.QUEUED]

    @property
    def bytes_held(self) -> int:
        """Bytes of the submissions of all jobs that have not finished, and of all kept results."""
        return self._request_bytes + self._result_bytes

    def position(self, job: Job) -> int:
        """Number of jobs that start before this one, as the queue is now; 0 for a job that is not queued."""
        if job.state is not JobState.QUEUED:
            return 0
        if job in self._retries:
            return self._retries.index(job)
        own_key = _queue_key(job.owner, job.client)
        own, ahead, before = self._queues[own_key].index(job), len(self._retries), True
        for key, queue in self._queues.items():
            before = before and key != own_key
            ahead += own if key == own_key else min(len(queue), own + before)
        return ahead

    # --- the queue ---

    def rejection_reason(self, owner: str, client: bytes, size: int) -> str:
        """Why another job of `size` bytes cannot be queued; empty if it can.

        Nobody may have more of the queue than what is free, so that there is always room for others: one alone gets
        half of it, two get a third each. These are the dynamic thresholds of Choudhury and Hahne (1998).
        """
        own = self._queues.get(_queue_key(owner, client), ())
        free, free_bytes = self.limits.queue - self.queue_length, self.queue_bytes - self._queued_bytes
        if free <= 0:
            return f"the queue is full: {self.queue_length} jobs are queued; submit the job again later"
        if len(own) >= min(free, self.limits.client_queue):
            return f"{len(own)} jobs of this client are queued; submit the job again when some of them are done"
        if self.queue_length and sum(job.request_bytes for job in own) + size > free_bytes:
            return f"the queued jobs fill {self._queued_bytes >> 20} MiB; submit the job again later"
        return ""

    def add(self, job: Job) -> None:
        """Queue a new job; raises `ValueError` for a name that its owner has used already."""
        key = job.owner, job.name
        if key in self._jobs:
            raise ValueError(f"job {job.name} already exists")
        self._jobs[key] = job
        self._request_bytes += job.request_bytes
        self._enqueue(job)

    def take(self, most: int, now: float, can_run: Callable[[Job], bool] = any_job) -> list[Job]:
        """Take the next batch for one worker and mark its jobs as running.

        Returns the next job that it `can_run` and up to `most` - 1 after it that have the same batch key. A retried job
        runs alone.
        """
        batch: list[Job] = []
        while len(batch) < most and (job := self.next(can_run)) and _can_join(batch, job):
            self._dequeue(job, scheduled=True)
            job.state, job.started = JobState.RUNNING, now
            batch.append(job)
        for job in batch:
            job.batch_size = len(batch)
        return batch

    def next(self, can_run: Callable[[Job], bool] = any_job) -> Job | None:
        """The next of the queued jobs that satisfy a condition; None if there is none."""
        return next(filter(can_run, chain(self._retries, *self._queues.values())), None)

    def retry(self, job: Job) -> None:
        """Put a running job back at the head of the queue; it will run alone."""
        job.state, job.worker, job.batch_key = JobState.QUEUED, "", None
        self._retries.append(job)
        self._queued_bytes += job.request_bytes

    def _enqueue(self, job: Job) -> None:
        self._queues.setdefault(_queue_key(job.owner, job.client), deque()).append(job)
        self._queued_bytes += job.request_bytes

    def _dequeue(self, job: Job, *, scheduled: bool = False) -> None:
        """Remove a queued job; if it was scheduled, its queue moves to the end of the round."""
        self._queued_bytes -= job.request_bytes
        if job in self._retries:
            self._retries.remove(job)
            return
        key = _queue_key(job.owner, job.client)
        queue = self._queues[key]
        queue.remove(job)
        if scheduled or not queue:
            del self._queues[key]
        if scheduled and queue:
            self._queues[key] = queue

    # --- finished jobs ---

    def finish(self, job: Job, outcome: Outcome, last_message: Sequence[Frame], now: float) -> None:
        """Mark a job as finished and keep its final message; evicts old results of whoever has most."""
        if job.state is JobState.QUEUED:
            self._dequeue(job)
        job.state, job.outcome, job.finished = JobState.FINISHED, outcome, now
        job.last_message, job.delivered = last_message, False
        self._request_bytes -= job.request_bytes
        job.request, job.worker = (), ""
        self._finished[job.owner, job.name] = job
        self._result_bytes += count_bytes(last_message)
        while self._result_bytes - count_bytes(last_message) > self.result_bytes:
            self.remove(self._next_evicted(job, lambda other: count_bytes(other.last_message)))
        while len(self._finished) > self.finished_jobs:
            self.remove(self._next_evicted(job, lambda other: 1))

    def _next_evicted(self, newest: Job, weight: Callable[[Job], int]) -> Job:
        """The oldest result of whoever has most, delivered ones first; never the newest."""
        held = Counter[str | bytes]()
        for job in self._finished.values():
            held[_queue_key(job.owner, job.client)] += weight(job)
        older = [job for job in self._finished.values() if job is not newest]
        return max(older, key=lambda job: (held[_queue_key(job.owner, job.client)], job.delivered))

    def remove(self, job: Job) -> None:
        """Remove a finished job."""
        del self._jobs[job.owner, job.name], self._finished[job.owner, job.name]
        self._result_bytes -= count_bytes(job.last_message)

    # --- clients ---

    def attach(self, job: Job, client: bytes) -> None:
        """Attach a job to another client, which then gets its messages; a queued job moves to its queue."""
        moves = job.state is JobState.QUEUED and client != job.client and not job.owner and job not in self._retries
        if moves:
            self._dequeue(job)
        job.client, job.client_absent_since = client, None
        if moves:
            self._enqueue(job)

    def mark_absent(self, client: bytes, now: float) -> None:
        """Note that a client is disconnected: its jobs expire after their `keep` seconds."""
        for job in self._jobs_of(client):
            if job.client_absent_since is None:
                job.client_absent_since = now

    def mark_present(self, client: bytes) -> list[Job]:
        """Note that a client is connected again; returns its finished jobs whose final message it may have missed."""
        jobs = self._jobs_of(client)
        for job in jobs:
            job.client_absent_since = None
        return [job for job in jobs if job.state is JobState.FINISHED and not job.delivered]

    def expired(self, now: float) -> list[Job]:
        """Jobs of clients that are absent for too long, and delivered results that were kept long enough."""
        return [job for job in self._jobs.values() if now >= _expiry(job)]

    def _jobs_of(self, client: bytes) -> list[Job]:
        return [job for job in self._jobs.values() if job.client == client]


def _queue_key(owner: str, client: bytes) -> str | bytes:
    """The queue of a job: one for each user, however many clients that is, or one for each client without keys."""
    return owner or client


def _expiry(job: Job) -> float:
    """The time at which a job expires."""
    if job.state is JobState.FINISHED and job.delivered:
        return max(job.finished, job.client_absent_since or job.finished) + job.keep
    return float("inf") if job.client_absent_since is None else job.client_absent_since + job.keep


def _can_join(batch: list[Job], job: Job) -> bool:
    """Whether a job can run in a batch. Workers identify jobs by name, which jobs of two owners may share."""
    if not batch:
        return True
    same_key = job.batch_key is not None and job.batch_key == batch[0].batch_key
    size = sum(other.request_bytes for other in (*batch, job))
    return same_key and size <= BATCH_BYTES and all(job.name != other.name for other in batch)
