"""Is what lies between two shapes a shape, and does it change smoothly? Every pair of a few test shapes.

Two shapes are encoded whole, and `shapes.interpolation` between them is walked in equal steps. Each mesh on it
must be closed, and no step may be a jump: its length is the Hausdorff distance of the meshes before and after it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import trimesh

from sdf_backend.engine import Engine, Shape, Source
from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.settings import Pose, Quality, TaskSettings
from training.dataset import Dataset, ShapeRecord
from training.evaluation.evaluate import EvaluateSettings, Task, chosen_records
from training.evaluation.metrics import MeshLike, surface_distance

SHAPES, STEPS = 5, 64


@dataclass(frozen=True)
class PairOutcome:
    """The way from one shape to another.

    closed : how many of the meshes are closed, of `steps`; largest, median : Hausdorff distance of a step, canonical
    reason : why there is no way, where there is none
    """

    first: str
    last: str
    steps: int = 0
    closed: int = 0
    largest: float = 0.0
    median: float = 0.0
    reason: str = ""

    @property
    def ratio(self) -> float:
        """The largest step over the median one."""
        return self.largest / self.median if self.median else float("inf")


def pair_count(dataset: Dataset) -> int:
    """How many pairs there will be."""
    count = min(SHAPES, len(dataset.split("test")))
    return count * (count - 1) // 2


def evaluate_interpolations(
    engine: Engine, model: str, dataset: Dataset, resolution: int, quality: Quality
) -> Iterator[PairOutcome]:
    """Walk between all pairs of five test shapes; raises `InputError` as `evaluate` does."""
    records = chosen_records(engine.model(model), dataset, EvaluateSettings(Task.UNKNOWN, shapes=SHAPES))
    if len(records) < 2:
        raise InputError(f"{dataset.folder} has {len(records)} test shape; between fewer than two there is no way")
    settings = TaskSettings(resolution, Pose.KNOWN, quality=quality)
    encoded = engine.encode(model, [_source(dataset, record) for record in records], settings)
    for first, last in combinations(range(len(records)), 2):
        names = records[first].name, records[last].name
        codes = np.stack([encoded[first].code, encoded[last].code])
        poses = [encoded[first].pose, encoded[last].pose]
        try:
            refinements = [encoded[first].refinement, encoded[last].refinement]
            shapes = engine.interpolate_codes(model, codes, poses, STEPS, settings, refinements=refinements)
        except InputError as error:
            yield PairOutcome(*names, reason=str(error))
            continue
        steps = [hausdorff(one, other) for one, other in pairwise(shapes)]
        yield PairOutcome(*names, len(shapes), sum(map(_closed, shapes)), max(steps), float(np.median(steps)))


def save_interpolations(folder: Path, model: str, dataset: Path, pairs: list[PairOutcome]) -> None:
    """Write `interpolate.json` into `folder`, whole or not at all."""
    content = {"model": model, "dataset": str(dataset), "pairs": [asdict(pair) for pair in pairs]}
    with atomic_write(folder / "interpolate.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def hausdorff(first: MeshLike, second: MeshLike) -> float:
    """The largest distance of a vertex of either mesh from the surface of the other.

    From its surface and not from its vertices, which two meshes of one surface do not share.
    """
    there = surface_distance(first.vertices, second.vertices, second.faces).max()
    back = surface_distance(second.vertices, first.vertices, first.faces).max()
    return float(max(there, back))


def _source(dataset: Dataset, record: ShapeRecord) -> Source:
    vertices, faces = dataset.read_mesh(record, dataset.load(record.name))
    return Source(Geometry(vertices, faces))


def _closed(shape: Shape) -> bool:
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    return bool(mesh.is_watertight and mesh.is_winding_consistent)
