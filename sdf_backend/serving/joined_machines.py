"""The machines that have joined a server over the network, and their workers; `machine.py` is the other side.

A worker of a machine is named MACHINE/WORKER. A machine whose connection is lost costs its running jobs, which the
dispatcher runs elsewhere, and comes back by connecting again.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import zmq

from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.addresses import bind
from sdf_backend.serving.authenticator import MACHINES, Authenticator, AuthorisedClients
from sdf_backend.serving.clients import Client, Clients, Incoming
from sdf_backend.serving.kept_content import KeptContent, digest_of
from sdf_backend.serving.machine_messages import (
    TO_SERVER,
    Assign,
    CancelJob,
    KillWorker,
    Leave,
    MachineHello,
    MachineWorker,
    Notice,
    Part,
    Reply,
    pack,
    unpack,
)
from sdf_backend.serving.server_keys import ServerKeys
from sdf_backend.serving.software import SOFTWARE
from sdf_backend.serving.worker_pool import LossCause, WorkerEvent, WorkerLost, WorkerReady, WorkerReply
from sdf_backend.wire.codec import Frame, WireError, encode, encode_error, read_header
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import Limits, ModelInfo, Welcome, WorkerInfo, WorkerState

# A machine that was lost is expected back for this time: jobs that only it can run wait for it.
REJOIN_SECONDS = 30.0
MESSAGES_A_CALL = 256
# The last connections that were given up, since they may still deliver messages.
GIVEN_UP = 256
SEPARATOR = "/"


@dataclass
class _Assignment:
    """Jobs on their way to a worker of a machine."""

    worker: str
    jobs: Sequence[Sequence[Frame]]
    digests: list[list[str]] | None = None
    """of each frame; None until another thread has computed them"""


@dataclass
class _Machine:
    """One machine, and its connection."""

    hello: MachineHello
    connection: Client
    kept: KeptContent[bool]
    ready: set[str] = field(default_factory=set)
    """names of the workers that the dispatcher knows to be ready"""
    outbox: deque[_Assignment | list[Frame]] = field(default_factory=deque)
    """in order; an assignment without digests holds up what follows"""
    lost_at: float | None = None

    @property
    def name(self) -> str:
        return self.hello.name

    def full_name(self, worker: str) -> str:
        return f"{self.name}{SEPARATOR}{worker}"

    def worker(self, name: str) -> MachineWorker | None:
        return next((worker for worker in self.hello.workers if worker.info.name == name), None)


class JoinedMachines:
    """Listens for machines, and runs jobs on their workers. No method blocks; times are those of the server's clock."""

    def __init__(
        self,
        context: zmq.Context,
        authenticator: Authenticator,
        address: str,
        limits: Limits,
        silence: float,
        keys: ServerKeys | None,
    ) -> None:
        """Listen at the address.

        Parameters
        ----------
        silence : a machine that sends nothing for so many seconds is lost
        keys : admit only authorised machines; required for an address that other computers can reach

        Raises
        ------
        InputError : for an address that cannot be listened on
        """
        self._limits, self._silence = limits, silence
        self._authorised = authorised = AuthorisedClients(keys.machines) if keys else None
        user_of = authorised.user_of if authorised else str
        # A reply is carried by another message, with two frames of its own.
        carried = replace(limits, frames=limits.frames + 2, message_bytes=limits.message_bytes + limits.header_bytes)
        self._clients = Clients(context, carried, silence, user_of, MACHINES)
        if keys:
            authenticator.protect(self._clients.socket, MACHINES, keys.secret, lambda key: bool(user_of(key)))
        try:
            self.address = bind(self._clients.socket, address, keys is not None)
        except Exception:
            self._clients.close(0)
            raise
        self._by_name: dict[str, _Machine] = {}
        self._by_peer: dict[bytes, _Machine] = {}
        self._given_up: deque[bytes] = deque(maxlen=GIVEN_UP)
        self._log = Throttle()
        # Hashing a large mesh takes longer than the server may be busy with one message.
        self._hashing = ThreadPoolExecutor(1, "hashing")
        self._wake_receiver, self._wake_sender = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self._wake_receiver.bind(f"inproc://hashed-{id(self)}")
        self._wake_sender.connect(f"inproc://hashed-{id(self)}")

    # --- what the server sees ---

    def start(self) -> None:
        """Begin to watch the connections."""
        # The guard of the clients watches the memory of this process; machines are the operator's own.
        self._clients.guard.expected = float("inf")
        self._clients.guard.start(int(self.address.rpartition(":")[2]), keys=self._authorised is not None)

    def sockets(self) -> Sequence[zmq.Socket]:
        """Sockets that become readable when there are events, or jobs to be sent."""
        return [self._clients.socket, self._wake_receiver]

    def poll(self, now: float) -> Iterator[WorkerEvent]:
        """Receive messages, detect machines that are lost, and send what is ready to be sent."""
        yield from self._receive(now)
        for key in self._authorised.take_revoked() if self._authorised else ():
            self._clients.cut_off(key, "its key was removed")
        for peer in self._clients.take_disconnected(now):
            if machine := self._by_peer.get(peer):
                yield from self._lose(machine, self._reason(machine), now)
        for machine in list(self._by_name.values()):
            if machine.lost_at is not None and now - machine.lost_at > REJOIN_SECONDS:
                del self._by_name[machine.name]
                logger.warning(line("machine forgotten", machine=machine.name))
        with suppress(zmq.Again):
            while True:
                self._wake_receiver.recv(zmq.NOBLOCK)
        for machine in self._by_peer.values():
            self._send(machine)
        self._clients.flush()

    def submit(self, worker: str, jobs: Sequence[Sequence[Frame]]) -> bool:
        """Send jobs to a worker as one batch; False if it is lost."""
        machine, name = self._find(worker)
        if machine is None or name not in machine.ready:
            return False
        assignment = _Assignment(name, jobs)
        machine.outbox.append(assignment)
        self._hashing.submit(self._hash, assignment)
        return True

    def cancel(self, worker: str, job: str) -> None:
        """Ask a worker to stop a job."""
        self._post(worker, lambda name: CancelJob(name, job))

    def kill(self, worker: str, reason: str) -> None:
        """Let the machine of a worker kill it."""
        self._post(worker, lambda name: KillWorker(name, reason))

    def notify(self, machine: str, text: str) -> None:
        """Write a sentence into the log of a machine."""
        if known := self._by_name.get(machine):
            known.outbox.append(pack(Notice(text)))

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count a time in which the server itself was suspended as silence of the machines."""
        self._clients.extend_deadlines(seconds)

    def capacity(self, worker: str) -> int:
        """Most jobs of one batch; none if its machine leaves."""
        machine, name = self._find(worker)
        known = machine.worker(name) if machine else None
        return known.capacity if machine and known and not machine.hello.draining else 0

    def loaded_models(self, worker: str) -> Sequence[str]:
        """As of the last heartbeat of its machine."""
        machine, name = self._find(worker)
        known = machine.worker(name) if machine else None
        return known.info.models if known else ()

    def digests(self) -> Mapping[str, Mapping[str, str]]:
        """Hash of the file of each usable model, by machine and model; of machines that are expected back too."""
        return {name: machine.hello.digests for name, machine in self._by_name.items()}

    def models(self) -> Iterator[ModelInfo]:
        """The models of all machines, which may name the same twice."""
        for machine in self._by_name.values():
            yield from machine.hello.models

    def describe(self) -> tuple[WorkerInfo, ...]:
        """All workers, those of machines that are expected back too."""
        return tuple(
            replace(
                worker.info,
                name=machine.full_name(worker.info.name),
                state=worker.info.state if machine.lost_at is None else WorkerState.LOST,
            )
            for machine in self._by_name.values()
            for worker in machine.hello.workers
        )

    def stop(self) -> None:
        """Close all connections; the machines stop their jobs and wait for the next server."""
        self._hashing.shutdown(cancel_futures=True)
        self._wake_sender.close(0)
        self._wake_receiver.close(0)
        self._clients.close(0)

    # --- messages of machines ---

    def _receive(self, now: float) -> Iterator[WorkerEvent]:
        for _ in range(MESSAGES_A_CALL):
            incoming = self._clients.receive(now)
            if incoming is None:
                return
            machine = self._by_peer.get(incoming.peer)
            if machine and incoming.returned:  # what it was sent meanwhile is lost
                yield from self._lose(machine, "it did not read", now)
            if incoming.peer in self._given_up:
                continue
            try:
                yield from self._handle(incoming, machine, now)
            except WireError as error:
                self._refuse(incoming, error)
                if machine:
                    yield from self._lose(machine, f"it sent an invalid message: {error}", now)

    def _handle(self, incoming: Incoming, machine: _Machine | None, now: float) -> Iterator[WorkerEvent]:
        match self._read(incoming):
            case MachineHello() as hello, _:
                yield from self._greet(incoming, machine, hello, now)
            case Reply(worker), carried if machine:
                yield WorkerReply(machine.full_name(worker), read_header(carried, self._limits), carried)
            case Leave(), _ if machine:
                yield from self._part(machine)

    def _read(self, incoming: Incoming) -> tuple[Any, Sequence[Frame]]:
        """Decode a message; raises `WireError`, for another version with a sentence that names both."""
        if incoming.frames is None:
            raise WireError(ErrorCode.TOO_LARGE, "the message is too large")
        header = read_header(incoming.frames[:2], self._limits)
        theirs = header.content.get("software")
        if header.kind == MachineHello.kind and theirs != SOFTWARE:
            text = f"this machine runs {theirs}, but the server {SOFTWARE}; install the same version on both"
            raise WireError(ErrorCode.VERSION, text)
        if header.kind not in TO_SERVER:
            raise WireError(ErrorCode.BAD_KIND, "at this address machines join; clients use the other address")
        return unpack(incoming.frames, TO_SERVER, self._limits)

    def _greet(
        self, incoming: Incoming, machine: _Machine | None, hello: MachineHello, now: float
    ) -> Iterator[WorkerEvent]:
        """Admit a machine, or take its news."""
        if machine is None:
            other = self._by_name.get(hello.name)
            if other and other.lost_at is None:
                if other.hello.instance != hello.instance:
                    text = f"another machine named {hello.name} has joined; start this one with another --name"
                    raise WireError(ErrorCode.LIMIT, text)
                yield from self._lose(other, "it has connected again", now)
            machine = self._admit(incoming, hello)
        machine.hello = hello
        for worker in hello.workers:
            yield from self._follow(machine, worker)
        self._clients.send(incoming.peer, encode(Welcome(SOFTWARE, self._limits, silence=self._silence)))

    def _admit(self, incoming: Incoming, hello: MachineHello) -> _Machine:
        connection = self._clients.get(incoming.peer)
        assert connection
        kept = KeptContent[bool]((digest, size, True) for digest, size in hello.kept.items())
        machine = _Machine(hello, connection, kept)
        self._by_name.pop(hello.name, None)  # so that it is the last, whose models do not change those of others
        self._by_name[hello.name] = self._by_peer[incoming.peer] = machine
        logger.info(line("machine joined", machine=hello.name, user=connection.user, address=connection.address))
        return machine

    def _follow(self, machine: _Machine, worker: MachineWorker) -> Iterator[WorkerEvent]:
        """The event, if a worker has become ready or was lost."""
        name = worker.info.name
        if worker.ready and name not in machine.ready:
            machine.ready.add(name)
            logger.info(line("worker ready", worker=machine.full_name(name), device=worker.info.device))
            yield WorkerReady(machine.full_name(name))
        elif not worker.ready and name in machine.ready:
            machine.ready.discard(name)
            logger.warning(line("worker lost", worker=machine.full_name(name), reason=worker.reason))
            yield WorkerLost(machine.full_name(name), worker.reason)

    def _part(self, machine: _Machine) -> Iterator[WorkerEvent]:
        """Let a machine go that was stopped."""
        self._clients.send(machine.connection.peer, pack(Leave()))
        self._give_up(machine)
        del self._by_name[machine.name]
        logger.info(line("machine left", machine=machine.name))
        yield from self._withdraw(machine, "its machine was stopped", LossCause.STOPPED)

    def _refuse(self, incoming: Incoming, error: WireError) -> None:
        client = self._clients.get(incoming.peer)
        address, user = (client.address, client.user) if client else ("", "")
        self._log.warning((address, user, error.code), "machine refused", address=address, user=user, reason=error)
        self._clients.send(incoming.peer, encode_error(error.code, str(error)))

    # --- machines that are lost ---

    def _lose(self, machine: _Machine, reason: str, now: float) -> Iterator[WorkerEvent]:
        machine.lost_at = now
        self._give_up(machine)
        logger.warning(line("machine lost", machine=machine.name, reason=reason))
        yield from self._withdraw(machine, f"machine {machine.name} was lost: {reason}", LossCause.MACHINE)

    def _give_up(self, machine: _Machine) -> None:
        """Take no more messages from a connection, and end it where the system lets us, so that its machine notices."""
        peer, meter = machine.connection.peer, machine.connection.meter
        self._given_up.append(peer)
        self._by_peer.pop(peer, None)
        machine.outbox.clear()
        if meter and machine.lost_at is not None:
            meter.shut_down()

    def _withdraw(self, machine: _Machine, reason: str, cause: LossCause) -> Iterator[WorkerEvent]:
        workers, machine.ready = machine.ready, set()
        for worker in workers:
            yield WorkerLost(machine.full_name(worker), reason, cause)

    def _reason(self, machine: _Machine) -> str:
        """Why a machine is disconnected."""
        meter = machine.connection.meter
        if self._authorised and self._authorised.user_of(machine.connection.owner) is None:
            return "its key was removed"
        return "its connection has ended" if meter and meter.closed else f"it was silent for {self._silence:g} s"

    # --- messages to machines ---

    def _find(self, worker: str) -> tuple[_Machine | None, str]:
        machine, _, name = worker.partition(SEPARATOR)
        return self._by_name.get(machine), name

    def _post(self, worker: str, message: Any) -> None:
        """Send what `message` makes of the name of a worker, after the jobs that it has been sent."""
        machine, name = self._find(worker)
        if machine and machine.lost_at is None:
            machine.outbox.append(pack(message(name)))
            self._send(machine)

    def _hash(self, assignment: _Assignment) -> None:
        """Compute the digests of an assignment, in a thread of its own, and wake the server."""
        assignment.digests = [[digest_of(frame) for frame in job] for job in assignment.jobs]
        with suppress(zmq.ZMQError):  # it has been woken often enough
            self._wake_sender.send(b"", zmq.NOBLOCK)

    def _send(self, machine: _Machine) -> None:
        """Send all that waits, up to an assignment that is not hashed yet."""
        while machine.outbox:
            first = machine.outbox[0]
            if isinstance(first, _Assignment) and first.digests is None:
                return
            machine.outbox.popleft()
            frames = _pack_jobs(first, machine.kept) if isinstance(first, _Assignment) else first
            self._clients.send(machine.connection.peer, frames)


def _pack_jobs(assignment: _Assignment, kept: KeptContent[bool]) -> list[Frame]:
    """The frames of an assignment, without those that the machine keeps; notes what it keeps from now on."""
    carried: list[Frame] = []
    jobs = []
    for frames, digests in zip(assignment.jobs, assignment.digests or (), strict=True):
        parts = []
        for frame, digest in zip(frames, digests, strict=True):
            is_kept = bool(kept.use(digest))
            if not is_kept:
                carried.append(frame)
                if digest:
                    kept.add(digest, _size(frame), True)
            parts.append(Part(digest, carried=not is_kept))
        jobs.append(tuple(parts))
    return pack(Assign(assignment.worker, tuple(jobs)), carried)


def _size(frame: Frame) -> int:
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)
