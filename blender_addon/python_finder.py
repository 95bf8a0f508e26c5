"""Finds a Python that can run the backend: the usual locations, and a probe of one. Standard library only."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .child_process import WINDOWS, kill, last_error, read_tail, start_process

OLDEST_PYTHON = 3, 11
BACKEND = "sdf_backend"
# The modules that `pip install sdf-shapes[backend]` installs.
REQUIRED_MODULES = (
    *("numpy", "zmq", "torch", "safetensors", "scipy", "skimage", "trimesh", "charset_normalizer"),
    *("igl", "lxml", "mapbox_earcut", "embreex", "typer", "rich", "psutil"),
)
# Prints which modules are missing, without importing any; old Pythons must be able to run it. A module without an
# origin is a folder that an uninstallation has left.
PROBE = """
import sys
missing = []
if sys.version_info >= (3, 11):
    from importlib.util import find_spec
    missing = [name for name in sys.argv[1:] if not getattr(find_spec(name), "origin", None)]
print("sdf-shapes %d.%d %s" % (sys.version_info[0], sys.version_info[1], ",".join(missing)))
"""
PROBE_OUTPUT = re.compile(r"^sdf-shapes (\d+)\.(\d+) (\S*)\r?$", re.MULTILINE)
OUTPUT_FILE = "trial.txt"
CHOOSE = "choose another Python in the add-on's preferences"
INSTALL = "install sdf-shapes[backend] there as the README describes"


@dataclass(frozen=True)
class ProbeResult:
    """What a probe has found out."""

    problem: str = ""
    """why this Python cannot run the backend, as a sentence; empty if it can"""
    has_backend: bool = False
    """whether the backend is installed, although modules that it requires are missing"""


class PythonProbe:
    """Asks a Python for its version and modules; poll `result` until it is no longer None."""

    def __init__(self, python: Path, folder: Path, give_up_at: float) -> None:
        """Start the process in `folder`, where its output is stored, to be given up at a `time.monotonic` time."""
        self.python = python
        self.process: subprocess.Popen | None = None
        self._problem = ""
        self._output, self._give_up_at = folder / OUTPUT_FILE, give_up_at
        if not _is_file(python):
            self._problem = f"{python} is not a file; {CHOOSE}, such as bin/python of a virtual environment"
            return
        try:
            # To a file: a child of a script posing as Python might hold a pipe open.
            with self._output.open("wb") as file:
                command = [str(python), "-c", PROBE, BACKEND, *REQUIRED_MODULES]
                self.process = start_process(command, subprocess.DEVNULL, file, file, folder)
        except OSError as error:
            self._problem = f"{python} cannot be started: {error.strerror}; {CHOOSE}"

    def result(self, now: float) -> ProbeResult | None:
        """The result, or None while the process runs."""
        if self._problem or self.process is None:
            return ProbeResult(self._problem)
        if self.process.poll() is not None:
            return self._parse(read_tail(self._output))
        if now >= self._give_up_at:
            return ProbeResult(f"{self.python} does not respond; {CHOOSE}")
        return None

    def end(self) -> subprocess.Popen | None:
        """Kill the process; returns it, to be waited for."""
        if self.process:
            kill(self.process)
        return self.process

    def _parse(self, text: str) -> ProbeResult:
        match = PROBE_OUTPUT.search(text)
        if match is None:
            error = last_error(self._output)
            return ProbeResult(f"{self.python} is not a working Python{f' ({error})' if error else ''}; {CHOOSE}")
        version, missing = (int(match[1]), int(match[2])), match[3].split(",") if match[3] else []
        if version < OLDEST_PYTHON:
            oldest = ".".join(map(str, OLDEST_PYTHON))
            return ProbeResult(f"{self.python} is Python {match[1]}.{match[2]}, older than {oldest}; {CHOOSE}")
        if BACKEND in missing:
            return ProbeResult(f"{self.python} does not have {BACKEND}; {INSTALL}, or {CHOOSE}")
        if missing:
            modules = ", ".join(missing)
            problem = f"Found Python at {self.python}, but it lacks: {modules}; {INSTALL}, or {CHOOSE}"
            return ProbeResult(problem, has_backend=True)
        return ProbeResult()


def usual_pythons(own: Path | None = None) -> Iterator[Path]:
    """Pythons in the usual locations, each once, in the order in which they are probed.

    `own` is that of the environment in the add-on's folder, which comes first.

    Paths are not resolved: the Python of a virtual environment is a link to another Python.
    """
    known: set[Path] = set()
    for path in map(Path.absolute, [*([own] if own else []), *_usual_locations()]):
        if _is_file(path) and not _is_installer_stub(path) and (identity := _identity(path)) not in known:
            known.add(identity)
            yield path


def expand_python(python: str) -> Path:
    """The absolute path of a Python that the user has named by a path or a command."""
    with suppress(RuntimeError):
        python = str(Path(python).expanduser())
    return Path(shutil.which(python) or python).absolute()


def _usual_locations() -> Iterator[Path]:
    if given := os.environ.get("SDF_BACKEND_PYTHON"):
        yield expand_python(given)
    program = Path("Scripts/python.exe") if WINDOWS else Path("bin/python")
    for folder in _virtual_environments():
        yield folder / program
    for name in ("python3", "python", "python3.11", "python3.12", "python3.13"):
        if found := shutil.which(name):
            yield Path(found)


def _virtual_environments() -> Iterator[Path]:
    with suppress(RuntimeError):  # a user without a home directory, as in some containers
        home = Path.home()
        yield from (home / "sdf-shapes", home / "sdf-shapes" / ".venv", home / ".venv")
    if WINDOWS and (programs := os.environ.get("LOCALAPPDATA")):
        yield Path(programs) / "sdf-shapes"
    if not WINDOWS:
        yield Path("/opt/sdf-shapes")


def _identity(python: Path) -> Path:
    """The same path for two links to one Python; virtual environments are distinct."""
    in_environment = _is_file(python.parent.parent / "pyvenv.cfg")
    return python if in_environment else python.resolve()


def _is_installer_stub(python: Path) -> bool:
    """On macOS without developer tools this one opens a dialog to install them; with them it is too old."""
    return sys.platform == "darwin" and python.parent == Path("/usr/bin")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder without read permission
        return False
