"""Workers that are killed at random moments: the endpoint answers throughout, and the next job is served soon."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from backend_process import Backend, Listener, complete

from sdf_backend.wire.messages import Error, Result

KILLS = 50
# A machine that is busy with other tests takes its time to start a process that loads torch.
SERVED_SECONDS, USUAL_SECONDS = 20.0, 5.0
ANSWER_SECONDS = 2.0


class Background:
    """A client that has a job at work whenever it can, and counts how they end."""

    def __init__(self, backend: Backend) -> None:
        self.client = backend.client("background")
        self.done, self.lost = 0, 0
        self.job = self.client.send(complete())

    def look(self) -> None:
        for event in self.client.poll():
            if isinstance(event, Result | Error) and event.job == self.job:
                self.done, self.lost = self.done + isinstance(event, Result), self.lost + isinstance(event, Error)
                self.job = self.client.send(complete())

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(0.01)


@pytest.fixture
def backend(models_folder: Path, tmp_path: Path) -> Iterator[Backend]:
    with Backend(tmp_path, "--models", models_folder, "--device", "cpu") as backend:
        backend.until_idle()
        yield backend


def test_workers_killed_at_random_moments_cost_at_most_a_job_each(backend: Backend) -> None:
    rng, kills = random.Random(0), 0
    background, served, answered = Background(backend), [], []
    with backend.client() as client:
        while kills < KILLS:
            background.wait(rng.uniform(0, 0.7))
            pid = backend.worker().pid
            if not pid:  # the next one is just being started
                continue
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
            start = time.monotonic()
            backend.status()
            answered.append(time.monotonic() - start)
            if kills % 5:  # now and then a worker is killed while it starts
                served.append(seconds_until_served(client, background))
    print(f"\n{background.done} jobs done, {background.lost} lost by {kills} kills; status in {max(answered):.2f} s")
    print(f"the next job was served in {np.median(served):.1f} s (median), {max(served):.1f} s at most")
    assert background.lost <= kills
    assert background.done > 0
    assert max(answered) < ANSWER_SECONDS
    assert np.median(served) < USUAL_SECONDS
    assert max(served) < SERVED_SECONDS
    assert backend.status().workers_lost <= kills


def seconds_until_served(client: Listener, background: Background) -> float:
    start, job = time.monotonic(), client.send(complete())
    while time.monotonic() - start < SERVED_SECONDS:
        background.look()
        for event in client.poll():
            if getattr(event, "job", None) == job and isinstance(event, Result | Error):
                assert isinstance(event, Result), event
                return time.monotonic() - start
        time.sleep(0.01)
    return float("inf")
