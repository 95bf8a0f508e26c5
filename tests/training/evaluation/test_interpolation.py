"""Interpolations between test shapes, against a model of spheres."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from sdf_backend.engine import Engine
from sdf_backend.errors import InputError
from sdf_backend.model.store import ModelStore
from sdf_backend.settings import Quality
from training.cli import app
from training.dataset import Dataset, ShapeRecord, save_samples
from training.evaluation.interpolation import InterpolationSettings, PairOutcome, evaluate_interpolations
from training.sampling import ShapeSamples


def test_the_ratio_is_the_largest_step_over_the_median() -> None:
    assert PairOutcome("a", "b", 64, 64, 0.06, 0.02).ratio == pytest.approx(3)
    assert PairOutcome("a", "a", 64, 64, 0.0, 0.0).ratio == float("inf")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two test shapes: spheres of different radii."""
    records = []
    for name, radius in (("small", 0.45), ("large", 0.55)):
        trimesh.creation.icosphere(subdivisions=3, radius=radius).export(tmp_path / f"{name}.obj")
        records.append(ShapeRecord(name, "test", mesh=str(tmp_path / f"{name}.obj")))
    made = Dataset(tmp_path / "dataset", "spheres", "-z", {"up": "+y", "front": "-z"}, records)
    made.save()
    rng = np.random.default_rng(0)
    for record in records:
        points = rng.uniform(-0.7, 0.7, (500, 3)).astype(np.float32)
        samples = ShapeSamples(points, points[:, 0], points, points, 1.0, np.zeros(3), 0)
        save_samples(made.path(record.name), samples)
    return made


def test_an_interpolation_between_spheres_is_closed_with_even_steps(models_folder: Path, dataset: Dataset) -> None:
    engine = Engine(ModelStore(models_folder), device="cpu")
    [pair] = evaluate_interpolations(engine, "spheres", dataset, InterpolationSettings(64, Quality.PREVIEW))
    assert (pair.first, pair.last, pair.steps, pair.closed, pair.reason) == ("small", "large", 64, 64, "")
    # The faces of a coarse mesh lie inside the sphere, at 32 cells by about the length of a step.
    assert 0.05 < 63 * pair.median < 0.2 and pair.ratio < 3


def test_a_failed_interpolation_is_an_outcome_with_its_reason(
    models_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "interpolate_codes", lambda *_, **__: (_ for _ in ()).throw(InputError("no surface")))
    engine = Engine(ModelStore(models_folder), device="cpu")
    [pair] = evaluate_interpolations(engine, "spheres", dataset, InterpolationSettings(32, Quality.PREVIEW))
    assert (pair.reason, pair.steps) == ("no surface", 0)


def test_a_single_test_shape_is_rejected(models_folder: Path, dataset: Dataset) -> None:
    dataset.path("small").unlink()
    with pytest.raises(InputError, match="at least two"):
        list(
            evaluate_interpolations(
                Engine(ModelStore(models_folder)), "spheres", dataset, InterpolationSettings(32, Quality.PREVIEW)
            )
        )


@pytest.mark.parametrize("option", [["--seed", "3"], ["--refine", "0.5"], ["--views", "2"], ["--reference"]])
def test_options_that_interpolate_does_not_use_are_rejected(
    models_folder: Path, dataset: Dataset, option: list[str]
) -> None:
    model = str(models_folder / "spheres.safetensors")
    done = CliRunner().invoke(app, ["evaluate", model, str(dataset.folder), "--task", "interpolate", *option])
    assert done.exit_code == 1 and "interpolate does not use" in done.stderr and option[0] in done.stderr


def test_the_command_fails_where_all_pairs_fail(
    models_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Engine, "interpolate_codes", lambda *_, **__: (_ for _ in ()).throw(InputError("no surface")))
    model, output = str(models_folder / "spheres.safetensors"), tmp_path / "report"
    options = ["--task", "interpolate", "--resolution", "32", "--quality", "preview", "-o", str(output)]
    done = CliRunner().invoke(app, ["evaluate", model, str(dataset.folder), *options])
    assert done.exit_code == 1 and "all 1 pairs failed; the first reason: no surface" in done.stderr
    assert (output / "interpolate.json").exists()
