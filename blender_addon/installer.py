"""Installs the backend into a virtual environment in the add-on's own folder, with the wheel that the add-on contains.

    installer = Installer()
    installer.start(Path(sys.executable), wheel, folder)
    if installer.poll():                # several times a second, from a timer
        draw(installer.reason)          # at Stage.DONE, environment_python(folder) has the backend

As in `launcher.py` there are no threads, and `poll` never blocks. pip does the work, in a process outside of Blender's.
Standard library only, without Blender, so that tests use real processes.
"""

import re
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from .child_process import WINDOWS, describe_exit, kill, last_error, read_tail, start_process

ENVIRONMENT, LOG = "environment", "install.log"
# What pip prints while it works, as the user reads it.
DOWNLOAD, COLLECT, INSTALL = (
    re.compile(pattern, re.MULTILINE)
    for pattern in (r"^\s*Downloading (\S+) \(([\d.]+ \w+)\)", r"^Collecting ([\w.\-\[\]]+)", r"^Installing collected")
)
# What a distribution's Python prints from which the distribution has taken a part.
NO_PIP = "ensurepip is not"
REMOVE = "import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)"


class Stage(StrEnum):
    """The stage of an installation."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"
    """what was installed so far is being removed"""
    DONE = "done"
    FAILED = "failed"


def environment_python(folder: Path) -> Path:
    """The Python of the environment in the add-on's folder, whether or not it exists."""
    return folder / ENVIRONMENT / ("Scripts/python.exe" if WINDOWS else "bin/python")


class Installer:
    """One installation: its `stage`, and the `reason` for it as a sentence."""

    def __init__(self) -> None:
        self.stage, self.reason = Stage.IDLE, ""
        self.log: Path | None = None
        self._reported = self.stage, self.reason
        self._process: subprocess.Popen | None = None
        self._folder = Path()
        self._python = Path()
        self._commands: list[list[str]] = []

    @property
    def is_active(self) -> bool:
        """Whether a process is running."""
        return self._process is not None

    def start(self, python: Path, wheel: Path, folder: Path, options: Sequence[str] = ()) -> None:
        """Begin to install, unless that is going on.

        Parameters
        ----------
        python : makes the environment
        wheel : of the backend; `constraints.txt` beside it, if it is there, limits the versions
        folder : of the environment and of the log
        options : further options of `pip install`
        """
        if self.is_active:
            return
        self._folder, self._python = folder.absolute(), python
        pip = [str(environment_python(self._folder)), "-m", "pip", "install", "--disable-pip-version-check"]
        constraints = wheel.parent / "constraints.txt"
        limits = ["--constraint", str(constraints)] if constraints.is_file() else []
        self._commands = [
            [str(python), "-m", "venv", "--clear", str(self._folder / ENVIRONMENT)],
            [*pip, "--progress-bar", "off", *limits, *options, f"{wheel}[backend]"],
        ]
        self.log = self._folder / LOG
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.log.write_bytes(b"")
        except OSError as error:
            self._fail(
                f"The folder {folder} cannot be used: {error.strerror}; check its permissions and the free space"
            )
            return
        self._next("Making a Python environment")

    def poll(self) -> bool:
        """Continue without blocking; True if stage or reason have changed since the last poll."""
        if self._process:
            self._watch(self._process)
        before, self._reported = self._reported, (self.stage, self.reason)
        return before != self._reported

    def cancel(self) -> None:
        """End the installation and remove what there is of it."""
        if self.stage is Stage.RUNNING and self._process:
            kill(self._process)
            self._process.wait()
            self._commands = [[str(self._python), "-c", REMOVE, str(self._folder / ENVIRONMENT)]]
            self._next("Removing what was installed")
            self.stage = Stage.CANCELLING if self.is_active else self.stage

    def close(self) -> None:
        """End the process, for when Blender quits; the next installation begins anew."""
        if self._process:
            kill(self._process)
            self._process.wait()
        self._process = None

    def _watch(self, process: subprocess.Popen) -> None:
        code = process.poll()
        if code is None:
            if self.stage is Stage.RUNNING:
                self.reason = self._progress() or self.reason
            return
        self._process = None
        if self.stage is Stage.CANCELLING:
            self.stage, self.reason = Stage.IDLE, "The installation was cancelled"
        elif code:
            text, error = (read_tail(self.log), last_error(self.log)) if self.log else ("", "")
            if NO_PIP in text:
                error = (
                    f"{self._python} has no ensurepip; install your distribution's package for it, such as python3-venv"
                )
            self._fail(f"The backend was not installed ({error or describe_exit(code)}); see the log {self.log}")
        elif self._commands:
            self._next("Looking for what the backend needs")
        else:
            self.stage, self.reason = Stage.DONE, "The backend is installed"

    def _next(self, reason: str) -> None:
        assert self.log
        command = self._commands.pop(0)
        try:
            with self.log.open("ab") as file:
                self._process = start_process(command, subprocess.DEVNULL, file, file, self._folder)
        except OSError as error:
            self._fail(f"{command[0]} cannot be started: {error.strerror}")
        else:
            self.stage, self.reason = Stage.RUNNING, reason

    def _fail(self, reason: str) -> None:
        self.stage, self.reason = Stage.FAILED, reason

    def _progress(self) -> str:
        """What pip does now, as a sentence; empty if it has not said."""
        text = read_tail(self.log) if self.log else ""
        if INSTALL.search(text):
            return "Installing what was downloaded; this takes some minutes"
        found = [(match.end(), match) for pattern in (DOWNLOAD, COLLECT) for match in pattern.finditer(text)]
        if not found:
            return ""
        match = max(found)[1]
        if match.re is DOWNLOAD:
            return f"Downloading {match[1].split('-')[0]} ({match[2]})"
        return f"Looking for {match[1]}"
