"""Child processes: starting, terminating and killing them, and reading their output. Standard library only."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO

WINDOWS = os.name == "nt"
INFO_LINE = re.compile(r"\S+Z INFO ")
# How much of the end of a log is searched for an error, and the longest error that is quoted.
LOG_TAIL_BYTES, LONGEST_ERROR = 8_192, 300


def start_process(
    command: list[str], stdin: int, stdout: IO[bytes], stderr: IO[bytes], folder: Path
) -> subprocess.Popen:
    """Start a process in its own process group and in a folder from which it imports nothing. Raises `OSError`."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        env=_environment(),
        start_new_session=True,  # Ctrl-C in Blender's terminal is meant for Blender
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _environment() -> dict[str, str]:
    """The environment without the variables of Blender's own Python.

    LD_LIBRARY_PATH is kept: it may be Blender's, but the libraries of a GPU may depend on it too.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "__PYVENV"))}
    return kept | {"PYTHONUTF8": "1"}  # so that its output can be decoded


def terminate(process: subprocess.Popen) -> None:
    """Ask a process and its group to end; without effect on one that has ended."""
    _signal(process, "SIGTERM")


def kill(process: subprocess.Popen) -> None:
    """Kill a process and its group; without effect on one that has ended."""
    _signal(process, "SIGKILL")


def _signal(process: subprocess.Popen, name: str) -> None:
    if process.poll() is not None:  # its id may belong to another process now
        return
    with suppress(OSError):
        if WINDOWS:
            process.kill()
        else:
            os.killpg(process.pid, getattr(signal, name))


def close_input(process: subprocess.Popen) -> None:
    """Close the pipe to the standard input of a process."""
    with suppress(OSError):
        if process.stdin:
            process.stdin.close()


def describe_exit(code: int) -> str:
    """How a process ended, from its return code."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}, possibly out of memory" if code == -9 else f"signal {-code}"


def read_tail(path: Path, size: int = 1 << 16) -> str:
    """The last `size` bytes of a file as text; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def last_error(log: Path) -> str:
    """The last line of a log that begins with `error:`, or else the last line that is not information."""
    lines = [line.strip(" │\t\r") for line in read_tail(log, LOG_TAIL_BYTES).splitlines()]  # typer draws a frame
    telling = [line for line in lines if re.search(r"\w", line) and not INFO_LINE.match(line)]
    errors = [line.removeprefix("error: ") for line in telling if line.startswith("error: ")]
    return (errors or telling or [""])[-1][:LONGEST_ERROR].rstrip(".")
