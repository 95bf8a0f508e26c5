"""The worker pool of this machine: one process for each device, started, monitored and replaced."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import zmq

from sdf_backend.errors import InputError
from sdf_backend.log import line, logger
from sdf_backend.serving.authenticator import WORKERS, Authenticator
from sdf_backend.serving.socket_folder import SOCKET, make_socket_folder
from sdf_backend.serving.worker_messages import FROM_WORKER, Batch, Heartbeat, WorkerConfig, WorkerHello, WorkerKeys
from sdf_backend.serving.worker_pool import WorkerEvent, WorkerLost, WorkerReady, WorkerReply
from sdf_backend.threads import PATIENT_THREADS
from sdf_backend.wire.codec import Frame, WireError, build, encode, read_header
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import Cancel, Limits, ModelInfo, WorkerInfo, WorkerState

# A socket file is as private as its folder. Windows has no such folders.
SOCKET_FILES = os.name == "posix" and zmq.has("ipc")
# After this many failed starts in a row a worker counts as unavailable; it is still started again at long intervals.
FAILURES_UNTIL_UNAVAILABLE = 3
FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS = 0.5, 60.0
# Messages of a process may still be in transit when it has ended.
DRAIN_SECONDS = 0.1
SHUTDOWN_SECONDS = 1.0
MESSAGES_A_CALL = 256


@dataclass(frozen=True)
class WorkerSettings:
    """How local workers are run."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    count: int | None = None
    """number of workers; None for one on each GPU, or one on a machine without GPUs"""
    models: Path | None = None
    """folder of further models"""
    cache: Path | None = None
    """folder of the content cache, so that equal jobs are not computed again; None for no cache"""
    cache_bytes: int = 4 << 30
    """largest size of the cache"""
    batch: int | None = None
    """maximum number of jobs in a batch; None for 8 on a GPU, and 1 on a CPU, where batches save no time"""
    memory_bytes: int | None = None
    """what a worker on a CPU may allocate; None for its share of three quarters of this computer's memory"""
    stall_seconds: float = 30.0
    """a worker without a heartbeat for this time is replaced"""
    start_seconds: float = 120.0
    """a worker that is not ready after this time is replaced"""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device):
            raise InputError(f"unknown device {self.device!r}; use auto, cpu, cuda or cuda:N")
        if self.models and not self.models.is_dir():
            raise InputError(f"the models folder {self.models} does not exist; correct --models")


@dataclass
class _Slot:
    """One worker and its current process; times are in seconds of the clock of the server."""

    name: str
    device: str
    start_at: float
    process: subprocess.Popen | None = None
    identity: str = ""
    started: float = 0.0
    last_heard: float = 0.0
    ended: float | None = None
    hello: WorkerHello | None = None
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    failures: int = 0
    """failed starts in a row"""
    termination_reason: str = ""
    """why the process was killed, or why it says that it cannot start"""
    previous_reason: str = ""
    """why the previous process ended"""
    generation: int = 0


class LocalWorkerPool:
    """Worker processes on this machine, one for each device."""

    def __init__(self, context: zmq.Context, authenticator: Authenticator, settings: WorkerSettings) -> None:
        self.settings = settings
        self._slots: list[_Slot] = []
        self._by_identity: dict[bytes, _Slot] = {}
        self._models: tuple[ModelInfo, ...] = ()
        self._digests: Mapping[str, str] = {}
        self._ever_ready = False
        self._configuration_error = ""
        self._folder: Path | None = None
        self._keys: WorkerKeys | None = None
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._address = self._bind(authenticator)

    # --- the interface WorkerPool ---

    def start(self, now: float) -> None:
        """Start the first worker, and the others unless it has to report the number of GPUs first."""
        self._add_slots(1 if self._count_depends_on_gpus() else self.settings.count or 1, 0, now)
        self._start_due(now)

    def sockets(self) -> Sequence[zmq.Socket]:
        """The private socket."""
        return [self._socket]

    def poll(self, now: float) -> Iterator[WorkerEvent]:
        """Receive messages, detect processes that have ended or stalled, and start those that are due."""
        yield from self._receive(now)
        for slot in self._slots:
            self._monitor(slot, now)
            if slot.ended is not None and now - slot.ended >= DRAIN_SECONDS:
                yield self._reap(slot, now)
        self._start_due(now)

    def submit(self, worker: str, jobs: Sequence[Sequence[Frame]]) -> bool:
        """Send submissions, several of them as a batch; False if the connection is lost."""
        messages = [encode(Batch(len(jobs))), *jobs] if len(jobs) > 1 else jobs
        if all(self._send(worker, frames) for frames in messages):
            return True
        self.kill(worker, "its connection is lost")  # it may have received some of them
        return False

    def cancel(self, worker: str, job: str) -> None:
        """Forward a cancellation, if the worker is running."""
        self._send(worker, encode(Cancel(job)))

    def kill(self, worker: str, reason: str) -> None:
        """Kill the process of a worker."""
        self._kill(self._slot(worker), reason)

    def extend_deadlines(self, seconds: float) -> None:
        """Shift the time of the last heartbeat."""
        for slot in self._slots:
            slot.last_heard += seconds

    def capacity(self, worker: str) -> int:
        """As the worker reported when it was ready."""
        hello = self._slot(worker).hello
        return hello.capacity if hello else 0

    def can_run(self, worker: str, model: str) -> bool:
        """Always: all have the same models, and answer for others that there is no such model."""
        return True

    def loaded_models(self, worker: str) -> Sequence[str]:
        """As of the last heartbeat."""
        return self._slot(worker).heartbeat.loaded

    def describe(self) -> tuple[WorkerInfo, ...]:
        """All workers, including those whose process is about to be started."""
        return tuple(
            WorkerInfo(
                slot.name,
                slot.hello.device if slot.hello else slot.device,
                WorkerState.IDLE if slot.hello else WorkerState.STARTING,
                slot.process.pid if slot.process else 0,
                None,
                slot.heartbeat.loaded,
                slot.heartbeat.memory_bytes,
                slot.heartbeat.device_bytes,
            )
            for slot in self._slots
        )

    def models(self) -> tuple[ModelInfo, ...]:
        """As a worker reported last."""
        return self._models

    @property
    def digests(self) -> Mapping[str, str]:
        """Hash of the file of each usable model, by name, as a worker reported last."""
        return self._digests

    @property
    def has_been_ready(self) -> bool:
        """Whether any worker has been ready, so that the models are known."""
        return self._ever_ready

    def unavailable_reason(self) -> str:
        """Why the first worker failed, if all have failed repeatedly."""
        if self._slots and all(slot.failures >= FAILURES_UNTIL_UNAVAILABLE for slot in self._slots):
            return self._slots[0].previous_reason
        return ""

    def configuration_error(self) -> str:
        """Why the settings are wrong, for instance an unknown device."""
        return self._configuration_error

    def stop(self) -> None:
        """Ask all processes to end by closing their standard input, and kill those that do not."""
        processes = [slot.process for slot in self._slots if slot.process]
        for process in processes:
            _close_stdin(process)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SHUTDOWN_SECONDS / len(processes))
            process.kill()
            process.wait()
        self._socket.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _bind(self, authenticator: Authenticator) -> str:
        """Listen on a socket file in a private folder, or with keys where there are no such files.

        Encryption would take longer for a large mesh than everything else on its way.
        """
        if SOCKET_FILES:
            self._folder = make_socket_folder()
            self._socket.bind(f"ipc://{self._folder / SOCKET}")
            return f"ipc://{self._folder / SOCKET}"
        (server_public, server_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
        self._keys = server_public.decode(), public.decode(), secret.decode()
        authenticator.protect(self._socket, WORKERS, server_secret, lambda key: key == public.decode())
        return f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"

    # --- slots ---

    def _slot(self, worker: str) -> _Slot:
        return next(slot for slot in self._slots if slot.name == worker)

    def _count_depends_on_gpus(self) -> bool:
        """Whether the workers depend on the number of GPUs, which only a worker can find out."""
        return self.settings.device in ("auto", "cuda") and self.settings.count != 1

    def _add_slots(self, count: int, cuda_devices: int, now: float) -> None:
        """Add workers until there are `count`, distributed over the GPUs."""
        while len(self._slots) < count:
            number = len(self._slots)
            device = f"cuda:{number % cuda_devices}" if cuda_devices else self.settings.device
            self._slots.append(_Slot(f"worker-{number}", device, now))

    def _threads(self) -> int:
        """Threads of each worker: several on one CPU share its cores."""
        count = self.settings.count or 1
        return max(1, (os.cpu_count() or 1) // count) if count > 1 else 0

    def _memory_share(self) -> int:
        """Bytes that each worker may allocate: three quarters of this computer's memory for all of them."""
        return psutil.virtual_memory().total * 3 // 4 // (self.settings.count or 1)

    # --- processes ---

    def _start_due(self, now: float) -> None:
        for slot in self._slots:
            if slot.process is None and now >= slot.start_at:
                self._start(slot, now)

    def _start(self, slot: _Slot, now: float) -> None:
        slot.generation += 1
        slot.identity = f"{slot.name}.{slot.generation}"
        slot.started = slot.last_heard = now
        slot.hello, slot.heartbeat, slot.ended, slot.termination_reason = None, Heartbeat(), None, ""
        try:
            # Its output goes to the log, and Ctrl-C in the terminal is for the server alone.
            slot.process = subprocess.Popen(
                [sys.executable, "-m", "sdf_backend.serving.worker"],
                stdin=subprocess.PIPE,
                stdout=2,
                start_new_session=True,
                env=PATIENT_THREADS | os.environ,
            )
        except OSError as error:
            slot.failures += 1
            slot.previous_reason = f"its process cannot be started: {error}"
            slot.start_at = now + _restart_delay(slot.failures)
            logger.error(line("worker start failed", worker=slot.name, reason=slot.previous_reason))
            return
        self._by_identity[slot.identity.encode()] = slot
        with suppress(OSError):  # a process that has ended already is detected by `_monitor`
            _stdin_of(slot.process).write(self._config(slot).to_line())
            _stdin_of(slot.process).flush()
        logger.info(line("worker started", worker=slot.name, pid=slot.process.pid, device=slot.device))

    def _config(self, slot: _Slot) -> WorkerConfig:
        return WorkerConfig(
            name=slot.name,
            identity=slot.identity,
            address=self._address,
            keys=self._keys,
            device=slot.device,
            models=str(self.settings.models) if self.settings.models else None,
            cache=str(self.settings.cache) if self.settings.cache else None,
            cache_bytes=self.settings.cache_bytes,
            batch=self.settings.batch or 0,
            models_may_be_missing=self._ever_ready,
            memory_bytes=self.settings.memory_bytes or self._memory_share(),
            threads=self._threads(),
            heartbeat=min(1.0, self.settings.stall_seconds / 4),
            limits=self.settings.limits,
        )

    def _monitor(self, slot: _Slot, now: float) -> None:
        """Detect that a process has ended, and kill one that misses a deadline."""
        if slot.process is None or slot.ended is not None:
            return
        if slot.process.poll() is not None:
            slot.ended = now
        elif slot.hello and now - slot.last_heard > self.settings.stall_seconds:
            self._kill(slot, f"it stalled: no heartbeat for {self.settings.stall_seconds:g} s")
        elif not slot.hello and now - slot.started > self.settings.start_seconds:
            self._kill(slot, f"it was not ready within {self.settings.start_seconds:g} s")

    def _kill(self, slot: _Slot, reason: str) -> None:
        if slot.process and not slot.termination_reason:
            slot.termination_reason = reason
        if slot.process:
            slot.process.kill()

    def _reap(self, slot: _Slot, now: float) -> WorkerLost:
        """Clean up after a process that has ended, and schedule its replacement."""
        assert slot.process
        _close_stdin(slot.process)
        reason = slot.termination_reason or _exit_reason(slot.process.returncode)
        was_ready = slot.hello is not None
        slot.failures = 0 if was_ready else slot.failures + 1
        slot.previous_reason, slot.start_at = reason, now + _restart_delay(slot.failures)
        del self._by_identity[slot.identity.encode()]
        slot.process, slot.hello, slot.ended, slot.heartbeat = None, None, None, Heartbeat()
        log = logger.error if slot.failures >= FAILURES_UNTIL_UNAVAILABLE else logger.warning
        log(line("worker lost" if was_ready else "worker start failed", worker=slot.name, reason=reason))
        return WorkerLost(slot.name, reason)

    # --- messages ---

    def _send(self, worker: str, frames: Sequence[Frame]) -> bool:
        identity = self._slot(worker).identity.encode()
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True

    def _receive(self, now: float) -> Iterator[WorkerEvent]:
        for _ in range(MESSAGES_A_CALL):
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            slot = self._by_identity.get(identity.bytes)
            if slot is None:  # a process that was reaped
                continue
            slot.last_heard = now
            try:
                header = read_header(frames, self.settings.limits)
                if header.kind in FROM_WORKER:
                    yield from self._handle(slot, build(header, FROM_WORKER), now)
                elif header.job is None:  # an error without a job: the worker cannot start
                    slot.termination_reason = str(header.content.get("message"))
                    if header.content.get("code") == ErrorCode.BAD_INPUT and not self._ever_ready:
                        self._configuration_error = slot.termination_reason
                else:
                    yield WorkerReply(slot.name, header, frames)
            except WireError as error:
                self._kill(slot, f"it sent an invalid message: {error}")

    def _handle(self, slot: _Slot, message: WorkerHello | Heartbeat, now: float) -> Iterator[WorkerEvent]:
        if isinstance(message, Heartbeat):
            slot.heartbeat = message
            return
        self._digests = message.digests
        if message.models != self._models:
            self._models = message.models
            for model in message.models:
                if model.problem:
                    logger.warning(line("model unusable", model=model.name, reason=model.problem))
        first, slot.hello = slot.hello is None, message
        if first:
            slot.failures = 0
            logger.info(line("worker ready", worker=slot.name, device=message.device, seconds=now - slot.started))
            if self._count_depends_on_gpus() and not self._ever_ready:
                self._add_slots(self.settings.count or max(1, message.cuda_devices), message.cuda_devices, now)
            self._ever_ready = True
            yield WorkerReady(slot.name)


def _restart_delay(failures: int) -> float:
    """Seconds until the next start: none for a worker that was ready, doubled with each failed start."""
    return min(LONGEST_RESTART_SECONDS, FIRST_RESTART_SECONDS * 2 ** (failures - 1)) if failures else 0.0


def _exit_reason(code: int) -> str:
    """How a process ended, as a sentence."""
    if code >= 0:
        return f"its process ended with status {code}; see the log"
    if -code == getattr(signal, "SIGKILL", 9):
        return "its process was killed (signal 9), perhaps because memory ran out; if so, lower the resolution"
    with suppress(ValueError):
        return f"its process was ended by {signal.Signals(-code).name} (signal {-code})"
    return f"its process was ended by signal {-code}"


def _stdin_of(process: subprocess.Popen) -> IO[bytes]:
    assert process.stdin
    return process.stdin


def _close_stdin(process: subprocess.Popen) -> None:
    with suppress(OSError):
        _stdin_of(process).close()
