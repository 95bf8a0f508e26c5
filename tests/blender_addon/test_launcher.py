"""The launcher with real processes: backends that run, end, hang and lose their Blender, and Pythons that do not fit.

The add-on itself needs Blender, so that its launcher is loaded by its path.
"""

import importlib.util
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
from types import ModuleType
from typing import Any

import pytest
from backend_process import ROOT, is_there, until

from sdf_backend.wire.client import Client

LAUNCHER = ROOT / "blender_addon" / "launcher.py"
OPTIONS = ("--device", "cpu", "--cache-mib", "0")
# A backend that does what the launcher sees of one: it says where it listens, and ends with its input.
LISTENS = "echo 'SDF Shapes 1'; echo 'address    tcp://127.0.0.1:5577'; exec cat"


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("launcher", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["launcher"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


module = loaded(LAUNCHER)
Stage, Timing = module.Stage, module.Timing
ALL = " ".join((module.BACKEND, *module.NEEDED))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes launchers, and ends what they have started."""
    made = []

    def make(**seconds: float) -> Any:
        made.append(module.Launcher(Timing(**seconds)))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment into which this repository and all that it needs are installed."""
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


def fake(path: Path, serve: str = LISTENS, version: str = "3.11", lacking: str = "") -> Path:
    """A script in the place of a Python: what it says that it has, and what it does as a backend."""
    return script(path, f'if [ "$1" = -c ]; then echo "sdf-shapes {version} {lacking}"; else {serve}; fi')


def poll_until(launcher: Any, *stages: Any, seconds: float = 60.0) -> None:
    def there() -> bool:
        launcher.poll()
        return launcher.stage in stages

    until(there, f"{stages}: {launcher.stage}, {launcher.reason}", seconds)


def started(launcher: Any, python: Path, folder: Path, *options: str) -> Any:
    launcher.start(str(python), folder, options)
    poll_until(launcher, Stage.RUNNING, Stage.FAILED)
    assert launcher.stage is Stage.RUNNING, launcher.reason
    return launcher


def refused(launcher: Any, python: Path | str, folder: Path) -> str:
    """The reason why a backend cannot be started with that Python."""
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

    return until(found, "a worker is there")


# --- a real backend ---


def test_a_backend_starts_answers_and_stops(launch: Callable[..., Any], python: Path, tmp_path: Path) -> None:
    launcher = launch()
    assert (launcher.stage, launcher.address, launcher.log) == (Stage.STOPPED, "", None)
    assert not launcher.poll()
    launcher.start(str(python), tmp_path, OPTIONS)
    assert launcher.stage is Stage.LOOKING
    assert launcher.poll()
    poll_until(launcher, Stage.RUNNING)
    assert launcher.address in launcher.reason
    everyone = [launcher.process.pid, *workers(launcher.address)]
    launcher.start(str(python), tmp_path, OPTIONS)
    assert launcher.process.pid == everyone[0]
    launcher.stop()
    assert (launcher.stage, launcher.address) == (Stage.STOPPED, "")
    until(lambda: launcher.poll() and launcher.reason == module.ENDED, "the end is noticed", 10)
    until(lambda: not any(map(is_there, everyone)), "server and workers are gone", 10)
    assert "server stopped" in launcher.log.read_text()
    assert not launcher.poll()


def test_a_killed_backend_is_noticed_with_the_reason(launch: Callable[..., Any], python: Path, tmp_path: Path) -> None:
    launcher = started(launch(), python, tmp_path, *OPTIONS)
    everyone = [launcher.process.pid, *workers(launcher.address)]
    os.kill(everyone[0], signal.SIGKILL)
    poll_until(launcher, Stage.FAILED, seconds=10)
    expected = "the backend has ended (signal 9, perhaps out of memory); start it again; its log is "
    assert launcher.reason == f"{expected}{launcher.log}"
    assert launcher.address == ""
    until(lambda: not any(map(is_there, everyone)), "its workers are gone", 10)
    started(launcher, python, tmp_path, *OPTIONS)


def test_closing_takes_less_than_a_second_though_the_backend_hangs(
    launch: Callable[..., Any], python: Path, tmp_path: Path
) -> None:
    launcher = started(launch(), python, tmp_path, *OPTIONS)
    everyone = [launcher.process.pid, *workers(launcher.address)]
    os.kill(everyone[0], signal.SIGSTOP)
    before = time.monotonic()
    launcher.close()
    assert time.monotonic() - before < 1
    assert not is_there(everyone[0])
    until(lambda: not any(map(is_there, everyone)), "its workers are gone", 10)


def test_a_backend_does_not_outlive_a_blender_that_was_killed(python: Path, tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path[:0] = [{str(ROOT / "blender_addon")!r}]
from pathlib import Path
import launcher
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
        everyone = [int(pid), *workers(address)]
        blender.kill()
        until(lambda: not any(map(is_there, everyone)), "server and workers are gone", 10)


def test_what_keeps_a_backend_from_starting_is_in_the_reason(
    launch: Callable[..., Any], python: Path, tmp_path: Path
) -> None:
    launcher = launch()
    launcher.start(str(python), tmp_path, ["--device", "abacus"])
    poll_until(launcher, Stage.FAILED)
    expected = "the backend could not start (exit code 1): unknown device 'abacus'; use auto, cpu, cuda or cuda:N; "
    assert launcher.reason == f"{expected}its log is {launcher.log}"
    launcher.start(str(python), tmp_path, ["--nonsense"])
    poll_until(launcher, Stage.FAILED)
    assert "the backend could not start (exit code 2): No such option: --nonsense" in launcher.reason


# --- Pythons that do not fit ---


def test_a_python_that_is_none_is_told_as_such(launch: Callable[..., Any], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert refused(launch(), nowhere, tmp_path).startswith(f"{nowhere} is no file; choose another Python")
    assert refused(launch(), tmp_path, tmp_path).startswith(f"{tmp_path} is no file; ")
    locked = script(tmp_path / "locked", mode=0o644)
    assert refused(launch(), locked, tmp_path).startswith(f"{locked} cannot be started: Permission denied; choose")
    no_program = tmp_path / "picture"
    no_program.write_bytes(b"\x89PNG")
    no_program.chmod(0o755)
    assert refused(launch(), no_program, tmp_path).startswith(f"{no_program} cannot be started: Exec format error")
    broken = script(tmp_path / "broken", "echo 'a library is missing.' >&2; exit 127")
    assert refused(launch(), broken, tmp_path).startswith(f"{broken} is no Python that works (a library is missing); ")
    silent = script(tmp_path / "silent", "exit 0")
    assert refused(launch(), silent, tmp_path).startswith(f"{silent} is no Python that works; choose")


def test_a_python_without_the_backend_says_what_it_lacks(launch: Callable[..., Any], tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = tmp_path / "bare" / "bin" / "python"
    expected = f"{bare} has no sdf_backend; install sdf-shapes[backend] there as the README says, or choose another"
    assert refused(launch(), bare, tmp_path).startswith(expected)
    [packages] = (tmp_path / "bare").glob("lib/python*/site-packages")
    (packages / "sdf_backend" / "wire").mkdir(parents=True)  # as an uninstallation leaves it behind
    assert refused(launch(), bare, tmp_path).startswith(expected)
    (packages / "sdf_backend" / "__init__.py").touch()
    for name in set(module.NEEDED) - {"torch", "igl"}:
        (packages / f"{name}.py").write_text("raise SystemExit('this should not be imported')")
    assert f"{bare} has sdf_backend but not torch, igl; install" in refused(launch(), bare, tmp_path)


def test_a_python_that_is_too_old_says_so(launch: Callable[..., Any], tmp_path: Path) -> None:
    old = fake(tmp_path / "old", version="3.9")
    assert f"{old} is Python 3.9, older than 3.11; choose another" in refused(launch(), old, tmp_path)


def test_a_python_that_hangs_is_given_up_and_its_children_too(launch: Callable[..., Any], tmp_path: Path) -> None:
    hangs = script(tmp_path / "hangs", f"sleep 600 & echo $! > {tmp_path}/child", "wait")
    launcher = launch(trial=1.0)
    assert f"{hangs} does not answer" in refused(launcher, hangs, tmp_path)
    child = int((tmp_path / "child").read_text())
    until(lambda: launcher.poll() or not is_there(child), "the child is gone", 5)


def test_modules_that_are_asked_for_are_those_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"pyzmq": "zmq", "scikit-image": "skimage", "libigl": "igl"}
    needed = [text.split(">=")[0] for text in project["dependencies"] + project["optional-dependencies"]["backend"]]
    assert {modules.get(name, name).replace("-", "_") for name in needed} == set(module.NEEDED)


def test_nothing_of_blenders_own_python_reaches_the_other(
    launch: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/blender/python")
    monkeypatch.setenv("PYTHONPATH", "/blender/modules")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/cuda/lib")
    asks = fake(tmp_path / "asks", serve=f"(env; pwd) > {tmp_path}/seen; {LISTENS}")
    launcher = started(launch(), asks, tmp_path)
    seen = (tmp_path / "seen").read_text()
    assert "PYTHONHOME" not in seen
    assert "PYTHONPATH" not in seen
    assert "LD_LIBRARY_PATH=/usr/local/cuda/lib" in seen
    assert seen.splitlines()[-1] == str(launcher.log.parent)


# --- the search ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a PATH of their own, with nothing in them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.delenv("SDF_BACKEND_PYTHON", raising=False)
    return tmp_path / "home"


def usual(home: Path) -> list[str]:
    """The usual Pythons below the folder in which the home is."""
    return [str(path.relative_to(home.parent)) for path in module.usual_pythons() if home.parent in path.parents]


def test_the_search_has_an_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usual(home) == []
    places = ["given", "home/sdf-shapes/bin/python", "home/sdf-shapes/.venv/bin/python", "home/.venv/bin/python"]
    places += [f"programs/{name}" for name in ("python3", "python", "python3.11", "python3.12", "python3.13")]
    for place in reversed(places):
        fake(home.parent / place)
    monkeypatch.setenv("SDF_BACKEND_PYTHON", str(home.parent / "given"))
    assert usual(home) == places


def test_the_same_python_is_tried_once_and_that_of_an_environment_for_itself(home: Path) -> None:
    python = fake(home.parent / "programs" / "python3.11")
    (home.parent / "programs" / "python3").symlink_to(python)
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "pyvenv.cfg").touch()
    (home / ".venv" / "bin" / "python").symlink_to(python)
    assert usual(home) == ["home/.venv/bin/python", "programs/python3"]


def test_the_usual_places_of_windows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOWS", True)
    monkeypatch.setenv("LOCALAPPDATA", str(home.parent / "local"))
    places = ["home/sdf-shapes/Scripts/python.exe", "local/sdf-shapes/Scripts/python.exe"]
    for place in places:
        fake(home.parent / place)
    assert usual(home) == places


def test_the_first_that_fits_is_taken(launch: Callable[..., Any], home: Path, tmp_path: Path) -> None:
    fake(home / "sdf-shapes" / "bin" / "python", lacking=ALL.replace(" ", ","))
    script(home / "sdf-shapes" / ".venv" / "bin" / "python", "while :; do :; done")
    fits = fake(home / ".venv" / "bin" / "python", LISTENS.replace("cat", "/bin/cat"))
    fake(home.parent / "programs" / "python3")
    launcher = launch(trial=1.0)
    launcher.start("", tmp_path)
    poll_until(launcher, Stage.STARTING)
    assert launcher.reason == f"starting the backend with {fits}"
    poll_until(launcher, Stage.RUNNING)
    assert launcher.address == "tcp://127.0.0.1:5577"


def test_where_none_fits_the_reason_says_what_to_do(
    launch: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = lambda: iter(sorted(home.glob("*/bin/python")))  # noqa: E731  # this computer may have one that fits
    monkeypatch.setattr(module, "usual_pythons", places)
    reason = refused(launch(), "", tmp_path)
    assert reason.startswith("there is no Python in any of the usual places; choose the Python that has it")
    for name in ("a", "b"):
        fake(home / name / "bin" / "python", lacking="sdf_backend,torch")
    reason = refused(launch(), "", tmp_path)
    assert reason.startswith("none of the 2 Pythons in the usual places has the backend; choose the Python")
    assert reason.endswith("in the add-on's preferences, or connect to a backend elsewhere")
    nearly = fake(home / "c" / "bin" / "python", lacking="torch")
    reason = refused(launch(), "", tmp_path)
    assert f"but one nearly: {nearly} has sdf_backend but not torch; install" in reason


def test_a_python_may_be_given_as_a_command_or_from_home(launch: Callable[..., Any], home: Path) -> None:
    fits = fake(home.parent / "programs" / "python3.12", LISTENS.replace("cat", "/bin/cat"))
    started(launch(), Path("python3.12"), home)
    (home / "link").symlink_to(fits)
    launcher = launch()
    launcher.start("~/link", home)
    poll_until(launcher, Stage.STARTING)
    assert launcher.reason.endswith(str(home / "link"))  # and not what it leads to


# --- backends that misbehave ---


def test_a_backend_that_says_nothing_is_given_up_and_killed(launch: Callable[..., Any], tmp_path: Path) -> None:
    mute = fake(tmp_path / "mute", serve=f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done")
    launcher = launch(start=1.0, end=0.5)
    reason = refused(launcher, mute, tmp_path)
    assert reason.startswith("the backend did not listen 1 s after its start; try again; its log is ")
    pid = int((tmp_path / "pid").read_text())
    until(lambda: launcher.poll() or not is_there(pid), "it is killed", 5)
    assert launcher.reason == reason


def test_a_backend_that_ends_says_why(launch: Callable[..., Any], tmp_path: Path) -> None:
    log = "echo '2026-01-01T00:00:00.000Z INFO server stopped done=0' >&2"
    hurt = fake(tmp_path / "hurt", serve=f"{log}; echo 'error: the disk is full.' >&2; {log}; echo >&2; exit 3")
    reason = refused(launch(), hurt, tmp_path)
    assert reason.startswith("the backend could not start (exit code 3): the disk is full; its log is ")
    dies = fake(tmp_path / "dies", serve="kill -SEGV $$")
    assert "could not start (signal 11); its log is " in refused(launch(), dies, tmp_path)
    listens = LISTENS.replace("exec cat", "sleep 1; echo 'error: there is no cuda' >&2; exit 1")
    launcher = started(launch(), fake(tmp_path / "listens", serve=listens), tmp_path)
    poll_until(launcher, Stage.FAILED, seconds=10)
    expected = "the backend has ended (exit code 1): there is no cuda; start it again; its log is "
    assert launcher.reason.startswith(expected)


def test_what_does_not_end_is_killed_and_a_start_waits_for_that(launch: Callable[..., Any], tmp_path: Path) -> None:
    stubborn = fake(tmp_path / "stubborn", serve=f"trap '' TERM; {LISTENS.replace('exec cat', 'sleep 600')}; sleep 600")
    launcher = started(launch(end=1.0), stubborn, tmp_path)
    first = launcher.process.pid
    launcher.stop()
    launcher.stop()
    assert is_there(first)
    launcher.start(str(stubborn), tmp_path)
    launcher.poll()
    assert is_there(first)
    assert launcher.stage is Stage.LOOKING
    poll_until(launcher, Stage.RUNNING)
    assert not is_there(first)
    before = time.monotonic()
    launcher.close()
    assert time.monotonic() - before < 1


def test_stopping_and_closing_are_safe_at_any_time(launch: Callable[..., Any], tmp_path: Path) -> None:
    launcher = launch()
    launcher.stop()
    launcher.close()
    assert launcher.stage is Stage.STOPPED
    slow = script(tmp_path / "slow", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    launcher.start(str(slow), tmp_path)
    until(lambda: launcher.poll() or (tmp_path / "pid").exists(), "it is asked", 10)
    launcher.stop()
    assert launcher.stage is Stage.STOPPED
    until(lambda: launcher.poll() or launcher.reason == module.ENDED, "it is gone", 10)
    running = started(launcher, fake(tmp_path / "fits"), tmp_path)
    running.process.kill()
    running.process.wait()
    running.close()
    assert (running.stage, running.address, running.process) == (Stage.STOPPED, "", None)
    running.close()


# --- the folder ---


def test_two_blenders_write_apart_and_the_last_log_is_kept(launch: Callable[..., Any], tmp_path: Path) -> None:
    says = fake(tmp_path / "says", serve=f"echo $$ >&2; {LISTENS}")
    one, two = started(launch(), says, tmp_path / "new"), started(launch(), says, tmp_path / "new")
    assert one.log != two.log
    first = one.log.read_text()
    one.stop()
    started(one, says, tmp_path / "new")
    assert one.log.with_name("backend.log.1").read_text() == first != one.log.read_text()


def test_leftovers_of_long_ago_are_removed_and_nothing_else(launch: Callable[..., Any], tmp_path: Path) -> None:
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


def test_a_folder_that_cannot_be_written_is_named(launch: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launcher = launch()
    launcher.start("", tmp_path / "file")
    assert launcher.stage is Stage.FAILED
    assert f"{tmp_path / 'file'} cannot be used for the backend's log: File exists" in launcher.reason
    assert launcher.poll()


def test_a_poll_takes_no_time(launch: Callable[..., Any], tmp_path: Path) -> None:
    launcher = started(launch(), fake(tmp_path / "fits"), tmp_path)
    before = time.perf_counter()
    for _ in range(200):
        launcher.poll()
    assert (time.perf_counter() - before) / 200 < 1e-3
