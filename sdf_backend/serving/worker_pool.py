"""The interface of a worker pool: all that the server can see of its workers.

`local_workers.py` implements it with processes on this machine, and `combined_pool.py` with those of machines that have
joined as well. Workers take and send the messages of the wire, which the server forwards unchanged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import zmq

from sdf_backend.wire.codec import Frame, Header
from sdf_backend.wire.messages import ModelInfo, WorkerInfo


@dataclass(frozen=True)
class WorkerReady:
    """A worker can take its first batch."""

    worker: str


@dataclass(frozen=True)
class WorkerReply:
    """A message about a job, for the client of the job."""

    worker: str
    header: Header
    frames: Sequence[Frame]


class LossCause(StrEnum):
    """What a job may have had to do with the loss of its worker."""

    PROCESS = "process"
    """the process ended: the job may have ended it"""
    MACHINE = "machine"
    """its machine or the network was lost, which is hardly the job's doing"""
    STOPPED = "stopped"
    """its machine was stopped"""


@dataclass(frozen=True)
class WorkerLost:
    """A worker has ended, together with the jobs that it ran; the pool replaces it, or waits for its machine."""

    worker: str
    reason: str
    cause: LossCause = LossCause.PROCESS


WorkerEvent = WorkerReady | WorkerReply | WorkerLost


class WorkerPool(Protocol):
    """Starts, monitors and replaces workers. No method blocks; times are in seconds of the clock of the server."""

    def start(self, now: float) -> None:
        """Begin to start workers."""
        ...

    def sockets(self) -> Sequence[zmq.Socket]:
        """Sockets that become readable when there are events."""
        ...

    def poll(self, now: float) -> Iterable[WorkerEvent]:
        """The events since the last call; also checks deadlines and replaces workers, so call it regularly."""
        ...

    def submit(self, worker: str, jobs: Sequence[Sequence[Frame]]) -> bool:
        """Send submissions to a worker as one batch; False if the worker has ended."""
        ...

    def cancel(self, worker: str, job: str) -> None:
        """Ask a worker to stop a job; it still answers with the end of the job."""
        ...

    def kill(self, worker: str, reason: str) -> None:
        """Kill a worker; a `WorkerLost` with that reason follows."""
        ...

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count a time in which the server itself was suspended as silence of the workers."""
        ...

    def capacity(self, worker: str) -> int:
        """Most jobs of one batch; 0 for a worker that takes no more jobs."""
        ...

    def can_run(self, worker: str, model: str) -> bool:
        """Whether a worker may run the jobs of a model; of a model that nobody has it may, and answers so."""
        ...

    def loaded_models(self, worker: str) -> Sequence[str]:
        """Names of the models that a worker has in memory."""
        ...

    def describe(self) -> tuple[WorkerInfo, ...]:
        """All workers, idle or starting; the server knows which of them are running jobs."""
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """All models; empty until a worker is ready."""
        ...

    def unavailable_reason(self) -> str:
        """Why no worker can start; empty as long as one runs or may start."""
        ...

    def configuration_error(self) -> str:
        """Why workers cannot run with these settings, if that is found before any was ready; else empty."""
        ...

    def stop(self) -> None:
        """End all workers."""
        ...
