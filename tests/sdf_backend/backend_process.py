"""A real backend for tests: `python -m sdf_backend serve` in processes of its own, its log, and clients for it."""

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

from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.client import Client, Event, new_job
from sdf_backend.wire.messages import Busy, Error, Result, Source, Status, Submit, WorkerInfo

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """Wait until a condition holds, and give what it gave."""
    give_up = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.01)


class Listener(Client):
    """A client that remembers what it has polled."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard: list[Event] = []

    def poll(self) -> list[Event]:
        events = super().poll()
        self.heard += events
        return events

    def until_heard(self, kind: type[T], what: str, seconds: float = PATIENCE, job: str | None = None) -> T:
        """Wait until a message of that kind has come, and give the first."""

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
        """Wait until a job has ended, and give the message that it ended with."""
        return self.until_heard(Result | Error | Busy, f"the end of {job}", seconds, job)  # type: ignore[arg-type]

    def ends(self, jobs: Iterable[str], seconds: float = PATIENCE) -> list[Any]:
        return [self.end(job, seconds) for job in jobs]


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
        self.address = "tcp://127.0.0.1:*"
        self.process: subprocess.Popen | None = None

    def start(self, **popen: Any) -> "Backend":
        """Start it, at the same address as before where it was started before."""
        command = [sys.executable, "-m", "sdf_backend", "serve", "--bind", self.address, *self.options]
        with self.output.open("w") as output, self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                command, **{"stdout": output, "stderr": errors, "env": self.environment, "cwd": ROOT} | popen
            )
        self.address = until(self._announced, f"the backend has not started: {self.log()}")
        return self

    def _announced(self) -> str | None:
        assert self.process
        assert self.process.poll() is None, f"the backend has ended: {self.log()}"
        lines = self.output.read_text().splitlines()
        return next((line.split()[1] for line in lines if line.startswith("address ")), None)

    def log(self) -> str:
        return self.errors.read_text()

    def client(self, name: str = "test") -> Listener:
        client = Listener(self.address, self.key, name=name)
        client.wait_connected()
        return client

    def status(self) -> Status:
        with self.client("status") as client:
            return client.wait_status()

    def worker(self) -> WorkerInfo:
        return self.status().workers[0]

    def until_idle(self) -> WorkerInfo:
        """Wait until all workers are there and have nothing to do."""

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


QUICK = TaskSettings(resolution=32, pose=Pose.KNOWN, quality=Quality.PREVIEW)


def complete(**changes: Any) -> Submit:
    """A job of some tenths of a second."""
    return Submit(
        **{
            "job": new_job(),
            "task": "complete",
            "model": "spheres",
            "settings": QUICK,
            "sources": (Source(half_sphere()),),
        }
        | changes
    )


def long_job(**changes: Any) -> Submit:
    """A job of many seconds that hears of a cancellation many times a second."""
    settings = TaskSettings(resolution=96)
    return Submit(
        **{"job": new_job(), "task": "sample", "model": "spheres", "settings": settings, "count": 64} | changes
    )


def is_there(pid: int) -> bool:
    """Whether a process lives; one that has ended and waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def logged(backend: Backend, *parts: str) -> str | None:
    """The first line of the log that holds all parts."""
    return next((line for line in backend.log().splitlines() if all(part in line for part in parts)), None)


def status_json(*arguments: str) -> dict:
    """What `status --json` prints."""
    command = [sys.executable, "-m", "sdf_backend", "status", "--json", *arguments]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout)
