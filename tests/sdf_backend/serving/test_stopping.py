"""How a server ends, and what is left of one that was killed."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_process import Backend, is_there, long_job

from sdf_backend.wire.messages import Error, Result


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_closed_terminal_stops_a_server_as_sigterm_does(models_folder: Path, tmp_path: Path, temporary: Path) -> None:
    environment = {"TMPDIR": str(temporary)}
    with Backend(tmp_path, "--models", models_folder, "--grace", "60", environment=environment) as backend:
        with backend.client() as client:
            running, waiting = client.send(long_job(count=3)), client.send(long_job())
            worker = backend.until_running(running)
            backend.signal(signal.SIGHUP)
            assert client.end(waiting).code == "stopping"
            assert isinstance(client.end(running), Result)
        assert backend.ended() == 0
        assert not is_there(worker) and list(temporary.iterdir()) == []
        assert "server stopped" in backend.log()


def test_a_server_that_ignores_hangups_outlives_its_terminal(models_folder: Path, tmp_path: Path) -> None:
    """As under nohup."""
    with Backend(tmp_path, "--models", models_folder) as backend:
        backend.stop()
        backend.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        backend.signal(signal.SIGHUP)
        with backend.client() as client:
            assert not isinstance(client.end(client.send(long_job(count=1))), Error)


def test_the_next_server_removes_the_socket_folders_of_killed_ones_alone(
    models_folder: Path, tmp_path: Path, temporary: Path
) -> None:
    options, environment = ("--models", models_folder), {"TMPDIR": str(temporary)}
    others = temporary / "sdf-shapes-of-another-program"
    others.mkdir()
    (others / "file").touch()
    with Backend(tmp_path / "live", *options, environment=environment) as live:
        folders = set(temporary.iterdir())
        killed = Backend(tmp_path / "killed", *options, environment=environment).start()
        killed.signal(signal.SIGKILL)
        killed.ended()
        assert len(set(temporary.iterdir()) - folders) == 1
        with killed.start(), live.client() as client:
            assert len(set(temporary.iterdir()) - folders) == 1
            assert folders <= set(temporary.iterdir())
            assert isinstance(client.end(client.send(long_job(count=1))), Result)
