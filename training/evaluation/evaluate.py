"""Evaluates a model on a dataset: scores of its shapes against the ground truth.

    settings = EvaluationSettings(Task.COMPLETE)
    results = evaluate_shapes(Engine(), "airplanes", Dataset.open(folder), settings)
    report = Report("airplanes", str(folder), settings, [result.outcome for result in results])

The tasks are those of `tasks.Task`; `interpolate` is in `interpolation.py`, `sample` in `sampled_shapes.py`. The ground
truth is the visible surface of the source mesh in the canonical frame. A shape that fails yields an outcome with the
reason.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.engine import Engine, Shape, Source
from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.observation.observations import Observations, observe_points, observe_samples
from sdf_backend.progress import Clock, Progress
from sdf_backend.settings import Pose, TaskSettings
from training.dataset import Dataset, ShapeRecord
from training.evaluation.baselines import (
    Baseline,
    NearestTrainingShapes,
    reference_observations,
    run_reference,
)
from training.evaluation.breaking import Region, draw_region, extent_error, regional_chamfer, remove_region
from training.evaluation.metrics import METRICS, chamfer_distance, sample_surface, score_shape
from training.evaluation.outcomes import ShapeOutcome, ShapeResult
from training.evaluation.perturbations import random_upright_pose, sample_ground_plane, symmetry_angles
from training.evaluation.scan_baseline import unidirectional_scores
from training.evaluation.scanning import CameraSettings, sample_view_directions, simulate_scan
from training.evaluation.selection import select_records
from training.evaluation.tasks import PROTOCOL, EvaluationSettings, Task, Variant, list_variants
from training.sampling import ShapeSamples
from training.triangle_mesh import Mesh

# Receives the name of the shape, the phase of the engine, and the share of the phase that is done.
ShapeProgress = Callable[[str, str, float], None]


def _silent(name: str, phase: str, fraction: float) -> None:
    """Ignore all progress."""


@dataclass(frozen=True)
class _Case:
    """One variant of one shape: the model under test, its input data and its random numbers.

    read_source : reads the mesh as its author made it
    view_rng : equal for all seeds of a view; for the view direction and the surface samples of the metrics
    seed_rng : of this seed alone; for the depth noise, the ground plane and the pose
    """

    engine: Engine
    model: str
    settings: EvaluationSettings
    samples: ShapeSamples
    truth: Mesh
    read_source: Callable[[], Mesh]
    variant: Variant
    nearest: NearestTrainingShapes
    view_rng: np.random.Generator
    seed_rng: np.random.Generator
    progress: Progress

    @property
    def task_settings(self) -> TaskSettings:
        """Settings of the engine: samples and scans are canonical, so the pose is known unless the task moves them."""
        settings = self.settings
        known = TaskSettings(
            settings.resolution, Pose.KNOWN, quality=settings.quality, seed=settings.seed, refine=settings.refine
        )
        if not settings.task.moves:
            return known
        front = self.engine.model(self.model).card.front
        return replace(known, pose=Pose.UPRIGHT, up="+y", front=front)


def evaluate_shapes(
    engine: Engine,
    model: str,
    dataset: Dataset,
    settings: EvaluationSettings = EvaluationSettings(),
    progress: ShapeProgress = _silent,
) -> Iterator[ShapeResult]:
    """Evaluate a model on one shape after the other.

    Parameters
    ----------
    model : name or file
    progress : called as `progress(name, phase, fraction)` for every step

    Raises
    ------
    InputError : the task is `interpolate` or `sample`, a model and the dataset do not belong together (see
        `select_records`), several seeds are requested for a task whose results do not depend on the seed, or another
        model for `known`
    """
    if not settings.task.scores_shapes:
        raise InputError(f"the task {settings.task} does not score shapes one by one; it has a module of its own")
    if settings.seeds > 1 and (not settings.task.scans or settings.task is Task.NOISE):
        raise InputError(
            f"{settings.seeds} seeds: seeds vary the depth noise of a scan, and the task {settings.task} has no such "
            "noise; use 1"
        )
    if settings.before:
        if settings.task is Task.KNOWN:
            raise InputError(f"the task {settings.task} cannot compare models: the other one has codes of its own")
        select_records(engine.model(settings.before), dataset, settings.task)
    records = select_records(engine.model(model), dataset, settings.task, settings.shapes)
    nearest = NearestTrainingShapes({}) if settings.task is Task.KNOWN else NearestTrainingShapes.from_dataset(dataset)
    for record in records:
        for variant in list_variants(settings):
            yield _evaluate_variant(engine, model, dataset, record, variant, nearest, settings, progress)


def _evaluate_variant(
    engine: Engine,
    model: str,
    dataset: Dataset,
    record: ShapeRecord,
    variant: Variant,
    nearest: NearestTrainingShapes,
    settings: EvaluationSettings,
    progress: ShapeProgress,
) -> ShapeResult:
    """Evaluate one variant of one shape; an `InputError` on the way becomes the reason of its outcome."""
    result = ShapeResult(ShapeOutcome(record.name, variant))
    try:
        samples = dataset.load(record.name)
        truth = Mesh(*dataset.read_mesh(record, samples))
        result = replace(result, truth=truth)
        # Seeded by the name: the scan of a shape must not depend on which other shapes are evaluated.
        view_rng = np.random.default_rng((settings.seed, zlib.crc32(record.name.encode()), variant.view))
        seed_rng = [view_rng, *view_rng.spawn(variant.seed)][-1]
        case = _Case(
            engine,
            model,
            settings,
            samples,
            truth,
            lambda: Mesh(*dataset.read_source(record, samples)),
            variant,
            nearest,
            view_rng,
            seed_rng,
            lambda phase, fraction: progress(record.name, phase, fraction),
        )
        match settings.task:
            case Task.KNOWN:
                result = _decode_known(case, result)
            case Task.UNKNOWN:
                result = _fit_samples(case, result)
            case task:
                # In two steps, so that a failed completion keeps its input.
                result = _break(case, result) if task.breaks else _scan(case, result)
                result = _complete(case, result)
        return _score(case, result)
    except InputError as error:
        return replace(result, outcome=replace(result.outcome, reason=str(error)))


def _decode_known(case: _Case, result: ShapeResult) -> ShapeResult:
    """Decode a training shape from its own latent code."""
    model = case.engine.model(case.model)
    code = model.codes[model.card.shapes.index(result.outcome.name)].cpu().numpy()
    shape = case.engine.shape_of(case.model, code, Similarity.identity(), case.task_settings, case.progress)
    return replace(result, shape=shape, outcome=replace(result.outcome, seconds=_seconds(shape.seconds)))


def _fit_samples(case: _Case, result: ShapeResult) -> ShapeResult:
    """Fit a code to all prepared samples of a shape and extract its mesh, as the engine does for a whole mesh."""
    samples, settings = case.samples, case.task_settings
    result = replace(result, points=samples.points[samples.distances < 0])
    observed = observe_samples(samples.points, samples.distances, samples.surface)

    def fit(model: str) -> Shape:
        clock = Clock()
        [encoding] = case.engine.fit(model, [observed], settings, case.progress, clock=clock)
        shape = case.engine.extract(model, encoding, settings, case.progress)
        found = {"residual": encoding.residual, "explained": encoding.explained}
        return replace(shape, seconds=clock.seconds | shape.seconds, **found)

    shape = fit(case.model)
    outcome = _fitted(result.outcome, shape)
    baselines = _baselines(case, result.outcome.name, lambda: observed)
    return replace(result, shape=shape, outcome=replace(outcome, before=_before(case, fit), **baselines))


def _scan(case: _Case, result: ShapeResult) -> ShapeResult:
    """Scan the ground truth from a random direction, and score the bare scan and the baselines."""
    truth, rng = case.truth, case.view_rng
    [direction] = sample_view_directions(1, rng)
    camera = CameraSettings(noise=case.variant.noise)
    scan = simulate_scan(truth.vertices, truth.faces, direction, camera, case.seed_rng)
    surface, _ = sample_surface(truth.vertices, truth.faces, METRICS.chamfer_points, rng)
    to_scan, _ = KDTree(scan.points).query(surface)  # (chamfer_points,)
    outcome = replace(
        result.outcome,
        scan=chamfer_distance(scan.points, surface),
        snapped=case.nearest.snap(scan.points, surface),
        seen=float((to_scan < PROTOCOL.observed_distance).mean()),
        **_baselines(
            case, result.outcome.name, lambda: reference_observations(scan.points, scan.sensor, case.settings.seed)
        ),
    )
    points = scan.points
    if case.settings.task is Task.OUTLIERS:
        points = np.concatenate([points, sample_ground_plane(points, truth.vertices[:, 1].min(), case.seed_rng)])
    return replace(result, points=points, scan=scan.points, outcome=outcome)


def _break(case: _Case, result: ShapeResult) -> ShapeResult:
    """Cut a part of the source mesh away, and score what is left and the baselines."""
    truth, rng = case.truth, case.view_rng
    assert case.variant.damage is not None
    region = draw_region(case.variant.damage, truth, rng)
    broken = remove_region(case.read_source(), region)
    points, normals = sample_surface(broken.vertices, broken.faces, METRICS.chamfer_points, rng)
    surface, _ = sample_surface(truth.vertices, truth.faces, METRICS.chamfer_points, rng)
    few = slice(PROTOCOL.scan_points)
    outcome = replace(
        result.outcome,
        scan=chamfer_distance(points, surface),
        snapped=case.nearest.snap(points[few], surface),
        seen=float((~region.contains(surface)).mean()),
        **_baselines(case, result.outcome.name, lambda: observe_points(points[few], normals[few])),
    )
    return replace(result, points=points[few], scan=points[few], broken=broken, region=region, outcome=outcome)


def _baselines(case: _Case, name: str, observe: Callable[[], Observations]) -> dict[str, Baseline | None]:
    """The nearest training shape and, where requested, the reference fitted to the given observations.

    A reference that fails is left out: it must not fail the shape.
    """
    truth, _ = sample_surface(case.truth.vertices, case.truth.faces, METRICS.chamfer_points, np.random.default_rng(0))
    found: dict[str, Baseline | None] = {"nearest": case.nearest.find(name, truth)}
    if case.settings.reference:
        settings, rng = case.task_settings, np.random.default_rng(1)
        with suppress(InputError):
            found["reference"] = run_reference(case.engine, case.model, observe(), case.truth, truth, settings, rng)
    return found


def _complete(case: _Case, result: ShapeResult) -> ShapeResult:
    """Complete the broken mesh, or bare points without normals and sensor position, which users seldom have."""
    assert result.points is not None
    moved = case.settings.task.moves
    pose = random_upright_pose(case.seed_rng) if moved else Similarity.identity()
    cloud = Mesh(result.points, np.zeros((0, 3), dtype=np.int64))
    given = result.broken or cloud
    source = Source(Geometry(pose.apply(given.vertices), given.faces))

    def complete(model: str) -> Shape:
        [shape] = case.engine.complete(model, [source], case.task_settings, case.progress)
        return replace(shape, vertices=pose.inverse().apply(shape.vertices))

    shape = complete(case.model)
    errors = pose_errors(pose, shape, case.truth) if moved else {}
    assert result.scan is not None
    ucd, uhd = unidirectional_scores(result.scan, shape)
    outcome = replace(_fitted(result.outcome, shape), ucd=ucd, uhd=uhd, before=_before(case, complete), **errors)
    return replace(result, shape=shape, outcome=outcome)


def _fitted(outcome: ShapeOutcome, shape: Shape) -> ShapeOutcome:
    """The outcome with what the engine says of its fit."""
    seconds = _seconds(shape.seconds)
    return replace(outcome, residual=shape.residual, explained=shape.explained, seconds=seconds)


def _before(case: _Case, reconstruct: Callable[[str], Shape]) -> Baseline | None:
    """Score the other model on the same input; None where there is none, or where it fails.

    reconstruct : makes the canonical mesh with the model of a name.
    """
    if not case.settings.before:
        return None
    with suppress(InputError):
        shape, rng = reconstruct(case.settings.before), np.random.default_rng(0)
        points, _ = sample_surface(shape.vertices, shape.faces, METRICS.chamfer_points, rng)
        truth, _ = sample_surface(case.truth.vertices, case.truth.faces, METRICS.chamfer_points, rng)
        return Baseline(chamfer_distance(points, truth), sum(shape.seconds.values()))
    return None


def pose_errors(true_pose: Similarity, shape: Shape, truth: Mesh) -> dict[str, float]:
    """The fields `turn`, `size`, `right` and `confidence` of the outcome of an estimated upright pose."""
    error = true_pose.inverse().compose(shape.pose)
    angle = float(np.degrees(np.arctan2(error.rotation[0, 2], error.rotation[0, 0])))
    rotation_error = min(abs((angle - symmetry + 180) % 360 - 180) for symmetry in symmetry_angles(truth))
    correct = rotation_error <= PROTOCOL.rotation_tolerance and abs(error.scale - 1) <= PROTOCOL.scale_tolerance
    return {"turn": rotation_error, "size": error.scale, "right": correct, "confidence": shape.confidence}


def _score(case: _Case, result: ShapeResult) -> ShapeResult:
    assert result.shape is not None
    scores = score_shape(result.shape, case.truth, case.view_rng, case.samples.scale)
    outcome = replace(result.outcome, scores=scores)
    if result.region is not None:
        outcome = replace(outcome, **_break_scores(case, result.shape, result.region))
    return replace(result, outcome=outcome)


def _break_scores(case: _Case, shape: Shape, region: Region) -> dict[str, float]:
    """The fields `cut`, `extent` and `whole` of the outcome of a broken mesh."""
    points, _ = sample_surface(shape.vertices, shape.faces, METRICS.chamfer_points, case.view_rng)
    surface, _ = sample_surface(case.truth.vertices, case.truth.faces, METRICS.chamfer_points, case.view_rng)
    extent = extent_error(shape.vertices, case.truth.vertices)
    whole = extent <= PROTOCOL.extent_tolerance
    return {"cut": regional_chamfer(points, surface, region), "extent": extent, "whole": whole}


def _seconds(phases: dict[str, float]) -> dict[str, float]:
    return {str(phase): seconds for phase, seconds in phases.items()}
