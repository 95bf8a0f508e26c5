"""The server: the loop that accepts clients and their requests. It routes messages; it never computes and never blocks.

    server = Server(ServerSettings(), lambda context, authenticator: LocalWorkerPool(...), keys)
    server.run()

Of the messages of clients it reads the headers only, and forwards the frames unchanged. The queue is `jobs.py`, the
connections are `clients.py`, and `dispatcher.py` assigns jobs to the workers behind the interface of `worker_pool.py`.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from sdf_backend.errors import InputError
from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.addresses import bind
from sdf_backend.serving.admission import check_submission
from sdf_backend.serving.authenticator import CLIENTS, Authenticator, AuthorisedClients
from sdf_backend.serving.clients import GENERATED_ID, Clients, Incoming
from sdf_backend.serving.dispatcher import Dispatcher
from sdf_backend.serving.jobs import Job, Termination, count_bytes, fingerprint
from sdf_backend.serving.memory import resident_bytes
from sdf_backend.serving.server_keys import ServerKeys
from sdf_backend.serving.software import SOFTWARE
from sdf_backend.serving.task_table import TASKS
from sdf_backend.serving.worker_pool import WorkerPool
from sdf_backend.wire.codec import Header, WireError, build, encode, encode_error, read_header
from sdf_backend.wire.errors import MALFORMED, ErrorCode
from sdf_backend.wire.messages import (
    REQUESTS,
    Accepted,
    Busy,
    Cancel,
    Cancelling,
    Hello,
    JobState,
    Limits,
    Status,
    StatusRequest,
    Submit,
    Task,
    Welcome,
)

DEFAULT_ADDRESS = "tcp://127.0.0.1:5577"
TICK_SECONDS = 0.1
# Interval at which backlogs are sent, while there are any.
BACKLOG_SECONDS = 0.002
# Messages of clients that are read before workers have their turn.
MESSAGES_A_TURN = 64
# When all jobs have ended, messages are sent for up to this time before the server stops.
DRAIN_SECONDS = 1.0
# A turn of the loop that starts this much too late means that the process was suspended.
SUSPENDED_SECONDS = 1.0
REVOKED = Termination(
    ErrorCode.NOT_AUTHORISED, "this key is no longer authorised; ask the operator of the server for another"
)
STOPPING = Termination(ErrorCode.STOPPING, "the server is shutting down; submit the job again later")


@dataclass(frozen=True)
class ServerSettings:
    """How a server serves."""

    bind: str = DEFAULT_ADDRESS
    limits: Limits = field(default_factory=Limits)
    silence: float = 10.0
    """seconds after which a silent client is treated as disconnected"""
    grace: float = 10.0
    """seconds that running jobs are given to finish when the server is stopped"""


class Server:
    """A server at one address."""

    def __init__(
        self,
        settings: ServerSettings,
        make_pool: Callable[[zmq.Context, Authenticator], WorkerPool],
        keys: ServerKeys | None = None,
    ) -> None:
        """Listen at the address.

        Parameters
        ----------
        settings : address, limits and timeouts
        make_pool : makes the worker pool, with the context and the authenticator of this server
        keys : admit only authorised clients; required for an address that other computers can reach

        Raises
        ------
        InputError : for an address that cannot be listened on
        """
        self.settings = settings
        self._context = zmq.Context()
        self._authenticator = Authenticator(self._context)
        self._authorised = authorised = AuthorisedClients(keys.clients) if keys else None
        user_of = authorised.user_of if authorised else str
        self._clients = Clients(self._context, settings.limits, settings.silence, user_of)
        if keys:
            self._authenticator.protect(self._clients.socket, CLIENTS, keys.secret, lambda key: bool(user_of(key)))
        try:
            self.address = bind(self._clients.socket, settings.bind, keys is not None)
            self._pool = make_pool(self._context, self._authenticator)
        except InputError:
            self._close()
            raise
        self._dispatcher = Dispatcher(self._pool, self._clients, settings.limits)
        self._log = Throttle()
        self._started = self._turned = time.monotonic()
        self._stop_requests: list[float] = []  # the times of the calls of `stop`
        self._end_jobs_at = float("inf")
        self._exit_at = float("inf")
        self._tick_at = 0.0

    def run(self, on_ready: Callable[[Status], None] | None = None) -> None:
        """Serve until `stop`.

        Parameters
        ----------
        on_ready : called once, when the first worker is ready

        Raises
        ------
        InputError : if no worker can run with its settings
        """
        poller = zmq.Poller()
        sockets = [self._clients.socket, self._authenticator.socket, *self._pool.sockets()]
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        logger.info(line("server started", address=self.address, software=SOFTWARE, keys=bool(self._authorised)))
        try:
            self._clients.guard.start(int(self.address.rpartition(":")[2]), keys=bool(self._authorised))
            self._pool.start(time.monotonic())
            while time.monotonic() < self._exit_at:
                poller.poll(int(1000 * (BACKLOG_SECONDS if self._clients.has_backlog else TICK_SECONDS)))
                self._turn(time.monotonic())
                if on_ready and self._dispatcher.has_worker:
                    on_ready(self._status(time.monotonic(), ""))
                    on_ready = None
        finally:
            self._pool.stop()
            self._close()
            logger.info(line("server stopped", **vars(self._dispatcher.counts)))

    def stop(self) -> None:
        """Accept no more jobs and end running ones after `grace` seconds; a second call ends them at once.

        For signal handlers and other threads: appending is atomic, so no call is lost.
        """
        self._stop_requests.append(time.monotonic())

    # --- one turn of the loop ---

    def _turn(self, now: float) -> None:
        suspended, self._turned = now - self._turned - TICK_SECONDS, now
        if suspended > SUSPENDED_SECONDS:  # messages of that time have not been read yet
            self._clients.extend_deadlines(suspended)
            self._pool.extend_deadlines(suspended)
        self._authenticator.process()
        for _ in range(MESSAGES_A_TURN):
            incoming = self._clients.receive(now)
            if incoming is None:
                break
            self._serve(incoming, now)
        self._dispatcher.process_events(now)
        if not self._stop_requests:
            self._dispatcher.assign(now)
        self._clients.guard.expected = self._dispatcher.jobs.bytes_held
        for tag in self._clients.flush():
            if isinstance(tag, Job):
                tag.delivered = True
        if now >= self._tick_at:
            self._tick_at = now + TICK_SECONDS
            self._tick(now)

    def _tick(self, now: float) -> None:
        """Check all deadlines, and who is still authorised."""
        for owner in self._authorised.take_revoked() if self._authorised else ():
            self._dispatcher.end_all(owner, REVOKED, now)
            self._clients.cut_off(owner, "its key was removed")
        for peer in self._clients.take_disconnected(now):
            self._dispatcher.jobs.mark_absent(peer, now)
        self._dispatcher.expire(now)
        self._dispatcher.check_deadlines(now)
        if reason := self._pool.configuration_error():
            raise InputError(reason)
        if reason := self._pool.unavailable_reason():
            self._dispatcher.fail_queued(reason, now)
        if self._stop_requests:
            self._shut_down(now)

    def _shut_down(self, now: float) -> None:
        """Return queued jobs, let running ones end until the grace is over, then end them and drain."""
        jobs = self._dispatcher.jobs
        if self._end_jobs_at == float("inf"):
            self._end_jobs_at = now + self.settings.grace
            logger.info(line("server stopping", queued=jobs.queue_length, running=len(jobs.running)))
        if len(self._stop_requests) > 1:
            self._end_jobs_at = min(self._end_jobs_at, now)
        for job in jobs.queued:
            self._dispatcher.terminate(job, STOPPING, now)
        running = jobs.running
        if now >= self._end_jobs_at:
            for job in running:
                self._dispatcher.terminate(job, STOPPING, now)
        if self._exit_at == float("inf") and not running:
            self._exit_at = now + (DRAIN_SECONDS if self._clients.has_backlog else TICK_SECONDS)

    # --- requests ---

    def _serve(self, incoming: Incoming, now: float) -> None:
        """Answer one message; no message can end the loop."""
        try:
            self._check_peer(incoming)
            if incoming.returned:
                self._resume_jobs(incoming.peer)
            if incoming.frames is None:
                limits = self.settings.limits
                raise WireError(
                    ErrorCode.TOO_LARGE,
                    f"a message has more than {limits.frames} arrays or {limits.message_bytes} bytes; it was discarded",
                )
            header = read_header(incoming.frames, self.settings.limits)
            self._answer(incoming, header, now)
        except WireError as error:
            self._dispatcher.counts.malformed += error.code in MALFORMED
            self._log_refusal(incoming, error.code, str(error))
            self._clients.send(incoming.peer, encode_error(error.code, str(error), error.job))
        except Exception:
            self._dispatcher.counts.malformed += 1
            logger.error(line("internal error", traceback=traceback.format_exc()))
            text = "internal error of the server; see its log"
            self._clients.send(incoming.peer, encode_error(ErrorCode.FAILED, text))

    def _check_peer(self, incoming: Incoming) -> None:
        """Raise `WireError` for a revoked key, and for a routing id that could be that of another client."""
        if self._authorised is None:
            return
        if self._authorised.user_of(incoming.owner) is None:
            raise WireError(REVOKED.code, REVOKED.message)
        if not incoming.peer.startswith(GENERATED_ID):
            raise WireError(ErrorCode.BAD_VALUE, "clients must not set the routing id of their socket")

    def _answer(self, incoming: Incoming, header: Header, now: float) -> None:
        match build(header.without_values(), REQUESTS):
            case Hello() as hello:
                self._greet(incoming, hello)
            case Submit() as submit:
                self._submit(incoming, submit, now)
            case Cancel() as cancel:
                self._cancel(incoming, cancel, now)
            case StatusRequest(job=None):
                self._clients.send(incoming.peer, encode(self._status(now, incoming.owner)), droppable=True)
            case StatusRequest(job=str(name)):
                self._dispatcher.attach(self._find(incoming, name), incoming.peer)

    def _greet(self, incoming: Incoming, hello: Hello) -> None:
        if client := self._clients.greet(incoming.peer, hello):
            logger.info(
                line(
                    "client connected",
                    client=client.name,
                    user=client.user,
                    address=client.address,
                    software=hello.software[:64],
                )
            )
        welcome = Welcome(
            SOFTWARE, self.settings.limits, self._pool.models(), self._dispatcher.devices(), self.settings.silence
        )
        self._clients.send(incoming.peer, encode(welcome), droppable=True)

    def _submit(self, incoming: Incoming, submit: Submit, now: float) -> None:
        jobs = self._dispatcher.jobs
        assert incoming.frames is not None
        content = fingerprint(incoming.frames)
        if known := jobs.find(incoming.owner, submit.job):
            if known.fingerprint != content:
                text = f"there is another job of the name {submit.job}; choose another name"
                raise WireError(ErrorCode.BAD_VALUE, text, submit.job)
            self._dispatcher.attach(known, incoming.peer)
            return
        check_submission(submit, self.settings.limits)
        if self._stop_requests:
            raise WireError(STOPPING.code, STOPPING.message, submit.job)
        if reason := self._pool.unavailable_reason():
            raise WireError(ErrorCode.WORKER_LOST, f"no worker can start: {reason}", submit.job)
        if reason := jobs.rejection_reason(incoming.owner, incoming.peer, count_bytes(incoming.frames)):
            self._dispatcher.counts.refused += 1
            self._log_refusal(incoming, "busy", reason, submit.job)
            busy = Busy(submit.job, jobs.queue_length, self.settings.limits.queue, reason)
            self._clients.send(incoming.peer, encode(busy))
            return
        batched, client = TASKS[Task(submit.task)].batched, self._clients.get(incoming.peer)
        job = Job(
            name=submit.job,
            owner=incoming.owner,
            client=incoming.peer,
            fingerprint=content,
            user=client.user if client else "",
            task=submit.task,
            model=submit.model,
            request=incoming.frames,
            keep=min(submit.keep, self.settings.limits.keep_seconds),
            submitted=now,
            batch_key=(submit.task, submit.model, submit.settings) if batched else None,
        )
        jobs.add(job)
        fields = self._dispatcher.log_fields(job)
        logger.info(line("job queued", **fields, task=job.task, model=job.model, queued=jobs.queue_length))
        self._clients.send(incoming.peer, encode(Accepted(job.name, jobs.position(job))))

    def _cancel(self, incoming: Incoming, cancel: Cancel, now: float) -> None:
        job = self._find(incoming, cancel.job)
        self._clients.send(incoming.peer, encode(Cancelling(job.name, job.state)))
        if job.state is not JobState.FINISHED:
            self._dispatcher.terminate(job, Termination(ErrorCode.CANCELLED, "the job was cancelled"), now)

    def _find(self, incoming: Incoming, name: str) -> Job:
        job = self._dispatcher.jobs.find(incoming.owner, name)
        if job is None:
            raise WireError(ErrorCode.UNKNOWN_JOB, f"unknown job {name}; it may have expired", name)
        return job

    def _resume_jobs(self, peer: bytes) -> None:
        for job in self._dispatcher.jobs.mark_present(peer):
            self._dispatcher.attach(job, peer)

    def _status(self, now: float, owner: str) -> Status:
        """The status that an owner may see: without the names of the jobs of others."""
        jobs = self._dispatcher.jobs
        return Status(
            software=SOFTWARE,
            uptime=now - self._started,
            workers=self._dispatcher.describe_workers(owner),
            models=self._pool.models(),
            clients=len(self._clients),
            queued=jobs.queue_length,
            running=len(jobs.running),
            memory_bytes=resident_bytes(),
            limits=self.settings.limits,
            **vars(self._dispatcher.counts),
        )

    def _log_refusal(self, incoming: Incoming, code: str, reason: str, job: str = "") -> None:
        client = self._clients.get(incoming.peer)
        address, user = (client.address, client.user) if client else ("", "")
        self._log.warning(
            (address, user, code),
            "message refused",
            address=address,
            user=user,
            job=job,
            code=code,
            reason=reason,
        )

    # --- sockets ---

    def _close(self) -> None:
        self._clients.close(linger=int(1000 * DRAIN_SECONDS))
        self._authenticator.close()
        self._context.term()
