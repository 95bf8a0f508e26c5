"""The messages of the wire, one dataclass for each kind; PROTOCOL.md describes them for other languages.

`REQUESTS` are sent to the server, `REPLIES` by it. `codec.py` encodes and decodes them by their type hints.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar

import numpy as np

from .errors import ErrorCode
from .settings import TaskSettings

JOB_PATTERN = re.compile(r"[A-Za-z0-9_-]{8,64}")
# As the name of a model: the one that explains the inputs best is chosen.
AUTO_MODEL = "auto"


class Task(StrEnum):
    """The task of a job; `serving/task_table.py` says how the backend checks and runs each."""

    COMPLETE = "complete"
    RECONSTRUCT = "reconstruct"
    ENCODE = "encode"
    INTERPOLATE = "interpolate"
    SAMPLE = "sample"
    DECODE = "decode"
    ECHO = "echo"


class JobState(StrEnum):
    """The state of a job at the server."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class WorkerState(StrEnum):
    """The state of a worker process."""

    STARTING = "starting"
    IDLE = "idle"
    RUNNING = "running"
    LOST = "lost"
    """with its machine, which is expected back"""


@dataclass(frozen=True)
class ArraySpec:
    """The dtypes that an array may have, by name, and its shape, with None for any length."""

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
    """What the server accepts, announced in its `hello`. A client applies the same size limits to replies."""

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
    """queued jobs of all clients together"""
    client_queue: int = 64
    """queued jobs of one client, or of one user where there are keys"""
    job_seconds: float = 600.0
    """longest run time of a job"""
    keep_seconds: float = 3600.0
    """longest time that a job or its result is kept for an absent client"""


@dataclass(frozen=True)
class Source:
    """One input in its own frame and units: a mesh, or a point cloud if it has no faces.

    vertices : (n, 3); faces : (m, 3) or None; normals : (n, 3) or None; sensor : its position x, y, z, or None;
    colors : (n, 3), sRGB from 0 to 1, or None
    """

    vertices: Points
    faces: Faces | None = None
    normals: Points | None = None
    sensor: tuple[float, float, float] | None = None
    colors: Points | None = None

    def __post_init__(self) -> None:
        _check_faces(self.faces, self.vertices)
        _check_length("normals", self.normals, self.vertices)
        _check_length("colors", self.colors, self.vertices)


# Chosen by eye when the warning was written; no record says on which shapes.
AMBIGUOUS_CONFIDENCE = 0.15


@dataclass(frozen=True)
class Shape:
    """A finished shape; the task `encode` leaves vertices and faces empty. See `sdf_backend.engine.Shape`.

    vertices : (n, 3); faces : (m, 3); code : (1, code_length); pose : (1, 4, 4), canonical frame -> the input's frame;
    observed, deviation : (n,) or None; refinement : (k, 2) or None, the residual field; colors : (n, 3), sRGB from 0 to
    1, or None
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
    """users are told that the pose is ambiguous below `AMBIGUOUS_CONFIDENCE`"""
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    kept_vertices: int = 0
    """with `keep`: how many of the first vertices are those of the input, unchanged"""
    kept_faces: int = 0
    """the same of faces"""
    note: str = ""
    """with `keep`, `triangles` and `quads`: sentences for the user, such as why the input could not be kept"""
    colors: Points | None = None
    model: str = ""
    """the model that was chosen for the input; empty where the job named one"""
    model_confidence: float = 1.0
    """how much better it explains the input than any other model"""
    quads: int = 0
    """with `quads`: how many quads the faces begin with, each as two triangles, (a, b, c) and then (a, c, d)"""

    def __post_init__(self) -> None:
        _check_faces(self.faces, self.vertices)
        _check_length("observed", self.observed, self.vertices)
        _check_length("colors", self.colors, self.vertices)
        _check_length("deviation", self.deviation, self.vertices)
        if not (0 <= self.kept_vertices <= len(self.vertices) and 0 <= self.kept_faces <= len(self.faces)):
            raise ValueError(
                f"more vertices or faces are kept ({self.kept_vertices}, {self.kept_faces}) than there are"
            )
        if not 0 <= 2 * self.quads <= len(self.faces):
            raise ValueError(f"{self.quads} quads are announced in {len(self.faces)} triangles")


# --- to the server -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """A greeting, and the heartbeat of a client."""

    kind: ClassVar[str] = "hello"
    client: str = ""
    """a name for the log"""
    software: str = ""
    """name and version of the client"""
    secret: str = ""
    """without keys: what owns the jobs of the connection; empty for those of clients without one"""


@dataclass(frozen=True)
class Submit:
    """Submits a job. The client chooses its name, so that a repeated submission is the same job.

    What each task takes and returns is in the table of tasks of PROTOCOL.md. Arrays: `codes` (n, code_length), `poses`
    (n, 4, 4), `weights` (n, k).
    """

    kind: ClassVar[str] = "submit"
    job: str
    task: str
    """a `Task`, or its value"""
    model: str = ""
    """its name, or for inputs `AUTO_MODEL`"""
    settings: TaskSettings = field(default_factory=TaskSettings)
    sources: tuple[Source, ...] = ()
    codes: Codes | None = None
    poses: Matrices | None = None
    weights: Codes | None = None
    """for decode: standard deviations along the principal directions of the codes, from `codes` or from the mean"""
    refinements: tuple[Refinement, ...] = ()
    """for decode and interpolate: the residual field of the shape of each code, without rows if it has none"""
    count: int = 1
    spread: float = 0.0
    """for sample near a code: the distance, as a share of the spread of the training codes"""
    keep: float = 10.0
    """seconds that the job, and then its result, is kept for an absent client"""

    def __post_init__(self) -> None:
        _check_job(self.job)
        if self.task not in list(Task):
            raise ValueError(f"unknown task {self.task!r}; use one of {', '.join(Task)}")
        object.__setattr__(self, "task", Task(self.task))
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}; use 0 or more")
        if self.count < 1:
            raise ValueError(f"count is {self.count}; use 1 or more")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread is {self.spread}; use 0 to 1")


@dataclass(frozen=True)
class Cancel:
    """Cancels a job; the server answers with the same kind at once, and with an `error` when the job has ended."""

    kind: ClassVar[str] = "cancel"
    job: str

    def __post_init__(self) -> None:
        _check_job(self.job)


@dataclass(frozen=True)
class StatusRequest:
    """Asks for the status of the server, or of one job.

    With `job`, the answer is the last message of that job (accepted, progress, result or error), and all later ones go
    to this client: so a client that reconnects gets its job back.
    """

    kind: ClassVar[str] = "status"
    job: str | None = None

    def __post_init__(self) -> None:
        if self.job is not None:
            _check_job(self.job)


# --- from the server ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInfo:
    """One model; `problem` says why it cannot be used, and is empty otherwise."""

    name: str
    front: str = ""
    code_length: int = 0
    shapes: int = 0
    licences: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Welcome:
    """Answers a greeting: limits, models and devices of the server."""

    kind: ClassVar[str] = "hello"
    software: str
    limits: Limits = field(default_factory=Limits)
    models: tuple[ModelInfo, ...] = ()
    devices: tuple[str, ...] = ()
    silence: float = 10.0
    """seconds after which a silent client is treated as disconnected; a regular `hello` is enough"""


@dataclass(frozen=True)
class Accepted:
    """The job is queued, with `position` jobs ahead of it."""

    kind: ClassVar[str] = "accepted"
    job: str
    position: int = 0


@dataclass(frozen=True)
class Preview:
    """A coarse mesh of a running job."""

    vertices: Points
    faces: Faces
    source: int = 0
    """index of the source among those of the job"""

    def __post_init__(self) -> None:
        _check_faces(self.faces, self.vertices)


@dataclass(frozen=True)
class Progress:
    """The job is running; `fraction` of its phase is done, 0 to 1."""

    kind: ClassVar[str] = "progress"
    job: str
    phase: str
    fraction: float
    preview: Preview | None = None


@dataclass(frozen=True)
class Result:
    """The result of a job: shapes, or for `echo` sources."""

    kind: ClassVar[str] = "result"
    job: str
    shapes: tuple[Shape, ...] = ()
    sources: tuple[Source, ...] = ()
    cached: bool = False
    """all of it came from the cache; nothing was computed"""


@dataclass(frozen=True)
class Error:
    """The job has failed, or, without a job, a message could not be used."""

    kind: ClassVar[str] = "error"
    code: ErrorCode | str
    """of a later server perhaps a code that is not known here"""
    message: str
    job: str | None = None


@dataclass(frozen=True)
class Cancelling:
    """Confirms a cancellation; `state` is the state of the job at that time."""

    kind: ClassVar[str] = "cancel"
    job: str
    state: JobState | str


@dataclass(frozen=True)
class Busy:
    """The job was rejected because the queue is full; submit it again later."""

    kind: ClassVar[str] = "busy"
    job: str
    queued: int
    limit: int
    message: str = ""


@dataclass(frozen=True)
class WorkerInfo:
    """One worker process."""

    name: str
    device: str
    state: WorkerState | str
    pid: int = 0
    job: str | None = None
    models: tuple[str, ...] = ()
    """models in memory"""
    memory_bytes: int = 0
    """of the process"""
    device_bytes: int = 0
    """reserved by torch on the device; 0 on a CPU"""


@dataclass(frozen=True)
class Status:
    """The status of the server; counts are since its start."""

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
    """jobs answered with `busy`"""
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
        raise ValueError(f"the job name {job[:80]!r} is not 8 to 64 letters, digits, hyphens and underscores")


def _check_faces(faces: np.ndarray | None, vertices: np.ndarray) -> None:
    """Refuse a vertex index out of range: a program that draws the face might read beyond the end of the array."""
    # Arrays of `Header.without_values` have no values, and zero strides.
    if faces is not None and faces.size and faces.dtype.kind in "iu" and any(faces.strides):
        # Viewed as unsigned, a negative index is a large one.
        largest = faces.view(faces.dtype.str.replace("i", "u")).max()
        if largest >= len(vertices):
            raise ValueError(f"a face has a vertex index out of range; there are {len(vertices)} vertices")


def _check_length(name: str, values: np.ndarray | None, vertices: np.ndarray) -> None:
    if values is not None and len(values) != len(vertices):
        raise ValueError(f"{name} has {len(values)} rows; there are {len(vertices)} vertices")
