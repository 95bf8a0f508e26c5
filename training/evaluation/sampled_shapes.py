"""Evaluates the task `sample`: how well shapes drawn at random represent the category, and whether they copy.

    references = References.of(engine.model("chairs"), dataset)
    samples = list(draw_shapes(engine, "chairs", references, settings))
    comparisons = dict(compare_collections(samples, references, settings))

The samples come from `Engine.sample`, as users get them, and are compared in the canonical frame as they are. Each
collection of samples is as large as its references unless the settings say otherwise, as in the literature.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import numpy as np

from sdf_backend.engine import Engine, Shape
from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.isosurface import EmptySurfaceError
from sdf_backend.model.store import Model
from sdf_backend.settings import TaskSettings
from sdf_backend.wire.settings import Choice
from training.dataset import Dataset, ShapeRecord
from training.evaluation.baselines import Baseline, NearestTrainingShapes
from training.evaluation.generative import GenerativeScores, GenerativeSettings, generative_scores
from training.evaluation.metrics import METRICS, sample_surface
from training.evaluation.selection import evenly_spaced, select_references
from training.evaluation.tasks import PROTOCOL, EvaluationSettings
from training.triangle_mesh import Mesh

GENERATIVE = GenerativeSettings()


class Comparison(Choice):
    """Two collections that are compared."""

    TEST = "test", "samples, test split"
    TRAIN = "train", "samples, training split"
    TRAIN_TEST = "train_test", "training shapes, test split"


@dataclass(frozen=True)
class References:
    """The prepared shapes that samples are compared with; no deformed copies.

    test, train : surface points of each shape, (n, 3), canonical, by name
    records : of the training shapes, by name
    """

    dataset: Dataset
    test: dict[str, np.ndarray]
    train: dict[str, np.ndarray]
    records: dict[str, ShapeRecord]

    @classmethod
    def of(cls, model: Model, dataset: Dataset) -> "References":
        """Load the test shapes, and the training shapes that the model has seen.

        Raises `InputError` where model and dataset do not belong together (see `select_references`).
        """
        chosen = select_references(model, dataset)
        surfaces = {
            split: {record.name: dataset.load(record.name).surface for record in records}
            for split, records in chosen.items()
        }
        return cls(dataset, surfaces["test"], surfaces["train"], {record.name: record for record in chosen["train"]})

    def count_samples(self, settings: EvaluationSettings) -> int:
        """How many shapes are drawn: as many as the larger split has, unless the settings say otherwise."""
        return settings.samples or max(len(self.test), len(self.train))

    def training_mesh(self, name: str) -> Mesh:
        """The visible surface of a training shape, in the canonical frame."""
        return Mesh(*self.dataset.read_mesh(self.records[name], self.dataset.load(name)))


@dataclass(frozen=True)
class SampledShape:
    """One drawn shape.

    seed : with which `sample` draws it
    nearest : the training shape with the least Chamfer distance
    points : (GENERATIVE.points, 3), on the surface; for comparisons
    """

    seed: int
    shape: Shape
    nearest: Baseline
    points: np.ndarray


@dataclass
class SampleReport:
    """Model, dataset, settings and figures of an evaluation of the task `sample`.

    samples : seed and nearest training shape of each drawn shape
    empty : number of further draws whose code has no surface; others took their place
    sizes : number of samples and references of each comparison
    """

    model: str
    dataset: str
    settings: EvaluationSettings
    samples: list[dict] = field(default_factory=list)
    empty: int = 0
    sizes: dict[Comparison, tuple[int, int]] = field(default_factory=dict)
    scores: dict[Comparison, GenerativeScores] = field(default_factory=dict)

    def add_sample(self, sample: SampledShape) -> None:
        """Note which training shape is nearest to a sample, and which draws before it were empty."""
        nearest = {"nearest": sample.nearest.name, "chamfer": sample.nearest.chamfer}
        self.samples.append({"seed": sample.seed, **nearest})
        self.empty = sample.seed - self.settings.seed + 1 - len(self.samples)

    def rows(self) -> list[tuple[str, dict[str, float]]]:
        """Title and measures of each comparison."""
        return [
            (f"{pair.help} ({self.sizes[pair][0]}, {self.sizes[pair][1]})", scores.measures())
            for pair, scores in self.scores.items()
        ]

    def sentences(self) -> list[str]:
        """What a reader should know of the figures."""
        sentences = [
            f"{len(self.samples)} shapes drawn, {self.empty} further draws had no surface",
            "JSD and MMD: lower is better; COV: higher is better; 1-NNA: 50 % is best, well below it against the "
            "training split the model copies",
        ]
        for pair, (_, references) in self.sizes.items():
            if pair is not Comparison.TRAIN_TEST and references < PROTOCOL.coarse_references:
                sentences.append(
                    f"the figures against the {pair} split are coarse: with {references} shapes one of them is "
                    f"{1 / references:.0%} of COV, and the standard error of 1-NNA is about "
                    f"{(0.25 / (2 * references)) ** 0.5:.0%}"
                )
        return sentences

    @property
    def failure(self) -> str:
        """Empty: where no shape can be drawn, `draw_shapes` raises."""
        return ""

    def to_json(self) -> dict:
        """The content of `sample.json`."""
        return {"model": self.model, "dataset": self.dataset, **self.to_entry(), "samples": self.samples}

    def to_entry(self) -> dict:
        """The entry of the model card."""
        comparisons = {
            str(pair): {"samples": self.sizes[pair][0], "references": self.sizes[pair][1], **scores.measures()}
            for pair, scores in self.scores.items()
        }
        settings = {"task": str(self.settings.task), "resolution": self.settings.resolution, "seed": self.settings.seed}
        return settings | asdict(GENERATIVE) | {"empty": self.empty, "comparisons": comparisons}

    def save(self, folder: Path) -> None:
        """Write `sample.json` into `folder`, atomically."""
        with atomic_write(folder / f"{self.settings.task}.json") as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1))


def draw_shapes(
    engine: Engine, model: str, references: References, settings: EvaluationSettings
) -> Iterator[SampledShape]:
    """Draw shapes one after the other, each with a seed of its own, and find the training shape nearest to each.

    A code without a surface is left out, and the next seed takes its place.

    Raises
    ------
    InputError : as many codes had no surface as shapes are to be drawn
    """
    wanted, drawn, empty = references.count_samples(settings), 0, 0
    nearest = NearestTrainingShapes(
        {name: points[: METRICS.chamfer_points] for name, points in references.train.items()}
    )
    for seed in count(settings.seed):
        if drawn == wanted:
            return
        try:
            [shape] = engine.sample(model, 1, TaskSettings(settings.resolution, seed=seed))
        except EmptySurfaceError as error:
            empty += 1
            if empty == wanted:
                raise InputError(
                    f"{empty} of {empty + drawn} drawn codes have no surface ({error}); train the model for longer"
                ) from error
            continue
        points, _ = sample_surface(shape.vertices, shape.faces, METRICS.chamfer_points, np.random.default_rng(seed))
        found = nearest.find(f"seed {seed}", points)
        assert found is not None  # there are training shapes
        drawn += 1
        yield SampledShape(seed, shape, found, points[: GENERATIVE.points])


def compare_collections(
    samples: Sequence[np.ndarray],
    references: References,
    settings: EvaluationSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Comparison, tuple[int, int], GenerativeScores]]:
    """Compare samples with each split, and training shapes with the test split: what perfect copies would score.

    Parameters
    ----------
    samples : surface points of each, (n, 3)
    progress : called with how many distances of a comparison are computed, and how many there are

    Yields
    ------
    comparison, number of samples and of references, scores
    """
    test, train = list(references.test.values()), list(references.train.values())
    for pair, drawn, known in (
        (Comparison.TEST, samples, test),
        (Comparison.TRAIN_TEST, evenly_spaced(train, len(test)), test),
        (Comparison.TRAIN, samples, train),
    ):
        compared = drawn if settings.samples else drawn[: len(known)]
        scores = generative_scores(compared, known, np.random.default_rng(settings.seed), GENERATIVE, progress)
        yield pair, (len(compared), len(known)), scores
