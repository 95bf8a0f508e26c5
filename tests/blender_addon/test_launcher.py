"""The launcher with real processes: backends that run, exit, hang and lose their Blender, and unsuitable Pythons.

The package of the add-on needs Blender, so that the launcher is imported from a package without its `__init__.py`.
"""

import importlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_process import ROOT, is_there, until

from sdf_backend.wire.client import Client

# Makes modules of the add-on importable that do not need Blender.
PACKAGE = f"""
import sys
from types import ModuleType
package = sys.modules["addon_without_blender"] = ModuleType("addon_without_blender")
package.__path__ = [{str(ROOT / "blender_addon")!r}]
"""
exec(PACKAGE)
launcher_module = importlib.import_module("addon_without_blender.launcher")
python_finder = importlib.import_module("addon_without_blender.python_finder")
Stage, Timing = launcher_module.Stage, launcher_module.Timing
ALL_MODULES = " ".join((python_finder.BACKEND, *python_finder.REQUIRED_MODULES))
OPTIONS = ("--device", "cpu", "--cache-mib", "0")
# All that the launcher notices of a backend: it prints its address, and exits when its input is closed.
LISTENS = "echo 'SDF Shapes 1'; echo 'address    tcp://127.0.0.1:5577'; exec cat"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes launchers, and closes them after the test."""
    made = []

    def make(**seconds: float) -> Any:
        made.append(launcher_module.Launcher(Timing(**seconds)))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment with this repository and its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    (packages / "here.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


def script(path: Path, *lines: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(mode)
    return path


def fake(path: Path, serve: str = LISTENS, version: str = "3.11", missing: str = "") -> Path:
    """A script that poses as a Python: its answer to the probe, and its commands as a backend."""
    return script(path, f'if [ "$1" = -c ]; then echo "sdf-shapes {version} {missing}"; else {serve}; fi')


def poll_until(launcher: Any, *stages: Any, seconds: float = 60.0) -> None:
    def reached() -> bool:
        launcher.poll()
        return launcher.stage in stages

    until(reached, f"{stages}: {launcher.stage}, {launcher.reason}", seconds)


def poll_until_holds(launcher: Any, condition: Callable[[], bool], what: str) -> None:
    def holds() -> bool:
        launcher.poll()
        return condition()

    until(holds, what)


def started(launcher: Any, python: Path, folder: Path, *options: str) -> Any:
    launcher.start(str(python), folder, options)
    poll_until(launcher, Stage.RUNNING, Stage.FAILED)
    assert launcher.stage is Stage.RUNNING, launcher.reason
    return launcher


def refused(launcher: Any, python: Path | str, folder: Path) -> str:
    """Check that the start with that Python fails; returns the reason."""
    launcher.start(str(python), folder)
    poll_until(launcher, Stage.RUNNING, Stage.FAILED)
    assert launcher.stage is Stage.FAILED
    assert launcher.address == ""
    return launcher.reason


def workers(address: str) -> list[int]:
    """Process ids of a backend's workers."""

    def found() -> list[int]:
        with Client(address, name="test") as client:
            return [worker.pid for worker in client.wait_status().workers if worker.pid]

    return until(found, "a worker has started")


# --- a real backend ---


def test_a_backend_starts_and_stops(launch: Callable[..., Any], python: Path, tmp_path: Path) -> None:
    launcher = launch()
    assert (launcher.stage, launcher.address, launcher.log) == (Stage.STOPPED, "", None)
    assert not launcher.poll()
    launcher.start(str(python), tmp_path, OPTIONS)
    assert launcher.stage is Stage.SEARCHING
    assert launcher.poll()
    poll_until(launcher, Stage.RUNNING)
    assert launcher.address in launcher.reason
    processes = [launcher.process.pid, *workers(launcher.address)]
    launcher.start(str(python), tmp_path, OPTIONS)
    assert launcher.process.pid == processes[0]
    launcher.stop()
    assert (launcher.stage, launcher.address) == (Stage.STOPPING, "")
    poll_until(launcher, Stage.STOPPED)
    until(lambda: not any(map(is_there, processes)), "server and workers have ended")
    assert "server stopped" in launcher.log.read_text()
    assert not launcher.poll()


def test_a_killed_backend_is_reported_with_the_signal(launch: Callable[..., Any], python: Path, tmp_path: Path) -> None:
    launcher = started(launch(), python, tmp_path, *OPTIONS)
    processes = [launcher.process.pid, *workers(launcher.address)]
    os.kill(processes[0], signal.SIGKILL)
    poll_until(launcher, Stage.FAILED)
    expected = "The backend has exited (signal 9, possibly out of memory); start it again; see its log "
    assert launcher.reason == f"{expected}{launcher.log}"
    assert launcher.address == ""
    until(lambda: not any(map(is_there, processes)), "its workers have ended")
    started(launcher, python, tmp_path, *OPTIONS)


def test_closing_a_backend_that_hangs_takes_less_than_a_second(
    launch: Callable[..., Any], python: Path, tmp_path: Path
) -> None:
    launcher = started(launch(), python, tmp_path, *OPTIONS)
    processes = [launcher.process.pid, *workers(launcher.address)]
    os.kill(processes[0], signal.SIGSTOP)
    before = time.monotonic()
    launcher.close()
    assert time.monotonic() - before < 1
    assert not is_there(processes[0])
    until(lambda: not any(map(is_there, processes)), "its workers have ended")


def test_a_backend_does_not_outlive_a_blender_that_was_killed(python: Path, tmp_path: Path) -> None:
    program = f"""
{PACKAGE}
import time
from pathlib import Path
from addon_without_blender import launcher
one = launcher.Launcher()
one.start({str(python)!r}, Path({str(tmp_path)!r}), {OPTIONS!r})
while one.stage is not launcher.Stage.RUNNING:
    one.poll()
    time.sleep(0.05)
print(one.process.pid, one.address, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as blender:
        assert blender.stdout
        pid, address = blender.stdout.readline().split()
        processes = [int(pid), *workers(address)]
        blender.kill()
        until(lambda: not any(map(is_there, processes)), "server and workers have ended")


def test_the_reason_of_a_failed_start_quotes_the_error(
    launch: Callable[..., Any], python: Path, tmp_path: Path
) -> None:
    launcher = launch()
    launcher.start(str(python), tmp_path, ["--device", "abacus"])
    poll_until(launcher, Stage.FAILED)
    expected = "The backend failed to start (exit code 1): unknown device 'abacus'; use auto, cpu, cuda or cuda:N; "
    assert launcher.reason == f"{expected}see its log {launcher.log}"
    launcher.start(str(python), tmp_path, ["--nonsense"])
    poll_until(launcher, Stage.FAILED)
    assert "The backend failed to start (exit code 2): No such option: --nonsense" in launcher.reason


# --- unsuitable Pythons ---


def test_a_file_that_is_not_a_python_is_reported(launch: Callable[..., Any], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refused(launch(), nowhere, tmp_path).startswith(f"{nowhere} is not a file; choose another Python")
    assert refused(launch(), tmp_path, tmp_path).startswith(f"{tmp_path} is not a file; ")
    locked = script(tmp_path / "locked", mode=0o644)
    assert refused(launch(), locked, tmp_path).startswith(f"{locked} cannot be started: Permission denied; choose")
    no_program = tmp_path / "picture"
    no_program.write_bytes(b"\x89PNG")
    no_program.chmod(0o755)
    assert refused(launch(), no_program, tmp_path).startswith(f"{no_program} cannot be started: Exec format error")
    broken = script(tmp_path / "broken", "echo 'a library is missing.' >&2; exit 127")
    assert refused(launch(), broken, tmp_path).startswith(f"{broken} is not a working Python (a library is missing); ")
    silent = script(tmp_path / "silent", "exit 0")
    assert refused(launch(), silent, tmp_path).startswith(f"{silent} is not a working Python; choose")


def test_a_python_reports_the_modules_that_it_lacks(launch: Callable[..., Any], tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = tmp_path / "bare" / "bin" / "python"
    expected = f"{bare} does not have sdf_backend; {python_finder.INSTALL}, or choose another"
    assert refused(launch(), bare, tmp_path).startswith(expected)
    [packages] = (tmp_path / "bare").glob("lib/python*/site-packages")
    (packages / "sdf_backend" / "wire").mkdir(parents=True)  # as an uninstallation leaves it
    assert refused(launch(), bare, tmp_path).startswith(expected)
    (packages / "sdf_backend" / "__init__.py").touch()
    for name in set(python_finder.REQUIRED_MODULES) - {"torch", "igl"}:
        (packages / f"{name}.py").write_text("raise SystemExit('this should not be imported')")
    assert f"Found Python at {bare}, but it lacks: torch, igl; install" in refused(launch(), bare, tmp_path)


def test_a_python_that_is_too_old_is_reported(launch: Callable[..., Any], tmp_path: Path) -> None:
    old = fake(tmp_path / "old", version="3.9")
    assert f"{old} is Python 3.9, older than 3.11; choose another" in refused(launch(), old, tmp_path)


def test_a_python_that_hangs_is_killed_with_its_children(launch: Callable[..., Any], tmp_path: Path) -> None:
    hangs = script(
        tmp_path / "hangs", f"sleep 600 & echo $! > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/child", "wait"
    )
    launcher = launch(probe=600)
    launcher.start(str(hangs), tmp_path)
    poll_until_holds(launcher, lambda: (tmp_path / "child").exists(), "the probe has started")
    child = int((tmp_path / "child").read_text())
    launcher._probe._give_up_at = 0.0
    poll_until(launcher, Stage.FAILED)
    assert f"{hangs} does not respond" in launcher.reason
    poll_until_holds(launcher, lambda: not is_there(child), "the child has ended")


def test_the_required_modules_are_the_dependencies_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"pyzmq": "zmq", "scikit-image": "skimage", "libigl": "igl"}
    needed = [text.split(">=")[0] for text in project["dependencies"] + project["optional-dependencies"]["backend"]]
    assert {modules.get(name, name).replace("-", "_") for name in needed} == set(python_finder.REQUIRED_MODULES)


def test_the_backend_does_not_inherit_blenders_python_environment(
    launch: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/blender/python")
    monkeypatch.setenv("PYTHONPATH", "/blender/modules")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/cuda/lib")
    asks = fake(tmp_path / "asks", serve=f"(env; pwd) > {tmp_path}/environment; {LISTENS}")
    launcher = started(launch(), asks, tmp_path)
    environment = (tmp_path / "environment").read_text()
    assert "PYTHONHOME" not in environment
    assert "PYTHONPATH" not in environment
    assert "LD_LIBRARY_PATH=/usr/local/cuda/lib" in environment
    assert environment.splitlines()[-1] == str(launcher.log.parent)


# --- the search ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory and an empty PATH."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.delenv("SDF_BACKEND_PYTHON", raising=False)
    return tmp_path / "home"


def usual(home: Path) -> list[str]:
    """The usual Pythons, relative to the parent of the home directory."""
    return [str(path.relative_to(home.parent)) for path in python_finder.usual_pythons() if home.parent in path.parents]


def test_pythons_are_found_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usual(home) == []
    places = ["given", "home/sdf-shapes/bin/python", "home/sdf-shapes/.venv/bin/python", "home/.venv/bin/python"]
    places += [f"programs/{name}" for name in ("python3", "python", "python3.11", "python3.12", "python3.13")]
    for place in reversed(places):
        fake(home.parent / place)
    monkeypatch.setenv("SDF_BACKEND_PYTHON", str(home.parent / "given"))
    assert usual(home) == places


def test_links_to_one_python_count_once_but_environments_are_distinct(home: Path) -> None:
    python = fake(home.parent / "programs" / "python3.11")
    (home.parent / "programs" / "python3").symlink_to(python)
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "pyvenv.cfg").touch()
    (home / ".venv" / "bin" / "python").symlink_to(python)
    assert usual(home) == ["home/.venv/bin/python", "programs/python3"]


def test_the_usual_locations_on_windows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_finder, "WINDOWS", True)
    monkeypatch.setenv("LOCALAPPDATA", str(home.parent / "local"))
    places = ["home/sdf-shapes/Scripts/python.exe", "local/sdf-shapes/Scripts/python.exe"]
    for place in places:
        fake(home.parent / place)
    assert usual(home) == places


def test_the_first_suitable_python_is_used(launch: Callable[..., Any], home: Path, tmp_path: Path) -> None:
    fake(home / "sdf-shapes" / "bin" / "python", missing=ALL_MODULES.replace(" ", ","))
    script(home / "sdf-shapes" / ".venv" / "bin" / "python", "while :; do :; done")
    fits = fake(home / ".venv" / "bin" / "python", LISTENS.replace("cat", "/bin/cat"))
    fake(home.parent / "programs" / "python3")
    launcher = launch(probe=3.0)
    launcher.start("", tmp_path)
    poll_until(launcher, Stage.STARTING)
    assert launcher.reason == f"Starting the backend with {fits}"
    poll_until(launcher, Stage.RUNNING)
    assert launcher.address == "tcp://127.0.0.1:5577"


def test_a_search_without_success_reports_a_remedy(
    launch: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons = lambda *_: iter(sorted(home.glob("*/bin/python")))  # noqa: E731  # this computer may have a suitable one
    monkeypatch.setattr(launcher_module, "usual_pythons", pythons)
    reason = refused(launch(), "", tmp_path)
    remedy = "click Install Backend, choose a Python that has it in the preferences, or connect to a running one"
    assert reason == f"No Python was found in the usual locations; {remedy}"
    for name in ("a", "b"):
        fake(home / name / "bin" / "python", missing="sdf_backend,torch")
    reason = refused(launch(), "", tmp_path)
    assert reason == f"The backend is not installed in any of the 2 Pythons in the usual locations; {remedy}"
    nearly = fake(home / "c" / "bin" / "python", missing="torch")
    reason = refused(launch(), "", tmp_path)
    assert reason.startswith(f"Found Python at {nearly}, but it lacks: torch; install")


def test_a_python_may_be_a_command_or_a_path_with_a_tilde(launch: Callable[..., Any], home: Path) -> None:
    fits = fake(home.parent / "programs" / "python3.12", LISTENS.replace("cat", "/bin/cat"))
    started(launch(), Path("python3.12"), home)
    (home / "link").symlink_to(fits)
    launcher = launch()
    launcher.start("~/link", home)
    poll_until(launcher, Stage.STARTING)
    assert launcher.reason.endswith(str(home / "link"))  # not resolved


# --- backends that misbehave ---


def test_a_backend_that_prints_no_address_is_killed(launch: Callable[..., Any], tmp_path: Path) -> None:
    mute = fake(tmp_path / "mute", serve=f"trap '' TERM; touch {tmp_path}/runs; while :; do sleep 0.1; done")
    launcher = launch(start=600, end=0.5)
    launcher.start(str(mute), tmp_path)
    poll_until_holds(launcher, lambda: (tmp_path / "runs").exists(), "it runs")
    pid, launcher._give_up_at = launcher.process.pid, 0.0
    poll_until(launcher, Stage.FAILED)
    reason = launcher.reason
    assert reason.startswith("The backend did not listen within 600 s; try again; see its log ")
    poll_until_holds(launcher, lambda: not is_there(pid), "it is killed")
    assert launcher.reason == reason


def test_the_exit_of_a_backend_is_reported_with_its_error(launch: Callable[..., Any], tmp_path: Path) -> None:
    log = "echo '2026-01-01T00:00:00.000Z INFO server stopped done=0' >&2"
    hurt = fake(tmp_path / "hurt", serve=f"{log}; echo 'error: the disk is full.' >&2; {log}; echo >&2; exit 3")
    reason = refused(launch(), hurt, tmp_path)
    assert reason.startswith("The backend failed to start (exit code 3): the disk is full; see its log ")
    dies = fake(tmp_path / "dies", serve="kill -SEGV $$")
    assert "failed to start (signal 11); see its log " in refused(launch(), dies, tmp_path)
    exits = f"while [ ! -e {tmp_path}/exit ]; do sleep 0.05; done; echo 'error: there is no cuda' >&2; exit 1"
    launcher = started(launch(), fake(tmp_path / "listens", serve=LISTENS.replace("exec cat", exits)), tmp_path)
    (tmp_path / "exit").touch()
    poll_until(launcher, Stage.FAILED)
    expected = "The backend has exited (exit code 1): there is no cuda; start it again; see its log "
    assert launcher.reason.startswith(expected)


def test_a_backend_that_ignores_termination_is_killed(launch: Callable[..., Any], tmp_path: Path) -> None:
    stubborn = fake(tmp_path / "stubborn", serve=f"trap '' TERM; {LISTENS.replace('exec cat', 'sleep 600')}; sleep 600")
    launcher = started(launch(end=600), stubborn, tmp_path)
    first = launcher.process.pid
    launcher.stop()
    launcher.stop()
    assert is_there(first)
    launcher.start(str(stubborn), tmp_path)
    launcher.poll()
    assert is_there(first)
    assert launcher.stage is Stage.SEARCHING
    launcher._terminating = [(process, 0.0) for process, _ in launcher._terminating]  # time is up
    poll_until(launcher, Stage.RUNNING)
    assert not is_there(first)
    before = time.monotonic()
    launcher.close()
    assert time.monotonic() - before < 1


def test_stop_and_close_are_safe_in_every_stage(launch: Callable[..., Any], tmp_path: Path) -> None:
    launcher = launch()
    launcher.stop()
    launcher.close()
    assert launcher.stage is Stage.STOPPED
    slow = script(tmp_path / "slow", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    launcher.start(str(slow), tmp_path)
    poll_until_holds(launcher, lambda: (tmp_path / "pid").exists(), "the probe has started")
    launcher.stop()
    assert launcher.stage is Stage.STOPPING
    poll_until(launcher, Stage.STOPPED)
    running = started(launcher, fake(tmp_path / "fits"), tmp_path)
    running.process.kill()
    running.process.wait()
    running.close()
    assert (running.stage, running.address, running.process) == (Stage.STOPPED, "", None)
    running.close()


# --- the folder ---


def test_each_launcher_has_its_log_and_keeps_the_previous_one(launch: Callable[..., Any], tmp_path: Path) -> None:
    says = fake(tmp_path / "says", serve=f"echo $$ >&2; {LISTENS}")
    one, two = started(launch(), says, tmp_path / "new"), started(launch(), says, tmp_path / "new")
    assert one.log != two.log
    first = one.log.read_text()
    one.stop()
    started(one, says, tmp_path / "new")
    assert one.log.with_name("backend.log.1").read_text() == first != one.log.read_text()


def test_only_folders_of_launchers_that_ended_long_ago_are_removed(launch: Callable[..., Any], tmp_path: Path) -> None:
    ago = time.time() - 8 * 86_400
    names = ["sdf-backend-old", "sdf-backend-new", "sdf-backend-mine", "other"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "backend.log").touch()
    (tmp_path / "sdf-backend-mine" / "picture.blend").touch()
    for name in set(names) - {"sdf-backend-new"}:
        os.utime(tmp_path / name, (ago, ago))
    launch().start("nothing", tmp_path)
    assert not (tmp_path / "sdf-backend-old").exists()
    assert (tmp_path / "sdf-backend-new" / "backend.log").exists()
    assert (tmp_path / "sdf-backend-mine" / "picture.blend").exists()
    assert (tmp_path / "other" / "backend.log").exists()


def test_a_folder_that_cannot_be_written_is_reported(launch: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launcher = launch()
    launcher.start("", tmp_path / "file")
    assert launcher.stage is Stage.FAILED
    assert f"{tmp_path / 'file'} cannot be used for the backend's log: File exists" in launcher.reason
    assert launcher.poll()


def test_a_poll_takes_less_than_a_millisecond(launch: Callable[..., Any], tmp_path: Path) -> None:
    launcher = started(launch(), fake(tmp_path / "fits"), tmp_path)

    def seconds_of_200() -> float:
        before = time.perf_counter()
        for _ in range(200):
            launcher.poll()
        return time.perf_counter() - before

    assert min(seconds_of_200() for _ in range(5)) / 200 < 1e-3  # the best, as others may use the processor
