"""The connection and its jobs: what is so while Blender runs, and is never saved in a .blend.

Nothing here waits, and nothing touches Blender's data: `tick` tells what has come, and `results.py` puts it there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .geometry import Seen
from .wire.client import Client, ClientError, Event, State, StateChanged
from .wire.messages import Accepted, Busy, Error, Preview, Progress, Result, Submit, Welcome

# How long the server keeps a job whose Blender is not heard of: long enough for a crash and a restart.
KEEP_SECONDS = 600.0
WAITING, CANCELLING = "waiting", "cancelling"


@dataclass
class Job:
    """One job on its way, and where its result is to stand."""

    name: str
    task: str
    model: str
    source: str
    """name of the object that it was asked for; objects themselves do not outlive an undo"""
    seen: Seen
    settings: dict[str, str | int]
    phase: str = WAITING
    fraction: float = 0.0
    error: str = ""
    placed: str = ""
    """name of the object that shows what there is so far"""


@dataclass(frozen=True)
class Arrived:
    """Something to be shown in the scene: a coarse mesh of a job that runs, its result, or None where it has failed."""

    job: Job
    content: Preview | Result | None


@dataclass
class Session:
    """One per Blender."""

    jobs: dict[str, Job] = field(default_factory=dict)
    notice: str = ""
    """the last thing that went wrong, for the panel"""

    def __post_init__(self) -> None:
        self._client: Client | None = None

    @property
    def state(self) -> State:
        """What has become of the connection."""
        return self._client.state if self._client else State.CLOSED

    @property
    def reason(self) -> str:
        """The state in one sentence."""
        return self._client.reason if self._client else "not connected"

    @property
    def welcome(self) -> Welcome | None:
        """What the backend said of itself."""
        return self._client.welcome if self._client else None

    @property
    def models(self) -> list[str]:
        """Names of the models that can be used."""
        return [model.name for model in self.welcome.models if not model.problem] if self.welcome else []

    def connect(self, address: str, key_file: Path | None, software: str) -> None:
        """Begin to connect; it goes on with every tick. Raises `ClientError` for an address or key that cannot be."""
        self.close()
        self._client = Client(address, key_file, name="Blender", software=software)
        self.notice = ""

    def close(self) -> None:
        """End the connection; jobs that run are given up."""
        for name in list(self.jobs):
            self.cancel(name)
        if self._client:
            self._client.poll()
            self._client.close()
        self._client = None
        self.jobs.clear()

    def submit(self, submit: Submit, job: Job) -> None:
        """Ask for a job. Raises `WireError` without a connection, and for what the backend never takes."""
        if self._client is None:
            raise ClientError("closed", "there is no backend; connect to one first")
        self._client.submit(submit)
        self.jobs[job.name] = job

    def cancel(self, name: str) -> None:
        """Ask that a job end; it is gone when the backend says so."""
        if self._client and name in self.jobs:
            self.jobs[name].phase = CANCELLING
            self._client.cancel(name)

    def tick(self) -> Iterator[Arrived]:
        """What has come since the last tick."""
        if self._client is None:
            return
        for event in self._client.poll():
            arrived = self._heard(event)
            if arrived:
                yield arrived

    def _heard(self, event: Event) -> Arrived | None:
        if isinstance(event, StateChanged):
            self.notice = "" if event.state is State.CONNECTED else event.reason
            return None
        job = self.jobs.get(getattr(event, "job", None) or "")
        if job is None:
            return None
        match event:
            case Accepted(position=position):
                job.phase, job.fraction = f"{WAITING}, {position} before it" if position else WAITING, 0.0
            case Progress(phase=phase, fraction=fraction, preview=preview):
                if job.phase != CANCELLING:
                    job.phase, job.fraction = phase, fraction
                return Arrived(job, preview) if preview else None
            case Result():
                del self.jobs[job.name]
                return Arrived(job, event)
            case Error(code="cancelled"):
                del self.jobs[job.name]
                return Arrived(job, None)
            case Error(message=message) | Busy(message=message):
                del self.jobs[job.name]
                job.error = self.notice = f"{job.source}: {message}"
                return Arrived(job, None)
        return None


session = Session()
