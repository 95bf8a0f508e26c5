"""The server: a loop that greets, admits, hands out, passes on and remembers. It never computes and never waits.

    server = Server(ServerSettings(), workers_of, keys)
    server.run()

Of clients' messages it reads the headers only and passes the frames on as they are, however large. What waits and who
is next is `jobs.py`; who is there is `clients.py`; who may connect is `auth.py`; what a job may ask is `admission.py`;
and who computes is behind the interface of `workers.py`.
"""

import errno
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

import zmq

from sdf_backend.errors import InputError
from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.admission import check_submission
from sdf_backend.serving.auth import AuthorisedClients, Doorkeeper, Gate, ServerKeys, check_address
from sdf_backend.serving.clients import OWN_IDENTITY, Clients, Incoming
from sdf_backend.serving.jobs import Job, Jobs, Outcome, State, size_of
from sdf_backend.serving.memory import resident_bytes
from sdf_backend.serving.refusals import refusal
from sdf_backend.serving.worker_pool import Event, Lost, Ready, Reply, Workers
from sdf_backend.wire.codec import Header, WireError, build, encode, read_header
from sdf_backend.wire.messages import (
    REQUESTS,
    Accepted,
    Busy,
    Cancel,
    Cancelling,
    Hello,
    Limits,
    Status,
    StatusRequest,
    Submit,
    Welcome,
)

DEFAULT_ADDRESS = "tcp://127.0.0.1:5577"
try:
    SOFTWARE = f"sdf-shapes {version('sdf-shapes')}"
except PackageNotFoundError:  # run from its folder, not installed
    SOFTWARE = "sdf-shapes"

TICK_SECONDS = 0.1
# While a client's backlog waits for it to read, it is looked at this often.
BACKLOG_SECONDS = 0.002
# Messages of clients that are read before workers have their turn.
MESSAGES_A_TURN = 64
# A worker that has not let go of an unwanted job after this long is killed.
RELEASE_SECONDS = 1.0
# Once everything has ended, messages have this long to leave.
FAREWELL_SECONDS = 1.0
DEATHS_OF_A_JOB = 2
# Tasks of which a worker does several at once where model and settings are the same.
BATCHED = ("complete", "reconstruct")
STOPPING = "the server is going down; submit the job again later"
# Errors that are a peer's defect, and not a state of the server or of a job.
MALFORMED = ("version", "bad_magic", "bad_header", "bad_kind", "bad_value", "bad_array", "not_finite", "too_large")


@dataclass(frozen=True)
class ServerSettings:
    """How a server serves."""

    bind: str = DEFAULT_ADDRESS
    limits: Limits = field(default_factory=Limits)
    silence: float = 10.0
    """seconds after which a client that says nothing counts as gone"""
    grace: float = 10.0
    """seconds that running jobs have to end when the server is stopped"""


@dataclass
class Counts:
    """What has happened since the start."""

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    malformed: int = 0
    workers_lost: int = 0


class Server:
    """Listens on one address. `workers` makes the workers, given the context and the gate of this server.

    Raises `InputError` where the address cannot be listened on.
    """

    def __init__(
        self, settings: ServerSettings, workers: Callable[[zmq.Context, Gate], Workers], keys: ServerKeys | None = None
    ) -> None:
        self.settings = settings
        address = check_address(settings.bind, keys is not None)
        self._context = zmq.Context()
        self._gate = Gate(self._context)
        self._clients = Clients(self._context, settings.limits, settings.silence)
        self._authorised = AuthorisedClients(keys.clients) if keys else None
        if keys and self._authorised:
            self._gate.guard(self._clients.socket, "clients", keys.secret, self._authorised.user)
        self._doorkeeper = Doorkeeper(self._clients.socket, self._clients.opened, self._clients.closed)
        try:
            self.address = self._bind(address)
        except InputError:
            self._close()
            raise
        self._workers = workers(self._context, self._gate)
        self._jobs = Jobs(settings.limits)
        self._running: dict[str, dict[str, Job]] = {}  # by worker, then by name
        self._counts = Counts()
        self._lines = Throttle()
        self._started = self._turned = time.monotonic()
        self._stops: list[float] = []  # when `stop` was called
        self._stop_at = float("inf")
        self._farewell_at = float("inf")
        self._tick_at = 0.0

    def run(self, on_ready: Callable[[Status], None] | None = None) -> None:
        """Serve until `stop`; `on_ready` hears once, when the first worker is ready.

        Raises `InputError` where workers cannot run as they were told to, and that is found out before any did.
        """
        poller = zmq.Poller()
        sockets = [self._clients.socket, self._gate.socket, self._doorkeeper.socket, *self._workers.sockets()]
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        logger.info(line("server started", address=self.address, software=SOFTWARE, keys=bool(self._authorised)))
        try:
            self._workers.start(time.monotonic())
            while time.monotonic() < self._farewell_at:
                poller.poll(int(1000 * (BACKLOG_SECONDS if self._clients.waiting else TICK_SECONDS)))
                self._turn(time.monotonic())
                if on_ready and self._running:
                    on_ready(self._status(time.monotonic()))
                    on_ready = None
        finally:
            self._workers.stop()
            self._close()
            logger.info(line("server stopped", **vars(self._counts)))

    def stop(self) -> None:
        """Take no more jobs and give running ones `grace` seconds; called again, none.

        For signal handlers and other threads: to append is one step, so that none of two calls at once is lost.
        """
        self._stops.append(time.monotonic())

    # --- one turn of the loop ---

    def _turn(self, now: float) -> None:
        held_up, self._turned = now - self._turned - TICK_SECONDS, now
        if held_up > 1:  # this process was suspended: what the others said meanwhile is not read yet
            self._clients.excuse(held_up)
            self._workers.excuse(held_up)
        self._gate.answer()
        self._doorkeeper.look()
        for _ in range(MESSAGES_A_TURN):
            incoming = self._clients.receive(now)
            if incoming is None:
                break
            self._serve(incoming, now)
        for event in self._workers.events(now):
            self._note(event, now)
        self._hand_out(now)
        for tag in self._clients.flush():
            if isinstance(tag, Job):
                tag.delivered = True
        if now >= self._tick_at:
            self._tick_at = now + TICK_SECONDS
            self._tick(now)

    def _tick(self, now: float) -> None:
        """What time alone brings about."""
        for peer in self._clients.gone(now):
            self._jobs.client_left(peer, now)
        for job in self._jobs.expired(now):
            if job.state is State.FINISHED:
                self._jobs.forget(job)
            else:
                self._end(job, "cancelled", "its client was not heard of for too long", now)
        for worker, jobs in self._running.items():
            for job in list(jobs.values()):
                self._check_running(worker, job, now)
        if reason := self._workers.refused():
            raise InputError(reason)
        if reason := self._workers.hopeless():
            for job in self._jobs.waiting:
                self._finish(job, Outcome.FAILED, "worker_lost", f"no worker can start: {reason}", now)
        self._stop_by_steps(now)

    def _check_running(self, worker: str, job: Job, now: float) -> None:
        limit = self.settings.limits.job_seconds
        if job.verdict and now >= job.kill_at:
            self._workers.kill(worker, f"it did not let go of the job {job.name} that was {job.verdict[0]}")
            job.kill_at = float("inf")
        elif not job.verdict and now - job.started > limit and job.batch > 1:
            self._workers.kill(worker, f"jobs that it did together took longer than {limit:g} s; each is tried alone")
        elif not job.verdict and now - job.started > limit:
            self._end(job, "timed_out", f"the job took longer than {limit:g} s; lower the resolution or quality", now)

    def _stop_by_steps(self, now: float) -> None:
        """Once `stop` was called: queued jobs go back, running ones may end, then those too are ended."""
        if not self._stops:
            return
        if self._stop_at == float("inf"):
            self._stop_at = now + self.settings.grace
            logger.info(line("server stopping", queued=self._jobs.queued, running=len(self._jobs.running)))
        if len(self._stops) > 1:
            self._stop_at = min(self._stop_at, now)
        for job in self._jobs.waiting:
            self._end(job, "stopping", STOPPING, now)
        running = self._jobs.running
        if now >= self._stop_at:
            for job in running:
                self._end(job, "stopping", STOPPING, now)
        if self._farewell_at == float("inf") and not running:
            self._farewell_at = now + (FAREWELL_SECONDS if self._clients.waiting else TICK_SECONDS)

    # --- clients ---

    def _serve(self, incoming: Incoming, now: float) -> None:
        """Answer one message; whatever it holds, the loop goes on."""
        try:
            self._check_peer(incoming)
            if incoming.returned:
                self._welcome_back(incoming.peer)
            if incoming.frames is None:
                limits = self.settings.limits
                raise WireError(
                    "too_large",
                    f"a message has more than {limits.frames} arrays or {limits.message_bytes} bytes; "
                    "nothing of it was kept",
                )
            header = read_header(incoming.frames, self.settings.limits)
            self._answer(incoming, header, now)
        except WireError as error:
            self._counts.malformed += error.code in MALFORMED
            self._log_refusal(incoming, error.code, str(error))
            self._clients.send(incoming.peer, refusal(error.code, str(error), error.job))
        except Exception:
            self._counts.malformed += 1
            logger.error(line("defect", traceback=traceback.format_exc()))
            self._clients.send(
                incoming.peer, refusal("failed", "the server cannot handle this message; its log says more")
            )

    def _check_peer(self, incoming: Incoming) -> None:
        """Raise `WireError` for a user whose key was taken away, and for a name that could be another's connection."""
        if self._authorised is None:
            return
        if not self._authorised.knows(incoming.user):
            raise WireError("not_authorised", "this key is not authorised any more; ask the operator for another")
        if not incoming.peer.startswith(OWN_IDENTITY):
            raise WireError("bad_value", "a client must not choose the routing id of its socket")

    def _answer(self, incoming: Incoming, header: Header, now: float) -> None:
        match build(header.outlined(), REQUESTS):
            case Hello() as hello:
                self._greet(incoming, hello)
            case Submit() as submit:
                self._submit(incoming, submit, now)
            case Cancel() as cancel:
                self._cancel(incoming, cancel, now)
            case StatusRequest(job=None):
                self._clients.send(incoming.peer, encode(self._status(now)), droppable=True)
            case StatusRequest(job=str(name)):
                job = self._find(incoming, name)
                self._attach(job, incoming.peer)

    def _greet(self, incoming: Incoming, hello: Hello) -> None:
        client = self._clients.get(incoming.peer)
        if client and not client.name:
            client.name = hello.client[:64] or "unnamed"
            logger.info(
                line(
                    "client here",
                    client=client.name,
                    user=client.user,
                    address=client.address,
                    software=hello.software[:64],
                )
            )
        welcome = Welcome(
            SOFTWARE, self.settings.limits, self._workers.models(), self._devices(), self.settings.silence
        )
        self._clients.send(incoming.peer, encode(welcome), droppable=True)

    def _submit(self, incoming: Incoming, submit: Submit, now: float) -> None:
        if known := self._jobs.find(incoming.user, submit.job):
            self._attach(known, incoming.peer)
            return
        assert incoming.frames is not None
        check_submission(submit, self.settings.limits)
        if self._stops:
            raise WireError("stopping", STOPPING, submit.job)
        if reason := self._workers.hopeless():
            raise WireError("worker_lost", f"no worker can start: {reason}", submit.job)
        if reason := self._jobs.full(incoming.user, incoming.peer, size_of(incoming.frames)):
            self._counts.refused += 1
            self._log_refusal(incoming, "busy", reason, submit.job)
            busy = Busy(submit.job, self._jobs.queued, self.settings.limits.queue, reason)
            self._clients.send(incoming.peer, encode(busy))
            return
        keep = min(submit.keep, self.settings.limits.keep_seconds)
        job = Job(
            submit.job,
            incoming.user,
            incoming.peer,
            submit.task,
            submit.model,
            incoming.frames,
            keep,
            now,
            (submit.task, submit.model, submit.settings) if submit.task in BATCHED else None,
        )
        self._jobs.add(job)
        logger.info(line("job queued", **self._names(job), task=job.task, model=job.model, queued=self._jobs.queued))
        self._clients.send(incoming.peer, encode(Accepted(job.name, self._jobs.position(job))))

    def _cancel(self, incoming: Incoming, cancel: Cancel, now: float) -> None:
        job = self._find(incoming, cancel.job)
        self._clients.send(incoming.peer, encode(Cancelling(job.name, job.state.value)))
        if job.state is not State.FINISHED:
            self._end(job, "cancelled", "the job was cancelled", now)

    def _find(self, incoming: Incoming, name: str) -> Job:
        job = self._jobs.find(incoming.user, name)
        if job is None:
            raise WireError("unknown_job", f"there is no job {name} (any more)", name)
        return job

    def _attach(self, job: Job, peer: bytes) -> None:
        """From now on the job's messages go to that client; the last one does at once."""
        self._jobs.attach(job, peer)
        frames = job.last
        if job.state is State.QUEUED or frames is None:
            frames = encode(Accepted(job.name, self._jobs.position(job)))
        if job.state is State.FINISHED:
            job.delivered = self._clients.send(peer, frames, tag=job)
        else:
            self._clients.send(peer, frames)

    def _welcome_back(self, peer: bytes) -> None:
        for job in self._jobs.client_is_back(peer):
            self._attach(job, peer)

    # --- workers ---

    def _hand_out(self, now: float) -> None:
        """Give waiting jobs to free workers, preferably to those that have the model in memory."""
        free = [worker for worker, jobs in self._running.items() if not jobs]
        while free and self._jobs.queued and not self._stops:
            worker = self._best(free)
            free.remove(worker)
            self._give(worker, self._jobs.take(self._workers.capacity(worker), now), now)

    def _best(self, free: list[str]) -> str:
        model = self._jobs.next_model
        return next((worker for worker in free if model in self._workers.loaded(worker)), free[0])

    def _give(self, worker: str, batch: list[Job], now: float) -> None:
        if not self._workers.give(worker, [job.request for job in batch]):  # it has just ended, not by their doing
            for job in batch:
                self._jobs.retry(job)
            return
        for job in batch:
            job.worker = worker
            self._running[worker][job.name] = job
            waited = now - job.submitted
            logger.info(line("job started", **self._names(job), worker=worker, waited=waited, batch=len(batch)))

    def _note(self, event: Event, now: float) -> None:
        match event:
            case Ready(worker):
                self._running[worker] = {}
            case Reply(worker, header, frames):
                job = self._running.get(worker, {}).get(header.job or "")
                if job:
                    self._pass_on(worker, job, header, list(frames), now)
            case Lost(worker, reason):
                self._counts.workers_lost += worker in self._running
                jobs = self._running.pop(worker, {})
                for job in jobs.values():
                    self._orphaned(job, reason, now, guilty=not any(other.verdict for other in jobs.values()))

    def _pass_on(self, worker: str, job: Job, header: Header, frames: list, now: float) -> None:
        if header.kind == "progress":
            job.last = frames
            if not job.verdict:
                self._clients.send(job.client, frames, droppable=True)
            return
        del self._running[worker][job.name]
        if job.verdict:
            self._end_with_verdict(job, now)
        elif header.kind == "result":
            self._deliver(job, Outcome.DONE, frames, now)
        else:
            self._log_failure(job, str(header.content.get("code")), str(header.content.get("message")))
            self._deliver(job, Outcome.FAILED, frames, now)

    def _orphaned(self, job: Job, reason: str, now: float, *, guilty: bool) -> None:
        """The worker of a job is gone: the job is tried once more, unless that was wanted or happened before."""
        job.deaths += guilty
        if job.verdict:
            self._end_with_verdict(job, now)
        elif job.deaths >= DEATHS_OF_A_JOB:
            text = f"two workers in a row ended while they ran this job: {reason}"
            self._finish(job, Outcome.FAILED, "worker_lost", text, now)
        else:
            self._jobs.retry(job)
            logger.warning(line("job tried again", **self._names(job), reason=reason))
            self._clients.send(job.client, encode(Accepted(job.name, 0)), droppable=True)

    # --- the end of a job ---

    def _end(self, job: Job, code: str, message: str, now: float) -> None:
        """End a queued job at once, and a running one as soon as its worker lets go of it. The first verdict holds."""
        if job.state is State.QUEUED:
            outcome = Outcome.CANCELLED if code == "cancelled" else Outcome.FAILED
            self._finish(job, outcome, code, message, now)
        elif job.state is State.RUNNING and not job.verdict:
            job.verdict, job.kill_at = (code, message), now + RELEASE_SECONDS
            self._workers.cancel(job.worker, job.name)

    def _end_with_verdict(self, job: Job, now: float) -> None:
        assert job.verdict
        outcome = Outcome.CANCELLED if job.verdict[0] == "cancelled" else Outcome.FAILED
        self._finish(job, outcome, *job.verdict, now)

    def _finish(self, job: Job, outcome: Outcome, code: str, message: str, now: float) -> None:
        """A job has ended without a result."""
        self._log_failure(job, code, message)
        self._deliver(job, outcome, refusal(code, message, job.name), now)

    def _deliver(self, job: Job, outcome: Outcome, frames: list, now: float) -> None:
        """A job has ended: remember its last message, and send it."""
        ran = now - job.started if job.state is State.RUNNING else 0.0
        self._jobs.finish(job, outcome, frames, now)
        match outcome:
            case Outcome.DONE:
                self._counts.done += 1
                logger.info(line("job done", **self._names(job), seconds=ran, bytes=size_of(frames)))
            case Outcome.FAILED:
                self._counts.failed += 1
            case Outcome.CANCELLED:
                self._counts.cancelled += 1
        job.delivered = self._clients.send(job.client, frames, tag=job)

    # --- what is told ---

    def _status(self, now: float) -> Status:
        workers = []
        for worker in self._workers.describe():
            jobs = self._running.get(worker.name)
            name = next(iter(jobs), None) if jobs else None
            workers.append(replace(worker, state="running", job=name) if jobs else worker)
        return Status(
            SOFTWARE,
            now - self._started,
            tuple(workers),
            self._workers.models(),
            len(self._clients),
            self._jobs.queued,
            len(self._jobs.running),
            memory_bytes=resident_bytes(),
            limits=self.settings.limits,
            **vars(self._counts),
        )

    def _devices(self) -> tuple[str, ...]:
        return tuple(worker.device for worker in self._workers.describe() if worker.name in self._running)

    def _names(self, job: Job) -> dict[str, str]:
        client = self._clients.get(job.client)
        return {"job": job.name, "client": client.name if client else "", "user": job.owner}

    def _log_failure(self, job: Job, code: str, reason: str) -> None:
        logger.warning(line("job ended", **self._names(job), code=code, reason=reason))

    def _log_refusal(self, incoming: Incoming, code: str, reason: str, job: str = "") -> None:
        client = self._clients.get(incoming.peer)
        address = client.address if client else ""
        self._lines.warning(
            (address, incoming.user, code),
            "message refused",
            address=address,
            user=incoming.user,
            job=job,
            code=code,
            reason=reason,
        )

    # --- sockets ---

    def _bind(self, address: str) -> str:
        self._clients.socket.set(zmq.IPV6, 1 if "[" in address else 0)
        try:
            self._clients.socket.bind(address)
        except zmq.ZMQError as error:
            reason = {
                zmq.EADDRINUSE: "another program, perhaps a backend, listens there; stop it or choose another port",
                zmq.EADDRNOTAVAIL: "this computer has no such address",
                errno.ENODEV: "this computer has no such address",
            }.get(error.errno or 0, str(error))
            raise InputError(f"cannot listen on {address}: {reason}") from None
        return self._clients.socket.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()

    def _close(self) -> None:
        self._doorkeeper.close()
        self._clients.close(linger=int(1000 * FAREWELL_SECONDS))
        self._gate.close()
        self._context.term()
