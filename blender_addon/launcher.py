"""Starts, stops and explains a backend on this computer: finds a Python that has one, runs it, notices its end.

    launcher = Launcher()
    launcher.start("", folder)
    if launcher.poll():             # a few times a second, from a timer
        draw(launcher.reason)       # once its stage is RUNNING, launcher.address is where to connect

No threads and no waiting: everything goes on in `poll`, and only `close` waits, for less than a second. The backend
gets a pipe as standard input and ends when that does, so that it does not outlive a Blender that was killed. Standard
library only, without Blender, so that it is tested with real processes.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

WINDOWS = os.name == "nt"
OLDEST_PYTHON = 3, 11
BACKEND = "sdf_backend"
# What `pip install sdf-shapes[backend]` brings along, as modules.
NEEDED = (
    *("numpy", "zmq", "torch", "safetensors", "scipy", "skimage", "trimesh", "charset_normalizer"),
    *("igl", "embreex", "typer", "rich", "psutil"),
)
# Says what a Python lacks without importing any of it; old Pythons must understand it too. A module without an origin
# is a folder that an uninstallation has left behind.
QUESTION = """
import sys
lacking = []
if sys.version_info >= (3, 11):
    from importlib.util import find_spec
    lacking = [name for name in sys.argv[1:] if not getattr(find_spec(name), "origin", None)]
print("sdf-shapes %d.%d %s" % (sys.version_info[0], sys.version_info[1], ",".join(lacking)))
"""
ANSWER = re.compile(r"^sdf-shapes (\d+)\.(\d+) (\S*)\r?$", re.MULTILINE)
INFORMATION = re.compile(r"\S+Z INFO ")

FOLDER, TRIAL, OUTPUT, LOG, LAST_LOG = "sdf-backend-", "trial.txt", "backend.out", "backend.log", "backend.log.1"
# Folders of launchers that gave no sign of life for so long are removed.
LEFTOVER_SECONDS, SIGN_OF_LIFE_SECONDS = 7 * 86_400, 3_600
# What of a log is read for the last words of a process.
LAST_WORDS_BYTES, LAST_WORDS = 8_192, 300
# After `close` has killed, so long for the system to do it.
KILL_SECONDS = 0.1
ENDING, ENDED = "the backend is ending", "the backend was stopped"
CHOOSE = "choose another Python in the add-on's preferences"
INSTALL = "install sdf-shapes[backend] there as the README says"


class Stage(StrEnum):
    """What has become of the backend."""

    STOPPED = "stopped"
    LOOKING = "looking"
    """for a Python that has it"""
    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Timing:
    """Seconds. A test shortens them."""

    trial: float = 20.0
    """in which a Python must have said what it has"""
    start: float = 60.0
    """in which the backend must listen"""
    end: float = 5.0
    """after which a backend that was asked to end is killed"""


class Launcher:
    """One local backend; `stage` and `reason` say how it does, `address` where it listens once it is RUNNING."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.stage, self.reason = Stage.STOPPED, "no backend was started from here"
        self.address = ""
        self.log: Path | None = None
        self.process: subprocess.Popen | None = None
        self._told = self.stage, self.reason
        self._folder: Path | None = None
        self._options: tuple[str, ...] = ()
        self._alone = False
        self._candidates: Iterator[Path] = iter(())
        self._trial: _Trial | None = None
        self._misfits: list[_Verdict] = []
        self._give_up_at = self._sign_of_life_at = 0.0
        self._leaving: list[tuple[subprocess.Popen, float]] = []  # and when each is killed

    def start(self, python: str, folder: Path, options: Sequence[str] = ()) -> None:
        """Begin to start a backend with that Python, or with the first of the usual ones that has it for "".

        Its log goes into a folder of its own in `folder`; `options` are more of `serve`. Nothing while one runs.
        """
        if self._active:
            return
        try:
            self._make_folder(folder)
        except OSError as error:
            self._fail(
                f"the folder {folder} cannot be used for the backend's log: {error.strerror}; free it or its disk"
            )
            return
        self._options, self._alone, self._misfits = tuple(options), bool(python), []
        self._candidates = iter([_given(python)]) if python else usual_pythons()
        self._turn(Stage.LOOKING, "looking for a Python that has the backend")

    def poll(self) -> bool:
        """Go on a little; True where stage or reason are others than after the poll before."""
        now = time.monotonic()
        self._bury(now)
        if not self._leaving:  # a backend that still ends has the log
            match self.stage:
                case Stage.LOOKING:
                    self._look(now)
                case Stage.STARTING:
                    self._await_address(now)
                case Stage.RUNNING:
                    self._watch(now)
        before, self._told = self._told, (self.stage, self.reason)
        return before != self._told

    def stop(self) -> None:
        """Ask it to end, and return; `poll` notices the end, and kills what does not end."""
        if not self._active:
            return
        self._end_trial()
        self._dismiss()
        self._turn(Stage.STOPPED, ENDING)

    def close(self, seconds: float = 0.15) -> None:
        """End it now: ask, wait so long at most, kill. For the end of Blender, which should not wait."""
        self.stop()
        give_up = time.monotonic() + seconds
        for last in (False, True):
            for process, _ in self._leaving:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, give_up - time.monotonic()))
                if not last:
                    _send(process, kill=True)
            give_up += KILL_SECONDS
        self._bury(float("inf"))

    @property
    def _active(self) -> bool:
        return self.stage in (Stage.LOOKING, Stage.STARTING, Stage.RUNNING)

    def _turn(self, stage: Stage, reason: str) -> None:
        self.stage, self.reason = stage, reason
        if stage is not Stage.RUNNING:
            self.address = ""

    def _fail(self, reason: str) -> None:
        self._turn(Stage.FAILED, reason)

    # --- the folder ---

    @property
    def _own_folder(self) -> Path:
        assert self._folder
        return self._folder

    def _make_folder(self, parent: Path) -> None:
        """Have a folder of our own: other Blenders write beside us, and process ids are not unique in containers."""
        parent = parent.absolute()
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        if self._folder is None or self._folder.parent != parent or not self._folder.is_dir():
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))  # of mode 0700

    # --- looking ---

    def _look(self, now: float) -> None:
        if self._trial is None:
            python = next(self._candidates, None)
            if python is None:
                self._fail(self._nothing_found())
                return
            self._turn(Stage.LOOKING, f"looking whether {python} has the backend")
            self._trial = _Trial(python, self._own_folder, now + self.timing.trial)
        verdict = self._trial.verdict(now)
        if verdict is None:
            return
        python = self._trial.python
        self._end_trial()
        if verdict.problem:
            self._misfits.append(verdict)
        else:
            self._launch(python, now)

    def _end_trial(self) -> None:
        if self._trial and self._trial.process:
            _send(self._trial.process, kill=True)
            self._leaving.append((self._trial.process, 0.0))
        self._trial = None

    def _nothing_found(self) -> str:
        if self._alone:
            return self._misfits[0].problem
        elsewhere = "choose the Python that has it in the add-on's preferences, or connect to a backend elsewhere"
        nearest = next((misfit.problem for misfit in self._misfits if misfit.near), "")
        if nearest:
            return f"no Python here can run the backend, but one nearly: {nearest}, or connect to a backend elsewhere"
        if not self._misfits:
            return f"there is no Python in any of the usual places; {elsewhere}"
        return f"none of the {len(self._misfits)} Pythons in the usual places has the backend; {elsewhere}"

    # --- starting ---

    def _launch(self, python: Path, now: float) -> None:
        command = [str(python), "-m", BACKEND, "serve", "--bind", "tcp://127.0.0.1:*", "--lifeline", "--grace", "0"]
        output, self.log = self._own_folder / OUTPUT, self._own_folder / LOG
        try:
            if self.log.exists():
                self.log.replace(self._own_folder / LAST_LOG)
            with output.open("wb") as stdout, self.log.open("wb") as stderr:
                self.process = _popen([*command, *self._options], subprocess.PIPE, stdout, stderr, self._own_folder)
        except OSError as error:
            self._fail(f"the backend cannot be started with {python}: {error.strerror}; {CHOOSE}")
            return
        self._give_up_at, self._sign_of_life_at = now + self.timing.start, now + SIGN_OF_LIFE_SECONDS
        self._turn(Stage.STARTING, f"starting the backend with {python}")

    def _await_address(self, now: float) -> None:
        if address := _announced(self._own_folder / OUTPUT):
            self.address = address
            self._turn(Stage.RUNNING, f"the backend runs at {address}")
        elif (code := self._ended()) is not None:
            self._fail(f"the backend could not start ({_ending(code)}){self._last_words()}; its log is {self.log}")
        elif now >= self._give_up_at:
            self._dismiss()
            seconds = self.timing.start
            self._fail(f"the backend did not listen {seconds:g} s after its start; try again; its log is {self.log}")

    def _watch(self, now: float) -> None:
        if (code := self._ended()) is not None:
            words = self._last_words() if code > 0 else ""
            self._fail(f"the backend has ended ({_ending(code)}){words}; start it again; its log is {self.log}")
        elif now >= self._sign_of_life_at:
            self._sign_of_life_at = now + SIGN_OF_LIFE_SECONDS
            with suppress(OSError):
                os.utime(self._own_folder)

    def _last_words(self) -> str:
        words = _last_words(self.log) if self.log else ""
        return f": {words}" if words else ""

    # --- ending ---

    def _ended(self) -> int | None:
        """The exit status of the backend where it has ended by itself, and forget it then."""
        assert self.process
        code = self.process.poll()
        if code is not None:
            _close_input(self.process)
            self.process = None
        return code

    def _dismiss(self) -> None:
        """Ask the backend to end."""
        if self.process:
            _close_input(self.process)
            _send(self.process)
            self._leaving.append((self.process, time.monotonic() + self.timing.end))
        self.process = None

    def _bury(self, now: float) -> None:
        """Forget processes that have ended, and kill those whose time is up."""
        for process, kill_at in self._leaving:
            if process.poll() is None and now >= kill_at:
                _send(process, kill=True)
        self._leaving = [one for one in self._leaving if one[0].returncode is None]
        if self.reason == ENDING and not self._leaving:
            self.reason = ENDED


# --- Pythons -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Verdict:
    """What has come out about a Python."""

    problem: str = ""
    """why it does not fit, in one sentence; nothing where it does"""
    near: bool = False
    """it has the backend, and not all that the backend needs"""


class _Trial:
    """A Python that is asked what it has."""

    def __init__(self, python: Path, folder: Path, give_up_at: float) -> None:
        self.python = python
        self.process: subprocess.Popen | None = None
        self._problem = ""
        self._answer, self._give_up_at = folder / TRIAL, give_up_at
        if not _is_file(python):
            self._problem = f"{python} is no file; {CHOOSE}, such as bin/python of a virtual environment"
            return
        try:
            # Into a file: a pipe would be held open by whatever a script in the place of a Python leaves behind.
            with self._answer.open("wb") as file:
                command = [str(python), "-c", QUESTION, BACKEND, *NEEDED]
                self.process = _popen(command, subprocess.DEVNULL, file, file, folder)
        except OSError as error:
            self._problem = f"{python} cannot be started: {error.strerror}; {CHOOSE}"

    def verdict(self, now: float) -> _Verdict | None:
        """What has come out, or None as long as there is no answer."""
        if self._problem or self.process is None:
            return _Verdict(self._problem)
        if self.process.poll() is not None:
            return self._judged(_text(self._answer))
        if now >= self._give_up_at:
            return _Verdict(f"{self.python} does not answer when it is asked what it has; {CHOOSE}")
        return None

    def _judged(self, text: str) -> _Verdict:
        answer = ANSWER.search(text)
        if answer is None:
            words = _last_words(self._answer)
            return _Verdict(f"{self.python} is no Python that works{f' ({words})' if words else ''}; {CHOOSE}")
        version, lacking = (int(answer[1]), int(answer[2])), answer[3].split(",") if answer[3] else []
        if version < OLDEST_PYTHON:
            needed = ".".join(map(str, OLDEST_PYTHON))
            return _Verdict(f"{self.python} is Python {answer[1]}.{answer[2]}, older than {needed}; {CHOOSE}")
        if BACKEND in lacking:
            return _Verdict(f"{self.python} has no {BACKEND}; {INSTALL}, or {CHOOSE}")
        if lacking:
            modules = ", ".join(lacking)
            return _Verdict(f"{self.python} has {BACKEND} but not {modules}; {INSTALL}, or {CHOOSE}", near=True)
        return _Verdict()


def usual_pythons() -> Iterator[Path]:
    """Pythons that may have the backend, each once, in the order in which they are tried.

    Paths are kept as they are: the Python of a virtual environment is a link, and what it leads to is another Python.
    """
    seen: set[Path] = set()
    for path in map(Path.absolute, _places()):
        if _is_file(path) and not _only_asks_to_install(path) and (one := _identity(path)) not in seen:
            seen.add(one)
            yield path


def _places() -> Iterator[Path]:
    """Where a Python that has the backend may be."""
    if given := os.environ.get("SDF_BACKEND_PYTHON"):
        yield _given(given)
    program = Path("Scripts/python.exe") if WINDOWS else Path("bin/python")
    for folder in _virtual_environments():
        yield folder / program
    for name in ("python3", "python", "python3.11", "python3.12", "python3.13"):
        if found := shutil.which(name):
            yield Path(found)


def _virtual_environments() -> Iterator[Path]:
    with suppress(RuntimeError):  # a user without a home, as in some containers
        home = Path.home()
        yield from (home / "sdf-shapes", home / "sdf-shapes" / ".venv", home / ".venv")
    if WINDOWS and (programs := os.environ.get("LOCALAPPDATA")):
        yield Path(programs) / "sdf-shapes"
    if not WINDOWS:
        yield Path("/opt/sdf-shapes")


def _given(python: str) -> Path:
    """The Python that a person has named: a path, or a command."""
    with suppress(RuntimeError):
        python = str(Path(python).expanduser())
    return Path(shutil.which(python) or python).absolute()


def _identity(python: Path) -> Path:
    """The same for two paths to the same Python."""
    in_environment = _is_file(python.parent.parent / "pyvenv.cfg")
    return python if in_environment else python.resolve()


def _only_asks_to_install(python: Path) -> bool:
    """On a Mac without developer tools this one shows a dialog that offers them; with them it is too old for us."""
    return sys.platform == "darwin" and python.parent == Path("/usr/bin")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that is not ours to look into
        return False


# --- processes ---------------------------------------------------------------------------------------------------


def _popen(command: list[str], stdin: int, stdout: IO[bytes], stderr: IO[bytes], folder: Path) -> subprocess.Popen:
    """Start a process of its own group, in a folder from which it imports nothing by accident. Raises `OSError`."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env=_environment(),
        start_new_session=True,  # a Ctrl-C in Blender's terminal is for Blender
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _environment() -> dict[str, str]:
    """Ours without what is meant for Blender's own Python.

    LD_LIBRARY_PATH stays: a packed Blender may have set it, but so may a person whose GPU's libraries are found by it.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "__PYVENV"))}
    return ours | {"PYTHONUTF8": "1"}  # so that all that it writes can be read here


def _send(process: subprocess.Popen, *, kill: bool = False) -> None:
    """Ask a process and its group to end, or kill them; one that has ended is left alone, its id may be another's."""
    if process.poll() is not None:
        return
    with suppress(OSError):
        if WINDOWS:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL if kill else signal.SIGTERM)


def _close_input(process: subprocess.Popen) -> None:
    with suppress(OSError):
        if process.stdin:
            process.stdin.close()


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}, perhaps out of memory" if code == -9 else f"signal {-code}"


# --- files -------------------------------------------------------------------------------------------------------


def _announced(output: Path) -> str:
    """The address that `serve` has printed, once its line is whole."""
    lines = _text(output).rpartition("\n")[0].splitlines()
    return next((line.split()[1] for line in lines if re.match(r"address\s+\S", line)), "")


def _last_words(log: Path) -> str:
    """The last line of a log that says what is wrong, as far as there is one."""
    lines = [line.strip(" │\t\r") for line in _text(log, LAST_WORDS_BYTES).splitlines()]  # typer frames what it says
    telling = [line for line in lines if re.search(r"\w", line) and not INFORMATION.match(line)]
    errors = [line.removeprefix("error: ") for line in telling if line.startswith("error: ")]
    return (errors or telling or [""])[-1][:LAST_WORDS].rstrip(".")


def _text(path: Path, most: int = 1 << 16) -> str:
    """The end of a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""


def _remove_leftovers(parent: Path) -> None:
    """Remove what launchers left behind that are long gone; only files of theirs."""
    for folder in parent.glob(FOLDER + "*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
                for name in (TRIAL, OUTPUT, LOG, LAST_LOG):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
