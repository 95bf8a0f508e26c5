"""Evaluations of spheres with known radii, against a model of spheres."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from sdf_backend import engine as engine_module
from sdf_backend.engine import Engine, Shape
from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, load_model, save_model
from sdf_backend.settings import Quality
from training.cli import app
from training.dataset import Dataset, ShapeRecord, save_samples
from training.evaluation import evaluate as module
from training.evaluation.baselines import Baseline
from training.evaluation.evaluate import evaluate_shapes, pose_errors
from training.evaluation.metrics import ShapeScores
from training.evaluation.outcomes import ShapeOutcome
from training.evaluation.perturbations import random_upright_pose, sample_ground_plane
from training.evaluation.report import Report, record_entry
from training.evaluation.result_sheet import ResultSheet, render_result
from training.evaluation.selection import select_records
from training.evaluation.summary import summarise
from training.evaluation.tasks import PROTOCOL, Damage, EvaluationSettings, Task
from training.sampling import ShapeSamples, quantise
from training.triangle_mesh import Mesh

CENTRE, ORIGINAL_RADIUS = np.array([1.0, 2.0, 3.0]), 4.0
TEST_RADII = {"small": 0.45, "middle": 0.5, "large": 0.56}
SETTINGS = EvaluationSettings(Task.COMPLETE, resolution=32, quality=Quality.PREVIEW)
QUICK = ["--resolution", "32", "--quality", "preview"]
runner = CliRunner()


def sphere_samples(radius: float) -> ShapeSamples:
    """Samples as `prepare` writes them, of the source sphere scaled to `radius`."""
    rng = np.random.default_rng(0)
    points = quantise(rng.uniform(-0.7, 0.7, (4000, 3)))
    normals = rng.normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return ShapeSamples(
        points.astype(np.float32),
        (np.linalg.norm(points, axis=1) - radius).astype(np.float32),
        (radius * normals).astype(np.float32),
        normals.astype(np.float32),
        radius / ORIGINAL_RADIUS,
        -CENTRE,
        0,
    )


@pytest.fixture
def dataset(spheres: Model, tmp_path: Path) -> Dataset:
    """Three training shapes of the model, a deformed copy, and three test shapes; all have the same source mesh."""
    source = tmp_path / "source.obj"
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=ORIGINAL_RADIUS)
    sphere.apply_translation(CENTRE)
    sphere.export(source)
    trained = {f"sphere{index}": 0.5 + 0.1 * float(spheres.codes[index, 0]) for index in range(3)}
    records = [ShapeRecord(name, "train", mesh=str(source)) for name in trained]
    records.append(ShapeRecord("sphere0~1", "train", copy_of="sphere0", mesh=str(source)))
    records += [ShapeRecord(name, "test", mesh=str(source)) for name in TEST_RADII]
    folder = tmp_path / "dataset"
    made = Dataset(folder, "spheres", "-z", {"up": "+y", "front": "-z"}, records)
    made.save()
    for name, radius in (trained | TEST_RADII | {"sphere0~1": 0.5}).items():
        save_samples(made.path(name), sphere_samples(radius))
    return made


def outcomes(model: str, dataset: Dataset, settings: EvaluationSettings) -> list[ShapeOutcome]:
    return [result.outcome for result in evaluate_shapes(Engine(device="cpu"), model, dataset, settings)]


def scores(chamfer: float) -> ShapeScores:
    return ShapeScores(chamfer, 2 * chamfer, 0.1, 0.01, 0.9, 0.8, chamfer)


def test_known_shapes_are_decoded_from_their_own_codes(model: str, dataset: Dataset) -> None:
    found = outcomes(model, dataset, replace(SETTINGS, task=Task.KNOWN, resolution=64))
    assert [outcome.name for outcome in found] == ["sphere0", "sphere1", "sphere2"]  # without the deformed copy
    for outcome in found:
        assert outcome.scores and outcome.scores.chamfer < 2e-3 and outcome.scores.cosine > 0.95
        assert (outcome.residual, outcome.explained, outcome.scan) == (None, None, None)
        assert list(outcome.seconds) == ["extracting"]


def test_the_code_of_another_shape_scores_worse(model: str, dataset: Dataset, spheres: Model) -> None:
    order = spheres.codes[:3, 0].argsort().tolist()
    shapes = list(spheres.card.shapes)
    shapes[order[0]], shapes[order[2]] = shapes[order[2]], shapes[order[0]]
    right = summarise(outcomes(model, dataset, replace(SETTINGS, task=Task.KNOWN)))
    save_model(Path(model), replace(spheres, card=replace(spheres.card, shapes=shapes)))
    wrong = summarise(outcomes(model, dataset, replace(SETTINGS, task=Task.KNOWN)))
    assert wrong.mean["chamfer"] > 2 * right.mean["chamfer"]


def test_unknown_shapes_are_fitted_to_their_samples(model: str, dataset: Dataset) -> None:
    results = list(evaluate_shapes(Engine(device="cpu"), model, dataset, replace(SETTINGS, task=Task.UNKNOWN)))
    for result, radius in zip(results, TEST_RADII.values(), strict=True):
        outcome, shape = result.outcome, result.shape
        assert shape is not None and outcome.scores is not None
        assert np.linalg.norm(shape.vertices, axis=1).mean() == pytest.approx(radius, abs=0.02)
        scale = radius / ORIGINAL_RADIUS
        assert outcome.scores.chamfer_original == pytest.approx(outcome.scores.chamfer / scale**2)
        assert outcome.residual is not None and outcome.residual < 0.02
        assert set(outcome.seconds) == {"fitting", "refining", "extracting"}
        assert result.points is not None and np.linalg.norm(result.points, axis=1).max() < radius + 1e-4


def test_detached_components_are_removed_from_fitted_but_not_from_decoded_shapes(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_shape = engine_module.extract_shape

    def with_floater(*arguments: Any) -> Shape:
        shape = extract_shape(*arguments)
        floater = trimesh.creation.icosphere(subdivisions=1, radius=0.02)
        faces = np.concatenate([shape.faces, np.array(floater.faces) + len(shape.vertices)])
        return replace(shape, vertices=np.concatenate([shape.vertices, floater.vertices + [0, 0, 0.9]]), faces=faces)

    monkeypatch.setattr(engine_module, "extract_shape", with_floater)
    for task, kept in ((Task.UNKNOWN, False), (Task.KNOWN, True)):
        [result] = evaluate_shapes(Engine(device="cpu"), model, dataset, replace(SETTINGS, task=task, shapes=1))
        assert result.shape and bool(result.shape.vertices[:, 2].max() > 0.85) is kept


def test_completions_are_nearer_to_the_ground_truth_than_their_scans(model: str, dataset: Dataset) -> None:
    results = list(evaluate_shapes(Engine(device="cpu"), model, dataset, SETTINGS))
    assert all(result.outcome.beats_scan for result in results)
    assert summarise([result.outcome for result in results]).nearer_than_scan == 3
    for result, radius in zip(results, TEST_RADII.values(), strict=True):
        points = result.points
        assert points is not None and result.shape is not None and result.shape.observed is not None
        assert np.abs(np.linalg.norm(points, axis=1) - radius).mean() < 0.01
        # A scan covers less than half of a sphere.
        direction = points.mean(axis=0) / np.linalg.norm(points.mean(axis=0))
        assert (points @ direction > 0).mean() > 0.99


def test_the_scores_of_a_shape_depend_on_the_seed_alone(model: str, dataset: Dataset) -> None:
    def measured(settings: EvaluationSettings) -> dict[tuple[str, int], tuple[ShapeScores | None, float | None]]:
        return {(row.name, row.variant.view): (row.scores, row.scan) for row in outcomes(model, dataset, settings)}

    everything = measured(replace(SETTINGS, views=2))
    assert len(everything) == 6 and len({scan for _, scan in everything.values()}) == 6
    assert measured(replace(SETTINGS, shapes=2)) == {
        key: value for key, value in everything.items() if key in {("small", 0), ("large", 0)}
    }
    assert measured(replace(SETTINGS, shapes=1, seed=1))["small", 0] != everything["small", 0]


def test_a_failed_shape_is_an_outcome_with_its_reason(model: str, dataset: Dataset, tmp_path: Path) -> None:
    dataset.path("middle").write_bytes(b"not a dataset")
    results = list(evaluate_shapes(Engine(device="cpu"), model, dataset, SETTINGS))
    found = {result.outcome.name: result.outcome for result in results}
    assert found["middle"].scores is None and "damaged" in found["middle"].reason
    assert found["small"].scores and found["large"].scores
    summary = summarise(list(found.values()))
    assert (summary.count, summary.failed, summary.nearer_than_scan) == (3, 1, 2)
    sheet = ResultSheet(Task.COMPLETE)
    for result in results:
        sheet.add(result)
    sheet.save(tmp_path / "sheet.png")
    assert len(sheet.images) == 9 and (tmp_path / "sheet.png").stat().st_size > 0


def test_a_failed_completion_keeps_its_scan_and_ground_truth(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.Engine, "complete", lambda *_: (_ for _ in ()).throw(InputError("no surface")))
    [result] = evaluate_shapes(Engine(device="cpu"), model, dataset, replace(SETTINGS, shapes=1))
    assert result.outcome.reason == "no surface" and result.outcome.scores is None
    assert result.outcome.scan is not None and result.truth is not None and result.points is not None
    labels = [label for label, _ in render_result(result, Task.COMPLETE)]
    assert labels[0].startswith("small\nscan") and labels[1:] == ["failed: no surface", "ground truth"]


def test_the_images_of_a_result_share_their_framing(model: str, dataset: Dataset) -> None:
    for task, count in ((Task.KNOWN, 2), (Task.UNKNOWN, 3), (Task.COMPLETE, 3)):
        [result] = evaluate_shapes(Engine(device="cpu"), model, dataset, replace(SETTINGS, task=task, shapes=1))
        pictures = render_result(result, task)
        assert len(pictures) == count and len({image.shape for _, image in pictures}) == 1
        assert sum("Chamfer" in label for label, _ in pictures) == (2 if task is Task.COMPLETE else 1)


def test_a_model_and_a_dataset_that_do_not_match_are_rejected(spheres: Model, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"front axis of the model is -z.*\+x"):
        select_records(spheres, replace(dataset, front="+x"), Task.COMPLETE)
    with pytest.raises(InputError, match="trained on no shape"):
        others = [replace(record, name=f"other{index}") for index, record in enumerate(dataset.records)]
        for record in others:
            save_samples(dataset.path(record.name), sphere_samples(0.5))
        select_records(spheres, replace(dataset, records=others), Task.KNOWN)
    with pytest.raises(InputError, match=r"1 of the 3 test shapes.*middle"):
        select_records(replace(spheres, card=replace(spheres.card, shapes=["middle"])), dataset, Task.COMPLETE)
    with pytest.raises(InputError, match=r"1 of 3 source meshes are missing, the first is /nowhere\.obj"):
        records = [replace(r, mesh="/nowhere.obj") if r.name == "large" else r for r in dataset.records]
        select_records(spheres, replace(dataset, records=records), Task.COMPLETE)


def test_recording_the_accuracy_changes_the_model_card_alone(model: str, tmp_path: Path) -> None:
    before = load_model(Path(model))
    rows = [ShapeOutcome("a", scores=scores(1.0), scan=2.0, seconds={"fitting": 3.0})]
    for task in (Task.COMPLETE, Task.KNOWN):
        record_entry(Path(model), task, Report("m", "d", replace(SETTINGS, task=task), rows).to_entry())
    after = load_model(Path(model))
    assert set(after.card.accuracy) == {"complete", "known"}
    entry = after.card.accuracy["complete"]
    assert (entry["count"], entry["failed"], entry["resolution"], entry["nearer_than_scan"]) == (1, 0, 32, 1)
    assert entry["mean"]["chamfer"] == 1.0 and "seconds" not in entry["mean"]
    assert replace(after.card, accuracy={}) == before.card
    weights = after.decoder.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in before.decoder.state_dict().items())
    assert torch.equal(before.codes, after.codes)
    assert torch.equal(before.mean, after.mean) and torch.equal(before.covariance, after.covariance)


def test_the_command_prints_json_alone_and_writes_the_report(model: str, dataset: Dataset, tmp_path: Path) -> None:
    report = tmp_path / "report"
    arguments = ["evaluate", model, str(dataset.folder), "--json", "--record", "-o", str(report), *QUICK]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads((report / "complete.json").read_text())
    assert [row["name"] for row in printed["outcomes"]] == list(TEST_RADII)
    assert printed["summary"]["failed"] == 0 and printed["task"] == "complete" and printed["quality"] == "preview"
    assert math.isfinite(printed["summary"]["median"]["emd"])
    assert (report / "complete.png").read_bytes()[:4] == b"\x89PNG"
    assert not [path for path in report.iterdir() if path.name.startswith(".")]
    assert load_model(Path(model)).card.accuracy["complete"]["count"] == 3


def test_the_command_prints_a_row_per_shape(model: str, dataset: Dataset) -> None:
    dataset.path("middle").write_bytes(b"not a dataset")
    done = runner.invoke(app, ["evaluate", model, str(dataset.folder), *QUICK])
    assert done.exit_code == 0, done.output
    for text in ("small", "large", "mean", "median", "failed middle:", "2 of 3 measured, 1 failed"):
        assert text in done.stdout
    assert load_model(Path(model)).card.accuracy == {}


def test_the_command_reports_errors_in_one_line(model: str, dataset: Dataset, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(model).read_bytes()[:1000])
    folder = str(dataset.folder)
    cases = [
        (["nosuch.safetensors", folder], "nosuch.safetensors does not exist"),
        (["nosuch", folder], "unknown model"),
        ([str(damaged), folder], "damaged"),
        ([model, str(tmp_path)], "run prepare"),
        ([model, folder, "-o", model], "is a file; choose another folder"),
        ([model, folder, "--device", "abacus"], "unknown device"),
    ]
    for arguments, reason in cases:
        done = runner.invoke(app, ["evaluate", *arguments, *QUICK])
        assert done.exit_code == 1 and not done.stdout, done.output
        assert done.stderr.startswith("error: ") and reason in done.stderr and done.stderr.count("\n") == 1
    Path(dataset.records[0].mesh).unlink()
    done = runner.invoke(app, ["evaluate", model, folder, *QUICK])
    assert done.exit_code == 1 and "3 of 3 source meshes are missing" in done.stderr


def test_the_command_fails_and_records_nothing_if_all_shapes_fail(model: str, dataset: Dataset, tmp_path: Path) -> None:
    for name in TEST_RADII:
        dataset.path(name).write_bytes(b"not a dataset")
    report = tmp_path / "report"
    done = runner.invoke(app, ["evaluate", model, str(dataset.folder), "--record", "-o", str(report), *QUICK])
    assert done.exit_code == 1 and "all 3 shapes failed" in done.stderr
    assert json.loads((report / "complete.json").read_text())["summary"]["failed"] == 3
    assert load_model(Path(model)).card.accuracy == {}


def test_wrong_usage_is_rejected() -> None:
    assert runner.invoke(app, ["evaluate", "model", "dataset", "--task", "guess"]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [("resolution", "8", "16 to 1024"), ("shapes", "0", "1 or more"), ("seed", "-1", "0 to 9223372036854775807")],
)
def test_a_number_out_of_bounds_is_an_error_of_one_line(name: str, value: str, range_: str) -> None:
    done = runner.invoke(app, ["evaluate", "model", "dataset", f"--{name}", value])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"error: {name} is {value}; use {range_}\n")


def test_the_nearest_training_shape_is_reported(model: str, dataset: Dataset) -> None:
    for task in (Task.UNKNOWN, Task.COMPLETE):
        for found in outcomes(model, dataset, replace(SETTINGS, task=task)):
            radius = TEST_RADII[found.name]
            names = [record.name for record in dataset.split("train")]
            radii = {name: np.linalg.norm(dataset.load(name).surface[0]) for name in names}
            least = min(abs(one - radius) for one in radii.values())
            assert found.nearest and found.reference is None
            assert abs(radii[found.nearest.name] - radius) == pytest.approx(least, abs=2e-3)
            # Twice the squared difference of the radii, and the distance between 500 samples.
            assert 2 * least**2 < found.nearest.chamfer < 2 * least**2 + 5e-3


def test_a_damaged_training_shape_is_an_error_of_the_evaluation_rather_than_of_every_test_shape(
    model: str, dataset: Dataset
) -> None:
    dataset.path("sphere1").write_bytes(b"no samples")
    with pytest.raises(InputError, match="sphere1"):
        outcomes(model, dataset, SETTINGS)


def test_the_reference_is_run_where_it_is_requested(model: str, dataset: Dataset) -> None:
    for task in (Task.UNKNOWN, Task.COMPLETE):
        [first, *_] = outcomes(model, dataset, replace(SETTINGS, task=task, shapes=1, reference=True))
        assert first.reference and first.scores
        # On spheres it is accurate too, but slower.
        assert 0 < first.reference.chamfer < 5e-3 and first.reference.exact < first.reference.chamfer
        assert first.reference.seconds > sum(first.seconds.values())


def test_completions_of_noisier_scans_are_worse_but_beat_their_scans(model: str, dataset: Dataset) -> None:
    found = outcomes(model, dataset, replace(SETTINGS, task=Task.NOISE, shapes=1))
    assert [outcome.variant.label for outcome in found] == [f"noise {noise:g}" for noise in PROTOCOL.noise_levels]
    assert found[0].scores and found[-1].scores and found[0].scan and found[-1].scan
    assert found[0].scores.chamfer < found[-1].scores.chamfer
    assert all(outcome.beats_scan for outcome in found)
    summary = summarise(found)
    assert list(summary.variants) == [outcome.variant.label for outcome in found]
    assert summary.variants["noise 0.05"]["chamfer"] == pytest.approx(found[-1].scores.chamfer)


def test_a_ground_plane_hardly_changes_the_result(model: str, dataset: Dataset) -> None:
    [clean], [grounded] = (
        outcomes(model, dataset, replace(SETTINGS, task=task, shapes=1)) for task in (Task.COMPLETE, Task.OUTLIERS)
    )
    assert clean.scores and grounded.scores and clean.scan == grounded.scan
    assert grounded.scores.chamfer < 1.2 * clean.scores.chamfer + 1e-4


def test_a_random_pose_is_estimated_and_scored(model: str, dataset: Dataset) -> None:
    found = outcomes(model, dataset, replace(SETTINGS, task=Task.POSE))
    for outcome in found:
        # All rotations of a sphere are correct; its scale need not be.
        assert outcome.turn is not None and outcome.turn <= 8
        assert outcome.size == pytest.approx(1, abs=0.2) and outcome.seen and 0.2 < outcome.seen < 1
        assert outcome.scores


@pytest.mark.parametrize(
    ("rotation", "scale", "correct"), [(3, 1.04, True), (12, 1.0, False), (183, 1, False), (2, 1.12, False)]
)
def test_a_pose_is_correct_within_ten_degrees_and_ten_percent(rotation: float, scale: float, correct: bool) -> None:
    """An airplane without rotational symmetry, moved by a pose and found with an error of rotation and scale."""
    nose, wing = trimesh.creation.box([1, 0.2, 0.2]), trimesh.creation.box([0.2, 0.1, 1.2])
    truth = trimesh.util.concatenate([nose, wing.apply_translation([0.3, 0, 0])])
    true_pose = Similarity(7.0, Rotation.from_rotvec([0, 0.9, 0]).as_matrix(), np.array([3.0, -5, 2]))
    error = Rotation.from_rotvec([0, np.radians(rotation), 0]).as_matrix()
    pose = true_pose.compose(Similarity(scale, error, np.array([0.01, 0, 0])))
    shape = Shape("planes", np.array(truth.vertices), np.array(truth.faces), np.zeros(3), pose, confidence=0.3)
    found = pose_errors(true_pose, shape, Mesh(np.array(truth.vertices), np.array(truth.faces)))
    assert found["turn"] == pytest.approx(min(rotation, 360 - rotation), abs=0.01)
    assert found["size"] == pytest.approx(scale) and found["right"] is correct and found["confidence"] == 0.3


def test_every_seed_has_another_random_pose(model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = []

    def recorded(rng: np.random.Generator) -> Similarity:
        poses.append(random_upright_pose(rng))
        return poses[-1]

    monkeypatch.setattr(module, "random_upright_pose", recorded)
    outcomes(model, dataset, replace(SETTINGS, task=Task.POSE, shapes=1, seeds=3))
    assert len({pose.scale for pose in poses}) == 3


def test_the_ground_plane_lies_under_the_object_rather_than_under_the_scan(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights = []

    def recorded(points: np.ndarray, height: float, rng: np.random.Generator) -> np.ndarray:
        heights.append((points[:, 1].min(), height))
        return sample_ground_plane(points, height, rng)

    monkeypatch.setattr(module, "sample_ground_plane", recorded)
    outcomes(model, dataset, replace(SETTINGS, task=Task.OUTLIERS, views=4))
    lowest = dict(zip(TEST_RADII.values(), [[], [], []], strict=True))
    for (scanned, height), radius in zip(heights, np.repeat(list(TEST_RADII.values()), 4), strict=True):
        assert height == pytest.approx(-radius, abs=0.01)
        lowest[radius].append(scanned - height)
    # Scans from above do not contain the lowest point of a sphere.
    assert max(map(max, lowest.values())) > 0.05


def test_seeds_are_scans_of_one_view_with_different_noise(model: str, dataset: Dataset) -> None:
    found = outcomes(model, dataset, replace(SETTINGS, task=Task.COMPLETE, shapes=1, seeds=3))
    assert [outcome.variant.label for outcome in found] == ["seed 0", "seed 1", "seed 2"]
    scans = [outcome.scan for outcome in found]
    assert len(set(scans)) == 3 and max(scans) < 1.02 * min(scans)
    deviation = summarise(found).seed_deviation
    assert deviation is not None and 0 < deviation < 0.5


@pytest.mark.parametrize("task", [Task.KNOWN, Task.UNKNOWN, Task.NOISE])
def test_several_seeds_are_rejected_for_tasks_without_depth_noise(model: str, dataset: Dataset, task: Task) -> None:
    with pytest.raises(InputError, match="3 seeds"):
        outcomes(model, dataset, replace(SETTINGS, task=task, seeds=3))


def test_a_failed_reference_does_not_fail_the_shape(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run_reference", lambda *_: (_ for _ in ()).throw(InputError("no surface")))
    [found] = outcomes(model, dataset, replace(SETTINGS, shapes=1, reference=True))
    assert found.scores and found.reference is None and not found.reason


def test_the_table_leaves_the_cells_of_a_failed_reference_empty(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Baseline(4e-3, 1.0, exact=3e-3)]

    def once(*_: object) -> Baseline:
        if not found:
            raise InputError("no surface")
        return found.pop()

    monkeypatch.setattr(module, "run_reference", once)
    done = runner.invoke(app, ["evaluate", model, str(dataset.folder), "--reference", "--shapes", "2", *QUICK])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("4.000") == 5  # its own row, mean, median and both ends of the interval


def test_the_report_of_an_interrupted_run_keeps_its_outcomes(
    model: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: ResultSheet, result: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultSheet, "add", interrupt)
    runner.invoke(app, ["evaluate", model, str(dataset.folder), "-o", str(tmp_path / "report"), *QUICK])
    assert len(json.loads((tmp_path / "report" / "complete.json").read_text())["outcomes"]) == 1


@pytest.mark.parametrize("task", [Task.INTERPOLATE, Task.SAMPLE])
def test_tasks_of_several_shapes_have_modules_of_their_own(model: str, dataset: Dataset, task: Task) -> None:
    with pytest.raises(InputError, match=f"the task {task} does not score shapes one by one"):
        outcomes(model, dataset, replace(SETTINGS, task=task))


def test_a_dataset_without_training_shapes_has_no_nearest_one(model: str, dataset: Dataset) -> None:
    without = replace(dataset, records=[record for record in dataset.records if record.split == "test"])
    [found] = outcomes(model, without, replace(SETTINGS, shapes=1))
    assert found.scores and found.nearest is None and found.snapped is None


def test_scans_are_scored_beside_the_snapped_training_shape_and_without_the_truth(model: str, dataset: Dataset) -> None:
    names = {record.name for record in dataset.split("train")}
    for task in (Task.COMPLETE, Task.OUTLIERS):
        [found] = outcomes(model, dataset, replace(SETTINGS, task=task, shapes=1))
        # A sphere scaled to the box of half a sphere is too flat, but nearer to the truth than the half alone.
        assert found.snapped and found.snapped.name in names and found.scan
        assert found.snapped.chamfer < found.scan
        # Distances from the scan, whose noise is 0.003; the points of the ground plane do not count.
        assert found.ucd is not None and found.uhd is not None
        assert 0 < found.ucd < 0.02 and found.ucd < found.uhd < 0.08
        measures = found.measures()
        assert (measures["snapped"], measures["ucd"], measures["uhd"]) == (
            found.snapped.chamfer,
            found.ucd,
            found.uhd,
        )


def test_whole_shapes_have_no_scores_of_a_scan(model: str, dataset: Dataset) -> None:
    [found] = outcomes(model, dataset, replace(SETTINGS, task=Task.UNKNOWN, shapes=1))
    assert found.scores and (found.snapped, found.ucd, found.uhd) == (None, None, None)


def larger(spheres: Model, tmp_path: Path) -> str:
    """A model file whose spheres are all larger than any test shape: no code comes near them."""
    path = tmp_path / "older.safetensors"
    save_model(path, replace(spheres, codes=spheres.codes + 3))
    return str(path)


@pytest.mark.parametrize("task", [Task.COMPLETE, Task.UNKNOWN, Task.POSE])
def test_another_model_is_measured_on_the_same_input(
    spheres: Model, model: str, dataset: Dataset, tmp_path: Path, task: Task
) -> None:
    settings = replace(SETTINGS, task=task, shapes=1, refine=0.0)
    [alone] = outcomes(model, dataset, settings)
    [same] = outcomes(model, dataset, replace(settings, before=model))
    [worse] = outcomes(model, dataset, replace(settings, before=larger(spheres, tmp_path)))
    for found in (same, worse):
        assert found.scores == alone.scores and found.before and found.scores  # the comparison changes nothing
    assert same.before and same.scores and worse.before
    assert same.before.chamfer == pytest.approx(same.scores.chamfer, rel=0.05)  # by other surface samples
    if task is Task.POSE:  # where the size is free, larger balls explain the input as well
        assert worse.before.chamfer != same.before.chamfer
    else:
        assert worse.before.chamfer > 2 * same.before.chamfer


def test_the_card_keeps_no_figures_of_another_model(model: str, dataset: Dataset) -> None:
    arguments = ["evaluate", model, str(dataset.folder), "--before", model, "--record", "--shapes", "1", *QUICK]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0 and "before" in done.stdout, done.output
    entry = load_model(Path(model)).card.accuracy["complete"]
    assert "before" not in entry["mean"] and "chamfer" in entry["mean"]


def test_another_model_must_not_know_the_test_shapes_either(
    spheres: Model, model: str, dataset: Dataset, tmp_path: Path
) -> None:
    leaky = tmp_path / "leaky.safetensors"
    save_model(leaky, replace(spheres, card=replace(spheres.card, shapes=["middle", *spheres.card.shapes[1:]])))
    with pytest.raises(InputError, match=r"1 of the 3 test shapes.*middle"):
        outcomes(model, dataset, replace(SETTINGS, before=str(leaky)))
    with pytest.raises(InputError, match="known cannot compare models"):
        outcomes(model, dataset, replace(SETTINGS, task=Task.KNOWN, before=model))


def test_another_model_that_fails_does_not_fail_the_shape(
    model: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, other = Engine.complete, tmp_path / "other.safetensors"
    other.write_bytes(Path(model).read_bytes())

    def fails_for_other(self: Engine, name: str, *arguments: Any) -> list[Shape]:
        if name == str(other):
            raise InputError("no surface")
        return complete(self, name, *arguments)

    monkeypatch.setattr(Engine, "complete", fails_for_other)
    [found] = outcomes(model, dataset, replace(SETTINGS, shapes=1, before=str(other)))
    assert found.scores and found.before is None and not found.reason


def test_broken_meshes_are_completed_and_their_missing_part_is_scored(model: str, dataset: Dataset) -> None:
    settings = replace(SETTINGS, task=Task.BROKEN, shapes=1)
    results = list(evaluate_shapes(Engine(device="cpu"), model, dataset, settings))
    assert [result.outcome.variant.label for result in results] == [str(damage) for damage in Damage]
    for result in results:
        outcome, broken = result.outcome, result.broken
        assert outcome.scores and broken is not None and outcome.snapped and outcome.nearest
        assert len(broken.faces) and outcome.seen is not None and 0.4 < outcome.seen < 0.95
        assert outcome.cut is not None and outcome.extent is not None and outcome.ucd is not None
        assert outcome.whole is (outcome.extent <= PROTOCOL.extent_tolerance) and outcome.turn is None
        assert len(render_result(result, Task.BROKEN)) == 3
    assert set(summarise([result.outcome for result in results]).variants) == {str(damage) for damage in Damage}
    # Half a sphere at a known pose leaves no doubt about the other half.
    half = results[0].outcome
    assert half.scores and half.scan and half.scores.chamfer < 0.1 * half.scan and half.whole


def test_the_report_of_broken_meshes_is_written(model: str, dataset: Dataset, tmp_path: Path) -> None:
    options = ["--task", "broken-pose", "--shapes", "1", "-o", str(tmp_path), *QUICK]
    done = runner.invoke(app, ["evaluate", model, str(dataset.folder), *options])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "broken-pose.json").read_text())["outcomes"]
    assert len(rows) == len(Damage) and {type(row["whole"]) for row in rows} == {bool}


def test_broken_meshes_at_an_unknown_pose_are_scored_where_they_stood(model: str, dataset: Dataset) -> None:
    found = next(evaluate_shapes(Engine(device="cpu"), model, dataset, replace(SETTINGS, task=Task.BROKEN_POSE)))
    assert found.outcome.turn is not None and found.outcome.size is not None and found.outcome.cut is not None
    assert found.shape and np.abs(found.shape.vertices).max() < 1


def test_a_broken_shape_differs_between_views_and_not_between_runs(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.Engine, "complete", lambda *_: (_ for _ in ()).throw(InputError("no surface")))
    settings = replace(SETTINGS, task=Task.BROKEN, shapes=1, views=2)
    first, again = outcomes(model, dataset, settings), outcomes(model, dataset, settings)
    assert [row.scan for row in first] == [row.scan for row in again]
    assert len({row.scan for row in first}) == 2 * len(Damage)
