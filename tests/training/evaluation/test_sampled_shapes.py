"""The task `sample` with models whose samples are known: copies of training shapes, and nothing like any reference."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner, Result

from sdf_backend.engine import Engine, Shape
from sdf_backend.errors import InputError
from sdf_backend.geometry.isosurface import EmptySurfaceError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, load_model
from sdf_backend.settings import TaskSettings
from training.cli import app
from training.dataset import Dataset, ShapeRecord, save_samples
from training.evaluation.evaluate import evaluate_shapes
from training.evaluation.generative import GenerativeScores
from training.evaluation.metrics import sample_surface
from training.evaluation.sampled_shapes import GENERATIVE, Comparison, References, compare_collections, draw_shapes
from training.evaluation.selection import select_references
from training.evaluation.tasks import EvaluationSettings, Task
from training.sampling import ShapeSamples

TRAIN = {f"sphere{index}": (0.2, 0.2, 0.2 + 0.15 * index) for index in range(4)}
TEST = {f"test{index}": (0.9, 0.1, 0.2 + 0.15 * index) for index in range(3)}
SETTINGS = EvaluationSettings(Task.SAMPLE, resolution=16)


def box(sides: tuple[float, ...]) -> trimesh.Trimesh:
    return trimesh.creation.box(sides)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Boxes: columns to train on, planks as the test split, and a deformed copy."""
    records = [ShapeRecord(name, "train", mesh=str(tmp_path / f"{name}.obj")) for name in TRAIN]
    records.append(ShapeRecord("sphere0~1", "train", copy_of="sphere0"))
    records += [ShapeRecord(name, "test", mesh=str(tmp_path / f"{name}.obj")) for name in TEST]
    made = Dataset(tmp_path / "dataset", "boxes", "-z", {"up": "+y", "front": "-z"}, records)
    made.save()
    for name, sides in (TRAIN | TEST | {"sphere0~1": TRAIN["sphere0"]}).items():
        box(sides).export(tmp_path / f"{name}.obj")
        # As many points as are compared, so that the same points are drawn for a shape and its copy.
        surface, normals = sample_surface(
            box(sides).vertices, box(sides).faces, GENERATIVE.points, np.random.default_rng(0)
        )
        surface, normals = surface.astype(np.float32), normals.astype(np.float32)
        save_samples(made.path(name), ShapeSamples(surface, surface[:, 0], surface, normals, 1.0, np.zeros(3), 0))
    return made


def sample_boxes(monkeypatch: pytest.MonkeyPatch, boxes: list[tuple[float, ...]], empty: tuple[int, ...] = ()) -> None:
    """Let `Engine.sample` return boxes, one a seed; seeds in `empty` have no surface."""

    def sample(self: Engine, model: str, count: int, settings: TaskSettings) -> list[Shape]:
        assert (count, settings.resolution) == (1, SETTINGS.resolution)
        if settings.seed in empty:
            raise EmptySurfaceError("there is no surface")
        mesh = box(boxes[settings.seed % len(boxes)])
        return [Shape(model, np.array(mesh.vertices), np.array(mesh.faces), np.zeros(3), Similarity.identity())]

    monkeypatch.setattr(Engine, "sample", sample)


def compared(samples: list[np.ndarray], dataset: Dataset, spheres: Model) -> dict[Comparison, GenerativeScores]:
    references = References.of(spheres, dataset)
    return {pair: scores for pair, _, scores in compare_collections(samples, references, SETTINGS)}


def evaluate(model: str, dataset: Dataset, *more: str) -> Result:
    arguments = ["evaluate", model, str(dataset.folder), "--task", "sample", "--resolution", "16", *more]
    return CliRunner().invoke(app, arguments)


def test_the_training_shapes_themselves_are_seen_as_copies(dataset: Dataset, spheres: Model) -> None:
    copies = list(References.of(spheres, dataset).train.values())
    scores = compared(copies, dataset, spheres)[Comparison.TRAIN]
    assert (scores.chamfer.mmd, scores.chamfer.coverage, scores.chamfer.one_nna) == (0.0, 1.0, 0.0)
    assert scores.jsd == pytest.approx(0, abs=1e-9)
    # The evenly spread points start elsewhere, so that these are small and not zero.
    assert (scores.emd.coverage, scores.emd.one_nna) == (1.0, 0.0) and scores.emd.mmd < 0.05


def test_a_model_that_copies_is_far_from_the_test_split_and_near_to_the_training_split(
    dataset: Dataset, spheres: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_boxes(monkeypatch, list(TRAIN.values()))
    references = References.of(spheres, dataset)
    samples = list(draw_shapes(Engine(device="cpu"), "boxes", references, SETTINGS))
    assert [sample.nearest.name for sample in samples] == list(TRAIN)  # as many as the larger split, without copies
    assert max(sample.nearest.chamfer for sample in samples) < 1e-3
    found = {pair: (sizes, scores) for pair, sizes, scores in compare_collections(
        [sample.points for sample in samples], references, SETTINGS
    )}  # fmt: skip
    assert {pair: sizes for pair, (sizes, _) in found.items()} == {
        Comparison.TEST: (3, 3),
        Comparison.TRAIN_TEST: (3, 3),
        Comparison.TRAIN: (4, 4),
    }
    train, test = found[Comparison.TRAIN][1], found[Comparison.TEST][1]
    for copied, distinct in ((train.chamfer, test.chamfer), (train.emd, test.emd)):
        assert (copied.coverage, copied.one_nna) == (1.0, 0.0)
        assert distinct.one_nna == 1.0 and distinct.mmd > 3 * copied.mmd
    assert train.jsd < 0.2 < test.jsd


def test_training_shapes_against_the_test_split_are_the_same_whatever_is_sampled(
    dataset: Dataset, spheres: Model
) -> None:
    references = References.of(spheres, dataset)
    one, other = (compared(list(side.values()), dataset, spheres) for side in (references.train, references.test))
    assert one[Comparison.TRAIN_TEST] == other[Comparison.TRAIN_TEST]
    assert one[Comparison.TRAIN] != other[Comparison.TRAIN]


def test_a_draw_without_a_surface_is_counted_and_replaced(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_boxes(monkeypatch, list(TRAIN.values()), empty=(1, 2))
    done = evaluate(model, dataset, "--json")
    report = json.loads(done.stdout)
    assert [sample["seed"] for sample in report["samples"]] == [0, 3, 4, 5] and report["empty"] == 2


def test_a_model_without_surfaces_is_an_error_of_one_line(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_boxes(monkeypatch, list(TRAIN.values()), empty=tuple(range(10)))
    done = evaluate(model, dataset)
    assert done.exit_code == 1 and not done.stdout and done.stderr.count("\n") == 1
    assert "4 of 4 drawn codes have no surface (there is no surface); train the model for longer" in done.stderr


def test_the_command_writes_json_page_and_pictures_and_records_the_figures(
    model: str, dataset: Dataset, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    done = evaluate(model, dataset, "--samples", "2", "--json", "--record", "-o", str(output))
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads((output / "sample.json").read_text())
    assert [row["seed"] for row in printed["samples"]] == [0, 1]
    assert {pair: (row["samples"], row["references"]) for pair, row in printed["comparisons"].items()} == {
        "test": (2, 3),
        "train": (2, 4),
        "train_test": (3, 3),
    }
    assert (output / "sample.png").read_bytes()[:4] == b"\x89PNG"
    assert "training shapes, test split (3, 3)" in (output / "sample.html").read_text()
    entry = load_model(Path(model)).card.accuracy["sample"]
    assert entry["comparisons"] == printed["comparisons"] and "samples" not in entry


def test_the_command_prints_a_row_per_comparison_and_says_that_small_splits_are_coarse(
    model: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_boxes(monkeypatch, list(TRAIN.values()))
    done = evaluate(model, dataset)
    assert done.exit_code == 0, done.output
    for text in ("samples, test split (3, 3)", "samples, training split (4, 4)", "1-NNA-EMD", "lower is better"):
        assert text in done.stdout
    assert "against the test split are coarse: with 3 shapes one of them is 33% of COV" in done.stdout


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--samples", "0"], "samples is 0; use 2 or more"),
        (["--views", "2"], "the task sample does not use --views; leave it out"),
        (["--task", "complete", "--samples", "9"], "the task complete does not use --samples; leave it out"),
    ],
)
def test_options_that_do_not_fit_are_errors_of_one_line(
    model: str, dataset: Dataset, more: list[str], reason: str
) -> None:
    done = evaluate(model, dataset, *more)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"error: {reason}\n")


def test_a_dataset_without_a_test_split_and_a_model_of_another_category_are_refused(
    dataset: Dataset, spheres: Model
) -> None:
    with pytest.raises(InputError, match="no prepared shape of the split 'test'"):
        select_references(spheres, replace(dataset, records=dataset.records[:5]))
    with pytest.raises(InputError, match=r"the split 'test' of .* has 1 shape"):
        select_references(spheres, replace(dataset, records=dataset.records[:6]))
    with pytest.raises(InputError, match="was trained on no shape"):
        select_references(replace(spheres, card=replace(spheres.card, shapes=["another"])), dataset)


def test_a_missing_training_mesh_is_refused_before_anything_is_drawn(dataset: Dataset, spheres: Model) -> None:
    Path(dataset.records[1].mesh).unlink()
    with pytest.raises(InputError, match="1 of 4 source meshes are missing"):
        select_references(spheres, dataset)


def test_the_task_is_not_evaluated_shape_by_shape(model: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match="sample does not score shapes one by one"):
        next(evaluate_shapes(Engine(device="cpu"), model, dataset, SETTINGS))
