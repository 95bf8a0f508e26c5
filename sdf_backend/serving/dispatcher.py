"""Assigns queued jobs to workers, forwards their messages, and ends each job exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from sdf_backend.log import line, logger
from sdf_backend.serving.clients import Clients
from sdf_backend.serving.jobs import Job, JobTable, Outcome, Termination, count_bytes
from sdf_backend.serving.worker_pool import LossCause, WorkerEvent, WorkerLost, WorkerPool, WorkerReady, WorkerReply
from sdf_backend.wire.codec import Frame, Header, encode, encode_error
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import Accepted, JobState, Limits, Progress, Result, WorkerInfo, WorkerState

TAKEN_OVER = "another connection has taken over this job, and gets its result"
# A worker that has not stopped a terminated job after this time is killed.
STOP_SECONDS = 1.0
# A job is not retried once it has lost this many worker processes, or machines: those are mostly lost for reasons of
# their own, but a job may also take a machine down.
MAX_LOST_WORKERS, MAX_LOST_MACHINES = 2, 5


@dataclass
class Counts:
    """Events since the start of the server."""

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    malformed: int = 0
    workers_lost: int = 0


class Dispatcher:
    """The jobs of a server between its clients and its workers. Times are in seconds of the clock of the server."""

    def __init__(self, pool: WorkerPool, clients: Clients, limits: Limits) -> None:
        self.jobs = JobTable(limits)
        self.counts = Counts()
        self._pool, self._clients, self._limits = pool, clients, limits
        self._running: dict[str, dict[str, Job]] = {}  # by worker, then by name of the job

    @property
    def has_worker(self) -> bool:
        """Whether a worker is ready."""
        return bool(self._running)

    def devices(self) -> tuple[str, ...]:
        """The device of each worker that is ready."""
        return tuple(worker.device for worker in self._pool.describe() if worker.name in self._running)

    def describe_workers(self, owner: str) -> tuple[WorkerInfo, ...]:
        """All workers, with the job that each is running if it is one of that owner."""
        workers = []
        for worker in self._pool.describe():
            jobs = self._running.get(worker.name)
            name = next((job.name for job in jobs.values() if job.owner == owner), None) if jobs else None
            workers.append(replace(worker, state=WorkerState.RUNNING, job=name) if jobs else worker)
        return tuple(workers)

    def log_fields(self, job: Job) -> dict[str, str]:
        """The fields that identify a job in the log."""
        client = self._clients.get(job.client)
        return {"job": job.name, "client": client.name if client else "", "user": job.user}

    # --- clients ---

    def attach(self, job: Job, peer: bytes) -> None:
        """Send the messages of a job to that client from now on, beginning with the last one, and tell the other."""
        if peer != job.client and job.state is not JobState.FINISHED and self._clients.get(job.client):
            self._clients.send(job.client, encode_error(ErrorCode.TAKEN_OVER, TAKEN_OVER, job.name))
        self.jobs.attach(job, peer)
        frames = job.last_message
        if job.state is JobState.QUEUED or frames is None:
            frames = encode(Accepted(job.name, self.jobs.position(job)))
        if job.state is JobState.FINISHED:
            job.delivered = self._clients.send(peer, frames, tag=job)
        else:
            self._clients.send(peer, frames)

    def terminate(self, job: Job, termination: Termination, now: float) -> None:
        """End a queued job at once, and a running one as soon as its worker stops it. The first termination holds."""
        if job.state is JobState.QUEUED:
            self._finish(job, termination, now)
        elif job.state is JobState.RUNNING and not job.termination:
            job.termination, job.kill_deadline = termination, now + STOP_SECONDS
            self._pool.cancel(job.worker, job.name)

    def end_all(self, owner: str, termination: Termination, now: float) -> None:
        """End all jobs of an owner, and keep none of their results."""
        for job in self.jobs.owned_by(owner):
            job.keep = 0.0
            if job.state is JobState.FINISHED:
                self.jobs.remove(job)
            else:
                self.terminate(job, termination, now)

    def expire(self, now: float) -> None:
        """End or remove the jobs that no client has requested for their `keep` seconds."""
        for job in self.jobs.expired(now):
            if job.state is JobState.FINISHED:
                self.jobs.remove(job)
            else:
                self.terminate(job, Termination(ErrorCode.CANCELLED, "its client was absent for too long"), now)

    # --- workers ---

    def assign(self, now: float) -> None:
        """Assign queued jobs to idle workers, preferring a worker that has the model in memory."""
        idle = [worker for worker, jobs in self._running.items() if not jobs and self._pool.capacity(worker)]
        while idle and (job := self.jobs.next(lambda job: any(self._can_run(worker, job) for worker in idle))):
            able = [worker for worker in idle if self._can_run(worker, job)]
            worker = next((worker for worker in able if job.model in self._pool.loaded_models(worker)), able[0])
            idle.remove(worker)
            can_run = partial(self._can_run, worker)
            self._submit(worker, self.jobs.take(self._pool.capacity(worker), now, can_run), now)

    def process_events(self, now: float) -> None:
        """Handle what workers have sent, and workers that are ready or lost."""
        for event in self._pool.poll(now):
            self._handle(event, now)

    def check_deadlines(self, now: float) -> None:
        """Terminate jobs that run for too long, and kill workers that do not stop a terminated job."""
        limit = self._limits.job_seconds
        for worker, jobs in self._running.items():
            for job in list(jobs.values()):
                if job.termination:
                    if now >= job.kill_deadline:
                        self._pool.kill(worker, f"it did not stop job {job.name} ({job.termination.code})")
                        job.kill_deadline = float("inf")
                elif now - job.started > limit:
                    if job.batch_size > 1:
                        self._pool.kill(worker, f"a batch took longer than {limit:g} s; its jobs are retried alone")
                    else:
                        text = f"the job took longer than {limit:g} s; lower the resolution or quality"
                        self.terminate(job, Termination(ErrorCode.TIMED_OUT, text), now)

    def fail_queued(self, reason: str, now: float) -> None:
        """End all queued jobs, because no worker can start."""
        for job in self.jobs.queued:
            self._finish(job, Termination(ErrorCode.WORKER_LOST, f"no worker can start: {reason}"), now)

    def _can_run(self, worker: str, job: Job) -> bool:
        return self._pool.can_run(worker, job.model)

    def _submit(self, worker: str, batch: list[Job], now: float) -> None:
        if not self._pool.submit(worker, [job.request for job in batch]):  # it has just ended
            for job in batch:
                self.jobs.retry(job)
            return
        for job in batch:
            job.worker = worker
            self._running[worker][job.name] = job
            waited = now - job.submitted
            logger.info(line("job started", **self.log_fields(job), worker=worker, waited=waited, batch=len(batch)))

    def _handle(self, event: WorkerEvent, now: float) -> None:
        match event:
            case WorkerReady(worker):
                self._running[worker] = {}
            case WorkerReply(worker, header, frames):
                job = self._running.get(worker, {}).get(header.job or "")
                if job:
                    self._forward(worker, job, header, frames, now)
            case WorkerLost(worker, reason, cause):
                self.counts.workers_lost += worker in self._running and cause is not LossCause.STOPPED
                jobs = self._running.pop(worker, {})
                # The loss of a worker that was killed to stop a terminated job does not count against its other jobs.
                suspect = not any(job.termination for job in jobs.values())
                for job in jobs.values():
                    job.lost_workers += suspect and cause is LossCause.PROCESS
                    job.lost_machines += cause is LossCause.MACHINE
                    self._handle_loss(job, reason, now)

    def _forward(self, worker: str, job: Job, header: Header, frames: Sequence[Frame], now: float) -> None:
        """Forward a message of a worker to the client of the job."""
        if header.kind == Progress.kind:
            job.last_message = frames
            if not job.termination:
                self._clients.send(job.client, frames, droppable=True)
            return
        del self._running[worker][job.name]
        if job.termination:
            self._finish(job, job.termination, now)
        elif header.kind == Result.kind:
            self._deliver(job, Outcome.DONE, frames, now)
        else:
            self._log_end(job, str(header.content.get("code")), str(header.content.get("message")))
            self._deliver(job, Outcome.FAILED, frames, now)

    def _handle_loss(self, job: Job, reason: str, now: float) -> None:
        """Retry a job whose worker was lost, unless it is terminated or may be the cause."""
        if job.termination:
            self._finish(job, job.termination, now)
        elif job.lost_workers >= MAX_LOST_WORKERS or job.lost_machines >= MAX_LOST_MACHINES:
            lost = "two workers" if job.lost_workers >= MAX_LOST_WORKERS else f"{MAX_LOST_MACHINES} machines"
            text = f"{lost} ended or were lost while they ran this job: {reason}"
            self._finish(job, Termination(ErrorCode.WORKER_LOST, text), now)
        else:
            self.jobs.retry(job)
            logger.warning(line("job retried", **self.log_fields(job), reason=reason))
            self._clients.send(job.client, encode(Accepted(job.name, 0)), droppable=True)

    # --- the end of a job ---

    def _finish(self, job: Job, termination: Termination, now: float) -> None:
        """End a job without a result."""
        code, message = termination
        self._log_end(job, code, message)
        self._deliver(job, termination.outcome, encode_error(code, message, job.name), now)

    def _deliver(self, job: Job, outcome: Outcome, frames: Sequence[Frame], now: float) -> None:
        """Store the final message of a job and send it."""
        ran = now - job.started if job.state is JobState.RUNNING else 0.0
        self.jobs.finish(job, outcome, frames, now)
        match outcome:
            case Outcome.DONE:
                self.counts.done += 1
                logger.info(line("job done", **self.log_fields(job), seconds=ran, bytes=count_bytes(frames)))
            case Outcome.FAILED:
                self.counts.failed += 1
            case Outcome.CANCELLED:
                self.counts.cancelled += 1
        job.delivered = self._clients.send(job.client, frames, tag=job)

    def _log_end(self, job: Job, code: str, reason: str) -> None:
        logger.warning(line("job ended", **self.log_fields(job), code=code, reason=reason))
