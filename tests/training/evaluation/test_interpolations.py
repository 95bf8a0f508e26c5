"""Ways between shapes."""

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
from training.evaluation.interpolations import PairOutcome, evaluate_interpolations, hausdorff
from training.evaluation.metrics import Mesh
from training.sampling import ShapeSamples


def test_the_hausdorff_distance_is_the_farthest_of_either_side() -> None:
    ball, other = (trimesh.creation.icosphere(subdivisions=level, radius=0.5) for level in (4, 5))
    horn = trimesh.creation.box([0.1, 0.1, 0.4])
    horn.apply_translation([0, 0, 0.6])  # from 0.4 to 0.8
    horned = trimesh.util.concatenate([ball, horn])
    small, large, spiked = (Mesh(np.array(one.vertices), np.array(one.faces)) for one in (ball, other, horned))
    # Both are the same ball, with other vertices.
    assert hausdorff(small, large) < 0.002
    far = np.hypot(0.8, np.hypot(0.05, 0.05)) - 0.5
    assert hausdorff(small, spiked) == hausdorff(spiked, small) == pytest.approx(far, abs=2e-3)


def test_a_jump_is_the_largest_step_over_the_median() -> None:
    assert PairOutcome("a", "b", 64, 64, 0.06, 0.02).ratio == pytest.approx(3)
    assert PairOutcome("a", "a", 64, 64, 0.0, 0.0).ratio == float("inf")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two test shapes, balls of their own."""
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


def test_the_way_between_two_balls_is_closed_and_even(models_folder: Path, dataset: Dataset) -> None:
    engine = Engine(ModelStore(models_folder), device="cpu")
    [pair] = evaluate_interpolations(engine, "spheres", dataset, 64, Quality.PREVIEW)
    assert (pair.first, pair.last, pair.steps, pair.closed, pair.reason) == ("small", "large", 64, 64, "")
    # Between a coarse mesh's vertices its faces cut a ball, by about as much as a step is long at 32 cells.
    assert 0.05 < 63 * pair.median < 0.2 and pair.ratio < 3


def test_a_way_that_is_none_is_a_row_with_its_reason(
    models_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "interpolate_codes", lambda *_, **__: (_ for _ in ()).throw(InputError("no surface")))
    engine = Engine(ModelStore(models_folder), device="cpu")
    [pair] = evaluate_interpolations(engine, "spheres", dataset, 32, Quality.PREVIEW)
    assert (pair.reason, pair.steps) == ("no surface", 0)


def test_one_shape_has_no_way_to_another(models_folder: Path, dataset: Dataset) -> None:
    dataset.path("small").unlink()
    with pytest.raises(InputError, match="fewer than two"):
        list(evaluate_interpolations(Engine(ModelStore(models_folder)), "spheres", dataset, 32, Quality.PREVIEW))


@pytest.mark.parametrize("option", [["--seed", "3"], ["--refine", "0.5"], ["--views", "2"], ["--reference"]])
def test_what_makes_no_difference_to_ways_is_refused(models_folder: Path, dataset: Dataset, option: list[str]) -> None:
    model = str(models_folder / "spheres.safetensors")
    done = CliRunner().invoke(app, ["evaluate", model, str(dataset.folder), "--task", "interpolate", *option])
    assert done.exit_code == 1 and "interpolate takes none of" in done.stderr and option[0] in done.stderr


def test_where_no_pair_has_a_way_it_has_failed(
    models_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Engine, "interpolate_codes", lambda *_, **__: (_ for _ in ()).throw(InputError("no surface")))
    model, output = str(models_folder / "spheres.safetensors"), tmp_path / "report"
    options = ["--task", "interpolate", "--resolution", "32", "--quality", "preview", "-o", str(output)]
    done = CliRunner().invoke(app, ["evaluate", model, str(dataset.folder), *options])
    assert done.exit_code == 1 and "all 1 pairs failed; the first reason: no surface" in done.stderr
    assert (output / "interpolate.json").exists()
