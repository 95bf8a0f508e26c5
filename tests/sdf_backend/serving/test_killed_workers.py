"""Workers killed at random times: the server keeps answering, and the next job is served soon."""

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from backend_process import PATIENCE, Backend, Listener, complete

from sdf_backend.wire.messages import Error, Result

KILLS = 20
# Until the next job is served, at most and in the median: seconds, or multiples of the start of a worker, which takes
# longer on a busy machine.
SERVED_SECONDS, USUAL_SECONDS = 20.0, 5.0
SERVED_STARTS, USUAL_STARTS = 6.0, 2.0
ANSWER_SECONDS = 2.0
READY = re.compile(r" worker ready .* seconds=([0-9.]+)")


class Background:
    """A client that always has one job running, and counts how they end."""

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


def test_a_killed_worker_loses_at_most_one_job(backend: Backend) -> None:
    rng, kills = random.Random(0), 0
    background, served, answered = Background(backend), [], []
    with backend.client() as client:
        while kills < KILLS:
            background.wait(rng.uniform(0, 0.7))
            pid = backend.worker().pid
            if not pid:  # the next one is starting
                continue
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
            start = time.monotonic()
            backend.status()
            answered.append(time.monotonic() - start)
            if kills % 5:  # some workers are killed while they start
                served.append(seconds_until_served(client, background))
    print(f"\n{background.done} jobs done, {background.lost} lost by {kills} kills; status in {max(answered):.2f} s")
    print(f"the next job was served in {np.median(served):.1f} s (median), {max(served):.1f} s at most")
    assert background.lost <= kills
    assert background.done > 0
    assert max(answered) < ANSWER_SECONDS
    start = np.median([float(seconds) for seconds in READY.findall(backend.log())])
    assert np.median(served) < max(USUAL_SECONDS, USUAL_STARTS * start)
    assert max(served) < max(SERVED_SECONDS, SERVED_STARTS * start)
    assert backend.status().workers_lost <= kills


def seconds_until_served(client: Listener, background: Background) -> float:
    start, job = time.monotonic(), client.send(complete())
    while time.monotonic() - start < PATIENCE:
        background.look()
        for event in client.poll():
            if getattr(event, "job", None) == job and isinstance(event, Result | Error):
                assert isinstance(event, Result), event
                return time.monotonic() - start
        time.sleep(0.01)
    return float("inf")
