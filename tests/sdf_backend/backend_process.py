"""A real backend for tests: `python -m sdf_backend serve` in its own processes, its log, and clients for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ports import reserve_port

from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.client import Client, Event, new_job
from sdf_backend.wire.messages import Busy, Error, Result, Source, Status, Submit, WorkerInfo

ROOT = Path(__file__).parents[2]
# Tests ask for jobs over other connections than those that submitted them.
SECRET = "of the tests"
# A loaded machine may take long to start a process that loads torch.
PATIENCE = 120.0
# The clients of tests are not polled while a test waits for something else; their jobs are kept meanwhile.
KEEP = 600.0
T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """Wait until a condition holds; returns its value."""
    give_up = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.01)


class Listener(Client):
    """A client that keeps all events."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard: list[Event] = []

    def poll(self) -> list[Event]:
        events = super().poll()
        self.heard += events
        return events

    def until_heard(self, kind: type[T], what: str, seconds: float = PATIENCE, job: str | None = None) -> T:
        """Wait for an event of that kind; returns the first."""

        def found() -> T | None:
            self.poll()
            kept = (event for event in self.heard if isinstance(event, kind))
            return next((event for event in kept if job is None or getattr(event, "job", None) == job), None)

        return until(found, what, seconds)

    def send(self, submit: Submit) -> str:
        """Submit a job at once; a client sends when it is polled."""
        self.submit(submit)
        self.poll()
        return submit.job

    def end(self, job: str, seconds: float = PATIENCE) -> Any:
        """Wait until a job has ended; returns its final message."""
        return self.until_heard(Result | Error | Busy, f"the end of {job}", seconds, job)  # type: ignore[arg-type]

    def ends(self, jobs: Iterable[str], seconds: float = PATIENCE) -> list[Any]:
        return [self.end(job, seconds) for job in jobs]


def hear() -> None:
    """Let a process hear hangups and interrupts, which the tests themselves may have been told to ignore."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


class Backend:
    """A backend in processes of its own. `start` returns as soon as it listens; its workers take longer."""

    def __init__(self, folder: Path, *options: str | Path, environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.options = [str(option) for option in options]
        if "--cache" not in self.options:
            self.options += ["--cache-mib", "0"]
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        self.output, self.errors = folder / "output.txt", folder / "log.txt"
        self.key: Path | None = None
        self.address = f"tcp://127.0.0.1:{reserve_port()}"
        self.process: subprocess.Popen | None = None
        self._status_client: Listener | None = None

    def start(self, **popen: Any) -> "Backend":
        """Start it; a backend that is started again has its old address."""
        self._close_status_client()
        command = [sys.executable, "-m", "sdf_backend", "serve", "--bind", self.address, *self.options]
        with self.output.open("w") as output, self.errors.open("a") as errors:
            options: dict[str, Any] = {"stdout": output, "stderr": errors, "env": self.environment, "cwd": ROOT}
            self.process = subprocess.Popen(command, **options | {"preexec_fn": hear} | popen)
        self.address = until(self._announced, f"the backend has not started: {self.log()}")
        return self

    def _announced(self) -> str | None:
        assert self.process
        assert self.process.poll() is None, f"the backend has ended: {self.log()}"
        lines = self.output.read_text().splitlines()
        return next((line.split()[1] for line in lines if line.startswith("address ")), None)

    def log(self) -> str:
        return self.errors.read_text()

    def client(self, name: str = "test", secret: str = SECRET) -> Listener:
        client = Listener(self.address, self.key, name=name, secret=secret)
        client.wait_connected(PATIENCE)
        return client

    def status(self) -> Status:
        """Over one connection, since tests poll the status often."""
        if self._status_client is None:
            self._status_client = self.client("status")
        return self._status_client.wait_status(PATIENCE)

    def _close_status_client(self) -> None:
        if self._status_client:
            self._status_client.close()
            self._status_client = None

    def worker(self) -> WorkerInfo:
        return self.status().workers[0]

    def until_idle(self) -> WorkerInfo:
        """Wait until all workers are ready and idle."""

        def idle() -> WorkerInfo | None:
            state = self.status()
            resting = all(worker.state == "idle" for worker in state.workers)
            return state.workers[0] if resting and not state.queued else None

        return until(idle, f"the workers are not idle: {self.errors}")

    def until_running(self, job: str) -> int:
        """Wait until a worker runs the job; that worker's process."""
        return until(lambda: next((w.pid for w in self.status().workers if w.job == job), None), f"{job} does not run")

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait until it has ended; its exit status."""
        assert self.process
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it if it has not ended, whatever state it is in."""
        self._close_status_client()
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> "Backend":
        return self if self.process else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def half_sphere(count: int = 3_000, radius: float = 0.5) -> np.ndarray:
    """Points, (n, 3) float64, on the upper half of a sphere about the origin."""
    points = np.random.default_rng(0).normal(size=(count, 3))
    points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
    points[:, 1] = np.abs(points[:, 1])
    return points


# Few points, since most of a small job is spent on observing them.
FEW_POINTS = half_sphere(400)
QUICK = TaskSettings(resolution=32, pose=Pose.KNOWN, quality=Quality.PREVIEW)


def complete(**changes: Any) -> Submit:
    """A job that takes a tenth of a second or two."""
    return Submit(
        **{
            "job": new_job(),
            "task": "complete",
            "model": "spheres",
            "settings": QUICK,
            "sources": (Source(FEW_POINTS),),
            "keep": KEEP,
        }
        | changes
    )


def long_job(**changes: Any) -> Submit:
    """A job that takes many seconds and checks for cancellation many times a second."""
    settings = TaskSettings(resolution=96)
    job = {"job": new_job(), "task": "sample", "model": "spheres", "settings": settings, "count": 64, "keep": KEEP}
    return Submit(**job | changes)


def is_there(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until_logged(backend: Backend, *parts: str) -> str:
    """Wait for a line of the log that holds all parts; the first such line.

    A server answers first and logs afterwards, so that a client may be ahead of the log.
    """

    def found() -> str | None:
        return next((line for line in backend.log().splitlines() if all(part in line for part in parts)), None)

    return until(found, f"{parts} in {backend.errors}")


def status_json(*arguments: str) -> dict:
    """What `status --json` prints."""
    command = [sys.executable, "-m", "sdf_backend", "status", "--json", *arguments]
    return json.loads(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    )
