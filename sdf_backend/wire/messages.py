"""The messages of the wire, one dataclass a kind; PROTOCOL.md describes them for other languages.

`REQUESTS` travel to the server, `REPLIES` from it. `codec.py` turns them into frames and back by their type hints.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from .settings import TaskSettings

JOB_PATTERN = re.compile(r"[A-Za-z0-9_-]{8,64}")
TASKS = ("complete", "reconstruct", "encode", "interpolate", "sample", "decode", "echo")

# What an `error` can say; PROTOCOL.md has the meaning of each and what to do about it.
ERROR_CODES = (
    "version",
    "bad_magic",
    "bad_header",
    "bad_kind",
    "bad_value",
    "bad_array",
    "not_finite",
    "too_large",
    "not_authorised",
    "unknown_job",
    "unknown_model",
    "bad_input",
    "limit",
    "stopping",
    "cancelled",
    "timed_out",
    "out_of_memory",
    "worker_lost",
    "failed",
)


@dataclass(frozen=True)
class ArraySpec:
    """What an array may be: names of its dtypes, and its shape with None for any length."""

    dtypes: tuple[str, ...]
    shape: tuple[int | None, ...]


FLOATS, INDICES = ("<f4", "<f8"), ("<i4", "<u4", "<i8")
Points = Annotated[np.ndarray, ArraySpec(FLOATS, (None, 3))]
Faces = Annotated[np.ndarray, ArraySpec(INDICES, (None, 3))]
Scalars = Annotated[np.ndarray, ArraySpec(FLOATS, (None,))]
Refinement = Annotated[np.ndarray, ArraySpec(FLOATS, (None, 2))]
Codes = Annotated[np.ndarray, ArraySpec(FLOATS, (None, None))]
Code = Annotated[np.ndarray, ArraySpec(FLOATS, (1, None))]
Matrices = Annotated[np.ndarray, ArraySpec(FLOATS, (None, 4, 4))]
Matrix = Annotated[np.ndarray, ArraySpec(FLOATS, (1, 4, 4))]


@dataclass(frozen=True)
class Limits:
    """What the server admits, announced in its greeting. A client holds its server's replies to the same sizes."""

    header_bytes: int = 1 << 20
    """bytes of a header"""
    frame_bytes: int = 1 << 28
    """bytes of one array"""
    message_bytes: int = 1 << 30
    """bytes of all arrays of a message"""
    frames: int = 1024
    """arrays of a message"""
    sources: int = 16
    """inputs of a job"""
    points: int = 5_000_000
    """vertices of one input"""
    faces: int = 10_000_000
    """faces of one input"""
    resolution: int = 512
    """cells per axis"""
    shapes: int = 64
    """shapes of a result: steps, samples or codes"""
    queue: int = 128
    """jobs that wait, of all clients together"""
    client_queue: int = 64
    """jobs that wait, of one client; of one user, where there are keys"""
    job_seconds: float = 600.0
    """time that a job may compute"""
    keep_seconds: float = 3600.0
    """longest time that a job or its result waits for a client that is not heard of"""


@dataclass(frozen=True)
class Source:
    """One input in its own frame and units: a mesh, or a point cloud where there are no faces.

    vertices : (n, 3); faces : (m, 3) or None; normals : (n, 3) or None; sensor : x, y, z of the viewer, or None
    """

    vertices: Points
    faces: Faces | None = None
    normals: Points | None = None
    sensor: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        _check_faces(self.faces, self.vertices)
        _check_one_each("normals", self.normals, self.vertices)


@dataclass(frozen=True)
class Shape:
    """A finished shape, or with `encode` one without vertices and faces; see `sdf_backend.engine.Shape`.

    vertices : (n, 3); faces : (m, 3); code : (1, code_length); pose : (1, 4, 4), canonical frame -> the input's frame;
    observed, deviation : (n,) or None; refinement : (k, 2) or None, what with the code makes the shape again
    """

    vertices: Points
    faces: Faces
    code: Code
    pose: Matrix
    observed: Scalars | None = None
    refinement: Refinement | None = None
    deviation: Scalars | None = None
    residual: float = 0.0
    explained: float = 0.0
    confidence: float = 1.0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_faces(self.faces, self.vertices)
        _check_one_each("observed", self.observed, self.vertices)
        _check_one_each("deviation", self.deviation, self.vertices)


# --- to the server -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """Greets; also says that the client is still there."""

    kind: ClassVar[str] = "hello"
    client: str = ""
    """a name for the log"""
    software: str = ""
    """name and version of the client"""


@dataclass(frozen=True)
class Submit:
    """Asks for a job. The client makes its name, so that the same submission twice is one job.

    complete, reconstruct : one shape a source, or `candidates` of each in turn; encode : one shape a source, with code
    and pose and without a mesh; interpolate : `count` shapes between the sources, or between `codes`; sample : `count`
    new shapes, with `codes` of one row near that code; decode : the shapes of `codes`, (n, code_length), that stand at
    `poses`, (n, 4, 4), moved by `weights`, (n, k), where there are some; echo : the sources come back as they are, to
    try and to measure the way to a worker.
    """

    kind: ClassVar[str] = "submit"
    job: str
    task: str
    model: str = ""
    settings: TaskSettings = field(default_factory=TaskSettings)
    sources: tuple[Source, ...] = ()
    codes: Codes | None = None
    poses: Matrices | None = None
    weights: Codes | None = None
    """for decode: standard deviations along the model's main directions of variation, from `codes` or from the mean"""
    refinements: tuple[Refinement, ...] = ()
    """for decode and interpolate: by what the shapes of `codes` were corrected, without rows where by nothing"""
    count: int = 1
    spread: float = 0.0
    """for sample near a code: how far, as a share of the spread of the training codes"""
    keep: float = 10.0
    """seconds that the job, and then its result, waits for a client that is not heard of"""

    def __post_init__(self) -> None:
        _check_job(self.job)
        if self.task not in TASKS:
            raise ValueError(f"the task {self.task!r} is none of {', '.join(TASKS)}")
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}; it must not be negative")
        if self.count < 1:
            raise ValueError(f"count is {self.count}; at least one shape must be asked for")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread is {self.spread}; it must lie in 0 to 1")


@dataclass(frozen=True)
class Cancel:
    """Asks that a job end; the server answers with the same kind at once, and with an `error` when it has ended."""

    kind: ClassVar[str] = "cancel"
    job: str

    def __post_init__(self) -> None:
        _check_job(self.job)


@dataclass(frozen=True)
class StatusRequest:
    """Asks how the server does, or how one job does.

    With `job`, the answer is that job's last message (accepted, progress, result or error), and all that follow go to
    the asker: so a client that was away gets its job back.
    """

    kind: ClassVar[str] = "status"
    job: str | None = None

    def __post_init__(self) -> None:
        if self.job is not None:
            _check_job(self.job)


# --- from the server ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInfo:
    """One model that can be named; `problem` says why it cannot be used, where it cannot."""

    name: str
    front: str = ""
    code_length: int = 0
    shapes: int = 0
    licences: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Welcome:
    """Answers a greeting."""

    kind: ClassVar[str] = "hello"
    software: str
    limits: Limits = field(default_factory=Limits)
    models: tuple[ModelInfo, ...] = ()
    devices: tuple[str, ...] = ()
    silence: float = 10.0
    """seconds after which a client that says nothing counts as gone; a `hello` now and then is enough"""


@dataclass(frozen=True)
class Accepted:
    """The job waits; `position` jobs are before it."""

    kind: ClassVar[str] = "accepted"
    job: str
    position: int = 0


@dataclass(frozen=True)
class Preview:
    """A coarse mesh of a job that still runs."""

    vertices: Points
    faces: Faces
    source: int = 0
    """which of the job's sources it is of"""

    def __post_init__(self) -> None:
        _check_faces(self.faces, self.vertices)


@dataclass(frozen=True)
class Progress:
    """The job runs. `fraction` is the share of its phase, 0 to 1."""

    kind: ClassVar[str] = "progress"
    job: str
    phase: str
    fraction: float
    preview: Preview | None = None


@dataclass(frozen=True)
class Result:
    """The job is done. For `echo` there are `sources` instead of shapes."""

    kind: ClassVar[str] = "result"
    job: str
    shapes: tuple[Shape, ...] = ()
    sources: tuple[Source, ...] = ()
    cached: bool = False
    """the same was asked before, and nothing was computed"""


@dataclass(frozen=True)
class Error:
    """The job has failed, or, without a job, the message could not be used. `code` is one of `ERROR_CODES`."""

    kind: ClassVar[str] = "error"
    code: str
    message: str
    job: str | None = None


@dataclass(frozen=True)
class Cancelling:
    """The server has heard the wish to cancel; `state` is what the job was doing: queued, running or finished."""

    kind: ClassVar[str] = "cancel"
    job: str
    state: str


@dataclass(frozen=True)
class Busy:
    """The job was not taken because the queue is full; submit it again later."""

    kind: ClassVar[str] = "busy"
    job: str
    queued: int
    limit: int
    message: str = ""


@dataclass(frozen=True)
class WorkerInfo:
    """One worker; `state` is starting, idle or running."""

    name: str
    device: str
    state: str
    pid: int = 0
    job: str | None = None
    models: tuple[str, ...] = ()
    """models in its memory"""
    memory_bytes: int = 0
    """of the process"""
    device_bytes: int = 0
    """that torch has reserved on the device; 0 on a CPU"""


@dataclass(frozen=True)
class Status:
    """How the server does; counts are since its start."""

    kind: ClassVar[str] = "status"
    software: str
    uptime: float
    workers: tuple[WorkerInfo, ...] = ()
    models: tuple[ModelInfo, ...] = ()
    clients: int = 0
    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    """jobs that were answered `busy`"""
    malformed: int = 0
    """messages that could not be used"""
    workers_lost: int = 0
    memory_bytes: int = 0
    """of the server process"""
    limits: Limits = field(default_factory=Limits)


Request = Hello | Submit | Cancel | StatusRequest
Reply = Welcome | Accepted | Progress | Result | Error | Cancelling | Busy | Status
REQUESTS: dict[str, type] = {kind.kind: kind for kind in (Hello, Submit, Cancel, StatusRequest)}
REPLIES: dict[str, type] = {
    kind.kind: kind for kind in (Welcome, Accepted, Progress, Result, Error, Cancelling, Busy, Status)
}


def _check_job(job: str) -> None:
    if not JOB_PATTERN.fullmatch(job):
        raise ValueError(f"the job's name {job[:80]!r} is not 8 to 64 letters, digits, hyphens and underscores")


def _check_faces(faces: np.ndarray | None, vertices: np.ndarray) -> None:
    """Refuse a face of a vertex that is not there; whoever draws it might read beyond the array's end."""
    # An outlined header's arrays have no values, and no strides.
    if faces is not None and faces.size and faces.dtype.kind in "iu" and any(faces.strides):
        # Seen as unsigned, a negative number is a large one.
        largest = faces.view(faces.dtype.str.replace("i", "u")).max()
        if largest >= len(vertices):
            raise ValueError(f"a face names a vertex that is none of the {len(vertices)} that there are")


def _check_one_each(name: str, values: np.ndarray | None, vertices: np.ndarray) -> None:
    if values is not None and len(values) != len(vertices):
        raise ValueError(f"{name} has the length {len(values)}; there are {len(vertices)} vertices")
