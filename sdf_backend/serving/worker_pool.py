"""What a server needs of its workers: the seam behind which they may be anywhere.

The server sees workers only through `Workers`. Those that are processes on this machine are in `local_workers.py`;
another implementation may run them elsewhere, without a change to the wire. A worker takes the wire's own messages and
answers with them, and the server passes both on as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import zmq

from sdf_backend.wire.codec import Frame, Header
from sdf_backend.wire.messages import ModelInfo, WorkerInfo


@dataclass(frozen=True)
class Ready:
    """A worker can take its first job."""

    worker: str


@dataclass(frozen=True)
class Reply:
    """A worker's message about a job, for the job's client."""

    worker: str
    header: Header
    frames: Sequence[Frame]


@dataclass(frozen=True)
class Lost:
    """A worker has ended, with whatever it was doing; another takes its place by itself."""

    worker: str
    reason: str


Event = Ready | Reply | Lost


class Workers(Protocol):
    """What a server needs of its workers. None of it waits; times are in seconds of the server's clock."""

    def start(self, now: float) -> None:
        """Begin to have workers."""
        ...

    def sockets(self) -> Sequence[zmq.Socket]:
        """What becomes readable when there are events."""
        ...

    def events(self, now: float) -> Iterable[Event]:
        """What has happened since the last call; also the time at which workers are watched, replaced and added."""
        ...

    def give(self, worker: str, jobs: Sequence[Sequence[Frame]]) -> bool:
        """Hand submissions to a worker, to be computed together; False where it is not there any more."""
        ...

    def cancel(self, worker: str, job: str) -> None:
        """Tell a worker that a job is not wanted any more; it answers with the job's end all the same."""
        ...

    def kill(self, worker: str, reason: str) -> None:
        """End a worker whatever it does; a `Lost` follows."""
        ...

    def excuse(self, seconds: float) -> None:
        """The server itself was held up for so long; that is no worker's silence."""
        ...

    def capacity(self, worker: str) -> int:
        """How many jobs a worker takes at once."""
        ...

    def loaded(self, worker: str) -> Sequence[str]:
        """The models that a worker holds in memory."""
        ...

    def describe(self) -> tuple[WorkerInfo, ...]:
        """All workers, those that start too; `state` is starting or idle, what they run is the server's to say."""
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that jobs can name; none until a worker is ready."""
        ...

    def hopeless(self) -> str:
        """Why no worker is there or will be there soon; empty otherwise."""
        ...

    def refused(self) -> str:
        """Why workers cannot run as they were told to, found out before any did; empty otherwise."""
        ...

    def stop(self) -> None:
        """End all workers."""
        ...
