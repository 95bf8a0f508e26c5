"""The commands serve, status and keygen: what they print, and one clear line for each error."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_process import ROOT, Backend, complete, is_there, until
from ports import reserve_port
from typer.testing import CliRunner, Result

from sdf_backend.cli import app
from sdf_backend.serving.server_keys import make_keys


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("backend"), "--models", models_folder) as backend:
        backend.until_idle()
        yield backend


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    """The one line on stderr of a command that failed as it should."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_serve_prints_how_to_connect(backend: Backend) -> None:
    output = backend.output.read_text()
    for words in (backend.address, "this computer only", "--address", "Blender", "Ctrl-C", "cpu", "spheres"):
        assert words in output


def test_serve_with_a_lifeline_ends_when_standard_input_is_closed(tmp_path: Path) -> None:
    backend = Backend(tmp_path, "--lifeline", "--grace", "0", "--device", "cpu")
    with backend.start(stdin=subprocess.PIPE):
        worker = until(lambda: backend.worker().pid, "a worker is there")
        assert backend.process and backend.process.stdin
        backend.process.stdin.close()
        assert backend.ended() == 0
        assert "server stopped" in backend.log()
        until(lambda: not is_there(worker), "its worker is gone")


def test_a_lifeline_ends_a_server_that_hangs(tmp_path: Path) -> None:
    program = (
        "import time; from sdf_backend.serving import cli as serve_cli; from sdf_backend.serving.server import Server; "
        "serve_cli.LIFELINE_SECONDS = 1; Server.run = lambda *_: time.sleep(600); "
        "serve_cli.serve('tcp://127.0.0.1:*', cache_mib=0, grace=0, lifeline=True)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120
    )
    assert finished.returncode == 1
    assert b"address" in finished.stdout


def test_serve_without_a_lifeline_needs_no_standard_input(tmp_path: Path) -> None:
    with Backend(tmp_path, "--device", "cpu").start(stdin=subprocess.DEVNULL) as backend:
        backend.until_idle()
        assert "server stopping" not in backend.log()


def test_status_is_a_table_for_people(backend: Backend) -> None:
    with backend.client() as client:
        client.run(complete())
    result = invoke("status", "--address", backend.address)
    assert result.exit_code == 0, result.stderr
    for words in ("worker-0", "idle", "cpu", "spheres", "CC0-1.0", "1 done", "0 failed", "MiB"):
        assert words in result.stdout


def test_status_is_json_for_scripts(backend: Backend) -> None:
    result = invoke("status", "--address", backend.address, "--json")
    assert result.exit_code == 0, result.stderr
    state = json.loads(result.stdout)
    assert state["workers"][0]["state"] == "idle"
    assert state["workers"][0]["pid"] > 0
    assert "spheres" in [model["name"] for model in state["models"]]
    assert state["limits"]["resolution"] == 512


def test_status_without_a_server_is_one_clear_line() -> None:
    assert "no server listens" in refused("status", "--address", f"tcp://127.0.0.1:{reserve_port()}")


def test_status_with_a_missing_key_file_is_one_clear_line(backend: Backend, tmp_path: Path) -> None:
    assert "key file" in refused("status", "--address", backend.address, "--key", tmp_path / "nowhere")


def test_keygen_prints_the_file_for_the_client(tmp_path: Path) -> None:
    first, second = invoke("keygen", tmp_path / "keys"), invoke("keygen", tmp_path / "keys", "--client", "bob")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert f"{tmp_path}/keys/artist.key_secret" in first.stdout
    assert f"{tmp_path}/keys/bob.key_secret" in second.stdout
    assert f"--keys {tmp_path}/keys" in first.stdout
    assert "already exists" in refused("keygen", tmp_path / "keys")
    assert "once for each" in refused("keygen", tmp_path / "keys", "--client", "carol", "--machine", "gpu-1")
    assert invoke("keygen", tmp_path / "keys", "--machine", "gpu-1").exit_code == 0
    assert [path.name for path in (tmp_path / "keys" / "machines").iterdir()] == ["gpu-1.key"]
    assert not (tmp_path / "keys" / "clients" / "gpu-1.key").exists()


def test_a_server_that_cannot_start_prints_one_clear_line(backend: Backend, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    (tmp_path / "file").touch()
    assert "the port is in use" in refused("serve", "--bind", backend.address)
    elsewhere = "tcp://192.0.2.1:5577"  # for documentation only, RFC 5737
    assert "no such address" in refused("serve", "--bind", elsewhere, "--keys", tmp_path / "keys")
    assert "not an address to listen on" in refused("serve", "--bind", "5577")
    assert "keygen" in refused("serve", "--bind", "tcp://0.0.0.0:*")
    assert "the port is in use" in refused("serve", "--bind", "tcp://127.0.0.1:*", "--machines", backend.address)
    assert "keygen" in refused("serve", "--bind", "tcp://127.0.0.1:*", "--machines", "tcp://0.0.0.0:*")
    assert "--machines ADDRESS" in refused("serve", "--workers", "0")
    assert "no server keys" in refused("serve", "--keys", tmp_path)
    (tmp_path / "keys" / "server.key_secret").chmod(0o644)
    assert "chmod 600" in refused("serve", "--keys", tmp_path / "keys")
    (tmp_path / "keys" / "server.key_secret").chmod(0o600)
    (tmp_path / "keys" / "clients").chmod(0o777)
    assert f"chmod go-w {tmp_path / 'keys' / 'clients'}" in refused("serve", "--keys", tmp_path / "keys")
    (tmp_path / "keys" / "artist.key_secret").chmod(0o644)
    assert "chmod 600" in refused("status", "--key", tmp_path / "keys" / "artist.key_secret")
    assert "does not exist" in refused("serve", "--models", tmp_path / "nowhere")
    assert "unknown device" in refused("serve", "--device", "abacus")
    assert "unknown limit 'jobs'" in refused("serve", "--limit", "jobs=3")
    assert "NUMBER" in refused("serve", "--limit", "queue=many")
    assert "use a positive number" in refused("serve", "--limit", "queue=0")
    assert "is a file" in refused("serve", "--cache", tmp_path / "file")


def test_a_lifeline_without_standard_input_is_one_clear_line() -> None:
    command = f"exec {sys.executable} -m sdf_backend serve --bind 'tcp://127.0.0.1:*' --lifeline <&-"
    finished = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: --lifeline requires a standard input; ")


def test_usage_errors_exit_with_two() -> None:
    assert invoke("serve", "--workers", "-1").exit_code == 2
    assert invoke("work").exit_code == 2
    assert invoke("serve", "--nonsense").exit_code == 2
    assert invoke("keygen").exit_code == 2
