"""A model against a dataset: how near its shapes come to the truth, in numbers and in pictures.

    engine = Engine()
    results = list(evaluate(engine, "airplanes", Dataset.open(folder), EvaluateSettings(Task.COMPLETE)))
    write_report(Path("report"), results, about)

Three tasks, each harder than the one before: `known`, training shapes by their own codes; `unknown`, test shapes
fitted to all of their signed distance samples; `complete`, test shapes from what one depth camera saw of them. The
truth is the visible surface of the source mesh in the canonical frame. A shape that fails is a row with its reason.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from sdf_backend.answers import solid_settings
from sdf_backend.engine import Engine, Phase, Quality, Shape, Source, TaskSettings
from sdf_backend.errors import InputError
from sdf_backend.files import replacing
from sdf_backend.fit import fit_codes
from sdf_backend.mesh_files import Geometry
from sdf_backend.model_store import Model, load_model, save_model
from sdf_backend.observations import observe_samples
from sdf_backend.pose import Freedom, Similarity
from training.dataset import Dataset, ShapeRecord
from training.metrics import CHAMFER_POINTS, Mesh, ShapeScores, chamfer, compare, sample_surface
from training.pictures import BACKGROUND, Pixels, contact_sheet, render_mesh, render_points, shared_bounds
from training.sampling import ShapeSamples
from training.scanning import CameraSettings, scan, view_directions

KNOWN_SHAPES = 16
# Before empty margins are cut off.
PICTURE_SIZE = (480, 360)
# Chamfer distances are printed times this, as the papers do.
CHAMFER_FACTOR = 1e3


class Task(StrEnum):
    """What is asked of the model."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    COMPLETE = "complete"


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated, and how."""

    task: Task = Task.COMPLETE
    """known: training shapes; unknown: the test split, whole; complete: the test split, scanned"""
    resolution: int = 256
    """cells per axis of the generated meshes"""
    shapes: int | None = None
    """how many, spread over the split; None: 16 of the training shapes, all of the test shapes"""
    views: int = 1
    """scans a shape, each by itself; used by `complete`"""
    quality: Quality = Quality.STANDARD
    """how long a fit may take"""
    seed: int = 0
    """decides views, noise, fits and the points that are compared"""


@dataclass(frozen=True)
class Outcome:
    """One shape: its scores, or why there are none.

    scan : Chamfer distance of the bare scan to the truth, squared canonical units; None but for `complete`
    residual : of the fit, mean absolute, canonical units; explained : share of the input within 0.02 of the result;
    both None where nothing was fitted
    seconds : of each phase of the engine
    """

    name: str
    view: int = 0
    scores: ShapeScores | None = None
    scan: float | None = None
    residual: float | None = None
    explained: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def nearer(self) -> bool:
        """Whether the completion is nearer to the truth than the scan was."""
        return self.scores is not None and self.scan is not None and self.scores.chamfer < self.scan

    @property
    def title(self) -> str:
        """Name and, but for the first, view."""
        return f"{self.name}, view {self.view}" if self.view else self.name

    def measures(self) -> dict[str, float]:
        """All numbers of which a mean makes sense, by name; those that the task does not have are left out."""
        scores = asdict(self.scores) if self.scores else {}
        rest = {"scan": self.scan, "residual": self.residual, "explained": self.explained}
        rest["seconds"] = sum(self.seconds.values()) if self.scores else None
        return scores | {name: value for name, value in rest.items() if value is not None}


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

    nearer_than_scan : how many completions are nearer to the truth than their scans; None but for `complete`
    """

    count: int
    failed: int
    nearer_than_scan: int | None
    mean: dict[str, float]
    median: dict[str, float]


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
    rng: np.random.Generator
    progress: Callable[[Phase, float], None]

    @property
    def task_settings(self) -> TaskSettings:
        """The engine's settings: the pose is known, since samples and scans are canonical already."""
        settings = self.settings
        return TaskSettings(settings.resolution, Freedom.NONE, quality=settings.quality, seed=settings.seed)


def evaluate(
    engine: Engine,
    model: str,
    dataset: Dataset,
    settings: EvaluateSettings = EvaluateSettings(),
    progress: Progress = _silent,
) -> Iterator[Result]:
    """Try a model on one shape after the other; `progress(name, phase, fraction)` hears of every step.

    Raises `InputError` where model and dataset do not belong together, or source meshes are gone.
    """
    loaded = engine.model(model)
    for record in chosen_records(loaded, dataset, settings):
        for view in range(view_count(settings)):
            yield _result(engine, model, dataset, record, view, settings, progress)


def view_count(settings: EvaluateSettings) -> int:
    """Results a shape."""
    return settings.views if settings.task is Task.COMPLETE else 1


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
    view: int,
    settings: EvaluateSettings,
    progress: Progress,
) -> Result:
    """One shape, from one view; whatever of it could not be done is in the outcome's reason."""
    result = Result(Outcome(record.name, view))
    try:
        samples = dataset.load(record.name)
        truth = Mesh(*dataset.read_mesh(record, samples))
        result = replace(result, truth=truth)
        # By the name, so that a shape's scan does not depend on which others are evaluated.
        rng = np.random.default_rng((settings.seed, zlib.crc32(record.name.encode()), view))
        subject = _Subject(
            engine,
            model,
            settings,
            samples,
            truth,
            rng,
            lambda phase, fraction: progress(record.name, phase, fraction),
        )
        match settings.task:
            case Task.KNOWN:
                result = _known(subject, result)
            case Task.UNKNOWN:
                result = _unknown(subject, result)
            case Task.COMPLETE:
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
    """Fit to all samples that were prepared, with what the engine would fit a whole mesh with."""
    samples, settings = subject.samples, subject.settings
    result = replace(result, points=samples.points[samples.distances < 0])
    [fit] = fit_codes(
        subject.engine.model(subject.model),
        [observe_samples(samples.points, samples.distances, samples.surface)],
        solid_settings(settings.quality, settings.seed),
        progress=lambda fraction: subject.progress(Phase.FITTING, fraction),
    )
    code = fit.code.float().cpu().numpy()
    shape = subject.engine.shape_of(subject.model, code, fit.pose, subject.task_settings, subject.progress)
    seconds = _seconds({Phase.FITTING: fit.seconds} | shape.seconds)
    outcome = replace(result.outcome, residual=fit.residual, explained=fit.explained, seconds=seconds)
    return replace(result, shape=shape, outcome=outcome)


def _observed(subject: _Subject, result: Result) -> Result:
    """Look at the truth from a random direction, and measure what a user who completes nothing has."""
    truth, rng = subject.truth, subject.rng
    [direction] = view_directions(1, rng)
    points = scan(truth.vertices, truth.faces, direction, CameraSettings(), rng).points
    surface, _ = sample_surface(truth.vertices, truth.faces, CHAMFER_POINTS, rng)
    return replace(result, points=points, outcome=replace(result.outcome, scan=chamfer(points, surface)))


def _completed(subject: _Subject, result: Result) -> Result:
    """Complete the bare points: neither normals nor the sensor's place, which users seldom have."""
    assert result.points is not None
    geometry = Geometry(result.points, np.zeros((0, 3), dtype=np.int64))
    [shape] = subject.engine.complete(subject.model, [Source(geometry)], subject.task_settings, subject.progress)
    outcome = replace(
        result.outcome,
        residual=shape.residual,
        explained=shape.explained,
        seconds=_seconds(shape.seconds),
    )
    return replace(result, shape=shape, outcome=outcome)


def _scored(subject: _Subject, result: Result) -> Result:
    assert result.shape is not None
    scores = compare(result.shape, subject.truth, subject.rng, subject.samples.scale)
    return replace(result, outcome=replace(result.outcome, scores=scores))


def _seconds(phases: dict[str, float]) -> dict[str, float]:
    return {str(phase): seconds for phase, seconds in phases.items()}


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Mean and median of every measure over the shapes that have it."""
    scored = [outcome for outcome in outcomes if outcome.scores]
    columns: dict[str, list[float]] = {}
    for outcome in scored:
        for name, value in outcome.measures().items():
            columns.setdefault(name, []).append(value)
    has_scans = any(outcome.scan is not None for outcome in scored)
    return Summary(
        count=len(outcomes),
        failed=len(outcomes) - len(scored),
        nearer_than_scan=sum(outcome.nearer for outcome in scored) if has_scans else None,
        mean={name: float(np.mean(values)) for name, values in columns.items()},
        median={name: float(np.median(values)) for name, values in columns.items()},
    )


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
        with replacing(folder / f"{self.settings.task}.json") as temporary:
            temporary.write_text(json.dumps(self.content(), indent=1))


def record_accuracy(path: Path, report: Report) -> None:
    """Keep the summary in the model's own file, one entry a task; weights and codes stay as they are.

    Times are left out: they belong to the computer, and the same evaluation should leave the same file.
    Raises `InputError` where the file cannot be read or written.
    """
    # Read anew: the engine's copy may be on a GPU, and the file may have changed since.
    model = load_model(path, "cpu")
    settings, summary = report.settings, asdict(report.summary)
    for measures in (summary["mean"], summary["median"]):
        measures.pop("seconds", None)
    entry = {
        "resolution": settings.resolution,
        "views": view_count(settings),
        "quality": str(settings.quality),
        "seed": settings.seed,
        **summary,
    }
    card = replace(model.card, accuracy={**model.card.accuracy, str(settings.task): entry})
    save_model(path, replace(model, card=card))


@dataclass
class ContactSheet:
    """Input, result and truth of every shape, drawn as they come so that no mesh need be kept."""

    task: Task
    images: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Draw one result; what it lacks is left blank."""
        for label, image in pictures_of(result, self.task):
            self.labels.append(label)
            self.images.append(image)

    def save(self, path: Path) -> None:
        """Write the sheet, six pictures wide: two or three shapes a row."""
        contact_sheet(self.images, self.labels, 6, path)


def pictures_of(result: Result, task: Task) -> list[tuple[str, Pixels]]:
    """Labelled pictures, all at one framing: what the shape was made from (but for `known`), the shape, the truth."""
    outcome, truth, shape, points = result.outcome, result.truth, result.shape, result.points
    clouds = [mesh.vertices for mesh in (shape, truth) if mesh is not None] + ([] if points is None else [points])
    bounds = shared_bounds(*clouds) if clouds else None
    pictures = []
    if task is not Task.KNOWN:
        picture = _blank() if points is None else render_points(points, PICTURE_SIZE, bounds=bounds)
        pictures.append((f"{outcome.title}\n{_input_label(outcome, task)}", picture))
    made = _blank() if shape is None else _render(shape.vertices, shape.faces, bounds, shape.observed)
    pictures.append((_score_label(outcome, alone=task is Task.KNOWN), made))
    pictures.append(("truth", _blank() if truth is None else _render(*_two_sided(truth), bounds, None)))
    labels, images = zip(*pictures, strict=True)
    return list(zip(labels, _cropped(images), strict=True))


def _input_label(outcome: Outcome, task: Task) -> str:
    if task is Task.UNKNOWN:
        return "samples inside"
    return "scan" if outcome.scan is None else f"scan, Chamfer {CHAMFER_FACTOR * outcome.scan:.2f}"


def _score_label(outcome: Outcome, alone: bool) -> str:
    title = f"{outcome.title}\n" if alone else ""
    if outcome.scores is None:
        return f"{title}failed: {outcome.reason}"
    return f"{title}result, Chamfer {CHAMFER_FACTOR * outcome.scores.chamfer:.2f}"


def _render(vertices: np.ndarray, faces: np.ndarray, bounds: np.ndarray | None, observed: np.ndarray | None) -> Pixels:
    return render_mesh(vertices, faces, PICTURE_SIZE, bounds=bounds, vertex_colors=observed)


def _two_sided(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """The mesh for a picture: smooth, since corners in one place are made one, and nowhere seen from behind.

    A source mesh holds sheets, as of a turning propeller, that are fine to look at from both sides.
    """
    vertices, corners = np.unique(mesh.vertices.round(6), axis=0, return_inverse=True)
    faces = corners.reshape(-1)[mesh.faces]
    # The second side has vertices of its own, or the normals of the two would cancel.
    return np.concatenate([vertices, vertices]), np.concatenate([faces, faces[:, ::-1] + len(vertices)])


def _cropped(images: Sequence[Pixels]) -> list[Pixels]:
    """All images without the margins that all of them leave empty: a box seen from its corner leaves wide ones."""
    drawn = np.any([(image != np.array(BACKGROUND)).any(axis=2) for image in images], axis=0)
    if not drawn.any():
        return list(images)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return [image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for image in images]


def _blank() -> Pixels:
    width, height = PICTURE_SIZE
    return np.tile(np.array(BACKGROUND, dtype=np.uint8), (height, width, 1))
