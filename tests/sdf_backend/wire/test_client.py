"""The client against a scripted server on real sockets: its states, its reasons, and what it does without a server."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from fake_server import FakeServer, until
from ports import reserve_port
from zmq.auth.thread import ThreadAuthenticator

from sdf_backend.wire.client import MAX_SUBMISSIONS, Client, ClientError, State, StateChanged, Timing, new_job
from sdf_backend.wire.codec import FIRST_FRAME, WireError, encode
from sdf_backend.wire.connection import POLL_MESSAGES
from sdf_backend.wire.keys import ClientKeys
from sdf_backend.wire.messages import (
    Accepted,
    Busy,
    Cancel,
    Cancelling,
    Error,
    Limits,
    ModelInfo,
    Preview,
    Progress,
    Result,
    Source,
    Status,
    StatusRequest,
    Submit,
    Welcome,
)

POINTS = np.arange(9, dtype="<f4").reshape(3, 3)
PREVIEW = Preview(POINTS, np.array([[0, 1, 2]], "<i4"))
QUICK = Timing(heartbeat=0.05, first_retry=0.02, longest_retry=0.05, refused_retry=0.05)


class Scene:
    """A server, a client and the events of the client so far."""

    def __init__(self, server: FakeServer, client: Client) -> None:
        self.server, self.client = server, client
        self.events: list[Any] = []

    def step(self) -> None:
        if not self.server.socket.closed:
            self.server.step()
        self.events += self.client.poll()

    def until(self, condition: Callable[[], Any]) -> Any:
        return until(condition, self.step)

    def until_state(self, state: State) -> str:
        """Go on to a state; the reason."""
        self.until(lambda: self.client.state is state)
        return self.client.reason

    def until_told(self, kind: type) -> Any:
        """Continue until the client reports an event of a kind; removes and returns it."""
        event = self.until(lambda: next((event for event in self.events if isinstance(event, kind)), None))
        self.events.remove(event)
        return event

    def until_asked(self, kind: type) -> Any:
        """Go on until the server is asked something of a kind; that request, taken out."""
        requests = self.server.requests
        request = self.until(lambda: next((request for request in requests if isinstance(request, kind)), None))
        requests.remove(request)
        return request

    def submit(self, **fields: Any) -> str:
        """Submit a job and see it arrive."""
        job = self.client.submit(Submit(new_job(), "echo", sources=(Source(POINTS),), **fields))
        assert self.until_asked(Submit).job == job
        return job

    def restart(self) -> None:
        """The server goes, and after the client has seen it another is in its place."""
        self.server.close()
        self.until_state(State.LOST)
        self.server = FakeServer(self.server.port)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def scene(server: FakeServer) -> Iterator[Scene]:
    """A client that is connected."""
    with Client(server.address, name="test", timing=QUICK) as client:
        scene = Scene(server, client)
        scene.until_state(State.CONNECTED)
        scene.events.clear()
        server.requests.clear()
        yield scene
        scene.server.close()


def lone_client(address: str, key_file: Path | None = None, seconds: float = 20.0, **timing: float) -> StateChanged:
    """The first event of a client without a cooperating server."""
    with Client(address, key_file, timing=Timing(**timing)) as client:
        events: list[Any] = []
        until(lambda: events, lambda: events.extend(client.poll()), seconds=seconds)
        return events[0]


# --- connecting ----------------------------------------------------------------------------------------------------


def test_a_client_reports_when_it_is_connected_and_to_what(server: FakeServer) -> None:
    models = (ModelInfo("chairs"), ModelInfo("lamps", problem="damaged"))
    server.welcome = Welcome("sdf 9", Limits(resolution=64), models, ("cpu",))
    before = threading.active_count()
    with Client(server.address) as client:
        scene = Scene(server, client)
        assert client.state is State.CONNECTING and client.welcome is None and server.address in client.reason
        assert scene.until_told(StateChanged) == StateChanged(State.CONNECTED, f"connected to {server.address}, sdf 9")
        assert scene.until_told(Welcome) == server.welcome == client.welcome
        assert client.state is State.CONNECTED
        assert threading.active_count() == before
    assert client.state is State.CLOSED
    assert [event.state for event in client.poll()] == [State.CLOSED]
    assert client.poll() == []
    client.close()


def test_an_idle_client_sends_heartbeats_and_reports_changes(scene: Scene) -> None:
    hellos = scene.server.hellos
    scene.until(lambda: scene.server.hellos > hellos + 3)
    assert scene.events == []
    scene.server.welcome = Welcome("fake 1.0", models=(ModelInfo("chairs"),))
    assert scene.until_told(Welcome).models[0].name == "chairs"


def test_a_poll_never_blocks_and_takes_only_some_of_many_messages(scene: Scene) -> None:
    job = scene.submit()
    for number in range(300):
        scene.server.send(Accepted(job, number))
        scene.server.step()
        if number % 50 == 0:
            started = time.monotonic()
            got = len(scene.client.poll())
            assert got <= POLL_MESSAGES and time.monotonic() - started < 1.0
    last = scene.until(lambda: next((e for e in scene.events if isinstance(e, Accepted) and e.position == 299), None))
    assert last


# --- why there is no connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "127.0.0.1:5577", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:99999", "tcp://:5577",
     "tcp://*:5577", "http://127.0.0.1:5577", "ipc://x", "inproc://x", "tcp://a b:1", "tcp://127.0.0.1:5577\n", "tcp://h\u00f6st:5577"],
)  # fmt: skip
def test_an_invalid_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ClientError, match="use tcp://HOST:PORT"):
        Client(address)


@pytest.mark.parametrize("address", ["tcp://[1:::::2]:5577", "tcp://[.]:5577"])
def test_an_address_that_cannot_be_connected_to_is_reported(address: str) -> None:
    said = lone_client(address, greeting=1.0)
    assert said.state is State.CONNECTING and address in said.reason and "address" in said.reason


def test_a_port_without_a_server_is_reported() -> None:
    address = f"tcp://127.0.0.1:{reserve_port()}"
    said = lone_client(address)
    assert said.state is State.CONNECTING
    assert f"no server listens at {address}" in said.reason and "start the backend" in said.reason


def test_a_program_that_is_not_a_backend_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        said = lone_client(f"tcp://127.0.0.1:{listener.getsockname()[1]}", greeting=1.0)
    assert said.state is State.CONNECTING
    assert "is not a backend" in said.reason and "1 s" in said.reason and "correct the address" in said.reason


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100])
def test_a_program_that_closes_the_connection_is_reported(words: bytes) -> None:
    """As a web server does, for which the handshake is a bad request."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as connections:
        listener.setblocking(False)

        def answer() -> None:
            with contextlib.suppress(BlockingIOError):
                connection = connections.enter_context(listener.accept()[0])
                connection.sendall(words)
                connection.shutdown(socket.SHUT_RDWR)

        events: list[Any] = []
        with Client(f"tcp://127.0.0.1:{listener.getsockname()[1]}") as client:
            until(lambda: events, answer, lambda: events.extend(client.poll()))
    assert events[0].state is State.CONNECTING and "is not a backend" in events[0].reason


def test_a_server_that_sends_no_greeting_is_reported(server: FakeServer) -> None:
    said = lone_client(server.address, greeting=1.0)
    assert said.state is State.CONNECTING
    assert "sent no greeting within 1 s" in said.reason and "look at its log" in said.reason


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when connected"])
@pytest.mark.parametrize("answer", ["frames", "error"])
def test_another_version_is_reported_with_both_versions(server: FakeServer, answer: str, late: bool) -> None:
    """A later server may answer in its own version, or, kindly, in ours."""
    with Client(server.address, timing=QUICK) as client:
        scene = Scene(server, client)
        if late:
            scene.until_state(State.CONNECTED)
        server.welcome = None
        scene.until(lambda: server.hellos > 1 or (not late and server.hellos))
        if answer == "frames":
            server.send_frames([b"SDF2", b"{}"])
        else:
            server.send(Error("version", "a message of version 1 came where version 2 is spoken; update"))
        reason = scene.until_state(State.INCOMPATIBLE)
        assert "version 1" in reason and "version 2" in reason and "update" in reason
        with pytest.raises(ClientError, match="version 2") as caught:
            client.wait_connected(1.0)
        assert caught.value.code == "incompatible"
        server.welcome = Welcome("updated")
        scene.until_state(State.CONNECTED)


def test_a_rejected_greeting_is_reported(server: FakeServer) -> None:
    with Client(server.address, timing=QUICK) as client:
        scene = Scene(server, client)
        server.welcome = None
        scene.until(lambda: server.hellos)
        server.send(Error("bad_value", "the name is too long"))
        assert "the name is too long" in scene.until_state(State.INCOMPATIBLE)


# --- keys ----------------------------------------------------------------------------------------------------------


def key_file(folder: Path, keys: ClientKeys) -> Path:
    path = folder / "artist.key_secret"
    lines = [f'    {name}-key = "{key.decode()}"' for name, key in zip(("public", "secret"), keys, strict=False)]
    path.write_text("\n".join(["metadata", f'    server-key = "{keys.server.decode()}"', "curve", *lines, ""]))
    path.chmod(0o600)
    return path


class Gate:
    """A server with keys, and the clients' keys that it knows."""

    def __init__(self) -> None:
        self.public, self.secret = zmq.curve_keypair()
        self.known: set[bytes] = set()
        self.context = zmq.Context()
        self.authenticator = ThreadAuthenticator(self.context)
        self.authenticator.start()
        self.authenticator.configure_curve_callback(credentials_provider=self)
        self.server = FakeServer(curve=(self.public, self.secret), context=self.context)

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self.known

    def new_keys(self, *, known: bool) -> ClientKeys:
        public, secret = zmq.curve_keypair()
        if known:
            self.known.add(public)
        return ClientKeys(public, secret, self.public)

    def close(self) -> None:
        self.server.close()
        self.authenticator.stop()
        self.context.term()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


def test_a_known_key_is_admitted(gate: Gate, tmp_path: Path) -> None:
    with Client(gate.server.address, key_file(tmp_path, gate.new_keys(known=True))) as client:
        scene = Scene(gate.server, client)
        scene.until_state(State.CONNECTED)
        scene.submit()


def test_an_unknown_key_is_refused_until_it_is_authorised(gate: Gate, tmp_path: Path) -> None:
    keys = gate.new_keys(known=False)
    path = key_file(tmp_path, keys)
    with Client(gate.server.address, path, timing=QUICK) as client:
        scene = Scene(gate.server, client)
        reason = scene.until_state(State.REFUSED)
        assert "does not know the key" in reason and str(path) in reason and "ask its operator" in reason
        assert keys.secret.decode() not in reason
        with pytest.raises(ClientError, match="does not know the key") as caught:
            client.wait_connected()
        assert caught.value.code == "refused"
        gate.known.add(keys.public)
        scene.until_state(State.CONNECTED)


def test_a_revoked_key_is_refused(scene: Scene) -> None:
    scene.server.send(Error("not_authorised", "this key is not authorised any more; ask the operator"))
    assert "not authorised any more" in scene.until_state(State.REFUSED)
    scene.until_state(State.CONNECTED)


def test_the_key_of_another_server_is_refused(gate: Gate, tmp_path: Path) -> None:
    other, _ = zmq.curve_keypair()
    path = key_file(tmp_path, gate.new_keys(known=True)._replace(server=other))
    said = lone_client(gate.server.address, path)
    assert said.state is State.REFUSED
    assert "does not match" in said.reason and str(path) in said.reason and "ask its operator" in said.reason


def test_a_server_that_requires_a_key_is_reported(gate: Gate) -> None:
    said = lone_client(gate.server.address)
    assert said.state is State.REFUSED and "requires a key; give the key file" in said.reason


def test_a_server_without_keys_is_reported(server: FakeServer, gate: Gate, tmp_path: Path) -> None:
    path = key_file(tmp_path, gate.new_keys(known=True))
    said = lone_client(server.address, path)
    assert said.state is State.REFUSED and f"works without keys; connect without {path}" in said.reason


def test_an_unusable_key_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot be read"):
        Client("tcp://127.0.0.1:5577", tmp_path / "none")


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_a_job_is_tracked_until_its_result(scene: Scene) -> None:
    sent = Submit(new_job(), "complete", "chairs", sources=(Source(POINTS, sensor=(1, 2, 3)),), keep=5)
    assert scene.client.submit(sent) == sent.job
    assert scene.client.submit(sent) == sent.job
    got = scene.until_asked(Submit)
    np.testing.assert_array_equal(got.sources[0].vertices, POINTS)
    assert (got.job, got.model, got.keep, got.sources[0].sensor) == (sent.job, "chairs", 5, (1, 2, 3))
    assert scene.client.jobs == (sent.job,)
    scene.server.send(Accepted(sent.job, 2))
    assert scene.until_told(Accepted).position == 2
    scene.server.send(Progress(sent.job, "fitting", 0.5))
    assert scene.until_told(Progress).fraction == 0.5
    scene.server.send(Result(sent.job, sources=sent.sources), Progress(sent.job, "late", 1.0), Result(sent.job))
    np.testing.assert_array_equal(scene.until_told(Result).sources[0].vertices, POINTS)
    assert scene.client.jobs == ()
    # Messages about jobs that have ended, or of other clients, are not reported.
    scene.server.send(Error("failed", "not yours", "some-other-job"), Status("fake", 1.0))
    scene.until_told(Status)
    assert scene.events == []
    assert scene.server.requests == []


def test_a_job_is_sent_when_there_is_a_connection() -> None:
    port = reserve_port()
    with Client(f"tcp://127.0.0.1:{port}", timing=QUICK) as client:
        job = client.submit(Submit(new_job(), "echo", sources=(Source(POINTS),)))
        until(lambda: "no server listens" in client.reason, client.poll)
        server = FakeServer(port)
        try:
            assert Scene(server, client).until_asked(Submit).job == job
        finally:
            server.close()


@pytest.mark.parametrize("end", [Error("out_of_memory", "lower the resolution", "JOB"), Busy("JOB", 5, 5)])
def test_a_job_ends_with_an_error_or_because_the_server_is_busy(scene: Scene, end: Error | Busy) -> None:
    end = replace(end, job=scene.submit())
    scene.server.send(end)
    assert scene.until_told(type(end)) == end
    assert scene.client.jobs == ()


def test_an_error_without_a_job_is_reported(scene: Scene) -> None:
    scene.server.send(Error("bad_header", "the header is no JSON"))
    assert scene.until_told(Error).code == "bad_header"


def test_pending_progress_is_merged(scene: Scene) -> None:
    """A user interface that was busy needs the last progress and the last preview, not all of them."""
    job = scene.submit()
    scene.server.send(Progress(job, "fitting", 0.1, PREVIEW), *(Progress(job, "fitting", i / 50) for i in range(50)))
    scene.server.send(Progress(job, "extracting", 1.0))
    scene.client._events.clear()
    until(lambda: any(getattr(e, "phase", "") == "extracting" for e in scene.client._events), scene.client._process)
    [progress] = scene.client.poll()
    assert progress.fraction == 1.0 and progress.preview is not None


def test_a_message_that_the_server_would_refuse_is_not_sent(scene: Scene) -> None:
    with pytest.raises(WireError, match=r"count is 1\.5"):
        scene.client.submit(Submit(new_job(), "echo", count=1.5))
    scene.server.welcome = Welcome("small", Limits(frame_bytes=100))
    scene.until_told(Welcome)
    with pytest.raises(WireError, match="at most 100 are accepted"):
        scene.client.submit(Submit(new_job(), "echo", sources=(Source(np.zeros((1000, 3))),)))
    assert scene.client.jobs == ()


def test_a_job_that_exceeds_the_limits_of_the_server_ends(server: FakeServer) -> None:
    """The limits come with the greeting, perhaps after the job."""
    server.welcome = Welcome("small", Limits(frame_bytes=100))
    with Client(server.address, timing=QUICK) as client:
        job = client.submit(Submit(new_job(), "echo", sources=(Source(np.zeros((1000, 3))),)))
        error = Scene(server, client).until_told(Error)
    assert (error.job, error.code) == (job, "too_large")
    assert server.requests == []


def test_a_large_job_is_sent_and_returned(scene: Scene) -> None:
    points = np.random.default_rng(0).normal(size=(300_000, 3))
    job = scene.client.submit(Submit(new_job(), "echo", sources=(Source(points),)))
    got = scene.until_asked(Submit)
    scene.server.send(Result(job, sources=got.sources))
    np.testing.assert_array_equal(scene.until_told(Result).sources[0].vertices, points)


def test_an_invalid_answer_ends_its_job(scene: Scene) -> None:
    job = scene.submit()
    header = b'{"kind":"progress","job":"%s","phase":7,"fraction":0}' % job.encode()
    scene.server.send_frames([FIRST_FRAME, header])
    error = scene.until_told(Error)
    assert (error.job, error.code) == (job, "bad_value") and "phase" in error.message
    assert scene.client.state is State.CONNECTED


def test_unknown_messages_of_a_later_server_are_ignored(scene: Scene) -> None:
    job = scene.submit()
    scene.server.send_frames([FIRST_FRAME, b'{"kind":"estimate","job":"%s","seconds":3}' % job.encode()])
    scene.server.send_frames([FIRST_FRAME, b'{"kind":"accepted","job":"%s","position":1,"eta":9}' % job.encode()])
    assert scene.until_told(Accepted).position == 1
    assert scene.client.jobs == (job,)


def test_status_is_requested_and_reported(scene: Scene) -> None:
    scene.client.ask_status()
    assert scene.until_asked(StatusRequest).job is None
    scene.server.send(Status("fake", 12.0, queued=3))
    assert scene.until_told(Status).queued == 3


# --- cancelling ----------------------------------------------------------------------------------------------------


def test_a_job_is_cancelled(scene: Scene) -> None:
    job = scene.submit()
    scene.client.cancel(job)
    assert scene.until_asked(Cancel).job == job
    scene.server.send(Cancelling(job, "running"), Error("cancelled", "the job was cancelled", job))
    assert scene.until_told(Cancelling).state == "running"
    assert scene.until_told(Error).code == "cancelled"
    assert scene.client.jobs == ()


def test_a_job_that_was_not_sent_is_cancelled_at_once() -> None:
    with Client(f"tcp://127.0.0.1:{reserve_port()}") as client:
        job = client.submit(Submit(new_job(), "echo"))
        client.cancel(job)
        [error] = [event for event in client.poll() if isinstance(event, Error)]
        assert (error.code, error.job, client.jobs) == ("cancelled", job, ())
        client.cancel("no-such-job")


@pytest.mark.parametrize("known", [False, True])
def test_a_job_cancelled_without_a_connection_ends_as_cancelled(scene: Scene, known: bool) -> None:
    job = scene.submit()
    scene.server.close()
    scene.until_state(State.LOST)
    scene.client.cancel(job)
    scene.server = FakeServer(scene.server.port)
    assert scene.until_asked(StatusRequest).job == scene.until_asked(Cancel).job == job
    if known:
        scene.server.send(
            Progress(job, "fitting", 0.5), Cancelling(job, "running"), Error("cancelled", "so it is", job)
        )
    else:
        scene.server.send(*[Error("unknown_job", "there is no such job", job)] * 2)
    assert scene.until_told(Error).code == "cancelled"
    assert scene.client.jobs == () and scene.server.requests == []


# --- servers that go and come --------------------------------------------------------------------------------------


def test_a_lost_connection_is_reported_and_restored(scene: Scene) -> None:
    job = scene.submit()
    scene.restart()
    lost = scene.until_told(StateChanged)
    assert lost.state is State.LOST and "trying again" in lost.reason
    assert scene.until_asked(StatusRequest).job == job
    assert "connected again" in scene.client.reason
    scene.server.send(Progress(job, "fitting", 0.9), Result(job))
    assert scene.until_told(Result).job == job
    assert scene.server.requests == []


def test_a_job_that_the_server_has_lost_is_submitted_again(scene: Scene) -> None:
    job = scene.submit(count=7)
    scene.server.send(Progress(job, "fitting", 0.5))
    scene.until_told(Progress)
    scene.restart()
    scene.until_asked(StatusRequest)
    scene.server.send(Error("unknown_job", "there is no such job", job))
    again = scene.until_asked(Submit)
    assert (again.job, again.count) == (job, 7)
    np.testing.assert_array_equal(again.sources[0].vertices, POINTS)
    scene.server.send(Accepted(job), Result(job))
    scene.until_told(Result)
    assert not [event for event in scene.events if isinstance(event, Error)]
    assert scene.server.requests == []


def test_a_job_that_is_lost_repeatedly_ends_with_an_error(scene: Scene) -> None:
    job = scene.submit()
    for _ in range(MAX_SUBMISSIONS - 1):
        scene.restart()
        scene.until_asked(StatusRequest)
        scene.server.send(Error("unknown_job", "there is no such job", job))
        scene.until_asked(Submit)
    scene.restart()
    scene.until_asked(StatusRequest)
    scene.server.send(Error("unknown_job", "there is no such job", job))
    error = scene.until_told(Error)
    assert (error.job, error.code) == (job, "worker_lost") and f"{MAX_SUBMISSIONS} times" in error.message


def test_a_job_of_an_earlier_client_is_taken_over(scene: Scene) -> None:
    scene.client.fetch("job-of-yesterday")
    assert scene.until_asked(StatusRequest).job == "job-of-yesterday"
    scene.server.send(Result("job-of-yesterday"))
    scene.until_told(Result)
    scene.client.fetch("job-of-last-year")
    scene.until_asked(StatusRequest)
    scene.server.send(Error("unknown_job", "there is no such job", "job-of-last-year"))
    assert scene.until_told(Error).code == "unknown_job"
    assert scene.client.jobs == () and scene.server.requests == []
    with pytest.raises(ValueError, match="8 to 64"):
        scene.client.fetch("a b")


def test_a_job_of_another_user_is_not_submitted_repeatedly(scene: Scene) -> None:
    job = scene.submit()
    scene.server.send(Error("unknown_job", "that is somebody else's", job))
    assert scene.until_told(Error).code == "unknown_job"
    assert scene.server.requests == []


def test_the_final_messages_of_a_server_are_received(scene: Scene) -> None:
    for _ in range(10):
        job = scene.submit()
        scene.server.send(Error("stopping", "the server goes down", job))
        scene.server.close(linger=5000)
        scene.until_state(State.LOST)
        assert scene.until_told(Error).code == "stopping"
        scene.server = FakeServer(scene.server.port)
        scene.until_state(State.CONNECTED)


def test_many_final_messages_are_all_received(scene: Scene) -> None:
    """More than one poll takes: the end of the connection is not forgotten over them."""
    job = scene.submit()
    many = POLL_MESSAGES + 10
    scene.server.send(*(Accepted(job, number) for number in range(many)))
    scene.server.close(linger=5000)
    assert "has ended" in scene.until_state(State.LOST)
    assert [event.position for event in scene.events if isinstance(event, Accepted)] == list(range(many))


def test_an_empty_array_is_sent_and_returned(scene: Scene) -> None:
    job = scene.client.submit(Submit(new_job(), "echo", sources=(Source(np.zeros((0, 3))),)))
    scene.server.send(Result(job, sources=scene.until_asked(Submit).sources))
    assert scene.until_told(Result).sources[0].vertices.shape == (0, 3)


def test_a_server_that_stops_answering_is_lost(server: FakeServer) -> None:
    with Client(server.address, timing=replace(QUICK, silence=0.5)) as client:
        scene = Scene(server, client)
        scene.until_state(State.CONNECTED)
        job = scene.submit()
        server.welcome = None
        reason = scene.until_state(State.LOST)
        assert "has not answered for" in reason and "trying again" in reason
        server.welcome = Welcome("awake again")
        scene.until_state(State.CONNECTED)
        assert scene.until_asked(StatusRequest).job == job
        # It was perhaps a slow line; the client has learnt to wait longer.
        assert client._connection._silence >= 1.0


def test_time_asleep_does_not_count_as_silence_of_the_server(scene: Scene) -> None:
    scene.server.welcome = None
    scene.until(lambda: scene.client._connection._unanswered_since is not None)
    scene.client._connection._polled_at -= 1000
    assert scene.client._connection._unanswered_since is not None
    scene.client._connection._unanswered_since -= 1000
    scene.events += scene.client.poll()
    assert scene.client.state is State.CONNECTED


def test_a_job_requested_twice_is_submitted_again_only_once(scene: Scene) -> None:
    job = scene.submit()
    scene.server.send(Accepted(job))
    scene.until_told(Accepted)
    for _ in range(2):
        scene.client._resume()
        scene.until_asked(StatusRequest)
    scene.server.send(*[Error("unknown_job", "there is no such job", job)] * 2)
    scene.until_asked(Submit)
    scene.server.send(Accepted(job), Status("fake", 1.0))
    scene.until_told(Status)
    assert scene.until_told(Accepted).job == job
    assert scene.server.requests == [] and scene.client.jobs == (job,)


def test_a_client_that_was_asleep_requests_the_status_of_its_jobs(scene: Scene) -> None:
    """A window that did not poll for longer than the server waits, while libzmq kept the connection up."""
    scene.server.welcome = Welcome("strict", silence=0.2)
    scene.until_told(Welcome)
    job = scene.submit()
    scene.client._polled_at -= 1.0
    assert scene.until_asked(StatusRequest).job == job
    assert scene.client.state is State.CONNECTED


# --- blocking ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(answer: Callable[[Any], list[Any]], port: int = 0) -> Iterator[FakeServer]:
    """A server in its own thread that answers each request with the given replies."""
    server, stop = FakeServer(port), threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.step()
            while server.requests:
                seen.append(server.requests.pop(0))
                server.send(*answer(seen[-1]))
            server.socket.poll(20)

    seen: list[Any] = []
    server.seen = seen
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close()


def finished(request: Any) -> list[Any]:
    match request:
        case Submit(job=job):
            return [Accepted(job), Progress(job, "fitting", 0.5), Result(job, sources=request.sources)]
        case StatusRequest(job=None):
            return [Status("fake", 1.0)]
    return []


def test_blocking_calls_wait_for_results() -> None:
    with answering(finished) as server, Client(server.address) as client:
        assert client.wait_connected(30).software == "fake 1.0"
        assert client.wait_status(30).uptime == 1.0
        heard: list[Any] = []
        result = client.run(Submit(new_job(), "echo", sources=(Source(POINTS),)), heard.append)
        np.testing.assert_array_equal(result.sources[0].vertices, POINTS)
        assert {type(event) for event in heard} >= {Accepted, Progress, Result}
        # Two at once: waiting for one leaves the other's events where they are.
        first, second = (client.submit(Submit(new_job(), "echo")) for _ in range(2))
        assert client.wait(second).job == second
        assert client.wait(first).job == first
        with pytest.raises(KeyError, match="submit or fetch"):
            client.wait(first)


@pytest.mark.parametrize(
    ("answer", "code"), [(Error("limit", "too many points", "JOB"), "limit"), (Busy("JOB", 3, 3), "busy")]
)
def test_blocking_calls_raise_the_reason_of_a_failure(answer: Any, code: str) -> None:
    with answering(lambda request: [replace(answer, job=request.job)]) as server, Client(server.address) as client:
        with pytest.raises(ClientError) as caught:
            client.run(Submit(new_job(), "echo"))
        assert caught.value.code == code and caught.value.job and str(caught.value)
        assert [type(request) for request in server.seen] == [Submit]


def test_ctrl_c_cancels_the_job() -> None:
    def answer(request: Any) -> list[Any]:
        match request:
            case Submit(job=job):
                return [Accepted(job), Progress(job, "fitting", 0.1)]
            case Cancel(job=job):
                return [Cancelling(job, "running")]
        return []

    def interrupt(event: Any) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    with answering(answer) as server, Client(server.address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.run(Submit(new_job(), "echo"), interrupt)
        assert client.jobs == ()
        assert [type(request) for request in server.seen] == [Submit, Cancel]


def test_blocking_calls_have_a_timeout() -> None:
    address = f"tcp://127.0.0.1:{reserve_port()}"
    with Client(address, timing=QUICK) as client:
        for wait in (
            lambda: client.wait_connected(0.2),
            lambda: client.wait_status(0.2),
            lambda: client.run(Submit(new_job(), "echo"), patience=0.2),
        ):
            with pytest.raises(ClientError, match="no server listens") as caught:
                wait()
            assert caught.value.code == "no_connection"
        assert client.jobs == ()
    for wait in (lambda: client.wait_connected(0.2), lambda: client.submit(Submit(new_job(), "echo"))):
        with pytest.raises(ClientError, match="closed"):
            wait()


def test_blocking_calls_continue_after_a_restart_of_the_server() -> None:
    with answering(lambda request: [Accepted(request.job)]) as server:
        client = Client(server.address, timing=QUICK)
        job = client.submit(Submit(new_job(), "echo"))
        client.wait_connected(30)
        until(lambda: any(isinstance(event, Accepted) for event in client.poll()))
    states: list[State] = []

    def note(event: Any) -> None:
        if isinstance(event, StateChanged):
            states.append(event.state)

    def forgetful(request: Any) -> list[Any]:
        if isinstance(request, StatusRequest):
            return [Error("unknown_job", "there is no such job", request.job)]
        return finished(request)

    with client, answering(forgetful, server.port):
        assert client.wait(job, note).job == job
    assert State.LOST in states and states[-1] is State.CONNECTED


def test_frames_of_a_submission_are_those_of_the_message() -> None:
    """The client keeps frames, not messages; a second submission is the first, byte for byte."""
    message = Submit(new_job(), "echo", sources=(Source(POINTS),))
    assert [bytes(frame) for frame in encode(message)] == [bytes(frame) for frame in encode(message)]
