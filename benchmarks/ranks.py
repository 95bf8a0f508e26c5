"""Trains in one, two and four processes that torchrun starts, on the CPU over gloo: loss, speed and memory of a rank.

    python -m benchmarks.ranks FOLDER
    python -m benchmarks.ranks FOLDER --shapes 50000 --code 256 --width 288 --points 16 --shapes-a-step 2048 --epochs 1

The first shows that the losses are alike and how the speed grows, the second how the memory of a rank falls: codes,
their gradients and two moments of each. Shapes are ellipsoids; a dataset of many has them again and again, since its
samples do not matter there. Each process computes with one thread. Where other programs use the cores too, look at
processor time, of all ranks for a sample: what it grows by is the cost of talking. FOLDER is made, and removed at the
end.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

from benchmarks.shared import peak_memory, show
from sdf_backend.model.decoder import DecoderSettings
from training.dataset import Dataset, ShapeRecord
from training.history import EpochReport
from training.ranks import join_ranks
from training.sampling import ShapeSamples, inside_first
from training.store import INDEX_FILE, new_part
from training.train_options import Preset
from training.train_settings import PRESETS, TrainSettings
from training.trainer import Trainer

SAMPLES, DIFFERENT = 10_000, 64
app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="a new folder for dataset and runs")],
    shapes: int = 64,
    epochs: int = 60,
    shapes_a_step: int = 32,
    points: int = 512,
    width: int = 128,
    code: int = 32,
    ranks: Annotated[str, typer.Option(help="numbers of processes")] = "1,2,4",
    repeats: int = 1,
    rank_of: Annotated[Path | None, typer.Option(hidden=True, help="the run that this process is a rank of")] = None,
) -> None:
    """Print loss, samples a second and memory for each number of processes."""
    if rank_of:
        _train(folder, rank_of)
        return
    decoder = DecoderSettings(code_length=code, width=width, layers=8, skip_at=4, dropout=0.0, weight_norm=False)
    settings = replace(
        PRESETS[Preset.SMALL], decoder=decoder, epochs=epochs, shapes_a_step=shapes_a_step, points_a_shape=points
    )
    folder.mkdir(parents=True)
    rows: list[dict] = []
    try:
        _make(folder / "data", shapes)
        for number in range(repeats):
            for world in map(int, ranks.split(",")):
                rows.append({"ranks": world, **_start(folder, f"{world}-{number}", world, settings)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    columns = ("samples/s", "processor, us/sample", "codes, MiB", "peak of a rank, MiB")
    table = Table("ranks", "loss, first epoch", "a third", "last", *columns)
    for row in rows:
        curve = row["losses"]
        losses = [f"{loss:.5f}" for loss in (curve[0], curve[len(curve) // 3], curve[-1])]
        memory = [f"{max(row[key]) / 2**20:,.1f}" for key in ("code_bytes", "peak")]
        speed = (f"{row['speed']:,.0f}", f"{row['processor'] * 1e6:.2f}")
        table.add_row(str(row["ranks"]), *losses, *speed, *memory)
    table.title = f"{shapes:,} shapes, codes of {code}, width {width}; {shapes_a_step} x {points} samples a step"
    show(table, rows, "ranks")


def _start(folder: Path, name: str, world: int, settings: TrainSettings) -> dict:
    """Train in `world` processes; returns losses, median speed, and bytes of each rank."""
    run = folder / name
    run.mkdir()
    (run / "settings.json").write_text(json.dumps(asdict(settings)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    command = [*launcher, "-m", "benchmarks.ranks", str(folder / "data"), "--rank-of", str(run)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    ranks = [json.loads((run / f"rank-{rank}.json").read_text()) for rank in range(world)]
    return {
        "losses": ranks[0]["losses"],
        "speed": float(np.median(ranks[0]["speeds"])),
        "processor": sum(rank["processor"] for rank in ranks),
        "code_bytes": [rank["code_bytes"] for rank in ranks],
        "peak": [rank["peak"] for rank in ranks],
    }


def _train(data: Path, run: Path) -> None:
    """One rank: train, and write what it measured into the folder of the run."""
    torch.set_num_threads(1)
    Trainer._write_pictures = lambda trainer: None  # type: ignore[method-assign]
    asked = json.loads((run / "settings.json").read_text())
    settings = replace(PRESETS[Preset.SMALL], **{**asked, "decoder": DecoderSettings(**asked["decoder"])})
    reports: list[EpochReport] = []
    with join_ranks() as ranks:
        trainer = Trainer(Dataset.open(data), settings, run, "cpu", ranks)
        began, drawn = time.process_time(), settings.epochs * len(trainer.records) * settings.points_a_shape
        while trainer.epoch < settings.epochs:  # without checkpoints, whose one file passes through the first rank
            reports.append(trainer._run_epoch())
            trainer.epoch += 1
        moments = [value for name, value in trainer.optimisers.state() if trainer.optimisers.is_of_codes(name)]
        assert trainer.codes.grad is not None
        measured = {
            "losses": [report.loss for report in reports],
            "speeds": [report.samples_a_second for report in reports],
            "code_bytes": sum(value.nbytes for value in (trainer.codes, trainer.codes.grad, *moments)),
            "processor": (time.process_time() - began) / drawn,
            "peak": peak_memory(),
        }
        (run / f"rank-{ranks.rank}.json").write_text(json.dumps(measured))


def _make(folder: Path, shapes: int) -> None:
    """A packed dataset of ellipsoids; from the 65th on they have the samples of the first 64."""
    began, rng = time.time_ns(), np.random.default_rng(0)
    records = [ShapeRecord(f"{index:06d}", "train", "CC0-1.0") for index in range(shapes)]
    with new_part(folder / "store") as part:
        for record in records[:DIFFERENT]:
            part.add(record.name, _ellipsoid(rng), began)
    path = folder / "store" / "0000" / INDEX_FILE
    index = json.loads(path.read_text())
    path.write_text(json.dumps({one.name: index[records[int(one.name) % DIFFERENT].name] for one in records}))
    Dataset(folder, "ellipsoids", "-z", {"seed": 0}, records).save()


def _ellipsoid(rng: np.random.Generator) -> ShapeSamples:
    """Samples of an ellipsoid about the origin, half of them near its surface; distances to first order.

    The distance is f / |grad f| for f = |x / a| - 1 (Taubin 1991), which is exact on the surface.
    """
    axes = rng.uniform(0.25, 0.9, 3)
    directions = rng.normal(size=(SAMPLES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = np.where(np.arange(SAMPLES) % 2, rng.uniform(0, 1.1, SAMPLES), 1 + rng.normal(0, 0.05, SAMPLES))
    points = directions * axes * radii[:, None]
    scaled = np.linalg.norm(points / axes, axis=1)
    slopes = np.linalg.norm(points / axes**2, axis=1) / np.maximum(scaled, 1e-6)
    distances = (scaled - 1) / np.maximum(slopes, 1e-6)
    empty = np.zeros((0, 3), np.float32)
    return inside_first(
        ShapeSamples(points.astype(np.float32), distances.astype(np.float32), empty, empty, 1.0, np.zeros(3), 0)
    )


if __name__ == "__main__":
    app()
