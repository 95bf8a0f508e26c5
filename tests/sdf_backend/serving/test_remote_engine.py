"""The shape commands with --address write the same files as without it, and Ctrl-C cancels the job."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trimesh
from backend_process import PATIENCE, ROOT, Backend, complete, half_sphere, long_job, until
from ports import reserve_port
from typer.testing import CliRunner, Result

from sdf_backend.cli import app
from sdf_backend.engine import Source
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.model.store import MODELS_VARIABLE
from sdf_backend.serving.remote_engine import RemoteEngine
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.messages import Accepted

QUICK = ("--model", "spheres", "--resolution", "32")
FITTED = ("--pose", "known", "--quality", "preview")


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("remote"), "--models", models_folder, "--device", "cpu") as backend:
        backend.until_idle()
        yield backend


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "scan.ply"
    trimesh.PointCloud(half_sphere()).export(path)
    return path


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    path = tmp_path / "ball.obj"
    trimesh.creation.icosphere(radius=0.4).export(path)
    return path


def test_a_full_queue_is_waited_for_and_named(models_folder: Path, tmp_path: Path) -> None:
    options = ("--models", models_folder, "--device", "cpu", "--limit", "queue=1")
    source = Source(Geometry(half_sphere(400), np.zeros((0, 3), dtype=np.int64)))
    settings, phases = TaskSettings(32, Pose.KNOWN, quality=Quality.PREVIEW), []
    with Backend(tmp_path, *options) as backend, backend.client() as client:
        running = client.send(long_job())
        backend.until_running(running)
        waiting = client.send(complete())
        client.until_heard(Accepted, "the queue is full", job=waiting)
        with RemoteEngine(backend.address) as engine, ThreadPoolExecutor() as pool:
            done = pool.submit(
                engine.complete, "spheres", [source], settings, lambda phase, fraction: phases.append(phase)
            )
            until(lambda: phases == ["waiting, the queue is full"] * 2, "it tries again")
            client.cancel(running)
            assert client.end(running).code == "cancelled"
            [shape] = done.result(PATIENCE)
        assert len(shape.faces) > 100


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def compare_local_and_remote(
    backend: Backend, models: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str | Path
) -> list[bytes]:
    """Run a command with and without the backend, and compare the files; returns them."""
    written = []
    ways = {"here": ["--device", "cpu", "--models", models], "there": ["--address", backend.address]}
    for where, options in ways.items():
        (folder / where).mkdir()
        monkeypatch.chdir(folder / where)
        result = invoke(*arguments, *options)
        assert result.exit_code == 0, result.stderr
        files = sorted(path for path in (folder / where).rglob("*") if path.is_file())
        assert files
        assert all(str(path.name) in result.stdout for path in files)
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    return written[0]


def test_complete_writes_the_same_file_remotely(
    backend: Backend, models_folder: Path, cloud: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ("-o", "whole.ply", "--sensor", "0,2,0", *QUICK, *FITTED)
    [mesh] = compare_local_and_remote(backend, models_folder, monkeypatch, tmp_path, "complete", cloud, *options)
    assert len(mesh) > 1000


def test_reconstruct_writes_the_same_file_remotely(
    backend: Backend, models_folder: Path, ball: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compare_local_and_remote(
        backend, models_folder, monkeypatch, tmp_path, "reconstruct", ball, "-o", "it.stl", *QUICK, *FITTED
    )


def test_interpolate_writes_the_same_files_remotely(
    backend: Backend, models_folder: Path, ball: Path, cloud: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ("-o", "steps", "--steps", "4", *QUICK, *FITTED)
    files = compare_local_and_remote(
        backend, models_folder, monkeypatch, tmp_path, "interpolate", ball, cloud, *options
    )
    assert len(files) == 4


def test_sample_writes_the_same_files_remotely(
    backend: Backend, models_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = compare_local_and_remote(
        backend, models_folder, monkeypatch, tmp_path, "sample", "-o", "new", "--count", "3", *QUICK
    )
    assert len(files) == 3


def test_ctrl_c_cancels_the_job(backend: Backend, tmp_path: Path) -> None:
    before = backend.until_idle()
    command = [sys.executable, "-m", "sdf_backend", "sample", "-o", tmp_path / "new", "--model", "spheres"]
    command += ["--count", "64", "--address", backend.address]
    # Tests that a shell has put into the background inherit that Ctrl-C is to be ignored, and so would the command.
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: backend.status().running, "the job does not run")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped"
    assert backend.until_idle().pid == before.pid
    assert backend.status().cancelled == 1
    assert not (tmp_path / "new").exists()


def refused(tmp_path: Path, *arguments: str | Path) -> str:
    """The one line on stderr of a command that fails as it should and writes nothing."""
    result = invoke("sample", "-o", tmp_path / "new", *arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "new").exists()
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_an_error_is_one_clear_line(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    there = ("--address", backend.address)
    assert "known models: " in refused(tmp_path, "--model", "boats", *there)
    assert "at most 64" in refused(tmp_path, *QUICK, "--count", "65", *there)
    assert "resolution is 8" in refused(tmp_path, "--model", "spheres", "--resolution", "8", *there)
    assert "leave them out" in refused(tmp_path, *QUICK, *there, "--device", "cpu")
    assert "leave them out" in refused(tmp_path, *QUICK, *there, "--models", tmp_path)
    assert "--address" in refused(tmp_path, *QUICK, "--key", tmp_path / "a.key_secret")
    assert "key file" in refused(tmp_path, *QUICK, *there, "--key", tmp_path / "nowhere")
    assert "not an address" in refused(tmp_path, *QUICK, "--address", "somewhere")


def test_a_missing_server_is_one_clear_line(tmp_path: Path) -> None:
    assert "no server listens" in refused(tmp_path, *QUICK, "--address", f"tcp://127.0.0.1:{reserve_port()}")
