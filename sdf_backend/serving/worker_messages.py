"""The private messages between a server and its workers, besides the messages of the wire that they forward.

A worker reads its `WorkerConfig` from standard input, as one line; everything else goes over a private socket.
"""

import json
import signal
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from sdf_backend.wire.messages import Limits, ModelInfo

# What asks a server to stop; SIGHUP is sent when its terminal is closed.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# The public key of the server, and the key pair of the worker.
WorkerKeys = tuple[str, str, str]


@dataclass(frozen=True)
class WorkerConfig:
    """How a new worker connects and runs. Holds a secret: never logged, nor passed on a command line."""

    name: str
    identity: str
    """routing id of this process, unique among all workers that had this name"""
    address: str
    keys: WorkerKeys | None = field(repr=False)
    """for an address that other programs can reach"""
    device: str = "auto"
    models: str | None = None
    """folder of further models"""
    models_may_be_missing: bool = False
    """whether folders of models that are missing cost only their models, since an earlier worker has had them"""
    cache: str | None = None
    """folder of the content cache"""
    cache_bytes: int = 0
    batch: int = 0
    """maximum number of jobs in a batch; 0 for the default of the device"""
    memory_bytes: int = 0
    """what it may allocate on a CPU"""
    threads: int = 0
    """threads of torch on a CPU; 0 for the default of torch"""
    heartbeat: float = 1.0
    """seconds between two heartbeats"""
    limits: Limits = field(default_factory=Limits)

    def to_line(self) -> bytes:
        """Serialise as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, text: bytes) -> "WorkerConfig":
        """The inverse of `to_line`."""
        content = json.loads(text)
        return cls(**content | {"limits": Limits(**content["limits"])})


@dataclass(frozen=True)
class WorkerHello:
    """A worker is ready for jobs; sent again when its models change."""

    kind: ClassVar[str] = "hello"
    device: str
    cuda_devices: int
    """number of GPUs of this machine"""
    capacity: int = 1
    """maximum number of jobs in a batch"""
    models: tuple[ModelInfo, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    """hash of the file of each usable model, by name"""


@dataclass(frozen=True)
class Heartbeat:
    """A worker is alive."""

    kind: ClassVar[str] = "heartbeat"
    loaded: tuple[str, ...] = ()
    """names of the models in memory"""
    memory_bytes: int = 0
    device_bytes: int = 0


@dataclass(frozen=True)
class Batch:
    """The next `jobs` submissions are one batch."""

    kind: ClassVar[str] = "batch"
    jobs: int


FROM_WORKER: dict[str, type] = {kind.kind: kind for kind in (WorkerHello, Heartbeat)}
