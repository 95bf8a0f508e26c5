"""What a server and its own workers say to each other, besides the messages of the wire that they pass on.

A worker is given its `Assignment` on its standard input, as one line; the rest goes over a private socket.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from sdf_backend.wire.messages import Limits, ModelInfo

# The server's public key, and the worker's own pair.
WorkerKeys = tuple[str, str, str]


@dataclass(frozen=True)
class Assignment:
    """Where a new worker connects and what it is to do. Holds a secret: it is not logged, nor on a command line."""

    name: str
    identity: str
    """what the server knows this very process by"""
    address: str
    keys: WorkerKeys | None = field(repr=False)
    """for an address that others could reach too"""
    device: str = "auto"
    models: str | None = None
    """folder of further models"""
    cache: str | None = None
    """folder for what was computed before"""
    cache_bytes: int = 0
    batch: int = 0
    """most jobs to compute together; 0 leaves the choice to the worker"""
    threads: int = 0
    """that it may compute with on a CPU; 0 leaves the choice to torch"""
    heartbeat: float = 1.0
    """seconds between two signs of life"""
    limits: Limits = field(default_factory=Limits)

    def line(self) -> bytes:
        """The assignment as a line of text."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, text: bytes) -> "Assignment":
        """The inverse of `line`."""
        content = json.loads(text)
        return cls(**content | {"limits": Limits(**content["limits"])})


@dataclass(frozen=True)
class WorkerHello:
    """A worker can take jobs; sent again when its models change."""

    kind: ClassVar[str] = "hello"
    device: str
    cuda_devices: int
    """how many this machine has"""
    capacity: int = 1
    """jobs that it takes at once"""
    models: tuple[ModelInfo, ...] = ()


@dataclass(frozen=True)
class Heartbeat:
    """A worker's sign of life."""

    kind: ClassVar[str] = "heartbeat"
    loaded: tuple[str, ...] = ()
    """models in its memory"""
    memory_bytes: int = 0
    device_bytes: int = 0


@dataclass(frozen=True)
class Batch:
    """The next `jobs` submissions are to be computed together."""

    kind: ClassVar[str] = "batch"
    jobs: int


FROM_WORKER: dict[str, type] = {kind.kind: kind for kind in (WorkerHello, Heartbeat)}
