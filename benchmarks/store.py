"""Trains from a store on disk within little memory, against samples that are all in memory.

    python -m benchmarks.store FOLDER --shapes 2000

FOLDER needs 10 bytes of disk for each sample; the dataset is made there and removed at the end. Each way of reading
runs in a process of its own: `memory` gathers single samples from arrays that hold all of them, as version 0.2 did, and
`disk` is what `train` does. They alternate, and the peak of resident memory is that of the whole process. Before each
run of `disk, cold` the system's cache of the dataset is dropped. Reading alone is in batches of the preset paper, and
its time is the processor's.
"""

import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table

from benchmarks.shared import peak_memory, show
from training.dataset import Dataset, ShapeRecord
from training.sampling import BOUND, GRID_STEPS, ShapeSamples, quantise
from training.store import ARRAYS, list_parts, map_array, new_part
from training.train_options import Preset
from training.train_settings import PRESETS
from training.trainer import Trainer

WAYS = ("memory", "disk", "disk, cold")
app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="a new folder for the dataset")],
    shapes: int = 2_000,
    samples: int = 500_000,
    memory_shapes: Annotated[int, typer.Option(help="how many of them the process with all in memory reads")] = 500,
    points: Annotated[int, typer.Option(help="samples of a shape in a step; default: as the preset small")] = 512,
    steps: int = 60,
    repeats: int = 3,
) -> None:
    """Print samples a second, seconds until the first step and peak memory of each way of reading."""
    rows = []
    try:
        _make(folder, shapes, samples)
        for _ in range(repeats):
            for way in WAYS:
                used = memory_shapes if way == "memory" else shapes
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    measured = process.submit(_train, folder, way, used, points, steps).result()
                rows.append({"way": way, "shapes": used, **measured})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    columns = (
        "first step after, s",
        "trained samples/s",
        "of memory",
        "reading alone",
        "peak memory, GiB",
    )
    table = Table("samples", "shapes", *columns)
    resident = np.median([row["speed"] for row in rows if row["way"] == "memory"])
    for way in WAYS:
        runs = [row for row in rows if row["way"] == way]
        start, speed, reading, peak = (
            float(np.median([row[key] for row in runs])) for key in ("start", "speed", "reading", "peak")
        )
        ratio = f"{speed / resident:.2f}"
        table.add_row(
            way, f"{runs[0]['shapes']:,}", f"{start:.1f}", f"{speed:,.0f}", ratio, f"{reading:,.0f}", f"{peak:.2f}"
        )
    table.title = f"{samples:,} samples a shape, {points:,} of them in a step, preset small; median of {repeats}"
    show(table, rows, "store")


def _train(folder: Path, way: str, shapes: int, points: int, steps: int) -> dict:
    """Train for some steps; returns seconds until the first, samples/s of the others, and the peak memory in GiB."""
    if way == "disk, cold":
        _drop_cache(folder)
    began = time.perf_counter()
    dataset = Dataset.open(folder)
    dataset = replace(dataset, records=dataset.records[:shapes])
    trainer = Trainer(dataset, replace(PRESETS[Preset.SMALL], points_a_shape=points), folder / "run")
    if way == "memory":
        trainer.samples = _InMemory(dataset)  # type: ignore[assignment]
    seconds = []
    step = trainer._step

    def timed(*arguments: Any) -> float:
        seconds.append(time.perf_counter())
        return step(*arguments)

    trainer._step = timed  # type: ignore[method-assign]
    while len(seconds) <= steps:
        trainer._run_epoch()
    drawn = steps * trainer.settings.shapes_a_step * points
    speed = drawn / (seconds[steps] - seconds[0])
    return {"start": seconds[0] - began, "speed": speed, "reading": _read(trainer), "peak": peak_memory() / 2**30}


def _read(trainer: Trainer, batches: int = 10) -> float:
    """Samples a second of processor time, of reading batches of 64 shapes and 16,384 samples each."""
    began = time.process_time()
    for number in range(batches):
        shapes = torch.arange(64 * number, 64 * (number + 1)) * 31 % len(trainer.records)
        trainer.samples.draw(shapes, 16_384, trainer.generator)
    return batches * 64 * 16_384 / (time.process_time() - began)


class _InMemory:
    """All samples in memory at 8 bytes each, drawn one by one with replacement, as version 0.2 did."""

    def __init__(self, dataset: Dataset) -> None:
        points, distances, inside, counts = [], [], [], []
        for record in dataset.records:
            part, shape = dataset.store.shapes[record.name]
            rows = slice(shape.start, shape.start + shape.count)
            points.append(torch.from_numpy(np.array(map_array(part, "points")[rows])))
            distances.append(torch.from_numpy(np.array(map_array(part, "distances")[rows])).half())
            inside.append(shape.inside)
            counts.append(shape.count)
        self.points, self.distances = torch.cat(points), torch.cat(distances)
        self.inside, self.counts = torch.tensor(inside), torch.tensor(counts)
        self.starts = torch.cumsum(self.counts, 0) - self.counts

    def draw(self, shapes: torch.Tensor, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """As `TrainingSamples.draw`."""
        half = torch.rand(2, len(shapes), count // 2, generator=generator)
        inside, outside = self.inside[shapes, None], (self.counts - self.inside)[shapes, None]
        rows = self.starts[shapes, None] + torch.cat(
            [(half[0] * inside).long(), inside + (half[1] * outside).long()], 1
        )
        return self.points[rows].float() * (BOUND / GRID_STEPS), self.distances[rows].float()


def _make(folder: Path, shapes: int, samples: int) -> None:
    """Write a packed dataset of balls."""
    rng = np.random.default_rng(0)
    cloud = quantise(rng.uniform(-1, 1, (samples, 3))).astype(np.float32)
    records = [ShapeRecord(f"ball{number:05d}", "train") for number in range(shapes)]
    dataset = Dataset(folder, "balls", "-z", {}, records)
    for group in np.array_split(np.arange(shapes), max(1, shapes * samples * 10 >> 32)):
        with new_part(folder / "store") as part:
            for number in group:
                part.add(records[number].name, _ball(cloud, rng.uniform(0.3, 0.9)), 0)
    dataset.save()


def _ball(cloud: np.ndarray, radius: float) -> ShapeSamples:
    """Samples of a ball at the points of a cloud, which is in random order already, those inside first."""
    distances = np.linalg.norm(cloud, axis=1) - radius
    order = np.concatenate([np.flatnonzero(distances < 0), np.flatnonzero(distances >= 0)])
    empty = np.zeros((0, 3), np.float32)
    return ShapeSamples(cloud[order], distances[order], empty, empty, 1.0, np.zeros(3), 0)


def _drop_cache(folder: Path) -> None:
    for part in list_parts(folder / "store"):
        for name in ARRAYS:
            with (part / f"{name}.npy").open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    app()
