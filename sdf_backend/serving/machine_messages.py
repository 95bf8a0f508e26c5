"""The private messages between a server and the machines that have joined it.

A message is encoded as one of the wire, [b"SDF1", JSON header], and the frames that it carries follow: those of jobs to
a machine, and those of replies from one. Both sides have the same version of this software.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sdf_backend.errors import InputError
from sdf_backend.wire.codec import Frame, decode, encode
from sdf_backend.wire.messages import Error, Limits, ModelInfo, Welcome, WorkerInfo

MACHINE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class MachineWorker:
    """One worker of a machine."""

    info: WorkerInfo
    ready: bool
    """whether it can take jobs, or runs some that this connection has brought"""
    capacity: int
    """most jobs of one batch"""
    reason: str = ""
    """why it was lost last"""


@dataclass(frozen=True)
class MachineHello:
    """All that a machine offers: its greeting, its heartbeat, and its news. Answered with a `Welcome`."""

    kind: ClassVar[str] = "machine"
    name: str
    instance: str
    """unique for each process, to tell one that connects again from another of the same name"""
    software: str
    draining: bool = False
    """takes no more jobs, and leaves when those that run have ended"""
    workers: tuple[MachineWorker, ...] = ()
    models: tuple[ModelInfo, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    """hash of the file of each usable model, by name"""
    kept: dict[str, int] = field(default_factory=dict)
    """bytes of the content that it keeps, by digest, the least recently used first; in its greeting only"""

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class Leave:
    """From a machine: it has no more jobs and leaves. From the server: it may."""

    kind: ClassVar[str] = "leave"


@dataclass(frozen=True)
class Reply:
    """Carries a message of a worker about a job."""

    kind: ClassVar[str] = "reply"
    worker: str


@dataclass(frozen=True)
class Part:
    """One frame of a job. It is carried, or else kept by the machine under its digest."""

    digest: str
    """empty for a frame that is not to be kept"""
    carried: bool


@dataclass(frozen=True)
class Assign:
    """Carries jobs for a worker, several of them as a batch."""

    kind: ClassVar[str] = "assign"
    worker: str
    jobs: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True)
class CancelJob:
    """Cancels a job of a worker."""

    kind: ClassVar[str] = "cancel"
    worker: str
    job: str


@dataclass(frozen=True)
class KillWorker:
    """Kills a worker, which the machine replaces."""

    kind: ClassVar[str] = "kill"
    worker: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """A sentence for the log of the machine."""

    kind: ClassVar[str] = "notice"
    text: str


TO_SERVER: dict[str, type] = {kind.kind: kind for kind in (MachineHello, Leave, Reply)}
TO_MACHINE: dict[str, type] = {
    kind.kind: kind for kind in (Welcome, Error, Assign, CancelJob, KillWorker, Notice, Leave)
}


def check_name(name: str) -> None:
    """Raise `InputError` for what cannot be the name of a machine."""
    if not MACHINE_NAME.fullmatch(name):
        text = f"{name[:80]!r} cannot be the name of a machine; give --name with up to 64 letters, digits, -, _ and ."
        raise InputError(text)


def pack(message: Any, carried: Sequence[Frame] = ()) -> list[Frame]:
    """The frames of a message and of what it carries."""
    return [*encode(message), *carried]


def unpack(frames: Sequence[Frame], kinds: Mapping[str, type], limits: Limits) -> tuple[Any, Sequence[Frame]]:
    """The inverse of `pack`; raises `WireError` for what is none of `kinds`. What it carries is not checked."""
    return decode(frames[:2], kinds, limits), frames[2:]
