"""The connection and its jobs: what is so while Blender runs, and is never saved in a .blend.

Nothing here waits, and nothing touches Blender's data: `tick` tells what has come, and the job's purpose puts it there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .launcher import Launcher
from .wire.client import Client, ClientError, Event, State, StateChanged
from .wire.codec import WireError
from .wire.messages import Accepted, Busy, Error, Limits, Preview, Progress, Result, Submit, Welcome

# How long the server keeps a job whose Blender is not heard of: long enough for a crash and a restart of the backend.
KEEP_SECONDS = 600.0
WAITING, CANCELLING = "waiting", "cancelling"
# What the user can do, where the backend, which may be of any version, only says what is wrong.
REMEDIES = {
    "limit": "decimate the object, or lower the resolution or the number of shapes",
    "too_large": "decimate the object, or lower the resolution or the number of shapes",
    "out_of_memory": "lower the resolution, or give fewer or smaller objects at once",
    "unknown_model": "choose another under Model",
    "timed_out": "lower the quality or the resolution",
    "busy": "try again in a while",
}


def with_remedy(code: str, message: str) -> str:
    """An error of the wire in one sentence, with what to do about it."""
    remedy = REMEDIES.get(code, "")
    return f"{message}; {remedy}" if remedy else message


def explained(error: Exception) -> str:
    """What went wrong, with its remedy, of an error that is raised for the user to read."""
    return with_remedy(error.code, str(error)) if isinstance(error, WireError) else str(error)


class Purpose(Protocol):
    """What becomes of a job's messages in the scene. Work that takes long is done in steps; see `ticking.py`.

    Between two steps anything may happen: objects are looked up anew, never kept.
    """

    undoable: bool
    """its result is a step of undo of its own"""

    def preview(self, preview: Preview) -> Iterator[None]:
        """Show a coarse mesh while the job runs."""
        ...

    def finish(self, result: Result) -> Iterator[None]:
        """Show the result."""
        ...

    def fail(self) -> Iterator[None]:
        """Remove what was shown so far."""
        ...


@dataclass
class Job:
    """One job on its way."""

    name: str
    label: str
    """what the panel calls it"""
    purpose: Purpose
    quiet: bool = False
    """one that follows a slider; it has no row in the panel, and no step of undo"""
    phase: str = WAITING
    fraction: float = 0.0


@dataclass(frozen=True)
class Arrived:
    """Something to be shown in the scene: a coarse mesh of a job that runs, its result, or None where it has failed."""

    job: Job
    content: Preview | Result | None


@dataclass
class Session:
    """One per Blender."""

    jobs: dict[str, Job] = field(default_factory=dict)
    launcher: Launcher = field(default_factory=Launcher)
    notice: str = ""
    """the last thing that went wrong, for the panel"""
    untold: list[str] = field(default_factory=list)
    """what went wrong and has not been written to Blender's Info log yet"""

    is_local: bool = False
    """the backend of this connection is the one that was started here"""

    def __post_init__(self) -> None:
        self._client: Client | None = None
        self.address = ""
        self._given_up: list[Job] = []

    @property
    def state(self) -> State:
        """What has become of the connection."""
        return self._client.state if self._client else State.CLOSED

    @property
    def reason(self) -> str:
        """The state in one sentence."""
        return self._client.reason if self._client else "There is no backend; start one or connect to one first"

    @property
    def welcome(self) -> Welcome | None:
        """What the backend said of itself."""
        return self._client.welcome if self._client else None

    @property
    def models(self) -> list[str]:
        """Names of the models that can be used."""
        return [model.name for model in self.welcome.models if not model.problem] if self.welcome else []

    @property
    def lacking(self) -> str:
        """Why no shape can be asked for now, in one sentence; nothing where one can."""
        if self.state is not State.CONNECTED:
            return self.reason
        if self.models:
            return ""
        if self.welcome and self.welcome.devices:
            return "The backend has no model that can be used; its operator finds the reason in its log"
        return "The backend is still loading its models; try again in a moment"

    @property
    def limits(self) -> Limits:
        """What the backend takes."""
        return self.welcome.limits if self.welcome else Limits()

    def front(self, model: str) -> str:
        """The axis that points ahead in a model's canonical frame."""
        known = self.welcome.models if self.welcome else ()
        return next((one.front for one in known if one.name == model), "") or "+z"

    def connect(self, address: str, key_file: Path | None, software: str, is_local: bool = False) -> None:
        """Begin to connect; it goes on with every tick. Raises `ClientError` for an address or key that cannot be."""
        client = Client(address, key_file, name="Blender", software=software)
        self.close()
        self._client, self.address, self.notice, self.is_local = client, address, "", is_local

    def close(self) -> None:
        """End the connection; jobs that run are given up, which the next tick tells of."""
        for name in list(self.jobs):
            self.cancel(name)
        if self._client:
            self._client.poll()
            self._client.close()
        self._client, self.address, self.is_local = None, "", False
        self._given_up += self.jobs.values()
        self.jobs.clear()

    def submit(self, submit: Submit, job: Job) -> None:
        """Ask for a job. Raises `WireError` without a connection, and for what the backend never takes."""
        if self._client is None:
            raise ClientError("closed", self.reason)
        self._client.submit(submit)
        self.jobs[job.name] = job

    def cancel(self, name: str) -> None:
        """Ask that a job end; it is gone when the backend says so."""
        if self._client and name in self.jobs:
            self.jobs[name].phase = CANCELLING
            self._client.cancel(name)

    def forget(self, name: str) -> None:
        """Cancel a job and have nothing to do with it any more."""
        self.cancel(name)
        self.jobs.pop(name, None)

    def say(self, notice: str) -> None:
        """Tell the user, in the panel and in the Info log."""
        self.notice = notice
        self.untold.append(notice)

    def tick(self) -> Iterator[Arrived]:
        """What has come since the last tick."""
        while self._given_up:
            yield Arrived(self._given_up.pop(0), None)
        if self._client is None:
            return
        for event in self._client.poll():
            arrived = self._heard(event)
            if arrived:
                yield arrived

    def lose(self, reason: str) -> None:
        """End the connection and all jobs, since there is nobody any more who could do them."""
        self.close()
        self.say(reason)

    def _heard(self, event: Event) -> Arrived | None:
        if isinstance(event, StateChanged):
            self.notice = ""
            if event.state is not State.CONNECTED:
                self.say(event.reason)
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
            case Error(code=code, message=message):
                return self._failed(job, code, message)
            case Busy(message=message):
                return self._failed(job, "busy", message or f"{event.queued} jobs wait already")
        return None

    def _failed(self, job: Job, code: str, message: str) -> Arrived:
        del self.jobs[job.name]
        self.say(f"{job.label}: {with_remedy(code, message)}")
        return Arrived(job, None)


session = Session()
