"""Runs a backend in its own processes, for benchmarks."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sdf_backend.wire.client import Client

START_SECONDS = 60.0


@contextmanager
def running_backend(*options: str | Path) -> Iterator[str]:
    """Yield the address of a backend with a ready worker; its log is out/benchmarks/backend.log."""
    log = Path("out/benchmarks/backend.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sdf_backend", "serve", "--bind", "tcp://127.0.0.1:*", *map(str, options)]
    with tempfile.TemporaryFile("w+") as output, log.open("w") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        try:
            yield _until_ready(process, output)
        finally:
            process.terminate()
            process.wait(30)


def connected(address: str, key: Path | None = None, name: str = "benchmark") -> Client:
    """Make a connected client."""
    client = Client(address, key, name)
    client.wait_connected(START_SECONDS)
    return client


def _until_ready(process: subprocess.Popen, output: IO[str]) -> str:
    """Wait for the last line of the output, which lists the models; returns the address."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        output.seek(0)
        lines = {line.partition(" ")[0]: line.split()[1:] for line in output.read().splitlines()}
        if "models" in lines:
            return lines["address"][0]
        time.sleep(0.05)
    raise RuntimeError("the backend did not start; see out/benchmarks/backend.log")
