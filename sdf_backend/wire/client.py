"""The client of a backend: for a timer in Blender, for the command line, for a notebook.

    with Client("tcp://127.0.0.1:5577") as client:
        client.wait_connected()
        result = client.run(Submit(new_job(), "complete", "airplanes", sources=(Source(vertices, faces),)), print)

and without blocking, a few times a second:

    for event in client.poll():
        match event:
            case StateChanged(state, reason): ...
            case Progress(job, phase, fraction): ...
            case Result(job, shapes): ...
            case Error(code, message, job): ...

A job that was submitted is followed until it ends, over lost connections and restarts of the server: after each the
server is asked for it, and gets it once more if it has forgotten it. Every job ends with one `Result`, `Error` or
`Busy`. A client belongs to one thread.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from .codec import Frame, WireError, build, decode, encode, read_header
from .connection import Connection, State, StateChanged, Timing
from .keys import read_client_keys
from .messages import (
    REQUESTS,
    Accepted,
    Busy,
    Cancel,
    Cancelling,
    Error,
    Hello,
    Progress,
    Reply,
    Result,
    Status,
    StatusRequest,
    Submit,
    Welcome,
)

__all__ = ["Client", "ClientError", "Event", "State", "StateChanged", "Timing", "new_job"]

Event = Reply | StateChanged
# A job that was sent this often, and of which a server never knew when asked, is perhaps what the server dies of.
SUBMISSIONS = 5
# How often a blocking call looks at its clocks, seconds.
TICK = 0.25


class ClientError(WireError):
    """A connection or a job has failed; `code` is the server's, or one of `State`, or no_connection."""


def new_job() -> str:
    """A name for a job that nobody else has."""
    return uuid.uuid4().hex


@dataclass
class _Job:
    """A job that has not ended. Its frames are kept for a server that forgets it; None where only its name is known."""

    frames: Sequence[Frame] | None
    submissions: int = 0
    answered: bool = True
    """the last submission was"""
    questions: int = 0
    """that were asked about it and not answered"""
    cancelled: bool = False


class Client:
    """A connection to a backend and the jobs that wait for its answers."""

    def __init__(
        self,
        address: str,
        key_file: Path | str | None = None,
        name: str = "",
        software: str = "",
        timing: Timing | None = None,
    ) -> None:
        """Begin to connect; `poll` or a blocking call goes on with it.

        Raises `ClientError` for an address or a key file that cannot be used.
        """
        try:
            keys = None if key_file is None else read_client_keys(key_file)
            self._connection = Connection(address, keys, str(key_file), Hello(name, software), timing or Timing())
        except ValueError as error:
            raise ClientError("bad_value", str(error)) from error
        self._jobs: dict[str, _Job] = {}
        self._events: list[Event] = []
        self._polled_at = time.monotonic()

    @property
    def state(self) -> State:
        """What has become of the connection."""
        return self._connection.state

    @property
    def reason(self) -> str:
        """The state in one sentence, with what to do where something is wrong."""
        return self._connection.reason

    @property
    def welcome(self) -> Welcome | None:
        """What the server said of itself at last: its limits, models and devices."""
        return self._connection.welcome

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that have not ended."""
        return tuple(self._jobs)

    # --- without blocking --------------------------------------------------------------------------------------------

    def poll(self) -> list[Event]:
        """What has happened since the last call; never blocks and takes a few milliseconds at most."""
        self._work()
        events, self._events = self._events, []
        return events

    def submit(self, submit: Submit) -> str:
        """Ask for a job, now or as soon as there is a connection; returns its name.

        Its arrays are not copied: leave them as they are until the job has ended. Raises `WireError` for what the
        server would not take, arrays' values left aside, and `ClientError` for a closed client.
        """
        self._check_open()
        if submit.job not in self._jobs:
            frames = encode(submit)
            # The values of arrays are the server's to check: here somebody may be waiting for their mouse to move.
            build(read_header(frames, self._connection.limits).outlined(), REQUESTS)
            self._jobs[submit.job] = _Job(frames)
            if self.state is State.CONNECTED:
                self._submit(submit.job)
        return submit.job

    def fetch(self, job: str) -> None:
        """Ask for a job of an earlier client: what it does now, and then the rest of it."""
        self._check_open()
        if job not in self._jobs:
            decode(encode(StatusRequest(job)), REQUESTS, self._connection.limits)
            self._jobs[job] = _Job(None)
            if self.state is State.CONNECTED:
                self._ask(StatusRequest(job))

    def cancel(self, job: str) -> None:
        """Ask that a job end; it ends with an `Error` of the code `cancelled`, or with a result that was faster."""
        if job in self._jobs:
            self._jobs[job].cancelled = True
            if self.state is State.CONNECTED:
                self._ask(Cancel(job))
            elif self._jobs[job].frames and not self._jobs[job].submissions:
                self._end(Error("cancelled", "the job was cancelled before it was sent", job))

    def ask_status(self) -> None:
        """Ask how the server does; a `Status` comes with the events, if there is a connection."""
        if self.state is State.CONNECTED:
            self._ask(StatusRequest())

    def close(self) -> None:
        """End the connection. Jobs go on at the server for the time that they were to be kept; `fetch` finds them."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- blocking, for scripts ---------------------------------------------------------------------------------------

    def wait_connected(self, seconds: float = 10.0) -> Welcome:
        """Wait for the server's greeting; raises `ClientError` with the reason why there is none."""
        give_up = time.monotonic() + seconds
        while True:
            self._work()
            self._check_hope(give_up)
            if self.state is State.CONNECTED and self.welcome:
                # How it went until here is of no interest any more.
                self._events = [event for event in self._events if not isinstance(event, StateChanged)]
                return self.welcome
            self._connection.wait(min(TICK, give_up - time.monotonic()))

    def wait(self, job: str, on_event: Callable[[Event], None] | None = None, patience: float = 60.0) -> Result:
        """Wait for a job's result. `on_event` hears of the job's events, and of the connection's.

        Raises `ClientError` where the job fails, where the connection is refused, and where there is none for
        `patience` seconds; `KeyError` for a job that was never submitted nor fetched.
        """
        give_up = time.monotonic() + patience
        while True:
            self._work()
            for event in self._withdraw(job):
                if on_event:
                    on_event(event)
                match event:
                    case Result():
                        return event
                    case Error():
                        raise ClientError(event.code, event.message, job)
                    case Busy():
                        raise ClientError("busy", event.message or f"{event.queued} jobs wait; try again later", job)
            if job not in self._jobs:
                raise KeyError(f"the job {job!r} is not waited for; submit or fetch it first")
            if self.state is State.CONNECTED:
                give_up = time.monotonic() + patience
            self._check_hope(give_up)
            self._connection.wait(TICK)

    def run(self, submit: Submit, on_event: Callable[[Event], None] | None = None, patience: float = 60.0) -> Result:
        """Submit a job and wait for it; whatever ends the wait, Ctrl-C above all, cancels the job. Raises as `wait`."""
        job = self.submit(submit)
        try:
            return self.wait(job, on_event, patience)
        finally:
            self._cancel_now(job, 2.0)

    def wait_status(self, seconds: float = 5.0) -> Status:
        """Ask how the server does and wait for the answer; raises `ClientError` where none comes."""
        give_up = time.monotonic() + seconds
        self.wait_connected(seconds)
        self.ask_status()
        while True:
            self._work()
            for event in self._events:
                if isinstance(event, Status):
                    self._events.remove(event)
                    return event
            self._check_hope(give_up)
            self._connection.wait(TICK)

    def _cancel_now(self, job: str, seconds: float) -> None:
        """Cancel a job that has not ended, and wait a little until the server has heard it."""
        self.cancel(job)
        give_up = time.monotonic() + seconds
        while job in self._jobs and self.state is State.CONNECTED and time.monotonic() < give_up:
            self._work()
            if any(isinstance(event, Cancelling) for event in self._withdraw(job)):
                break
            self._connection.wait(TICK)
        self._jobs.pop(job, None)

    def _check_hope(self, give_up: float) -> None:
        """Raise where there is no connection and waiting on is of no use."""
        if self.state in (State.REFUSED, State.INCOMPATIBLE, State.CLOSED):
            raise ClientError(self.state.value, self.reason)
        if time.monotonic() >= give_up:
            raise ClientError("no_connection", self.reason)

    def _withdraw(self, job: str) -> list[Event]:
        """Take the events of a job and of the connection out of those that wait for `poll`."""
        mine = [event for event in self._events if isinstance(event, StateChanged) or _job_of(event) == job]
        self._events = [event for event in self._events if not any(event is taken for taken in mine)]
        return mine

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Let the connection work a little, and sort what it brings."""
        now = time.monotonic()
        asleep, self._polled_at = now - self._polled_at, now
        for event in self._connection.poll():
            self._sort(event)
        if self.welcome and asleep > self.welcome.silence and self.state is State.CONNECTED:
            # Our own thread was held up, and the server may have given up on us.
            self._resume()

    def _sort(self, event: Event) -> None:
        job = _job_of(event)
        if job is None:
            self._events.append(event)
            if isinstance(event, StateChanged) and event.state is State.CONNECTED:
                for waiting in self._jobs.values():
                    waiting.answered, waiting.questions = True, 0
                self._resume()
        elif job in self._jobs:
            self._answered(job, self._jobs[job], event)

    def _answered(self, name: str, job: _Job, event: Event) -> None:
        match event:
            case Error(code="unknown_job") if job.cancelled:
                self._end(Error("cancelled", "the job was cancelled, and the server no longer knows it", name))
            case Error(code="unknown_job") if job.frames and job.questions:
                job.questions -= 1
                # Where a submission is on its way, this answers a question that was asked before it.
                if job.answered:
                    self._submit(name)
            case Result() | Error() | Busy():
                self._end(event)
            case _:
                job.answered, job.questions = True, 0
                self._events.append(self._with_latest_preview(event) if isinstance(event, Progress) else event)

    def _with_latest_preview(self, progress: Progress) -> Progress:
        """The progress in place of an older one of the same job that nobody has seen yet."""
        for index, event in enumerate(self._events):
            if isinstance(event, Progress) and event.job == progress.job:
                del self._events[index]
                return replace(progress, preview=progress.preview or event.preview)
        return progress

    def _end(self, event: Result | Error | Busy) -> None:
        if event.job is not None:
            del self._jobs[event.job]
        self._events.append(event)

    def _resume(self) -> None:
        """Ask a server for all jobs that have not ended: it may have gone on, or have forgotten them."""
        for name, job in list(self._jobs.items()):
            if job.frames and not job.submissions:
                self._submit(name)
            else:
                self._ask(StatusRequest(name))
                if job.cancelled:
                    self._ask(Cancel(name))

    def _submit(self, name: str) -> None:
        job = self._jobs[name]
        assert job.frames is not None
        if job.submissions >= SUBMISSIONS:
            return self._end(Error("worker_lost", f"the server has lost this job {SUBMISSIONS} times", name))
        try:
            # The limits may be others than when the job was made: another server, or none yet.
            read_header(job.frames, self._connection.limits)
        except WireError as error:
            return self._end(Error(error.code, str(error), name))
        job.submissions, job.answered = job.submissions + 1, False
        return self._connection.send(job.frames)

    def _ask(self, message: Cancel | StatusRequest) -> None:
        """Send what a server that does not know the job answers with `unknown_job`."""
        if message.job is not None:
            self._jobs[message.job].questions += 1
        self._connection.send(encode(message))

    def _check_open(self) -> None:
        if self.state is State.CLOSED:
            raise ClientError("closed", self.reason)


def _job_of(event: Event) -> str | None:
    match event:
        case Accepted() | Progress() | Result() | Error() | Cancelling() | Busy():
            return event.job
    return None
