"""Keys: who may connect, who is refused and in which words, and that secrets stay secret."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from backend_process import Backend, Listener, complete, logged, long_job, until

from sdf_backend.errors import InputError
from sdf_backend.serving.auth import AuthorisedClients, check_address, is_loopback, load_keys, make_keys
from sdf_backend.wire.client import Client, ClientError, State, Timing
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.keys import ClientKeys, read_client_keys
from sdf_backend.wire.messages import REPLIES, Hello, Limits, StatusRequest, Welcome

QUICK = Timing(refused_retry=0.2)


# --- key files ---


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_for_a_server_and_its_clients(tmp_path: Path) -> None:
    keys = tmp_path / "new" / "keys"
    make_keys(keys)
    make_keys(keys, "bob")
    assert sorted(path.relative_to(keys).as_posix() for path in keys.rglob("*") if path.is_file()) == [
        "artist.key_secret",
        "bob.key_secret",
        "clients/artist.key",
        "clients/bob.key",
        "server.key",
        "server.key_secret",
    ]
    server = load_keys(keys)
    artist, bob = (read_client_keys(keys / f"{name}.key_secret") for name in ("artist", "bob"))
    assert artist.server == bob.server == server.public
    authorised = AuthorisedClients(server.clients)
    assert [authorised.user(key) for key in (artist.public, bob.public, server.public)] == ["artist", "bob", None]


def test_secret_files_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    secrets = list((tmp_path / "keys").glob("*.key_secret"))
    assert [mode(path) for path in secrets] == [0o600, 0o600]
    for path in (tmp_path / "keys").rglob("*.key"):
        assert "secret-key" not in path.read_text()


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="--client"):
        make_keys(tmp_path)
    (tmp_path / "artist.key_secret").unlink()
    with pytest.raises(InputError, match="exists already"):  # still authorised
        make_keys(tmp_path)
    assert all(path.read_text() == text for path, text in before.items() if path.exists())


@pytest.mark.parametrize("name", ["server", "", "../bob", "a b", "x" * 65, "bob.key"])
def test_names_that_cannot_be_a_client_s(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a client's name"):
        make_keys(tmp_path, name)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write keys"):
        make_keys(tmp_path / "file")


def test_server_keys_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keygen"):
        load_keys(tmp_path / "nowhere")
    make_keys(tmp_path)
    secret = tmp_path / "server.key_secret"
    secret.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        load_keys(tmp_path)
    secret.chmod(0o600)
    text = secret.read_text()
    for damaged in ("", text.replace("secret-key", "other"), text.replace('key = "', 'key = "~'), text[:-9], "\x00"):
        secret.write_text(damaged)
        with pytest.raises(InputError) as refusal:
            load_keys(tmp_path)
        assert not any(piece in str(refusal.value) for piece in text.split('"')[1::2])
    secret.write_text(text)
    shutil.rmtree(tmp_path / "clients")
    with pytest.raises(InputError, match="clients"):
        load_keys(tmp_path)


def test_a_secret_is_not_shown_with_the_object_that_holds_it(tmp_path: Path) -> None:
    make_keys(tmp_path)
    keys = load_keys(tmp_path)
    assert keys.secret.decode() not in repr(keys)


def test_a_damaged_key_file_of_a_client_is_skipped(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "clients" / "broken.key").write_text("nonsense")
    authorised = AuthorisedClients(tmp_path / "clients")
    assert authorised.user(read_client_keys(tmp_path / "artist.key_secret").public) == "artist"
    assert authorised.knows("artist")
    assert not authorised.knows("broken")


# --- addresses ---


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_addresses_of_this_computer_need_no_keys(host: str) -> None:
    assert is_loopback(host)
    assert check_address(f"tcp://{host}:5577", keys=False).endswith(":5577")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "*", "192.168.1.5", "[::]", "[fe80::1]", "eth0", "example.org", "127.0.0.1.1"]
)
def test_other_addresses_need_keys(host: str) -> None:
    with pytest.raises(InputError, match="keygen"):
        check_address(f"tcp://{host}:5577", keys=False)
    assert check_address(f"tcp://{host}:5577", keys=True) == f"tcp://{host}:5577"


@pytest.mark.parametrize(
    "address", ["", "5577", "127.0.0.1:5577", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://a:99999", "ipc:///tmp/x"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match="no address to listen on"):
        check_address(address, keys=True)


# --- a guarded server ---


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
    return path


def test_a_client_with_its_key_is_served(guarded: Backend, keys: Path) -> None:
    with as_user(guarded, keys, "bob") as client:
        assert len(client.run(complete()).shapes) == 1
    assert logged(guarded, "client here", "client=bob", "user=bob", "address=127.0.0.1")


def test_an_unknown_key_is_refused_and_logged(guarded: Backend, tmp_path: Path) -> None:
    assert guarded.key
    known = read_client_keys(guarded.key)
    stranger = zmq.curve_keypair()
    key = write_key(tmp_path / "stranger", ClientKeys(*stranger, known.server))
    assert "does not know the key" in refusal(guarded, key)
    assert logged(guarded, "client refused", "address=127.0.0.1", "not among the authorised")
    assert stranger[0].decode() in guarded.log()
    assert stranger[1].decode() not in guarded.log()


def test_a_wrong_server_key_is_refused_and_logged(guarded: Backend, tmp_path: Path) -> None:
    assert guarded.key
    known = read_client_keys(guarded.key)
    key = write_key(tmp_path / "other", ClientKeys(known.public, known.secret, zmq.curve_keypair()[0]))
    assert "has not the key" in refusal(guarded, key)
    until(lambda: logged(guarded, "client refused", "another key"), "the log line")


def test_a_client_without_a_key_is_refused_and_logged(guarded: Backend) -> None:
    assert "requires a key" in refusal(guarded, None)
    until(lambda: logged(guarded, "client refused", "encrypts"), "the log line")


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
        until(lambda: logged(plain, "client refused", "encrypts"), "the log line")


def test_clients_are_added_and_taken_away_while_it_runs(guarded: Backend, keys: Path) -> None:
    make_keys(keys, "carol")
    with Listener(guarded.address, keys / "carol.key_secret", timing=QUICK) as client:
        until(lambda: client.poll() and client.state is State.CONNECTED, "carol is let in")
        (keys / "clients" / "carol.key").unlink()

        def thrown_out() -> bool:
            client.ask_status()
            client.poll()
            return client.state is State.REFUSED

        until(thrown_out, "carol's messages are refused")
        assert "not authorised any more" in client.reason
    assert "does not know the key" in refusal(guarded, keys / "carol.key_secret")


def test_a_job_is_its_owner_s_alone(guarded: Backend, keys: Path) -> None:
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


def test_a_name_for_the_connection_that_could_be_another_s_is_refused(guarded: Backend) -> None:
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


def test_a_folder_that_cannot_be_read_for_a_moment_takes_nobody_s_key_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path, "alice")
    monkeypatch.setattr("sdf_backend.serving.auth.RELOAD_SECONDS", 0.0)
    clients = AuthorisedClients(tmp_path / "clients")
    assert clients.knows("alice")
    with monkeypatch.context() as patch:

        def refuse(path: Path) -> None:
            raise OSError(24, "Too many open files")

        patch.setattr(Path, "iterdir", refuse)
        assert clients.knows("alice")
    public = tmp_path / "clients" / "alice.key"
    content = public.read_bytes()
    public.write_bytes(content[:10])
    assert clients.knows("alice")
    public.unlink()
    assert not clients.knows("alice")


def test_it_listens_nowhere_else(guarded: Backend) -> None:
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
    assert len(secrets) == 4
    for text in (guarded.log(), guarded.output.read_text()):
        assert len(text) > 100
        assert not [secret for secret in secrets if secret in text]
    command = Path(f"/proc/{worker.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:] == [b"-m", b"sdf_backend.serving.worker", b""]
    environment = Path(f"/proc/{worker.pid}/environ").read_text()
    assert not [secret for secret in secrets if secret in environment]


def test_a_refused_client_that_tries_again_and_again_does_not_fill_the_log(guarded: Backend) -> None:
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL, 10)
        socket.connect(guarded.address)
        time.sleep(1)
    assert sum("encrypts" in line for line in guarded.log().splitlines()) < 10


def test_serve_says_which_file_to_hand_out(guarded: Backend, keys: Path) -> None:
    output = guarded.output.read_text()
    assert str(keys / "alice.key_secret") in output
    assert str(keys / "bob.key_secret") in output
    assert "server.key_secret" not in output


def test_another_address_with_keys_is_served(keys: Path, tmp_path: Path) -> None:
    backend = Backend(tmp_path, "--keys", keys)
    backend.address = "tcp://0.0.0.0:*"
    with backend.start():
        assert "THIS-COMPUTER" in backend.output.read_text()
        port = backend.address.rpartition(":")[2]
        command = [sys.executable, "-m", "sdf_backend", "status", "--address", f"tcp://127.0.0.1:{port}"]
        command += ["--key", str(keys / "alice.key_secret")]
        finished = subprocess.run(command, env=backend.environment, capture_output=True, text=True, timeout=60)
        assert finished.returncode == 0, finished.stderr
        assert "worker-0" in finished.stdout
