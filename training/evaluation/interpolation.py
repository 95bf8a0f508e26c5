"""Evaluates shape interpolation between all pairs of a few test shapes: closed meshes, and no jump between steps.

Two whole meshes are encoded and interpolated (`shapes.interpolation`). The length of a step is the Hausdorff distance
of consecutive meshes.
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
from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.settings import Pose, Quality, TaskSettings
from training.dataset import Dataset, ShapeRecord
from training.evaluation.metrics import hausdorff_distance
from training.evaluation.selection import select_records
from training.evaluation.tasks import Task


@dataclass(frozen=True)
class InterpolationSettings:
    """Numbers of shapes and steps; they are conventions of the reports."""

    resolution: int = TaskSettings.resolution
    """cells per axis of the meshes"""
    quality: Quality = TaskSettings.quality
    """quality of the fits"""
    shapes: int = 5
    """test shapes, evenly spaced over the split; all their pairs are interpolated"""
    steps: int = 64
    """meshes of each interpolation, both ends included"""


@dataclass(frozen=True)
class PairOutcome:
    """The outcome of one interpolation. Field names are keys of the JSON report.

    first, last : names of the shapes
    steps : number of meshes; closed : number of closed ones
    largest, median : length of a step, canonical units
    reason : why the interpolation failed; empty where it did not
    """

    first: str
    last: str
    steps: int = 0
    closed: int = 0
    largest: float = 0.0
    median: float = 0.0
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether there are no meshes."""
        return bool(self.reason)

    @property
    def ratio(self) -> float:
        """The largest step over the median step."""
        return self.largest / self.median if self.median else float("inf")


@dataclass(frozen=True)
class InterpolationReport:
    """Model, dataset and outcomes of one evaluation."""

    model: str
    dataset: str
    pairs: list[PairOutcome]

    @property
    def failure(self) -> str:
        """Why nothing was measured; empty where something was."""
        failed = bool(self.pairs) and all(pair.failed for pair in self.pairs)
        return f"all {len(self.pairs)} pairs failed; the first reason: {self.pairs[0].reason}" if failed else ""

    def to_json(self) -> dict:
        """The content of `interpolate.json`."""
        return asdict(self)

    def save(self, folder: Path) -> None:
        """Write `interpolate.json` into `folder`, atomically."""
        with atomic_write(folder / f"{Task.INTERPOLATE}.json") as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1))


def count_pairs(dataset: Dataset, settings: InterpolationSettings = InterpolationSettings()) -> int:
    """Number of pairs that `evaluate_interpolations` yields."""
    count = min(settings.shapes, len(dataset.split("test")))
    return count * (count - 1) // 2


def evaluate_interpolations(
    engine: Engine, model: str, dataset: Dataset, settings: InterpolationSettings = InterpolationSettings()
) -> Iterator[PairOutcome]:
    """Interpolate between all pairs of a few test shapes.

    Raises
    ------
    InputError : as `select_records`, and for fewer than two test shapes
    """
    records = select_records(engine.model(model), dataset, Task.INTERPOLATE, settings.shapes)
    if len(records) < 2:
        raise InputError(
            f"the number of test shapes in {dataset.folder} is {len(records)}; interpolation needs at least two"
        )
    task_settings = TaskSettings(settings.resolution, Pose.KNOWN, quality=settings.quality)
    encoded = engine.encode(model, [_source(dataset, record) for record in records], task_settings)
    for first, last in combinations(range(len(records)), 2):
        names, ends = (records[first].name, records[last].name), (encoded[first], encoded[last])
        try:
            shapes = engine.interpolate_codes(
                model,
                np.stack([end.code for end in ends]),
                [end.pose for end in ends],
                settings.steps,
                task_settings,
                refinements=[end.refinement for end in ends],
            )
        except InputError as error:
            yield PairOutcome(*names, reason=str(error))
            continue
        lengths = [hausdorff_distance(before, after) for before, after in pairwise(shapes)]
        yield PairOutcome(*names, len(shapes), sum(map(_is_closed, shapes)), max(lengths), float(np.median(lengths)))


def _source(dataset: Dataset, record: ShapeRecord) -> Source:
    vertices, faces = dataset.read_mesh(record, dataset.load(record.name))
    return Source(Geometry(vertices, faces))


def _is_closed(shape: Shape) -> bool:
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    return bool(mesh.is_watertight and mesh.is_winding_consistent)
