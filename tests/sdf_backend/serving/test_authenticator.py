"""Who may connect, who is refused and with which message, and that secrets stay secret."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from backend_process import Backend, Listener, complete, long_job, until, until_logged

from sdf_backend.serving.authenticator import AuthorisedClients
from sdf_backend.serving.server_keys import make_keys
from sdf_backend.wire.client import Client, ClientError, State, Timing
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.keys import ClientKeys, read_client_keys
from sdf_backend.wire.messages import REPLIES, Hello, Limits, Result, StatusRequest, Welcome

QUICK = Timing(refused_retry=0.2)


# --- authorised clients ---


def public_key(keys: Path, name: str) -> str:
    return read_client_keys(keys / f"{name}.key_secret").public.decode()


def test_a_damaged_key_file_of_a_client_is_skipped(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "clients" / "broken.key").write_text("nonsense")
    authorised = AuthorisedClients(tmp_path / "clients")
    assert authorised.user_of(public_key(tmp_path, "artist")) == "artist"


def test_a_folder_that_is_unreadable_for_a_moment_revokes_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path, "alice")
    monkeypatch.setattr("sdf_backend.serving.authenticator.RELOAD_SECONDS", 0.0)
    clients, key = AuthorisedClients(tmp_path / "clients"), public_key(tmp_path, "alice")
    assert clients.user_of(key) == "alice"
    with monkeypatch.context() as patch:

        def refuse(path: Path) -> None:
            raise OSError(24, "Too many open files")

        patch.setattr(Path, "iterdir", refuse)
        assert clients.user_of(key) == "alice"
    public = tmp_path / "clients" / "alice.key"
    content = public.read_bytes()
    public.write_bytes(content[:10])
    assert clients.user_of(key) == "alice"
    assert clients.take_revoked() == set()
    public.unlink()
    assert clients.user_of(key) is None
    assert clients.take_revoked() == {key}
    assert clients.take_revoked() == set()


# --- a server with keys ---


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, "alice")
    make_keys(folder, "bob")
    return folder


@pytest.fixture(scope="module")
def guarded(keys: Path, models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("guarded"), "--models", models_folder, "--keys", keys) as backend:
        backend.key = keys / "alice.key_secret"
        yield backend


def as_user(backend: Backend, keys: Path, name: str) -> Listener:
    client = Listener(backend.address, keys / f"{name}.key_secret", name=name)
    client.wait_connected()
    return client


def refusal(backend: Backend, key: Path | None) -> str:
    """Why a client is refused."""
    with Client(backend.address, key, timing=QUICK) as client:
        with pytest.raises(ClientError) as error:
            client.wait_connected()
        assert client.state is State.REFUSED
        return str(error.value)


def write_key(path: Path, keys: ClientKeys) -> Path:
    fields = zip(("public-key", "secret-key", "server-key"), keys, strict=True)
    path.write_text("\n".join(f'{name} = "{key.decode()}"' for name, key in fields))
    path.chmod(0o600)
    return path


def test_a_client_with_its_key_is_served(guarded: Backend, keys: Path) -> None:
    with as_user(guarded, keys, "bob") as client:
        assert len(client.run(complete()).shapes) == 1
    until_logged(guarded, "client connected", "client=bob", "user=bob", "address=127.0.0.1")


def test_an_unknown_key_is_refused_and_logged(guarded: Backend, tmp_path: Path) -> None:
    assert guarded.key
    known = read_client_keys(guarded.key)
    stranger = zmq.curve_keypair()
    key = write_key(tmp_path / "stranger", ClientKeys(*stranger, known.server))
    assert "does not know the key" in refusal(guarded, key)
    until_logged(guarded, "client refused", "address=127.0.0.1", "not among the authorised")
    assert stranger[0].decode() in guarded.log()
    assert stranger[1].decode() not in guarded.log()


def test_a_wrong_server_key_is_refused_and_logged(guarded: Backend, tmp_path: Path) -> None:
    assert guarded.key
    known = read_client_keys(guarded.key)
    key = write_key(tmp_path / "other", ClientKeys(known.public, known.secret, zmq.curve_keypair()[0]))
    assert "does not match" in refusal(guarded, key)
    until_logged(guarded, "client refused", "another key")


def test_a_client_without_a_key_is_refused_and_logged(guarded: Backend) -> None:
    assert "requires a key" in refusal(guarded, None)
    until_logged(guarded, "client refused", "encrypts")


def test_plain_passwords_are_refused(guarded: Backend) -> None:
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.PLAIN_USERNAME, b"admin")
        socket.set(zmq.PLAIN_PASSWORD, b"admin")
        socket.connect(guarded.address)
        socket.send_multipart(encode(StatusRequest()))
        assert not socket.poll(500)


def test_a_server_without_keys_refuses_a_client_with_one(models_folder: Path, keys: Path, tmp_path: Path) -> None:
    with Backend(tmp_path) as plain:
        assert "without keys" in refusal(plain, keys / "alice.key_secret")
        until_logged(plain, "client refused", "encrypts")


def test_clients_are_added_and_revoked_while_the_server_runs(guarded: Backend, keys: Path) -> None:
    make_keys(keys, "carol")
    with until_admitted(guarded, keys, "carol") as client:
        (keys / "clients" / "carol.key").unlink()

        until_out(client)
    assert "does not know the key" in refusal(guarded, keys / "carol.key_secret")


def until_admitted(guarded: Backend, keys: Path, name: str) -> Listener:
    """A client with a new key, which the server accepts within a second."""
    client = Listener(guarded.address, keys / f"{name}.key_secret", timing=QUICK)
    until(lambda: (client.poll(), client.state is State.CONNECTED)[1], f"{name} is connected")
    return client


def until_out(client: Listener) -> None:
    """Wait until a client is refused, without a word of its own but heartbeats."""
    until(lambda: (client.poll(), client.state is State.REFUSED)[1], "the client is out", 10)


def test_a_client_whose_key_was_removed_loses_its_jobs_and_its_connection(guarded: Backend, keys: Path) -> None:
    make_keys(keys, "dave")
    with until_admitted(guarded, keys, "dave") as dave, as_user(guarded, keys, "alice") as alice:
        done, running, waiting = dave.run(complete()).job, dave.send(long_job()), dave.send(complete())
        until(lambda: guarded.worker().state == "running", "the first job runs")
        assert guarded.worker().job is None  # whose name is nobody else's business
        assert dave.wait_status().workers[0].job == running
        other = alice.send(complete())
        heard = len(dave.heard)
        (keys / "clients" / "dave.key").rename(keys / "clients" / "dave.key_")
        until_out(dave)
        for job in (running, waiting):
            until_logged(guarded, "job ended", f"job={job}", "user=dave", "code=not_authorised")
        assert isinstance(alice.end(other), Result)
        assert not [event for event in dave.heard[heard:] if isinstance(event, Result)]
        (keys / "clients" / "dave.key_").rename(keys / "clients" / "dave.key")
        with until_admitted(guarded, keys, "dave") as again:
            for job in (done, running, waiting):
                again.fetch(job)
                assert again.end(job).code == "unknown_job"


def test_a_rotated_key_is_another_key(guarded: Backend, keys: Path) -> None:
    make_keys(keys, "erin")
    with until_admitted(guarded, keys, "erin") as before:
        for path in (keys / "erin.key_secret", keys / "clients" / "erin.key"):
            path.unlink()
        make_keys(keys, "erin")
        with until_admitted(guarded, keys, "erin") as after:
            job = after.run(complete(keep=60)).job
            before.fetch(job)
            until_out(before)
            assert not [event for event in before.heard if isinstance(event, Result)]
            assert isinstance(after.run(complete()), Result)


def test_what_is_no_key_file_stops_nobody(keys: Path, tmp_path: Path) -> None:
    """A pipe without a writer, a device without an end and a huge file among the keys of clients."""
    folder = tmp_path / "keys"
    shutil.copytree(keys, folder)
    with Backend(tmp_path / "backend", "--keys", folder) as backend:
        os.mkfifo(folder / "clients" / "pipe.key")
        (folder / "clients" / "endless.key").symlink_to("/dev/zero")
        with (folder / "clients" / "huge.key").open("wb") as file:
            file.truncate(1 << 40)
        with as_user(backend, folder, "alice") as client:
            for name in ("pipe", "endless", "huge"):
                until_logged(backend, "key file skipped", f"{name}.key")
            assert client.wait_status().memory_bytes < 1 << 28
        backend.signal(signal.SIGTERM)
        assert backend.ended() == 0


def test_a_job_is_visible_to_its_owner_only(guarded: Backend, keys: Path) -> None:
    with as_user(guarded, keys, "alice") as alice, as_user(guarded, keys, "bob") as bob:
        job = alice.send(long_job())
        alice.until_heard(object, "an answer", job=job)
        bob.fetch(job)
        assert bob.end(job).code == "unknown_job"
        own = bob.send(complete(job=job))  # the same name is another job
        bob.cancel(own)
        assert bob.end(own) is not None
        with as_user(guarded, keys, "alice") as elsewhere:
            elsewhere.fetch(job)
            elsewhere.cancel(job)
            assert elsewhere.end(job).code == "cancelled"


def test_a_routing_id_chosen_by_the_client_is_refused(guarded: Backend) -> None:
    assert guarded.key
    known = read_client_keys(guarded.key)
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.ROUTING_ID, b"somebody")
        socket.set(zmq.CURVE_PUBLICKEY, known.public)
        socket.set(zmq.CURVE_SECRETKEY, known.secret)
        socket.set(zmq.CURVE_SERVERKEY, known.server)
        socket.connect(guarded.address)
        socket.send_multipart(encode(Hello()))
        assert socket.poll(10_000)
        reply = decode(socket.recv_multipart(), REPLIES, Limits())
    assert not isinstance(reply, Welcome)
    assert "routing id" in reply.message


def test_the_server_listens_on_its_own_port_only(guarded: Backend) -> None:
    guarded.until_idle()
    assert guarded.process
    assert listening_ports(guarded.process.pid) == {int(guarded.address.rpartition(":")[2])}


def listening_ports(pid: int) -> set[int]:
    """TCP ports that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link))  # noqa: PTH115  of the form socket:[123], no path
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_no_secret_is_in_the_log_the_output_or_on_a_command_line(guarded: Backend, keys: Path) -> None:
    worker = guarded.until_idle()
    secrets = [
        line.split('"')[1]
        for path in keys.glob("*_secret")
        for line in path.read_text().splitlines()
        if "secret-key =" in line
    ]
    assert len(secrets) == len([*keys.glob("*_secret")]) > 2
    for text in (guarded.log(), guarded.output.read_text()):
        assert len(text) > 100
        assert not [secret for secret in secrets if secret in text]
    command = Path(f"/proc/{worker.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:] == [b"-m", b"sdf_backend.serving.worker", b""]
    environment = Path(f"/proc/{worker.pid}/environ").read_text()
    assert not [secret for secret in secrets if secret in environment]


def test_a_client_that_is_refused_again_and_again_does_not_fill_the_log(guarded: Backend) -> None:
    failed = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED
    for _ in range(20):
        with zmq.Context.instance().socket(zmq.DEALER) as socket:
            socket.set(zmq.LINGER, 0)
            with socket.get_monitor_socket(failed) as monitor:
                socket.connect(guarded.address)
                assert monitor.poll(10_000), "the handshake does not fail"
                socket.disable_monitor()
    until_logged(guarded, "client refused", "encrypts")
    assert sum("encrypts" in line for line in guarded.log().splitlines()) < 10


def test_serve_prints_the_key_file_of_each_client(guarded: Backend, keys: Path) -> None:
    output = guarded.output.read_text()
    assert str(keys / "alice.key_secret") in output
    assert str(keys / "bob.key_secret") in output
    assert "server.key_secret" not in output


def test_a_public_address_with_keys_is_served(keys: Path, tmp_path: Path) -> None:
    backend = Backend(tmp_path, "--keys", keys)
    backend.address = "tcp://0.0.0.0:*"
    with backend.start():
        assert "THIS-COMPUTER" in backend.output.read_text()
        port = backend.address.rpartition(":")[2]
        command = [sys.executable, "-m", "sdf_backend", "status", "--address", f"tcp://127.0.0.1:{port}"]
        command += ["--key", str(keys / "alice.key_secret")]
        finished = subprocess.run(command, env=backend.environment, capture_output=True, text=True, timeout=120)
        assert finished.returncode == 0, finished.stderr
        assert "worker-0" in finished.stdout
