"""Starts and stops a backend on this computer: finds a Python that has it, runs it, and notices when it exits.

    launcher = Launcher()
    launcher.start("", folder)
    if launcher.poll():             # several times a second, from a timer
        draw(launcher.reason)       # at Stage.RUNNING, launcher.address is the address to connect to

There are no threads. `poll` never blocks; only `close` waits, for less than a second. The backend's standard input is a
pipe, and it exits when the pipe is closed, so that it does not outlive a Blender that is killed. Standard library only,
without Blender, so that tests use real processes.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .child_process import close_input, describe_exit, kill, last_error, read_tail, start_process, terminate
from .installer import environment_python
from .python_finder import BACKEND, CHOOSE, OUTPUT_FILE, ProbeResult, PythonProbe, expand_python, usual_pythons

FOLDER, OUTPUT, LOG, LAST_LOG = "sdf-backend-", "backend.out", "backend.log", "backend.log.1"
# A running launcher touches its folder at this interval; folders that are older than the age are removed.
TOUCH_SECONDS, LEFTOVER_SECONDS = 3_600, 7 * 86_400
# For how long `close` waits after killing.
KILL_SECONDS = 0.1
# The remedy where no Python has the backend.
CHOOSE_OR_CONNECT = "click Install Backend, choose a Python that has it in the preferences, or connect to a running one"


class Stage(StrEnum):
    """The stage of the local backend."""

    STOPPED = "stopped"
    SEARCHING = "searching"
    """for a Python that has the backend"""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True)
class Timing:
    """Time limits in seconds; tests shorten them."""

    probe: float = 20.0
    """for the response of a Python"""
    start: float = 60.0
    """until the backend listens"""
    end: float = 5.0
    """until a backend that was asked to end is killed"""


class Launcher:
    """One local backend: its `stage`, the `reason` for it as a sentence, and its `address` while it is running."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.stage, self.reason = Stage.STOPPED, "No backend was started"
        self.address = ""
        self.log: Path | None = None
        self.process: subprocess.Popen | None = None
        self._reported = self.stage, self.reason
        self._folder: Path | None = None
        self._options: tuple[str, ...] = ()
        self._is_chosen = False
        self._candidates: Iterator[Path] = iter(())
        self._probe: PythonProbe | None = None
        self._rejected: list[ProbeResult] = []
        self._give_up_at = self._touch_at = 0.0
        self._terminating: list[tuple[subprocess.Popen, float]] = []  # and the time at which each is killed

    @property
    def is_active(self) -> bool:
        """Whether a backend is running, or being started."""
        return self.stage in (Stage.SEARCHING, Stage.STARTING, Stage.RUNNING)

    def start(self, python: str, folder: Path, options: Sequence[str] = ()) -> None:
        """Begin to start a backend, unless one is active.

        Parameters
        ----------
        python : path or command; "" for the first of the usual Pythons that has the backend
        folder : in which the launcher makes its own folder, for the log, and which may have an installed environment
        options : further options of `serve`
        """
        if self.is_active:
            return
        try:
            self._make_folder(folder)
        except OSError as error:
            self._fail(
                f"The folder {folder} cannot be used for the backend's log: {error.strerror}; "
                "check its permissions and the free disk space"
            )
            return
        self._options, self._is_chosen, self._rejected = tuple(options), bool(python), []
        self._candidates = iter([expand_python(python)]) if python else usual_pythons(environment_python(folder))
        self._set_stage(Stage.SEARCHING, "Searching for a Python that has the backend")

    def poll(self) -> bool:
        """Continue without blocking; True if stage or reason have changed since the last poll."""
        now = time.monotonic()
        self._reap(now)
        if not self._terminating:  # a backend that is still ending uses the log
            match self.stage:
                case Stage.SEARCHING:
                    self._search(now)
                case Stage.STARTING:
                    self._await_address(now)
                case Stage.RUNNING:
                    self._watch(now)
        before, self._reported = self._reported, (self.stage, self.reason)
        return before != self._reported

    def stop(self) -> None:
        """Ask the backend to end; `poll` notices when it has, and kills it after `Timing.end`."""
        if not self.is_active:
            return
        self._end_probe()
        self._end_backend()
        self._set_stage(Stage.STOPPING, "Stopping the backend")

    def close(self, seconds: float = 0.15) -> None:
        """End the backend now: ask, wait for `seconds`, kill. For when Blender quits."""
        self.stop()
        give_up = time.monotonic() + seconds
        for last in (False, True):
            for process, _ in self._terminating:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, give_up - time.monotonic()))
                if not last:
                    kill(process)
            give_up += KILL_SECONDS
        self._reap(float("inf"))

    def _set_stage(self, stage: Stage, reason: str) -> None:
        self.stage, self.reason = stage, reason
        if stage is not Stage.RUNNING:
            self.address = ""

    def _fail(self, reason: str) -> None:
        self._set_stage(Stage.FAILED, reason)

    # --- the folder ---

    @property
    def _own_folder(self) -> Path:
        assert self._folder
        return self._folder

    def _make_folder(self, parent: Path) -> None:
        """Make a folder of our own: several Blenders share `parent`, and process ids are not unique in containers."""
        parent = parent.absolute()
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        if self._folder is None or self._folder.parent != parent or not self._folder.is_dir():
            self._folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))  # mode 0700

    # --- searching ---

    def _search(self, now: float) -> None:
        if self._probe is None:
            python = next(self._candidates, None)
            if python is None:
                self._fail(self._search_failure())
                return
            self._set_stage(Stage.SEARCHING, f"Checking whether {python} has the backend")
            self._probe = PythonProbe(python, self._own_folder, now + self.timing.probe)
        result = self._probe.result(now)
        if result is None:
            return
        python = self._probe.python
        self._end_probe()
        if result.problem:
            self._rejected.append(result)
        else:
            self._launch(python, now)

    def _end_probe(self) -> None:
        if self._probe and (process := self._probe.end()):
            self._terminating.append((process, 0.0))
        self._probe = None

    def _search_failure(self) -> str:
        if self._is_chosen:
            return self._rejected[0].problem
        nearest = next((result.problem for result in self._rejected if result.has_backend), "")
        if nearest:
            return f"{nearest}, or connect to a running backend"
        if not self._rejected:
            return f"No Python was found in the usual locations; {CHOOSE_OR_CONNECT}"
        count = len(self._rejected)
        return f"The backend is not installed in any of the {count} Pythons in the usual locations; {CHOOSE_OR_CONNECT}"

    # --- starting ---

    def _launch(self, python: Path, now: float) -> None:
        command = [str(python), "-m", BACKEND, "serve", "--bind", "tcp://127.0.0.1:*", "--lifeline", "--grace", "0"]
        output, self.log = self._own_folder / OUTPUT, self._own_folder / LOG
        try:
            if self.log.exists():
                self.log.replace(self._own_folder / LAST_LOG)
            with output.open("wb") as stdout, self.log.open("wb") as stderr:
                command += self._options
                self.process = start_process(command, subprocess.PIPE, stdout, stderr, self._own_folder)
        except OSError as error:
            self._fail(f"The backend cannot be started with {python}: {error.strerror}; {CHOOSE}")
            return
        self._give_up_at, self._touch_at = now + self.timing.start, now + TOUCH_SECONDS
        self._set_stage(Stage.STARTING, f"Starting the backend with {python}")

    def _await_address(self, now: float) -> None:
        if address := _printed_address(self._own_folder / OUTPUT):
            self.address = address
            self._set_stage(Stage.RUNNING, f"The backend is running at {address}")
        elif (code := self._exit_code()) is not None:
            self._fail(f"The backend failed to start ({describe_exit(code)}){self._error()}; see its log {self.log}")
        elif now >= self._give_up_at:
            self._end_backend()
            seconds = self.timing.start
            self._fail(f"The backend did not listen within {seconds:g} s; try again; see its log {self.log}")

    def _watch(self, now: float) -> None:
        if (code := self._exit_code()) is not None:
            error = self._error() if code > 0 else ""
            self._fail(f"The backend has exited ({describe_exit(code)}){error}; start it again; see its log {self.log}")
        elif now >= self._touch_at:
            self._touch_at = now + TOUCH_SECONDS
            with suppress(OSError):
                os.utime(self._own_folder)

    def _error(self) -> str:
        error = last_error(self.log) if self.log else ""
        return f": {error}" if error else ""

    # --- ending ---

    def _exit_code(self) -> int | None:
        """The exit code of a backend that has ended, which is then released; None while it runs."""
        assert self.process
        code = self.process.poll()
        if code is not None:
            close_input(self.process)
            self.process = None
        return code

    def _end_backend(self) -> None:
        """Ask the backend to end."""
        if self.process:
            close_input(self.process)
            terminate(self.process)
            self._terminating.append((self.process, time.monotonic() + self.timing.end))
        self.process = None

    def _reap(self, now: float) -> None:
        """Release processes that have ended, and kill those that are overdue."""
        for process, kill_at in self._terminating:
            if process.poll() is None and now >= kill_at:
                kill(process)
        self._terminating = [item for item in self._terminating if item[0].returncode is None]
        if self.stage is Stage.STOPPING and not self._terminating:
            self._set_stage(Stage.STOPPED, "The backend was stopped")


def _printed_address(output: Path) -> str:
    """The address that `serve` has printed, once the line is complete."""
    lines = read_tail(output).rpartition("\n")[0].splitlines()
    return next((line.split()[1] for line in lines if re.match(r"address\s+\S", line)), "")


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of launchers that ended long ago; files that are not a launcher's are kept."""
    for folder in parent.glob(FOLDER + "*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
                for name in (OUTPUT_FILE, OUTPUT, LOG, LAST_LOG):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
