"""A model against a dataset: how near its shapes come to the truth, in numbers and in pictures.

    engine = Engine()
    results = list(evaluate(engine, "airplanes", Dataset.open(folder), EvaluateSettings(Task.COMPLETE)))
    write_report(Path("report"), results, about)

The tasks: `known`, training shapes by their own codes; `unknown`, test shapes fitted to all of their signed distance
samples; `complete`, test shapes from what one depth camera saw of them; and three that make completing harder: `noise`
on the depth, of several strengths; `pose`, a random turn, size and place that are not told; `outliers`, a piece of
floor under the object. (`interpolate` is in `interpolations.py`.) The truth is the visible surface of the source mesh
in the canonical frame. A shape that fails is a row with its reason.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.engine import Engine, Phase, Shape, Source, without_flakes
from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.fitting.hypotheses import Question, explain
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, load_model, save_model
from sdf_backend.observation.observations import Observations, observe_samples
from sdf_backend.progress import Clock
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.shapes.residual_field import scaled
from training.dataset import Dataset, ShapeRecord
from training.evaluation.baselines import Baseline, NearestShapes, reference, reference_observations
from training.evaluation.challenges import floor_under, own_turns, random_placement
from training.evaluation.metrics import CHAMFER_POINTS, Mesh, ShapeScores, chamfer, compare, sample_surface
from training.evaluation.scanning import CameraSettings, scan, view_directions
from training.sampling import ShapeSamples

KNOWN_SHAPES = 16
# What of the truth is so near to a scan was seen, canonical units.
SEEN_DISTANCE = 0.02


class Task(StrEnum):
    """What is asked of the model."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    COMPLETE = "complete"
    NOISE = "noise"
    POSE = "pose"
    OUTLIERS = "outliers"

    @property
    def scans(self) -> bool:
        """Whether shapes are seen from one side."""
        return self not in (Task.KNOWN, Task.UNKNOWN)


# Standard deviations of the depth, canonical units; the paper's curve.
NOISES = (0.0, 0.01, 0.02, 0.03, 0.05)
# A pose is right within these.
RIGHT_TURN, RIGHT_SIZE = 10.0, 0.1


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated, and how."""

    task: Task = Task.COMPLETE
    """of which shapes, and what is known of them; see the head of this file"""
    resolution: int = 256
    """cells per axis of the generated meshes"""
    shapes: int | None = None
    """how many, spread over the split; None: 16 of the training shapes, all of the test shapes"""
    views: int = 1
    """scans a shape, each by itself; of the tasks with scans"""
    quality: Quality = Quality.STANDARD
    """how long a fit may take"""
    seed: int = 0
    """decides views, noise and the points that are compared"""
    refine: float = 1.0
    """how far results follow what was seen"""
    seeds: int = 1
    """scans of each view, each with noise of its own, and of `pose` a place; a fit itself leaves nothing to chance"""
    reference: bool = False
    """try the released DeepSDF reconstruction beside; takes half a minute a shape on two cores"""


@dataclass(frozen=True)
class Variant:
    """One of the results of a shape: from which view, with how much noise, and the noise of which seed."""

    view: int = 0
    noise: float = CameraSettings().noise
    seed: int = 0
    label: str = ""


@dataclass(frozen=True)
class Outcome:
    """One shape: its scores, or why there are none.

    scan : Chamfer distance of the bare scan to the truth, squared canonical units; None where nothing is scanned
    residual : of the fit, mean absolute, canonical units; explained : share of the input within 0.02 of the result;
    both None where nothing was fitted
    seconds : of each phase of the engine
    turn : degrees, up to the object's own symmetry; size : found over true; right : both within bounds; for `pose`
    seen : share of the true surface within 0.02 of the scan
    reference, nearest : what else would have come of it; of scans in the known pose and without a floor, always
    """

    name: str
    view: int = 0
    variant: str = ""
    scores: ShapeScores | None = None
    scan: float | None = None
    residual: float | None = None
    explained: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    turn: float | None = None
    size: float | None = None
    right: bool | None = None
    confidence: float | None = None
    seen: float | None = None
    reference: Baseline | None = None
    nearest: Baseline | None = None

    @property
    def nearer(self) -> bool:
        """Whether the completion is nearer to the truth than the scan was."""
        return self.scores is not None and self.scan is not None and self.scores.chamfer < self.scan

    @property
    def title(self) -> str:
        """Name, view where it is not the first, and variant."""
        parts = [self.name, f"view {self.view}" if self.view else "", self.variant]
        return ", ".join(part for part in parts if part)

    def measures(self) -> dict[str, float]:
        """All numbers of which a mean makes sense, by name; those that the task does not have are left out."""
        scores = asdict(self.scores) if self.scores else {}
        rest = {
            name: getattr(self, name) for name in ("scan", "residual", "explained", "turn", "size", "right", "seen")
        }
        rest["seconds"] = sum(self.seconds.values()) if self.scores else None
        if self.reference:
            rest |= {"reference": self.reference.chamfer, "reference_exact": self.reference.exact}
            rest["reference_seconds"] = self.reference.seconds
        if self.nearest:
            rest["nearest"] = self.nearest.chamfer
        return scores | {name: float(value) for name, value in rest.items() if value is not None}


@dataclass(frozen=True)
class Result:
    """An outcome and what is needed to draw it, all in the canonical frame; what a failure left unknown is None.

    points : (n, 3) what the shape was made from: points seen by the camera, or samples inside; None for `known`
    """

    outcome: Outcome
    truth: Mesh | None = None
    points: np.ndarray | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Summary:
    """All rows in a few numbers. Failed ones are counted, and are in neither mean nor median.

    nearer_than_scan : how many completions are nearer to the truth than their scans; None where there are none
    interval : of each mean, 95 % of bootstrap resamples of the shapes, each with all of its rows
    variants : the means of each variant by itself, where there are several
    seed_deviation : standard deviation of the Chamfer distance over scans of one view, which differ in their noise, as
    a share of its mean; the mean of that over views
    """

    count: int
    failed: int
    nearer_than_scan: int | None
    mean: dict[str, float]
    median: dict[str, float]
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    variants: dict[str, dict[str, float]] = field(default_factory=dict)
    seed_deviation: float | None = None


Progress = Callable[[str, Phase, float], None]


def _silent(name: str, phase: Phase, fraction: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class _Subject:
    """One shape under test: what is known of it, and who is asked."""

    engine: Engine
    model: str
    settings: EvaluateSettings
    samples: ShapeSamples
    truth: Mesh
    variant: Variant
    nearest: NearestShapes
    rng: np.random.Generator
    """the same for all seeds of a view"""
    own: np.random.Generator
    """of this seed alone: for the camera's noise, a floor, a place"""
    progress: Callable[[Phase, float], None]

    @property
    def task_settings(self) -> TaskSettings:
        """The engine's settings: the pose is known but for `pose`, since samples and scans are canonical already."""
        settings = self.settings
        known = TaskSettings(
            settings.resolution, Pose.KNOWN, quality=settings.quality, seed=settings.seed, refine=settings.refine
        )
        if settings.task is not Task.POSE:
            return known
        front = self.engine.model(self.model).card.front
        return replace(known, pose=Pose.UPRIGHT, up="+y", front=front)


def evaluate(
    engine: Engine,
    model: str,
    dataset: Dataset,
    settings: EvaluateSettings = EvaluateSettings(),
    progress: Progress = _silent,
) -> Iterator[Result]:
    """Try a model on one shape after the other; `progress(name, phase, fraction)` hears of every step.

    Raises `InputError` where model and dataset do not belong together, source meshes are gone, or a task without scans
    is asked for with several seeds.
    """
    if settings.seeds > 1 and (not settings.task.scans or settings.task is Task.NOISE):
        raise InputError(
            f"{settings.seeds} seeds: they are scans whose noise differs, and {settings.task} has none; use 1"
        )
    loaded = engine.model(model)
    records = chosen_records(loaded, dataset, settings)
    nearest = NearestShapes({}) if settings.task is Task.KNOWN else NearestShapes.of(dataset)
    for record in records:
        for variant in variants(settings):
            yield _result(engine, model, dataset, record, variant, nearest, settings, progress)


def variants(settings: EvaluateSettings) -> list[Variant]:
    """The results of one shape."""
    views = range(settings.views if settings.task.scans else 1)
    if settings.task is Task.NOISE:
        return [Variant(view, noise, label=f"noise {noise:g}") for view in views for noise in NOISES]
    return [
        Variant(view, seed=seed, label=f"seed {seed}" if settings.seeds > 1 else "")
        for view in views
        for seed in range(settings.seeds)
    ]


def chosen_records(model: Model, dataset: Dataset, settings: EvaluateSettings) -> list[ShapeRecord]:
    """The shapes that a task is about, spread over its split.

    Raises `InputError` where the model's frame is not the dataset's, where it does not know the training shapes or was
    trained on the test shapes, and where source meshes are gone.
    """
    if model.card.front != dataset.front:
        raise InputError(
            f"the model's front is {model.card.front}, that of {dataset.folder} is {dataset.front}; "
            "evaluate it on the dataset that it was trained with, or one prepared alike"
        )
    trained = set(model.card.shapes)
    if settings.task is Task.KNOWN:
        # A deformed copy has no mesh to be compared with.
        records = [record for record in dataset.split("train") if record.name in trained and not record.copy_of]
        if not records:
            raise InputError(f"the model {model.card.name} was trained on no shape of {dataset.folder}")
    else:
        records = dataset.split("test")
        leaked = [record.name for record in records if record.name in trained]
        if leaked:
            raise InputError(
                f"the model {model.card.name} was trained on {len(leaked)} of the {len(records)} test shapes of "
                f"{dataset.folder}, {leaked[0]} among them; what it makes of them proves nothing"
            )
    records = spread(records, settings.shapes or (KNOWN_SHAPES if settings.task is Task.KNOWN else len(records)))
    gone = [record for record in records if not Path(record.mesh).is_file()]
    if gone:
        raise InputError(
            f"{len(gone)} of {len(records)} source meshes are gone, {gone[0].mesh or gone[0].name} first; "
            "evaluation compares with them: put them back, or run prepare again"
        )
    return records


def spread(records: list[ShapeRecord], count: int) -> list[ShapeRecord]:
    """At most `count` of them, evenly spaced from the first to the last."""
    if count >= len(records):
        return records
    return [records[index] for index in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _result(
    engine: Engine,
    model: str,
    dataset: Dataset,
    record: ShapeRecord,
    variant: Variant,
    nearest: NearestShapes,
    settings: EvaluateSettings,
    progress: Progress,
) -> Result:
    """One shape, in one variant; whatever of it could not be done is in the outcome's reason."""
    result = Result(Outcome(record.name, variant.view, variant.label))
    try:
        samples = dataset.load(record.name)
        truth = Mesh(*dataset.read_mesh(record, samples))
        result = replace(result, truth=truth)
        # By the name, so that a shape's scan does not depend on which others are evaluated.
        rng = np.random.default_rng((settings.seed, zlib.crc32(record.name.encode()), variant.view))
        own = [rng, *rng.spawn(variant.seed)][-1]
        subject = _Subject(
            engine,
            model,
            settings,
            samples,
            truth,
            variant,
            nearest,
            rng,
            own,
            lambda phase, fraction: progress(record.name, phase, fraction),
        )
        match settings.task:
            case Task.KNOWN:
                result = _known(subject, result)
            case Task.UNKNOWN:
                result = _unknown(subject, result)
            case _:
                result = _observed(subject, result)
                result = _completed(subject, result)
        return _scored(subject, result)
    except InputError as error:
        return replace(result, outcome=replace(result.outcome, reason=str(error)))


def _known(subject: _Subject, result: Result) -> Result:
    model = subject.engine.model(subject.model)
    code = model.codes[model.card.shapes.index(result.outcome.name)].cpu().numpy()
    shape = subject.engine.shape_of(subject.model, code, Similarity.identity(), subject.task_settings, subject.progress)
    return replace(result, shape=shape, outcome=replace(result.outcome, seconds=_seconds(shape.seconds)))


def _unknown(subject: _Subject, result: Result) -> Result:
    """Fit to all samples that were prepared, and make a mesh of it, as the engine does with a whole mesh."""
    samples, settings = subject.samples, subject.task_settings
    result = replace(result, points=samples.points[samples.distances < 0])
    observed, clock = observe_samples(samples.points, samples.distances, samples.surface), Clock()
    question = Question(Pose.KNOWN, np.eye(3), settings.quality)
    [found] = explain(subject.engine.model(subject.model), [observed], question, subject.progress, clock)
    refinement = scaled(found.refinement, settings.refine)
    shape = subject.engine.shape_of(subject.model, found.code, found.pose, settings, subject.progress, refinement)
    shape = without_flakes(shape, samples.surface)
    outcome = replace(
        result.outcome,
        residual=found.residual,
        explained=found.explained,
        seconds=_seconds(clock.seconds | shape.seconds),
        **_baselines(subject, result.outcome.name, lambda: observed),
    )
    return replace(result, shape=shape, outcome=outcome)


def _observed(subject: _Subject, result: Result) -> Result:
    """Look at the truth from a random direction, and measure what a user who completes nothing has."""
    truth, rng = subject.truth, subject.rng
    [direction] = view_directions(1, rng)
    camera = CameraSettings(noise=subject.variant.noise)
    # From the same place, whatever the noise.
    seen = scan(truth.vertices, truth.faces, direction, camera, subject.own)
    surface, _ = sample_surface(truth.vertices, truth.faces, CHAMFER_POINTS, rng)
    outcome = replace(
        result.outcome,
        scan=chamfer(seen.points, surface),
        seen=float((KDTree(seen.points).query(surface)[0] < SEEN_DISTANCE).mean()),
        **_baselines(
            subject,
            result.outcome.name,
            lambda: reference_observations(seen.points, seen.sensor, subject.settings.seed),
        ),
    )
    points = seen.points
    if subject.settings.task is Task.OUTLIERS:
        points = np.concatenate([points, floor_under(points, truth.vertices[:, 1].min(), subject.own)])
    return replace(result, points=points, outcome=outcome)


def _baselines(subject: _Subject, name: str, observe: Callable[[], Observations]) -> dict[str, Baseline | None]:
    """The training shape nearest to the truth, and where it is asked for the reference fitted to observations.

    A reference that fails leaves its place empty: it must not take our own result with it.
    """
    truth, _ = sample_surface(subject.truth.vertices, subject.truth.faces, CHAMFER_POINTS, np.random.default_rng(0))
    found: dict[str, Baseline | None] = {"nearest": subject.nearest.find(name, truth)}
    if subject.settings.reference:
        settings, rng = subject.task_settings, np.random.default_rng(1)
        with suppress(InputError):
            found["reference"] = reference(
                subject.engine, subject.model, observe(), subject.truth, truth, settings, rng
            )
    return found


def _completed(subject: _Subject, result: Result) -> Result:
    """Complete the bare points: neither normals nor the sensor's place, which users seldom have."""
    assert result.points is not None
    posed = subject.settings.task is Task.POSE
    placed = random_placement(subject.own) if posed else Similarity.identity()
    geometry = Geometry(placed.apply(result.points), np.zeros((0, 3), dtype=np.int64))
    [shape] = subject.engine.complete(subject.model, [Source(geometry)], subject.task_settings, subject.progress)
    outcome = replace(
        result.outcome,
        residual=shape.residual,
        explained=shape.explained,
        seconds=_seconds(shape.seconds),
        **(_pose_errors(placed, shape, subject.truth) if posed else {}),
    )
    shape = replace(shape, vertices=placed.inverse().apply(shape.vertices))
    return replace(result, shape=shape, outcome=outcome)


def _pose_errors(true: Similarity, shape: Shape, truth: Mesh) -> dict[str, float]:
    moved = true.inverse().compose(shape.pose)
    turn = float(np.degrees(np.arctan2(moved.rotation[0, 2], moved.rotation[0, 0])))
    least = min(abs((turn - own + 180) % 360 - 180) for own in own_turns(truth))
    right = least <= RIGHT_TURN and abs(moved.scale - 1) <= RIGHT_SIZE
    return {"turn": least, "size": moved.scale, "right": right, "confidence": shape.confidence}


def _scored(subject: _Subject, result: Result) -> Result:
    assert result.shape is not None
    scores = compare(result.shape, subject.truth, subject.rng, subject.samples.scale)
    return replace(result, outcome=replace(result.outcome, scores=scores))


def _seconds(phases: dict[str, float]) -> dict[str, float]:
    return {str(phase): seconds for phase, seconds in phases.items()}


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Mean and median of every measure over the shapes that have it."""
    scored = [outcome for outcome in outcomes if outcome.scores]
    columns = _columns(scored)
    has_scans = any(outcome.scan is not None for outcome in scored)
    labels = list(dict.fromkeys(outcome.variant for outcome in scored))
    seeded = labels[0].startswith("seed") if labels else False
    return Summary(
        count=len(outcomes),
        failed=len(outcomes) - len(scored),
        nearer_than_scan=sum(outcome.nearer for outcome in scored) if has_scans else None,
        mean={name: float(np.mean(values)) for name, values in columns.items()},
        median={name: float(np.median(values)) for name, values in columns.items()},
        interval={name: bootstrap(_by_shape(scored, name)) for name in columns},
        variants={label: _means(scored, label) for label in labels} if len(labels) > 1 and not seeded else {},
        seed_deviation=_seed_deviation(scored) if seeded else None,
    )


def _by_shape(scored: Sequence[Outcome], measure: str) -> list[float]:
    """The mean of a measure of each shape: its rows are no more independent than its seeds are."""
    values: dict[str, list[float]] = {}
    for outcome in scored:
        if measure in outcome.measures():
            values.setdefault(outcome.name, []).append(outcome.measures()[measure])
    return [float(np.mean(rows)) for rows in values.values()]


def _means(scored: Sequence[Outcome], label: str) -> dict[str, float]:
    rows = [outcome for outcome in scored if outcome.variant == label]
    means = {name: float(np.mean(values)) for name, values in _columns(rows).items()}
    return means | {"nearer": float(np.mean([row.nearer for row in rows]))}


def _columns(scored: Sequence[Outcome]) -> dict[str, list[float]]:
    """Every measure's values, of the rows that have it."""
    columns: dict[str, list[float]] = {}
    for outcome in scored:
        for name, value in outcome.measures().items():
            columns.setdefault(name, []).append(value)
    return columns


def _seed_deviation(scored: Sequence[Outcome]) -> float | None:
    by_input: dict[tuple[str, int], list[float]] = {}
    for outcome in scored:
        assert outcome.scores
        by_input.setdefault((outcome.name, outcome.view), []).append(outcome.scores.chamfer)
    several = [values for values in by_input.values() if len(values) > 1]
    return float(np.mean([np.std(values, ddof=1) / np.mean(values) for values in several])) if several else None


def bootstrap(values: Sequence[float], resamples: int = 2_000) -> tuple[float, float]:
    """The interval that holds 95 % of the means of resamples, with replacement, of the values."""
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[chosen].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation came to."""

    model: str
    dataset: str
    settings: EvaluateSettings
    outcomes: list[Outcome]

    @property
    def summary(self) -> Summary:
        """Mean and median over the shapes."""
        return summarise(self.outcomes)

    def content(self) -> dict:
        """As it is written in JSON."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            **asdict(self.settings),
            "summary": asdict(self.summary),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }

    def save(self, folder: Path) -> None:
        """Write `TASK.json` into `folder`, whole or not at all."""
        with atomic_write(folder / f"{self.settings.task}.json") as temporary:
            temporary.write_text(json.dumps(self.content(), indent=1))


def record_accuracy(path: Path, report: Report) -> None:
    """Keep the summary in the model's own file, one entry a task; weights and codes stay as they are.

    Times are left out: they belong to the computer, and the same evaluation should leave the same file.
    Raises `InputError` where the file cannot be read or written.
    """
    # Read anew: the engine's copy may be on a GPU, and the file may have changed since.
    model = load_model(path, "cpu")
    settings, summary = report.settings, asdict(report.summary)
    for measures in (summary["mean"], summary["median"], summary["interval"], *summary["variants"].values()):
        for name in ("seconds", "reference_seconds"):
            measures.pop(name, None)
    entry = {
        "resolution": settings.resolution,
        "views": settings.views if settings.task.scans else 1,
        "refine": settings.refine,
        "quality": str(settings.quality),
        "seed": settings.seed,
        "seeds": settings.seeds,
        **summary,
    }
    card = replace(model.card, accuracy={**model.card.accuracy, str(settings.task): entry})
    save_model(path, replace(model, card=card))
