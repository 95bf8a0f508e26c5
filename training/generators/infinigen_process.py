"""One process of the Infinigen environment: started, asked for meshes, killed at its deadline, replaced in time."""

import json
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import numpy as np

from sdf_backend.errors import InputError
from training.generators.recipe import Draw

WORKER = Path(__file__).with_name("infinigen_worker.py")


class Status(StrEnum):
    """The status of a worker's reply; the same as in `infinigen_worker`."""

    READY = "ready"
    DONE = "done"
    FAILED = "failed"
    UNUSABLE = "unusable"


class PieceError(Exception):
    """This piece could not be made, but later ones may be. `retry` where another run may succeed."""

    def __init__(self, reason: str, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


@dataclass(frozen=True)
class ProcessLimits:
    """How long a worker process may take, and live."""

    start: float = 120.0
    """seconds for starting Blender and importing Infinigen; 4 to 8 s on a quiet 2-core CPU, which this may share"""
    piece: float = 120.0
    """seconds for one piece; the slowest factory in the table took 12 s on a quiet 2-core CPU"""
    batch: int = 40
    """pieces after which a process is replaced: Blender keeps some memory of each"""


class InfinigenProcess:
    """A worker process that is started when first needed. Use as a context manager; not for several threads at once."""

    def __init__(self, environment: Path, limits: ProcessLimits | None = None) -> None:
        self.environment, self.limits = environment, limits or ProcessLimits()
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._made = 0
        self._killed = False

    def __enter__(self) -> "InfinigenProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def make(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Have one mesh made.

        Returns
        -------
        vertices : (n, 3) float64, metres, in the factory's own axes.
        faces : (m, 3) int64.

        Raises
        ------
        PieceError
            Where the factory raised, the process died or it took too long.
        InputError
            Where the environment cannot run or the factory is not what the table expects.
        """
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "mesh.npz"
            status, detail = self._ask(draw.request(target))
            if status is Status.UNUSABLE:
                raise InputError(
                    f"{detail}; the factory table was written for infinigen 1.15.5: run `make generator` again"
                )
            if status is not Status.DONE:
                raise PieceError(f"{draw.label} raised {detail}")
            with np.load(target, allow_pickle=False) as file:
                return file["vertices"].astype(np.float64), file["faces"].astype(np.int64)

    def close(self) -> None:
        """End the process; at once, since it holds nothing that could be lost."""
        if self._process:
            self._process.kill()
            self._process.communicate()
        if self._log:
            self._log.close()
        self._process = self._log = None

    def kill(self) -> None:
        """End the process from another thread; a call of `make` that waits for it raises `PieceError`."""
        self._killed = True
        process = self._process
        if process:
            process.kill()

    def _ask(self, request: dict[str, Any]) -> tuple[Status, str]:
        if self._process is None or self._made >= self.limits.batch:
            self._start()
        self._made += 1
        process = self._process
        assert process and process.stdin
        with suppress(BrokenPipeError):  # its reply, or the lack of one, says more
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        return self._reply(self.limits.piece, "making a piece")

    def _start(self) -> None:
        self.close()
        python = self.environment / "bin" / "python"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        self._made = 0
        try:
            self._process = subprocess.Popen(
                [str(python), str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
            )
        except OSError as error:
            raise InputError(f"cannot run {python}: {error.strerror}; run `make generator`") from error
        if self._killed:  # between the check of whoever asks and now
            self.close()
            raise PieceError("stopped", retry=True)
        try:
            status, detail = self._reply(self.limits.start, "starting")
        except PieceError as error:
            if self._killed:
                raise
            raise InputError(f"the Infinigen process {error}; run `make generator` again") from error
        if status is not Status.READY:
            raise InputError(f"{self.environment} {detail}; run `make generator` again")

    def _reply(self, seconds: float, doing: str) -> tuple[Status, str]:
        process = self._process
        assert process and process.stdout
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(seconds, expire)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if line and not expired.is_set():
            content = json.loads(line)
            return Status(content["status"]), content.get("detail", "")
        process.wait()
        reason = f"took longer than {seconds:g} s" if expired.is_set() else f"ended with {process.returncode}"
        last = self._last_stderr_line()
        self.close()
        raise PieceError(f"{reason} while {doing}{last}", retry=True)

    def _last_stderr_line(self) -> str:
        """The last line that the process wrote to stderr, which says most about why it ended."""
        assert self._log
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""
