"""Workers that are processes on this machine, one a device: started, watched, talked to, replaced."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import zmq

from sdf_backend.errors import InputError
from sdf_backend.log import line, logger
from sdf_backend.serving.auth import Gate
from sdf_backend.serving.worker_messages import FROM_WORKER, Assignment, Batch, Heartbeat, WorkerHello, WorkerKeys
from sdf_backend.serving.worker_pool import Event, Lost, Ready, Reply
from sdf_backend.threads import PATIENT_THREADS
from sdf_backend.wire.codec import Frame, WireError, build, encode, read_header
from sdf_backend.wire.messages import Cancel, Limits, ModelInfo, WorkerInfo

# A socket that is a file is as private as the folder that it is in. Windows knows no such folders.
SOCKET_FILES = os.name == "posix" and zmq.has("ipc")
# A worker that ends so often before it greets is not expected to start at all; it is tried now and then all the same.
STARTS_BEFORE_GIVING_UP = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
# What a worker said last may still be under way when its process has ended.
LAST_WORDS_SECONDS = 0.1
SHUTDOWN_SECONDS = 1.0
MESSAGES_A_CALL = 256


@dataclass(frozen=True)
class WorkerSettings:
    """How local workers are run."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    count: int | None = None
    """how many; None is one a GPU, and one on a machine without"""
    models: Path | None = None
    """folder of further models"""
    cache: Path | None = None
    """folder in which results are kept by content, so that the same is not computed twice; None keeps none"""
    cache_bytes: int = 4 << 30
    """most that it may hold"""
    batch: int | None = None
    """most jobs that a worker computes together; None is 8 on a GPU, and 1 on a CPU, where it gains nothing"""
    stall_seconds: float = 30.0
    """a worker that says nothing for so long is replaced"""
    start_seconds: float = 120.0
    """a worker that has not greeted after so long is replaced"""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device):
            raise InputError(f"unknown device {self.device!r}; use auto, cpu, cuda or cuda:N")
        if self.models and not self.models.is_dir():
            raise InputError(f"the models' folder {self.models} does not exist")


@dataclass
class _Slot:
    """One worker's place, and the process that has it now; times in seconds of the server's clock."""

    name: str
    device: str
    start_at: float
    process: subprocess.Popen | None = None
    identity: str = ""
    started: float = 0.0
    heard: float = 0.0
    ended: float | None = None
    hello: WorkerHello | None = None
    beat: Heartbeat = field(default_factory=Heartbeat)
    failures: int = 0
    """starts in a row that came to nothing"""
    reason: str = ""
    """what the process said why it cannot start, or why it was killed"""
    last_reason: str = ""
    """why the process before it ended"""
    generation: int = 0


class LocalWorkers:
    """Worker processes on this machine, one a device."""

    def __init__(self, context: zmq.Context, gate: Gate, settings: WorkerSettings) -> None:
        self.settings = settings
        self._slots: list[_Slot] = []
        self._by_identity: dict[bytes, _Slot] = {}
        self._models: tuple[ModelInfo, ...] = ()
        self._ever_ready = False
        self._refused = ""
        self._folder: Path | None = None
        self._keys: WorkerKeys | None = None
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._address = self._bind(gate)

    # --- the interface ---

    def start(self, now: float) -> None:
        """Start the first worker, and the others unless it is to say first how many GPUs there are."""
        self._add_slots(1 if self._wait_for_first() else self.settings.count or 1, 0, now)
        self._start_those_due(now)

    def sockets(self) -> Sequence[zmq.Socket]:
        """The private socket."""
        return [self._socket]

    def events(self, now: float) -> Iterator[Event]:
        """Read what workers say, notice those that ended or stalled, and start those that are due."""
        yield from self._messages(now)
        for slot in self._slots:
            self._watch(slot, now)
            if slot.ended is not None and now - slot.ended >= LAST_WORDS_SECONDS:
                yield self._buried(slot, now)
        self._start_those_due(now)

    def give(self, worker: str, jobs: Sequence[Sequence[Frame]]) -> bool:
        """Send submissions, several with word that they belong together; False where the connection is gone."""
        messages = [encode(Batch(len(jobs))), *jobs] if len(jobs) > 1 else jobs
        if all(self._send(worker, frames) for frames in messages):
            return True
        self.kill(worker, "its connection is gone")  # it may have part of them
        return False

    def cancel(self, worker: str, job: str) -> None:
        """Send word of it, if the worker is there."""
        self._send(worker, encode(Cancel(job)))

    def kill(self, worker: str, reason: str) -> None:
        """End a worker's process."""
        self._kill(self._slot(worker), reason)

    def excuse(self, seconds: float) -> None:
        """Shift what is measured from the last sign of life."""
        for slot in self._slots:
            slot.heard += seconds

    def capacity(self, worker: str) -> int:
        """As its greeting says."""
        hello = self._slot(worker).hello
        return hello.capacity if hello else 0

    def loaded(self, worker: str) -> Sequence[str]:
        """As its last sign of life says."""
        return self._slot(worker).beat.loaded

    def describe(self) -> tuple[WorkerInfo, ...]:
        """All places, also those whose process is about to be started."""
        return tuple(
            WorkerInfo(
                slot.name,
                slot.hello.device if slot.hello else slot.device,
                "idle" if slot.hello else "starting",
                slot.process.pid if slot.process else 0,
                None,
                slot.beat.loaded,
                slot.beat.memory_bytes,
                slot.beat.device_bytes,
            )
            for slot in self._slots
        )

    def models(self) -> tuple[ModelInfo, ...]:
        """As the workers saw them last."""
        return self._models

    def hopeless(self) -> str:
        """The reason of the first worker, where all are given up."""
        if self._slots and all(slot.failures >= STARTS_BEFORE_GIVING_UP for slot in self._slots):
            return self._slots[0].last_reason
        return ""

    def refused(self) -> str:
        """For instance that there is no such device."""
        return self._refused

    def stop(self) -> None:
        """Ask all processes to end by closing their standard input, and kill those that do not."""
        processes = [slot.process for slot in self._slots if slot.process]
        for process in processes:
            _close_input(process)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SHUTDOWN_SECONDS / len(processes))
            process.kill()
            process.wait()
        self._socket.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _bind(self, gate: Gate) -> str:
        """Listen where nobody else gets in: at a socket file in a folder of our own, or else with keys.

        Encryption would take longer for a large mesh than everything else on its way.
        """
        if SOCKET_FILES:
            self._folder = Path(tempfile.mkdtemp(prefix="sdf-shapes-"))  # of mode 0700
            self._socket.bind(f"ipc://{self._folder / 'workers'}")
            return f"ipc://{self._folder / 'workers'}"
        (server_public, server_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
        self._keys = server_public.decode(), public.decode(), secret.decode()
        gate.guard(self._socket, "workers", server_secret, lambda key: "worker" if key == public else None)
        return f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"

    # --- places ---

    def _slot(self, worker: str) -> _Slot:
        return next(slot for slot in self._slots if slot.name == worker)

    def _wait_for_first(self) -> bool:
        """Whether the number of GPUs, which only a worker can tell, decides how many workers there are and where."""
        return self.settings.device in ("auto", "cuda") and self.settings.count != 1

    def _add_slots(self, count: int, cuda_devices: int, now: float) -> None:
        """Have `count` workers in all, in turn on each of the GPUs that there are."""
        while len(self._slots) < count:
            number = len(self._slots)
            device = f"cuda:{number % cuda_devices}" if cuda_devices else self.settings.device
            self._slots.append(_Slot(f"worker-{number}", device, now))

    def _threads(self) -> int:
        """Several workers on one CPU share its cores."""
        count = self.settings.count or 1
        return max(1, (os.cpu_count() or 1) // count) if count > 1 else 0

    # --- processes ---

    def _start_those_due(self, now: float) -> None:
        for slot in self._slots:
            if slot.process is None and now >= slot.start_at:
                self._start(slot, now)

    def _start(self, slot: _Slot, now: float) -> None:
        slot.generation += 1
        slot.identity = f"{slot.name}.{slot.generation}"
        slot.started = slot.heard = now
        slot.hello, slot.beat, slot.ended, slot.reason = None, Heartbeat(), None, ""
        try:
            # Its output belongs into the log, and a Ctrl-C in the terminal is for the server alone.
            slot.process = subprocess.Popen(
                [sys.executable, "-m", "sdf_backend.serving.worker"],
                stdin=subprocess.PIPE,
                stdout=2,
                start_new_session=True,
                env=PATIENT_THREADS | os.environ,
            )
        except OSError as error:
            slot.failures += 1
            slot.last_reason, slot.start_at = f"its process cannot be started: {error}", now + _pause(slot.failures)
            logger.error(line("worker cannot start", worker=slot.name, reason=slot.last_reason))
            return
        self._by_identity[slot.identity.encode()] = slot
        with suppress(OSError):  # one that has ended already is noticed soon enough
            _input_of(slot.process).write(self._assignment(slot).line())
            _input_of(slot.process).flush()
        logger.info(line("worker started", worker=slot.name, pid=slot.process.pid, device=slot.device))

    def _assignment(self, slot: _Slot) -> Assignment:
        return Assignment(
            slot.name,
            slot.identity,
            self._address,
            self._keys,
            slot.device,
            str(self.settings.models) if self.settings.models else None,
            str(self.settings.cache) if self.settings.cache else None,
            self.settings.cache_bytes,
            self.settings.batch or 0,
            self._threads(),
            min(1.0, self.settings.stall_seconds / 4),
            self.settings.limits,
        )

    def _watch(self, slot: _Slot, now: float) -> None:
        """Notice that a process has ended, or end one that is stuck."""
        if slot.process is None or slot.ended is not None:
            return
        if slot.process.poll() is not None:
            slot.ended = now
        elif slot.hello and now - slot.heard > self.settings.stall_seconds:
            self._kill(slot, f"stalled: nothing was heard of it for {self.settings.stall_seconds:g} s")
        elif not slot.hello and now - slot.started > self.settings.start_seconds:
            self._kill(slot, f"it was not ready {self.settings.start_seconds:g} s after its start")

    def _kill(self, slot: _Slot, reason: str) -> None:
        if slot.process and not slot.reason:
            slot.reason = reason
        if slot.process:
            slot.process.kill()

    def _buried(self, slot: _Slot, now: float) -> Lost:
        """Take leave of a process that has ended, and say when the next one starts."""
        assert slot.process
        _close_input(slot.process)
        reason = slot.reason or _ending(slot.process.returncode)
        started = slot.hello is not None
        slot.failures = 0 if started else slot.failures + 1
        slot.last_reason, slot.start_at = reason, now + _pause(slot.failures)
        del self._by_identity[slot.identity.encode()]
        slot.process, slot.hello, slot.ended, slot.beat = None, None, None, Heartbeat()
        log = logger.error if slot.failures >= STARTS_BEFORE_GIVING_UP else logger.warning
        log(line("worker lost" if started else "worker cannot start", worker=slot.name, reason=reason))
        return Lost(slot.name, reason)

    # --- messages ---

    def _send(self, worker: str, frames: Sequence[Frame]) -> bool:
        identity = self._slot(worker).identity.encode()
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True

    def _messages(self, now: float) -> Iterator[Event]:
        for _ in range(MESSAGES_A_CALL):
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            slot = self._by_identity.get(identity.bytes)
            if slot is None:  # from one that was taken leave of
                continue
            slot.heard = now
            try:
                header = read_header(frames, self.settings.limits)
                if header.kind in FROM_WORKER:
                    yield from self._news(slot, build(header, FROM_WORKER), now)
                elif header.job is None:  # an error about no job: why it cannot start
                    slot.reason = str(header.content.get("message"))
                    if header.content.get("code") == "bad_input" and not self._ever_ready:
                        self._refused = slot.reason
                else:
                    yield Reply(slot.name, header, frames)
            except WireError as error:
                self._kill(slot, f"it said what cannot be understood: {error}")

    def _news(self, slot: _Slot, message: WorkerHello | Heartbeat, now: float) -> Iterator[Event]:
        if isinstance(message, Heartbeat):
            slot.beat = message
            return
        if message.models != self._models:
            self._models = message.models
            for model in message.models:
                if model.problem:
                    logger.warning(line("model unusable", model=model.name, reason=model.problem))
        first, slot.hello = slot.hello is None, message
        if first:
            slot.failures = 0
            logger.info(line("worker ready", worker=slot.name, device=message.device, seconds=now - slot.started))
            if self._wait_for_first() and not self._ever_ready:
                self._add_slots(self.settings.count or max(1, message.cuda_devices), message.cuda_devices, now)
            self._ever_ready = True
            yield Ready(slot.name)


def _pause(failures: int) -> float:
    """Seconds until the next start: at once after a life that began well, ever longer otherwise."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1)) if failures else 0.0


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"its process ended with status {code}; the log says why"
    if -code == getattr(signal, "SIGKILL", 9):
        return "its process was killed (signal 9), perhaps because memory ran out; if so, lower the resolution"
    with suppress(ValueError):
        return f"its process was ended by {signal.Signals(-code).name} (signal {-code})"
    return f"its process was ended by signal {-code}"


def _input_of(process: subprocess.Popen) -> IO[bytes]:
    assert process.stdin
    return process.stdin


def _close_input(process: subprocess.Popen) -> None:
    with suppress(OSError):
        _input_of(process).close()
