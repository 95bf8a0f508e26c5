"""Which model `auto` chooses for scans of real test pieces: how often the right one, how often it doubts, how long.

    python -m benchmarks.choice data/meshes/cars data/meshes/chairs

Each folder is that of a category, as `training collect` makes it; its test pieces, at most 16, are scanned once each
from one side, at any turn about the up axis, size and position, and `upright`. A folder without a model of its name is
of things that no model knows: there, to doubt is right.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from benchmarks.shared import show
from sdf_backend.fitting.model_choice import choose_model
from sdf_backend.geometry.similarity import axis_vector
from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.observation.sources import Source, observe_surface
from sdf_backend.progress import silent
from sdf_backend.settings import Axis, Pose, TaskSettings
from training.catalog import read_mesh
from training.evaluation.perturbations import random_upright_pose
from training.evaluation.scanning import CameraSettings, sample_view_directions, simulate_scan

MOST_PIECES = 16
SEED = 11
SETTINGS = TaskSettings(pose=Pose.UPRIGHT, up=Axis.POSITIVE_Y, front=Axis.POSITIVE_Z)
NO_FACES = np.zeros((0, 3), dtype=np.int64)


def main(folders: Annotated[list[Path], typer.Argument(help="folders of collected meshes, one a category")]) -> None:
    """Print the table."""
    models = {path.stem: load_model(path) for path in ModelStore().paths().values()}
    rows = [_measure(folder, models) for folder in folders]
    table = Table("category", "right", "doubted, of the right", "doubted, of the others", "processor seconds")
    for row in rows:
        counts = (f"{row[part]} of {row[whole]}" for part, whole in (("right", "pieces"), ("false_alarms", "right")))
        wrong = row["pieces"] - row["right"]
        table.add_row(row["category"], *counts, f"{row['doubted']} of {wrong}", f"{row['seconds']:.1f}")
    show(table, rows, "choice")


def _measure(folder: Path, models: dict[str, Model]) -> dict:
    """Counts over the test pieces of one category, and the mean processor time of a choice."""
    listed = json.loads((folder / "sources.json").read_text())
    names = [row["name"] for row in listed if row["split"] == "test" or folder.name not in models][:MOST_PIECES]
    row = {"category": folder.name, "pieces": len(names), "right": 0, "false_alarms": 0, "doubted": 0}
    start = time.process_time()
    for name in names:
        scan = _scan(
            *read_mesh(next(path for path in folder.glob(f"{name}.*") if path.suffix in (".obj", ".ply"))), name
        )
        choice = choose_model(models, [observe_surface(scan, axis_vector("+y"))], SETTINGS, silent)
        is_right = choice.name == folder.name
        row["right"] += is_right
        row["false_alarms" if is_right else "doubted"] += bool(choice.note)
    return row | {"seconds": (time.process_time() - start) / max(len(names), 1)}


def _scan(vertices: np.ndarray, faces: np.ndarray, name: str) -> Source:
    """One noisy depth image of a mesh, (n, 3) and (m, 3), somewhere; the same for the same name."""
    rng = np.random.default_rng([SEED, sum(map(ord, name))])
    pose = random_upright_pose(rng)
    centred = vertices - (vertices.min(0) + vertices.max(0)) / 2
    canonical = centred / np.linalg.norm(centred, axis=1).max()
    [direction] = sample_view_directions(1, rng)
    scan = simulate_scan(canonical, faces, direction, CameraSettings(), rng)
    return Source(Geometry(pose.apply(scan.points), NO_FACES))


if __name__ == "__main__":
    typer.run(main)
