"""Soak test: 2,000 jobs from four clients, and the memory of server and worker meanwhile.

    python -m benchmarks.soak

Completes scans of random parts and sizes; one in five jobs is a sample, an interpolation or a repeated job, and clients
sometimes reconnect. Prints the memory after 200 jobs and at the end, and plots the curve: out/benchmarks/soak.png.
"""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import typer
from rich.table import Table

from benchmarks.backend import connected, running_backend
from benchmarks.shared import console, show
from sdf_backend.files import atomic_write
from sdf_backend.geometry.mesh_files import read_geometry
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.client import new_job
from sdf_backend.wire.messages import Busy, Error, Result, Source, Submit

CLIENTS = 4
SETTINGS = TaskSettings(resolution=64, pose=Pose.KNOWN, quality=Quality.PREVIEW)
# Jobs between two samples of the memory, and jobs until caches and buffers are filled.
EVERY, WARM_UP = 10, 200


def main(
    jobs: Annotated[int, typer.Option(help="number of jobs")] = 2_000,
    model: Annotated[str, typer.Option(help="name of a model")] = "airplanes",
    scan: Annotated[Path, typer.Option(help="scan whose parts are completed")] = Path("demo/scan.ply"),
) -> None:
    """Print the table and plot the curve."""
    points = read_geometry(scan).vertices
    with tempfile.TemporaryDirectory() as cache:
        options = ("--device", "cpu", "--cache", cache, "--cache-mib", "64")
        with running_backend(*options) as address:
            start = time.monotonic()
            samples = _work(address, _submissions(model, points), jobs)
            seconds = time.monotonic() - start
    table = Table("process", f"after {WARM_UP} jobs", "at the end", "most", "change")
    rows = []
    warm = next(index for index, sample in enumerate(samples) if sample[0] >= WARM_UP)
    for name, column in (("server", 1), ("worker", 2)):
        curve = np.array([sample[column] for sample in samples[warm:]]) / 2**20
        # A single sample may fall into a job; the mean of several is representative.
        before, after = curve[:10].mean(), curve[-10:].mean()
        rows.append({"process": name, "before": before, "after": after, "most": curve.max()})
        sizes = [f"{size:.0f} MiB" for size in (before, after, curve.max())]
        table.add_row(name, *sizes, f"{after / before - 1:+.1%}")
    table.title = f"{jobs} jobs, {CLIENTS} clients, {seconds / 60:.0f} min"
    show(table, rows, "soak")
    _plot(samples, Path("out/benchmarks/soak.png"))


def _submissions(model: str, points: np.ndarray) -> Iterator[Submit]:
    rng, before = np.random.default_rng(0), []
    for number in count():
        name, kind = new_job(), number % 15
        if kind == 5:
            yield Submit(name, "sample", model, TaskSettings(64, seed=number), count=2)
        elif kind == 10 and len(before) > 1:
            sources = tuple(rng.choice(len(before), 2, replace=False))
            yield Submit(name, "interpolate", model, SETTINGS, tuple(before[index] for index in sources), count=3)
        elif kind == 14 and before:
            yield Submit(name, "complete", model, SETTINGS, (before[-1],))
        else:
            kept = rng.choice(len(points), rng.integers(500, min(len(points), 20_000)), replace=False)
            part = points[kept]
            part = part[part @ rng.normal(size=3) > rng.uniform(-0.3, 0)]
            source = Source(part if len(part) > 200 else points[kept])
            before = [*before[-9:], source]
            yield Submit(name, "complete", model, SETTINGS, (source,))


def _work(address: str, submissions: Iterator[Submit], jobs: int) -> list[tuple[int, int, int]]:
    """Run the jobs; returns (jobs done, bytes of the server, bytes of the worker) every few jobs."""
    rng, clients = random.Random(0), [connected(address, name=f"soak {number}") for number in range(CLIENTS)]
    observer, samples, sent, done = connected(address, name="observer"), [], 0, 0
    while done < jobs:
        for index, client in enumerate(clients):
            if not client.jobs and sent < jobs:
                client.submit(next(submissions))
                sent += 1
            done += sum(_ended(event) for event in client.poll())
            if not client.jobs and rng.random() < 0.02:
                client.close()
                clients[index] = connected(address, name=f"soak {index}")
        if done >= len(samples) * EVERY:
            state = observer.wait_status()
            samples.append((done, state.memory_bytes, state.workers[0].memory_bytes))
            if done % 100 < EVERY:
                console.print(f"{done} jobs: {state.memory_bytes >> 20} + {state.workers[0].memory_bytes >> 20} MiB")
        time.sleep(0.005)
    for client in (observer, *clients):
        client.close()
    return samples


def _ended(event: object) -> bool:
    if isinstance(event, Error | Busy):
        raise RuntimeError(f"a job has failed: {event}")
    return isinstance(event, Result)


def _plot(samples: list[tuple[int, int, int]], path: Path) -> None:
    done, server, worker = np.array(samples).T
    figure, axes = plt.subplots(figsize=(8, 4))
    axes.plot(done, worker / 2**20, label="worker")
    axes.plot(done, server / 2**20, label="server")
    axes.axvline(WARM_UP, color="0.7", linestyle="--")
    axes.set(xlabel="jobs done", ylabel="resident memory, MiB", ylim=(0, None))
    axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    with atomic_write(path.with_suffix(".curve.json")) as temporary:
        temporary.write_text(json.dumps(samples))
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
