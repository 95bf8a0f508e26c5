"""The server's side of joined machines: real sockets, and machines that are played by the tests."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zmq
from backend_process import until

from sdf_backend.errors import InputError
from sdf_backend.serving.authenticator import Authenticator
from sdf_backend.serving.combined_pool import CombinedPool
from sdf_backend.serving.joined_machines import REJOIN_SECONDS, JoinedMachines
from sdf_backend.serving.machine_messages import (
    TO_MACHINE,
    Assign,
    CancelJob,
    KillWorker,
    Leave,
    MachineHello,
    MachineWorker,
    Notice,
    Reply,
    pack,
    unpack,
)
from sdf_backend.serving.software import SOFTWARE
from sdf_backend.serving.worker_pool import LossCause, WorkerEvent, WorkerLost, WorkerReady, WorkerReply
from sdf_backend.wire.codec import Frame, decode, encode
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import (
    AUTO_MODEL,
    REPLIES,
    Error,
    Hello,
    Limits,
    ModelInfo,
    Result,
    Source,
    Submit,
    Welcome,
    WorkerInfo,
    WorkerState,
)

SILENCE = 1.0
POINTS = np.random.default_rng(0).normal(size=(20_000, 3))
SPHERES, OTHERS = "5" * 40, "6" * 40


class Head:
    """Joined machines without a server; the tests turn its loop."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.authenticator = Authenticator(self.context)
        self.joined = JoinedMachines(
            self.context, self.authenticator, "tcp://127.0.0.1:*", Limits(), SILENCE, keys=None
        )
        self.pool = CombinedPool(None, self.joined)
        self.pool.start(time.monotonic())
        self.events: list[WorkerEvent] = []
        self.machines: list[PlayedMachine] = []

    def turn(self) -> None:
        self.authenticator.process()
        self.events += self.pool.poll(time.monotonic())
        for machine in self.machines:
            machine.turn()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return until(lambda: (self.turn(), condition())[1], what, 20)

    def until_event(self, kind: type, worker: str) -> Any:
        """Wait for an event about a worker; forgets it and all before it."""

        def found() -> WorkerEvent | None:
            for number, event in enumerate(self.events):
                if isinstance(event, kind) and event.worker == worker:
                    del self.events[: number + 1]
                    return event
            return None

        return self.until(found, f"{kind.__name__} of {worker}")

    def machine(self, name: str, **changes: Any) -> "PlayedMachine":
        machine = PlayedMachine(self.joined.address, name, **changes)
        self.machines.append(machine)
        return machine

    def joined_machine(self, name: str, **changes: Any) -> "PlayedMachine":
        machine = self.machine(name, **changes)
        self.until_event(WorkerReady, f"{name}/worker-0")
        return machine

    def stop(self) -> None:
        self.pool.stop()
        for machine in self.machines:
            machine.close()
        self.authenticator.close()
        self.context.term()


class PlayedMachine:
    """The connection of a machine with one worker."""

    def __init__(self, address: str, name: str, **changes: Any) -> None:
        worker = MachineWorker(WorkerInfo("worker-0", "cpu", WorkerState.IDLE), ready=True, capacity=1)
        digests = {"spheres": SPHERES}
        self.hello = MachineHello(name, f"{name}-1", SOFTWARE, False, (worker,), (ModelInfo("spheres"),), digests)
        self.hello = replace(self.hello, **changes)
        self.address, self.heard, self.beats, self.said_at = address, [], True, 0.0
        self.context = zmq.Context()
        self.connect()

    def connect(self) -> None:
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RECONNECT_IVL, -1)
        self.socket.connect(self.address)
        self.socket.poll(5000, zmq.POLLOUT)
        self.say(self.hello)

    def say(self, message: Any, carried: Sequence[Frame] = ()) -> None:
        with suppress(zmq.Again):  # the server has closed the connection
            self.socket.send_multipart(pack(message, carried), zmq.NOBLOCK)

    def turn(self) -> None:
        while self.socket.poll(0):
            self.heard.append(unpack(self.socket.recv_multipart(), TO_MACHINE, Limits()))
        if self.beats and time.monotonic() - self.said_at > SILENCE / 4:
            self.said_at = time.monotonic()
            self.say(self.hello)

    def first(self, kind: type) -> Any:
        """The first message of that kind, and what it carries; forgets it."""
        found = next((one for one in self.heard if isinstance(one[0], kind)), None)
        if found:
            self.heard.remove(found)
        return found

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def head() -> Iterator[Head]:
    head = Head()
    yield head
    head.stop()


def job(name: str, points: np.ndarray = POINTS, model: str = "spheres") -> list[Frame]:
    return list(encode(Submit(name, "complete", model, sources=(Source(points),))))


def assigned(head: Head, machine: PlayedMachine) -> tuple[Assign, Sequence[Frame]]:
    return head.until(lambda: machine.first(Assign), "jobs")


# --- workers ---


def test_a_worker_of_a_machine_runs_jobs_like_any_other(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    [worker] = head.pool.describe()
    assert (worker.name, worker.state, head.pool.capacity("gpu-1/worker-0")) == ("gpu-1/worker-0", "idle", 1)
    assert [model.name for model in head.pool.models()] == ["spheres"]
    request = job("first-job")
    assert head.pool.submit("gpu-1/worker-0", [request])
    message, carried = assigned(head, machine)
    assert (message.worker, [len(parts) for parts in message.jobs]) == ("worker-0", [3])
    assert list(map(bytes, carried)) == list(map(bytes, request))
    head.pool.cancel("gpu-1/worker-0", "first-job")
    head.pool.kill("gpu-1/worker-0", "it hangs")
    assert head.until(lambda: machine.first(CancelJob), "a cancellation")[0] == CancelJob("worker-0", "first-job")
    assert head.until(lambda: machine.first(KillWorker), "a kill")[0] == KillWorker("worker-0", "it hangs")
    machine.say(Reply("worker-0"), encode(Result("first-job", sources=(Source(POINTS),))))
    reply: WorkerReply = head.until_event(WorkerReply, "gpu-1/worker-0")
    assert (reply.header.kind, reply.header.job) == ("result", "first-job")
    np.testing.assert_array_equal(np.frombuffer(bytes(reply.frames[2])).reshape(-1, 3), POINTS)


def test_a_worker_that_its_machine_replaces_is_lost_and_ready_again(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    [worker] = machine.hello.workers
    machine.hello = replace(machine.hello, workers=(replace(worker, ready=False, reason="signal 9"),))
    assert head.until_event(WorkerLost, "gpu-1/worker-0") == WorkerLost("gpu-1/worker-0", "signal 9")
    assert not head.pool.submit("gpu-1/worker-0", [job("first-job")])
    machine.hello = replace(machine.hello, workers=(worker,))
    head.until_event(WorkerReady, "gpu-1/worker-0")


def test_a_machine_that_is_stopped_takes_no_more_jobs_and_leaves(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    machine.hello = replace(machine.hello, draining=True)
    head.until(lambda: head.pool.capacity("gpu-1/worker-0") == 0, "no more jobs are taken")
    machine.beats = False
    machine.say(Leave())
    lost = head.until_event(WorkerLost, "gpu-1/worker-0")
    assert lost.cause is LossCause.STOPPED
    assert head.until(lambda: machine.first(Leave), "leave")
    assert head.pool.describe() == ()


# --- data travels once ---


def test_the_data_of_a_job_travels_once(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    other = POINTS.copy()
    other[9_999] += 1
    sent = []
    for name, points in (("first-job", POINTS), ("again-job", POINTS), ("other-job", other), ("other-two", other)):
        assert head.pool.submit("gpu-1/worker-0", [job(name, points)])
        sent.append(sum(map(len, assigned(head, machine)[1])))
    assert sent[0] > POINTS.nbytes
    assert sent[1] < 1000
    assert sent[2] > POINTS.nbytes
    assert sent[3] < 1000


def test_a_machine_that_connects_again_is_not_sent_what_it_keeps(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    assert head.pool.submit("gpu-1/worker-0", [job("first-job")])
    message, _ = assigned(head, machine)
    machine.socket.close()
    machine.hello = replace(machine.hello, kept={part.digest: POINTS.nbytes for part in message.jobs[0] if part.digest})
    machine.connect()
    head.until_event(WorkerLost, "gpu-1/worker-0")
    head.until_event(WorkerReady, "gpu-1/worker-0")
    assert head.pool.submit("gpu-1/worker-0", [job("again-job")])
    assert sum(map(len, assigned(head, machine)[1])) < 1000


def test_a_machine_that_has_forgotten_is_sent_it_again(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    assert head.pool.submit("gpu-1/worker-0", [job("first-job")])
    assigned(head, machine)
    machine.socket.close()
    machine.connect()
    head.until_event(WorkerLost, "gpu-1/worker-0")
    head.until_event(WorkerReady, "gpu-1/worker-0")
    assert head.pool.submit("gpu-1/worker-0", [job("again-job")])
    assert sum(map(len, assigned(head, machine)[1])) > POINTS.nbytes


# --- machines that are lost ---


@pytest.mark.parametrize("metered", [True, False], ids=["closed by the server", "left open"])
def test_a_silent_machine_is_lost_and_what_it_says_later_is_not_heard(
    head: Head, metered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not metered:  # as on systems where the server cannot close a connection
        monkeypatch.setattr(head.joined._clients.guard, "meter", lambda descriptor: None)
    machine = head.joined_machine("gpu-1")
    machine.beats = False
    lost = head.until_event(WorkerLost, "gpu-1/worker-0")
    assert (lost.cause, "gpu-1" in lost.reason) == (LossCause.MACHINE, True)
    assert [worker.state for worker in head.pool.describe()] == ["lost"]
    machine.say(Reply("worker-0"), encode(Result("first-job")))
    machine.say(machine.hello)
    for _ in range(20):
        head.turn()
        time.sleep(0.01)
    assert [worker.state for worker in head.pool.describe()] == ["lost"]
    machine.socket.close()
    machine.beats = True
    machine.connect()
    head.until_event(WorkerReady, "gpu-1/worker-0")
    assert not [event for event in head.events if isinstance(event, WorkerReply)]


def test_a_killed_machine_is_lost_at_once_and_its_models_are_waited_for(head: Head) -> None:
    here, there = head.joined_machine("here", models=(), digests={}), head.joined_machine("there")
    assert not head.pool.can_run("here/worker-0", "spheres")
    head.machines.remove(there)
    there.close()
    head.until_event(WorkerLost, "there/worker-0")
    assert not head.pool.can_run("here/worker-0", "spheres")
    assert head.pool.can_run("here/worker-0", "")
    later = time.monotonic() + 1.1 * REJOIN_SECONDS
    here.beats = False
    head.joined.extend_deadlines(2 * REJOIN_SECONDS)
    list(head.pool.poll(later))
    assert [worker.name for worker in head.pool.describe()] == ["here/worker-0"]
    assert head.pool.can_run("here/worker-0", "spheres")  # and answers that there is no such model


def test_a_machine_that_sends_nonsense_is_lost(head: Head) -> None:
    machine = head.joined_machine("gpu-1")
    machine.say(Reply("worker-0"), [b"nonsense"])
    assert "invalid message" in head.until_event(WorkerLost, "gpu-1/worker-0").reason


# --- who is refused ---


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"software": "sdf-shapes 9.9"}, ErrorCode.VERSION, ("sdf-shapes 9.9", SOFTWARE, "same version")),
        ({"instance": "gpu-1-2"}, ErrorCode.LIMIT, ("another machine named gpu-1", "--name")),
    ],
    ids=["version", "name"],
)
def test_a_refusal_says_what_to_do(head: Head, changes: dict, code: ErrorCode, words: tuple[str, ...]) -> None:
    head.joined_machine("gpu-1")
    refused = head.machine("gpu-1", **changes)
    error, _ = head.until(lambda: refused.first(Error), "a refusal")
    assert error.code == code
    assert all(word in error.message for word in words)
    assert refused.first(Welcome) is None
    assert [worker.name for worker in head.pool.describe()] == ["gpu-1/worker-0"]


def test_a_client_is_told_that_it_uses_the_wrong_address(head: Head) -> None:
    with head.context.socket(zmq.DEALER) as client:
        client.set(zmq.LINGER, 0)
        client.connect(head.joined.address)
        client.send_multipart(encode(Hello()))
        head.until(lambda: client.poll(0), "a refusal")
        assert "other address" in decode(client.recv_multipart(), REPLIES, Limits()).message


HELLO = {"kind": "machine", "name": "gpu-2", "instance": "1", "software": SOFTWARE}


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"SDF1"],
        [b"SDF9", b"{}"],
        [b"SDF1", b"[" * 100_000],
        [b"SDF1", json.dumps({"kind": "reply"}).encode()],
        [b"SDF1", json.dumps({"kind": "reply", "worker": "worker-0"}).encode(), b"SDF1", b"{}"],
        [b"SDF1", json.dumps({"kind": "leave"}).encode()],
        [b"SDF1", json.dumps(HELLO | {"workers": 3}).encode()],
        [b"SDF1", json.dumps(HELLO | {"kept": {"a": "much"}}).encode()],
        [b"SDF1", json.dumps(HELLO | {"name": "../gpu"}).encode()],
        [b"SDF1", json.dumps(HELLO | {"software": ["sdf-shapes"]}).encode()],
        [b"SDF1"] * 2000,
    ],
    ids=range(12),
)
def test_what_strangers_send_disturbs_nobody(head: Head, frames: list[bytes]) -> None:
    machine = head.joined_machine("gpu-1")
    with head.context.socket(zmq.DEALER) as stranger:
        stranger.set(zmq.LINGER, 0)
        stranger.connect(head.joined.address)
        stranger.send_multipart(frames)
        stranger.send_multipart(encode(Hello()))  # whose answer comes after all that was read before
        head.until(lambda: stranger.poll(0), "an answer")
    assert [worker.name for worker in head.pool.describe()] == ["gpu-1/worker-0"]
    assert head.pool.submit("gpu-1/worker-0", [job("first-job")])
    assert assigned(head, machine)
    assert not [event for event in head.events if isinstance(event, WorkerLost | WorkerReply)]


def test_the_name_of_a_machine_is_checked() -> None:
    with pytest.raises(InputError, match="--name"):
        MachineHello("gpu/1", "1", SOFTWARE)


# --- models ---


def test_a_file_that_differs_is_not_used_and_both_sides_are_told_once(
    head: Head, caplog: pytest.LogCaptureFixture
) -> None:
    head.joined_machine("here")
    there = head.joined_machine(
        "there", models=(ModelInfo("spheres"), ModelInfo("cubes")), digests={"spheres": OTHERS, "cubes": OTHERS}
    )
    assert head.pool.can_run("here/worker-0", "spheres")
    assert not head.pool.can_run("there/worker-0", "spheres")
    assert not head.pool.can_run("here/worker-0", "cubes")
    assert head.pool.can_run("there/worker-0", "cubes")
    assert [model.name for model in head.pool.models()] == ["spheres", "cubes"]
    notice, _ = head.until(lambda: there.first(Notice), "a notice")
    assert "the model spheres of this machine is not used" in notice.text
    head.turn()
    assert sum("model not used" in record.message for record in caplog.records) == 1
    there.hello = replace(there.hello, digests={"spheres": SPHERES, "cubes": OTHERS})
    head.until(lambda: head.pool.can_run("there/worker-0", "spheres"), "the file is used")


def test_a_model_that_one_machine_cannot_use_is_described_by_another(head: Head) -> None:
    head.joined_machine("here", models=(ModelInfo("spheres", problem="damaged"),), digests={})
    head.joined_machine("there")
    assert [model.problem for model in head.pool.models()] == [""]
    assert not head.pool.can_run("here/worker-0", "spheres")
    assert head.pool.can_run("there/worker-0", "spheres")


def test_a_model_is_chosen_where_there_are_the_most_to_choose_from(head: Head) -> None:
    head.joined_machine("few")
    assert head.pool.can_run("few/worker-0", AUTO_MODEL)
    head.joined_machine("many", digests={"spheres": SPHERES, "cubes": OTHERS})
    head.joined_machine("wrong", digests={"spheres": OTHERS, "cubes": OTHERS, "lamps": OTHERS})
    able = [name for name in ("few", "many", "wrong") if head.pool.can_run(f"{name}/worker-0", AUTO_MODEL)]
    assert able == ["many"]
