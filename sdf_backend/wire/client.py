"""A client of a backend: for a timer in Blender, the command line or a notebook.

    with Client("tcp://127.0.0.1:5577") as client:
        client.wait_connected()
        result = client.run(Submit(new_job(), "complete", "airplanes", sources=(Source(vertices, faces),)), print)

or without blocking, a few times a second:

    for event in client.poll():
        match event:
            case StateChanged(state, reason): ...
            case Progress(job, phase, fraction): ...
            case Result(job, shapes): ...
            case Error(code, message, job): ...

A submitted job is tracked until it ends, across lost connections and restarts of the server: after each reconnection
the client requests its status, and submits it again if the server does not know it. Every job ends with exactly one
`Result`, `Error` or `Busy`. A client belongs to one thread.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from .codec import Frame, WireError, build, decode, encode, read_header
from .connection import Connection, State, StateChanged, Timing
from .errors import ErrorCode
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
# A job that the server has lost this often may be what crashes it.
MAX_SUBMISSIONS = 5
# Seconds between two checks of the deadlines by a blocking call.
TICK = 0.25
NO_CONNECTION, BUSY = "no_connection", "busy"


class ClientError(WireError):
    """A connection or a job has failed; `code` is an `ErrorCode`, the value of a `State`, `NO_CONNECTION` or `BUSY`."""


def new_job() -> str:
    """Make a unique name for a job."""
    return uuid.uuid4().hex


@dataclass
class _Job:
    """A job that has not ended."""

    frames: Sequence[Frame] | None
    """the submission, for a server that has lost the job; None if only the name is known"""
    submissions: int = 0
    acknowledged: bool = True
    """the server has answered the last submission"""
    open_requests: int = 0
    """status requests and cancellations without an answer"""
    cancelled: bool = False


class Client:
    """A connection to a backend and the jobs submitted over it."""

    def __init__(
        self,
        address: str,
        key_file: Path | str | None = None,
        name: str = "",
        software: str = "",
        timing: Timing | None = None,
        secret: str = "",
    ) -> None:
        """Begin to connect; `poll` and the blocking calls continue.

        Parameters
        ----------
        address : tcp://HOST:PORT
        key_file : file made by `keygen`, for a backend with keys
        name, software : for the log of the server
        timing : shorter timeouts, for tests
        secret : that of an earlier client, to fetch its jobs from a backend without keys; by default a new one

        Raises
        ------
        ClientError : for an invalid address or key file
        """
        try:
            keys = None if key_file is None else read_client_keys(key_file)
            self.secret = secret or uuid.uuid4().hex
            hello = encode(Hello(name, software, self.secret))
            self._connection = Connection(address, keys, str(key_file), lambda: hello, timing or Timing())
        except ValueError as error:
            raise ClientError(ErrorCode.BAD_VALUE, str(error)) from error
        self._jobs: dict[str, _Job] = {}
        self._events: list[Event] = []
        self._polled_at = time.monotonic()

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self._connection.state

    @property
    def reason(self) -> str:
        """The state as one sentence, with what to do if something is wrong."""
        return self._connection.reason

    @property
    def welcome(self) -> Welcome | None:
        """The last greeting of the server: its limits, models and devices."""
        return self._connection.welcome

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that have not ended."""
        return tuple(self._jobs)

    # --- without blocking --------------------------------------------------------------------------------------------

    def poll(self) -> list[Event]:
        """Return the events since the last call; never blocks and takes a few milliseconds at most."""
        self._process()
        events, self._events = self._events, []
        return events

    def submit(self, submit: Submit) -> str:
        """Submit a job, now or as soon as there is a connection.

        Parameters
        ----------
        submit : the job; its arrays are not copied and must not change until the job has ended

        Returns
        -------
        The name of the job.

        Raises
        ------
        WireError : for a message that the server would refuse; values of arrays are not checked here
        ClientError : for a closed client
        """
        self._check_open()
        if submit.job not in self._jobs:
            frames = encode(submit)
            # The server checks the values of arrays: this thread may be that of a user interface.
            build(read_header(frames, self._connection.limits).without_values(), REQUESTS)
            self._jobs[submit.job] = _Job(frames)
            if self.state is State.CONNECTED:
                self._submit(submit.job)
        return submit.job

    def fetch(self, job: str) -> None:
        """Take over a job of an earlier client: its last message and all later ones come as events."""
        self._check_open()
        if job not in self._jobs:
            decode(encode(StatusRequest(job)), REQUESTS, self._connection.limits)
            self._jobs[job] = _Job(None)
            if self.state is State.CONNECTED:
                self._ask(StatusRequest(job))

    def cancel(self, job: str) -> None:
        """Cancel a job; it ends with an `Error` of code `cancelled`, or with its result if that was faster."""
        if job in self._jobs:
            self._jobs[job].cancelled = True
            if self.state is State.CONNECTED:
                self._ask(Cancel(job))
            elif self._jobs[job].frames and not self._jobs[job].submissions:
                self._end(Error(ErrorCode.CANCELLED, "the job was cancelled before it was sent", job))

    def ask_status(self) -> None:
        """Request the status of the server; a `Status` comes as an event, if there is a connection."""
        if self.state is State.CONNECTED:
            self._ask(StatusRequest())

    def close(self) -> None:
        """Close the connection. The server keeps running the jobs for their `keep` seconds; `fetch` takes them over."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- blocking, for scripts ---------------------------------------------------------------------------------------

    def wait_connected(self, seconds: float = 10.0) -> Welcome:
        """Wait for the greeting of the server; raises `ClientError` with the reason if there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            self._process()
            self._check_reachable(deadline)
            if self.state is State.CONNECTED and self.welcome:
                # The state changes until here are obsolete.
                self._events = [event for event in self._events if not isinstance(event, StateChanged)]
                return self.welcome
            self._connection.wait(min(TICK, deadline - time.monotonic()))

    def wait(self, job: str, on_event: Callable[[Event], None] | None = None, patience: float = 60.0) -> Result:
        """Wait for the result of a job.

        Parameters
        ----------
        job : its name
        on_event : called with each event of the job and of the connection
        patience : longest time without a connection, seconds

        Raises
        ------
        ClientError : if the job fails, the connection is refused, or there is none for `patience` seconds
        KeyError : for a job that was neither submitted nor fetched
        """
        deadline = time.monotonic() + patience
        while True:
            self._process()
            for event in self._take_events(job):
                if on_event:
                    on_event(event)
                match event:
                    case Result():
                        return event
                    case Error():
                        raise ClientError(event.code, event.message, job)
                    case Busy():
                        raise ClientError(
                            BUSY, event.message or f"{event.queued} jobs are queued; try again later", job
                        )
            if job not in self._jobs:
                raise KeyError(f"unknown job {job!r}; submit or fetch it first")
            if self.state is State.CONNECTED:
                deadline = time.monotonic() + patience
            self._check_reachable(deadline)
            self._connection.wait(TICK)

    def run(self, submit: Submit, on_event: Callable[[Event], None] | None = None, patience: float = 60.0) -> Result:
        """Submit a job and `wait` for its result; whatever ends the wait early, such as Ctrl-C, cancels the job."""
        job = self.submit(submit)
        try:
            return self.wait(job, on_event, patience)
        finally:
            self._cancel_and_wait(job, 2.0)

    def wait_status(self, seconds: float = 5.0) -> Status:
        """Request the status of the server and wait for it; raises `ClientError` if none comes in time."""
        deadline = time.monotonic() + seconds
        self.wait_connected(seconds)
        self.ask_status()
        while True:
            self._process()
            for event in self._events:
                if isinstance(event, Status):
                    self._events.remove(event)
                    return event
            self._check_reachable(deadline)
            self._connection.wait(TICK)

    def _cancel_and_wait(self, job: str, seconds: float) -> None:
        """Cancel a job that has not ended, and wait up to `seconds` for the confirmation."""
        self.cancel(job)
        deadline = time.monotonic() + seconds
        while job in self._jobs and self.state is State.CONNECTED and time.monotonic() < deadline:
            self._process()
            if any(isinstance(event, Cancelling) for event in self._take_events(job)):
                break
            self._connection.wait(TICK)
        self._jobs.pop(job, None)

    def _check_reachable(self, deadline: float) -> None:
        """Raise `ClientError` if there is no connection and waiting longer is useless."""
        if self.state in (State.REFUSED, State.INCOMPATIBLE, State.CLOSED):
            raise ClientError(self.state, self.reason)
        if time.monotonic() >= deadline:
            raise ClientError(NO_CONNECTION, self.reason)

    def _take_events(self, job: str) -> list[Event]:
        """Remove and return the pending events of a job and of the connection."""
        mine = [event for event in self._events if isinstance(event, StateChanged) or _job_of(event) == job]
        self._events = [event for event in self._events if not any(event is taken for taken in mine)]
        return mine

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _process(self) -> None:
        """Let the connection send and receive, and handle what it received."""
        now = time.monotonic()
        suspended, self._polled_at = now - self._polled_at, now
        for event in self._connection.poll():
            self._handle(event)
        if self.welcome and suspended > self.welcome.silence and self.state is State.CONNECTED:
            # The server may have treated this client as disconnected.
            self._resume()

    def _handle(self, event: Event) -> None:
        job = _job_of(event)
        if job is None:
            self._events.append(event)
            if isinstance(event, StateChanged) and event.state is State.CONNECTED:
                for pending in self._jobs.values():
                    pending.acknowledged, pending.open_requests = True, 0
                self._resume()
        elif job in self._jobs:
            self._handle_job_event(job, self._jobs[job], event)

    def _handle_job_event(self, name: str, job: _Job, event: Event) -> None:
        match event:
            case Error(code=ErrorCode.UNKNOWN_JOB) if job.cancelled:
                self._end(Error(ErrorCode.CANCELLED, "the job was cancelled; the server no longer has it", name))
            case Error(code=ErrorCode.UNKNOWN_JOB) if job.frames and job.open_requests:
                job.open_requests -= 1
                # If a submission is under way, this answers a request that was sent before it.
                if job.acknowledged:
                    self._submit(name)
            case Result() | Error() | Busy():
                self._end(event)
            case _:
                job.acknowledged, job.open_requests = True, 0
                self._events.append(self._merge_progress(event) if isinstance(event, Progress) else event)

    def _merge_progress(self, progress: Progress) -> Progress:
        """Replace a pending progress of the same job, and keep its preview if the new one has none."""
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
        """Request the status of all jobs that have not ended: the server may have finished or lost them."""
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
        if job.submissions >= MAX_SUBMISSIONS:
            text = f"the server has lost this job {MAX_SUBMISSIONS} times"
            return self._end(Error(ErrorCode.WORKER_LOST, text, name))
        try:
            # The limits may have changed since the job was created: it may be another server.
            read_header(job.frames, self._connection.limits)
        except WireError as error:
            return self._end(Error(error.code, str(error), name))
        job.submissions, job.acknowledged = job.submissions + 1, False
        return self._connection.send(job.frames)

    def _ask(self, message: Cancel | StatusRequest) -> None:
        """Send a request that a server without that job answers with `unknown_job`."""
        if message.job is not None:
            self._jobs[message.job].open_requests += 1
        self._connection.send(encode(message))

    def _check_open(self) -> None:
        if self.state is State.CLOSED:
            raise ClientError(State.CLOSED, self.reason)


def _job_of(event: Event) -> str | None:
    match event:
        case Accepted() | Progress() | Result() | Error() | Cancelling() | Busy():
            return event.job
    return None
