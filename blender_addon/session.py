"""The run-time state of the add-on: connection, local backend, jobs and results that are not displayed yet.

None of it is saved in a .blend file. Nothing here blocks or accesses Blender's data: `Session.poll` yields what has
arrived, and the result handler of the job displays it.
"""

import math
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from .installer import Installer
from .launcher import Launcher
from .translations import translated_message
from .wire.client import Client, ClientError, Event, State, StateChanged
from .wire.codec import WireError
from .wire.errors import InputError
from .wire.messages import Accepted, Busy, Error, Limits, ModelInfo, Preview, Progress, Result, Submit, Welcome

# Seconds for which the server keeps a job whose client is silent: enough to restart a backend that has crashed.
KEEP_SECONDS = 600.0
# The same for a job that goes on while Blender is closed; a server keeps it no longer than its own limit.
LEFT_SECONDS = 3600.0
# What the user can do; the backend, which may be of another version, only says what went wrong.
REMEDIES = {
    "limit": "decimate the object, or lower the resolution or the number of shapes",
    "too_large": "decimate the object, or lower the resolution or the number of shapes",
    "out_of_memory": "lower the resolution, or use fewer or smaller objects at once",
    "unknown_model": "choose another one under Model",
    "timed_out": "lower the quality or the resolution",
    "busy": "try again in a while",
    "unknown_job": "complete the object again",
}
Steps = Iterator[None]
# What a result handler returns that needs one step only.
NO_MORE_STEPS: Steps = iter(())


def with_remedy(code: str, message: str) -> str:
    """The message of a wire error, followed by a remedy if there is one."""
    parts = (message, REMEDIES.get(code, ""))
    return "; ".join(translated_message(part) for part in parts if part)


def error_sentence(error: Exception) -> str:
    """The message of an error as a sentence for the user, with a remedy."""
    if isinstance(error, WireError):
        return capitalised(with_remedy(error.code, str(error)))
    message = translated_message(str(error))
    return capitalised(message) if isinstance(error, InputError) else message  # others begin with a name


def capitalised(text: str) -> str:
    """The text with its first letter in upper case; the rest is unchanged."""
    return text[:1].upper() + text[1:]


class JobState(StrEnum):
    """The state of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    """the backend has not confirmed it yet"""
    FINISHED = "finished"
    """its result waits to be displayed"""


class ResultHandler(Protocol):
    """Displays the messages of one job in the scene; long work is done in steps, see `timer.py`.

    A method that needs one step does its work and returns `NO_MORE_STEPS`; a generator yields between its steps, and
    not after the last. The user may do anything between two steps, so objects are looked up by session UID in each.
    After an undo between two steps `finish` is called again, and starts over.
    """

    undoable: bool
    """whether the result becomes an undo step"""

    def preview(self, preview: Preview) -> Steps:
        """Display a coarse mesh while the job runs."""
        ...

    def finish(self, result: Result) -> Steps:
        """Display the result."""
        ...

    def fail(self) -> Steps:
        """Remove the preview of a job that failed or was cancelled."""
        ...


@dataclass
class Job:
    """A job that has not ended."""

    name: str
    label: str
    """its title in the panel"""
    handler: ResultHandler
    hidden: bool = False
    """not listed in the panel: the job follows a slider"""
    state: JobState = JobState.WAITING
    queued_ahead: int = 0
    """jobs that the backend runs before it"""
    phase: str = ""
    """what the backend is doing, as it says"""
    fraction: float = 0.0
    """progress of the phase, 0 to 1"""
    held_back: str = ""
    """why the result is not displayed yet, in words"""
    kind: Hashable = None
    """jobs of the same kind take about as long"""
    started: float | None = None
    """when it began to run, `time.monotonic` seconds"""


@dataclass(eq=False)
class Delivery:
    """Something of a job to display in the scene: a preview, the result, or None for a job without a result."""

    job: Job
    content: Preview | Result | None
    _steps: Steps | None = None

    def step(self) -> bool:
        """Do the next step of displaying it; True after the last."""
        if self._steps is None:
            self._steps = self._begin()
        try:
            next(self._steps)
        except StopIteration:
            return True
        return False

    def restart(self) -> None:
        """Begin with the first step again."""
        self._steps = None

    @property
    def is_undo_step(self) -> bool:
        """Whether the scene with it becomes an undo step."""
        return isinstance(self.content, Result) and self.job.handler.undoable

    def _begin(self) -> Steps:
        match self.content:
            case Preview():
                return self.job.handler.preview(self.content)
            case Result():
                return self.job.handler.finish(self.content)
            case None:
                return self.job.handler.fail()


@dataclass
class SliderActivity:
    """Which sliders have moved, by the session UID of their object; see `sliders.py`."""

    moved_at: dict[int, float] = field(default_factory=dict)
    """the time of the last move that no full mesh follows yet, `time.monotonic` seconds"""
    submitted: dict[int, tuple[str, list[float]]] = field(default_factory=dict)
    """the last job, and the slider values and resolution that it was submitted with"""
    muted: bool = False
    """whether moves are ignored"""
    directions: dict[str, Any] = field(default_factory=dict)
    """the `Directions` of variation of a model; None if they cannot be known"""
    asked: set[str] = field(default_factory=set)
    """the models whose directions were asked for"""

    @contextmanager
    def mute(self) -> Iterator[None]:
        """Ignore moves, while the add-on itself sets sliders."""
        self.muted = True
        try:
            yield
        finally:
            self.muted = False

    def clear(self) -> None:
        """Forget all moves and jobs."""
        self.moved_at.clear()
        self.submitted.clear()
        self.asked &= set(self.directions)


@dataclass
class Session:
    """The session; there is one per Blender."""

    jobs: dict[str, Job] = field(default_factory=dict)
    launcher: Launcher = field(default_factory=Launcher)
    installer: Installer = field(default_factory=Installer)
    notice: str = ""
    """the last error, for the panel"""
    unreported: list[str] = field(default_factory=list)
    """errors that are not in Blender's Info log yet"""
    deliveries: deque[Delivery] = field(default_factory=deque)
    """what has arrived and is not displayed yet, in order of arrival"""
    sliders: SliderActivity = field(default_factory=SliderActivity)
    durations: dict[Hashable, list[float]] = field(default_factory=dict)
    """how long the jobs of each kind have taken, seconds"""
    shading_before: dict[int, Any] = field(default_factory=dict)
    """the shading of each view, by its address, before a material was shown there"""
    status_text: str = ""
    """the current text of the status bar"""
    recorded: set[str] = field(default_factory=set)
    """the jobs that have a file, so that another Blender can fetch their results; see `unfinished.py`"""
    offered: list[Any] = field(default_factory=list)
    """records of jobs that were running when Blender closed"""
    looked_at: float = -math.inf
    """when the records were last looked at, `time.monotonic` seconds"""
    drawn: tuple[object, ...] = ()
    """what the panels showed when they were last redrawn"""
    is_local: bool = False
    """whether the connection is to the backend that this Blender started"""

    def __post_init__(self) -> None:
        self._client: Client | None = None
        self.address = ""
        self._abandoned: list[Job] = []

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self._client.state if self._client else State.CLOSED

    @property
    def listed_jobs(self) -> list[Job]:
        """The jobs that the panel lists: those that have not ended, and those whose result waits to be displayed."""
        ended = [one.job for one in self.deliveries if isinstance(one.content, Result) and one.job.held_back]
        return [job for job in (*self.jobs.values(), *ended) if not job.hidden]

    @property
    def reason(self) -> str:
        """The state of the connection as a sentence."""
        if self._client is None:
            return "No backend is connected; start one or connect to one first"
        return capitalised(self._client.reason)

    @property
    def welcome(self) -> Welcome | None:
        """The backend's greeting, with its models, devices and limits."""
        return self._client.welcome if self._client else None

    @property
    def models(self) -> list[str]:
        """Names of the models that can be used."""
        return [model.name for model in self.usable_models]

    @property
    def usable_models(self) -> list[ModelInfo]:
        """The models that can be used."""
        return [model for model in self.welcome.models if not model.problem] if self.welcome else []

    @property
    def unavailable_reason(self) -> str:
        """Why no shape can be requested now, as a sentence; empty if one can be."""
        if self.state is not State.CONNECTED:
            return self.reason
        if self.models:
            return ""
        if self.welcome and self.welcome.devices:
            return "The backend has no usable model; its operator finds the reason in the log"
        return "The backend is still loading its models; try again in a moment"

    @property
    def keep_seconds(self) -> float:
        """For how long the backend keeps a job of Complete or Reconstruct; a local one ends with Blender."""
        return KEEP_SECONDS if self.is_local else LEFT_SECONDS

    @property
    def limits(self) -> Limits:
        """The limits of the backend."""
        return self.welcome.limits if self.welcome else Limits()

    def front(self, model: str) -> str:
        """The front axis of a model's canonical frame."""
        models = self.welcome.models if self.welcome else ()
        return next((info.front for info in models if info.name == model), "") or "+z"

    def connect(
        self, address: str, key_file: Path | None, software: str, is_local: bool = False, secret: str = ""
    ) -> None:
        """Begin to connect; `poll` continues. Raises `ClientError` for an address or key file that is not valid."""
        client = Client(address, key_file, name="Blender", software=software, secret=secret)
        self.close()
        self._client, self.address, self.notice, self.is_local = client, address, "", is_local
        self.sliders.directions.clear()
        self.sliders.asked.clear()  # a model of the same name may be another one there

    def close(self, leaving: bool = False) -> None:
        """Close the connection and abandon its jobs, which the next `poll` delivers as failed.

        leaving : whether Blender closes; then the backend goes on with what another Blender can fetch
        """
        for name in self.jobs.keys() - (self.recorded if leaving else set()):
            self.cancel(name)
        if self._client:
            self._client.poll()
            self._client.close()
        self._client, self.address, self.is_local = None, "", False
        self._abandoned += self.jobs.values()
        self.jobs.clear()

    def submit(self, submit: Submit, job: Job) -> None:
        """Submit a job. Raises `WireError` without a connection, and for what exceeds the backend's limits."""
        if self._client is None:
            raise ClientError("closed", self.reason)
        self._client.submit(submit)
        asked = submit.settings
        job.kind = (
            *(submit.task, submit.model, submit.count, len(submit.sources)),
            *(asked.quality, asked.pose, asked.resolution, asked.candidates),
        )
        self.jobs[job.name] = job

    def seconds_left(self, job: Job) -> float | None:
        """How long a job may still run, by the median of earlier ones; None without one, and when that is over."""
        earlier = self.durations.get(job.kind)
        if not earlier or job.started is None:
            return None
        left = median(earlier) - (time.monotonic() - job.started)
        return left if left > 0 else None

    def fetch(self, job: Job) -> None:
        """Take over a job of a Blender that has closed. Raises `WireError` without a connection."""
        if self._client is None:
            raise ClientError("closed", self.reason)
        self._client.fetch(job.name)
        self.jobs[job.name] = job

    def cancel(self, name: str) -> None:
        """Request that a job end; it is listed until the backend confirms that."""
        if self._client and name in self.jobs:
            self.jobs[name].state = JobState.CANCELLING
            self._client.cancel(name)

    def abandon_jobs(self) -> None:
        """Cancel all jobs and discard what has arrived and what may still arrive of them."""
        for name in list(self.jobs):
            self.cancel(name)
        self.jobs.clear()
        self.deliveries.clear()
        self.sliders.clear()

    def notify(self, notice: str) -> None:
        """Show an error in the panel and in the Info log."""
        self.notice = notice
        self.unreported.append(notice)

    def drop_connection(self, reason: str) -> None:
        """Close the connection because of an error."""
        self.close()
        self.notify(reason)

    def poll(self) -> Iterator[Delivery]:
        """Yield what has arrived since the last call."""
        while self._abandoned:
            yield Delivery(self._abandoned.pop(0), None)
        if self._client is None:
            return
        for event in self._client.poll():
            delivery = self._receive(event)
            if delivery:
                yield delivery

    def _receive(self, event: Event) -> Delivery | None:
        if isinstance(event, StateChanged):
            self.notice = ""
            if event.state is not State.CONNECTED:
                self.notify(capitalised(event.reason))
            return None
        job = self.jobs.get(getattr(event, "job", None) or "")
        if job is None:
            return None
        match event:
            case Accepted(position=position) if job.state is not JobState.CANCELLING:
                job.state, job.queued_ahead, job.fraction, job.started = JobState.WAITING, position, 0.0, None
            case Progress(phase=phase, fraction=fraction, preview=preview):
                if job.state is not JobState.CANCELLING:
                    job.state, job.phase, job.fraction = JobState.RUNNING, phase, fraction
                    job.started = job.started or time.monotonic()
                return Delivery(job, preview) if preview else None
            case Result(cached=cached):
                del self.jobs[job.name]
                if job.kind and job.started and not cached:
                    self.durations.setdefault(job.kind, []).append(time.monotonic() - job.started)
                job.state, job.fraction = JobState.FINISHED, 1.0
                return Delivery(job, event)
            case Error(code="cancelled"):
                del self.jobs[job.name]
                return Delivery(job, None)
            case Error(code=code, message=message):
                return self._fail_job(job, code, message)
            case Busy(message=message):
                return self._fail_job(job, "busy", message or f"{event.queued} jobs are queued already")
        return None

    def _fail_job(self, job: Job, code: str, message: str) -> Delivery:
        del self.jobs[job.name]
        self.notify(f"{job.label}: {with_remedy(code, message)}")
        return Delivery(job, None)


session = Session()
