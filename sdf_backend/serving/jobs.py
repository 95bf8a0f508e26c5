"""The jobs of a server: which wait, which comes next, what is remembered of those that ended.

A data structure without sockets and without a clock; who calls says what time it is, in seconds.

    queued -> running -> finished -> forgotten
       ^---------' (once more, when its worker died)

Owners take turns, and clients do where owners have no names; within each the first come is the first served. A job
belongs to its owner (whoever may ask for it) and is attached to one client (who gets its messages).
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sdf_backend.wire.codec import Frame
from sdf_backend.wire.messages import Limits

# Bytes of the submissions that are done together; larger ones keep a device busy alone.
BATCH_BYTES = 64 << 20


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(eq=False)
class Job:
    """One job; times in seconds of the caller's clock."""

    name: str
    owner: str
    client: bytes
    task: str
    model: str
    request: Sequence[Frame]
    """the submission as it came, for a worker"""
    keep: float
    """seconds that the job outlives its client's silence, and its result the delivery"""
    submitted: float
    alike: Hashable = None
    """jobs for which this is the same can be computed together; None for a job that is computed alone"""
    state: State = State.QUEUED
    started: float = 0.0
    finished: float = 0.0
    worker: str = ""
    deaths: int = 0
    """workers that ended while they ran it"""
    batch: int = 1
    """jobs that its worker was given together with it, itself included"""
    verdict: tuple[str, str] | None = None
    """error code and message that it will end with, decided while it runs"""
    kill_at: float = 0.0
    """when its worker is killed, once there is a verdict"""
    outcome: Outcome | None = None
    last: Sequence[Frame] | None = None
    """the last message about it, for a client that asks"""
    delivered: bool = False
    """whether `last`, the result, was handed to a client"""
    absent_since: float | None = None
    """since when its client is not heard of"""

    @property
    def request_bytes(self) -> int:
        """Bytes of the submission."""
        return size_of(self.request)


def size_of(frames: Sequence[Frame] | None) -> int:
    """Bytes of a message's frames."""
    return sum(frame.nbytes if isinstance(frame, memoryview) else len(frame) for frame in frames or ())


@dataclass
class Jobs:
    """All jobs that a server knows of."""

    limits: Limits = field(default_factory=Limits)
    queue_bytes: int = 2 << 30
    """bytes of the submissions that wait, all together"""
    result_bytes: int = 1 << 30
    """bytes of the results that are remembered, all together; the newest is kept whatever its size"""
    remembered: int = 4096
    """most finished jobs that are remembered"""

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str], Job] = {}
        self._lanes: dict[str | bytes, deque[Job]] = {}  # in the order of their turns
        self._again: deque[Job] = deque()
        self._finished: dict[tuple[str, str], Job] = {}  # in the order in which they ended
        self._waiting_bytes = self._result_bytes = 0

    # --- what there is ---

    def find(self, owner: str, name: str) -> Job | None:
        """The job of that owner and name, in whatever state."""
        return self._known.get((owner, name))

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._again) + sum(map(len, self._lanes.values()))

    @property
    def running(self) -> list[Job]:
        """Those that a worker has."""
        return [job for job in self._known.values() if job.state is State.RUNNING]

    @property
    def waiting(self) -> list[Job]:
        """Those that wait, in no order."""
        return [job for job in self._known.values() if job.state is State.QUEUED]

    def position(self, job: Job) -> int:
        """How many jobs will be taken before this one, as things stand; 0 where it does not wait."""
        if job.state is not State.QUEUED:
            return 0
        if job in self._again:
            return self._again.index(job)
        mine = _lane(job.owner, job.client)
        own, ahead, before = self._lanes[mine].index(job), len(self._again), True
        for key, lane in self._lanes.items():
            before = before and key != mine
            ahead += own if key == mine else min(len(lane), own + before)
        return ahead

    # --- the queue ---

    def full(self, owner: str, client: bytes, size: int) -> str:
        """Why a further job of `size` bytes cannot wait; empty where it can."""
        if self.queued >= self.limits.queue:
            return f"the queue is full: {self.queued} jobs wait; submit it again later"
        waiting = len(self._lanes.get(_lane(owner, client), ()))
        if waiting >= self.limits.client_queue:
            return f"{waiting} jobs of this client wait already; submit it again when some of them are done"
        if self.queued and self._waiting_bytes + size > self.queue_bytes:
            return f"the jobs that wait fill {self._waiting_bytes >> 20} MiB; submit it again later"
        return ""

    def add(self, job: Job) -> None:
        """Let a new job wait; raises `ValueError` for a name that its owner has used already."""
        key = job.owner, job.name
        if key in self._known:
            raise ValueError(f"there is a job {job.name} already")
        self._known[key] = job
        self._join_queue(job)

    def take(self, most: int, now: float) -> list[Job]:
        """The next jobs for one worker, now running: the next one, and up to `most` in all if those after it are alike.

        One that was tried before runs alone.
        """
        batch: list[Job] = []
        while len(batch) < most and (job := self._next()) and _joins(batch, job):
            self._leave_queue(job, turn=True)
            job.state, job.started = State.RUNNING, now
            batch.append(job)
        for job in batch:
            job.batch = len(batch)
        return batch

    @property
    def next_model(self) -> str:
        """The model of the job that is next; empty where none waits."""
        job = self._next()
        return job.model if job else ""

    def retry(self, job: Job) -> None:
        """Put a running job back to the head of the queue; it will run alone."""
        job.state, job.worker, job.alike = State.QUEUED, "", None
        self._again.append(job)
        self._waiting_bytes += job.request_bytes

    def _next(self) -> Job | None:
        if self._again:
            return self._again[0]
        return next((lane[0] for lane in self._lanes.values()), None)

    def _join_queue(self, job: Job) -> None:
        self._lanes.setdefault(_lane(job.owner, job.client), deque()).append(job)
        self._waiting_bytes += job.request_bytes

    def _leave_queue(self, job: Job, *, turn: bool = False) -> None:
        """Take a waiting job out. Where that was its client's turn, the next one comes after those of all others."""
        self._waiting_bytes -= job.request_bytes
        if job in self._again:
            self._again.remove(job)
            return
        key = _lane(job.owner, job.client)
        lane = self._lanes[key]
        lane.remove(job)
        if turn or not lane:
            del self._lanes[key]
        if turn and lane:
            self._lanes[key] = lane

    # --- the end ---

    def finish(self, job: Job, outcome: Outcome, last: Sequence[Frame], now: float) -> None:
        """A job has ended; its last message is remembered, within bounds."""
        if job.state is State.QUEUED:
            self._leave_queue(job)
        job.state, job.outcome, job.finished, job.last, job.delivered = State.FINISHED, outcome, now, last, False
        job.request, job.worker = (), ""
        self._finished[job.owner, job.name] = job
        self._result_bytes += size_of(last)
        while len(self._finished) > 1 and (
            self._result_bytes > self.result_bytes or len(self._finished) > self.remembered
        ):
            others = [known for known in self._finished.values() if known is not job]
            self.forget(next((known for known in others if known.delivered), others[0]))

    def forget(self, job: Job) -> None:
        """Remember a finished job no longer."""
        del self._known[job.owner, job.name], self._finished[job.owner, job.name]
        self._result_bytes -= size_of(job.last)

    # --- clients ---

    def attach(self, job: Job, client: bytes) -> None:
        """From now on the job's messages go to `client`, and while it waits it takes that client's turns."""
        moves = job.state is State.QUEUED and client != job.client and not job.owner and job not in self._again
        if moves:
            self._leave_queue(job)
        job.client, job.absent_since = client, None
        if moves:
            self._join_queue(job)

    def client_left(self, client: bytes, now: float) -> None:
        """A client is not heard of any more: its jobs' time runs."""
        for job in self._of(client):
            if job.absent_since is None:
                job.absent_since = now

    def client_is_back(self, client: bytes) -> list[Job]:
        """A client is heard of again; its finished jobs whose end it may not have heard of."""
        jobs = self._of(client)
        for job in jobs:
            job.absent_since = None
        return [job for job in jobs if job.state is State.FINISHED and not job.delivered]

    def expired(self, now: float) -> list[Job]:
        """Those whose client is gone for longer than they are to be kept, and results kept long enough."""
        return [job for job in self._known.values() if now >= _expiry(job)]

    def _of(self, client: bytes) -> list[Job]:
        return [job for job in self._known.values() if job.client == client]


def _lane(owner: str, client: bytes) -> str | bytes:
    """Whose turns a job takes: its owner's, however many clients that is, or its client's where owners have no name."""
    return owner or client


def _expiry(job: Job) -> float:
    """When nobody waits for a job any more."""
    if job.state is State.FINISHED and job.delivered:
        return max(job.finished, job.absent_since or job.finished) + job.keep
    return float("inf") if job.absent_since is None else job.absent_since + job.keep


def _joins(batch: list[Job], job: Job) -> bool:
    """Whether a worker can do a job together with those; it knows them by their names, which two owners may share."""
    if not batch:
        return True
    alike = job.alike is not None and job.alike == batch[0].alike
    size = sum(other.request_bytes for other in (*batch, job))
    return alike and size <= BATCH_BYTES and all(job.name != other.name for other in batch)
