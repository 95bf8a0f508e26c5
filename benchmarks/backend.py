"""A backend in processes of its own, for benchmarks: started, found, and stopped with everything that it started."""

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
    """Its address, once a worker is ready; the log goes to out/benchmarks/backend.log."""
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
    """A client that is connected."""
    client = Client(address, key, name)
    client.wait_connected(START_SECONDS)
    return client


def _until_ready(process: subprocess.Popen, output: IO[str]) -> str:
    """Wait for the line that names the devices, which comes last; the address stands above it."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        output.seek(0)
        lines = {line.partition(" ")[0]: line.split()[1:] for line in output.read().splitlines()}
        if "models" in lines:
            return lines["address"][0]
        time.sleep(0.05)
    raise RuntimeError("the backend has not started; out/benchmarks/backend.log says why")
