"""The models that ship have the properties that the documentation claims."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sdf_backend.engine import Engine, Source
from sdf_backend.fitting.fit import FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import solid_settings, surface_settings
from sdf_backend.geometry.mesh_files import read_geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import STARTER_MODELS, ModelStore, load_model, read_card
from sdf_backend.observation.observations import observe_points, observe_samples
from sdf_backend.settings import Pose, Quality, TaskSettings
from training.evaluation.metrics import chamfer_distance, sample_surface
from training.ship import ShipLimits

DEMO = Path(__file__).parents[3] / "demo"
NAMES = sorted(path.stem for path in STARTER_MODELS.glob("*.safetensors"))


def test_the_airplane_model_ships() -> None:
    assert "airplanes" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_starter_model_is_small_and_names_its_sources(name: str) -> None:
    path = ModelStore().find(name)
    card = read_card(path)
    assert path.stat().st_size <= ShipLimits.file_bytes
    assert card.name == name and len(card.shapes) >= 50
    assert all(source["licence"] not in ("", "unknown") and source["creator"] for source in card.sources)
    assert {"unknown", "complete"} <= set(card.accuracy)
    assert path.with_suffix(".md").is_file()


def test_the_starter_models_together_are_small() -> None:
    assert sum(ModelStore().find(name).stat().st_size for name in NAMES) <= ShipLimits.total_bytes


@pytest.mark.parametrize("name", NAMES)
def test_the_codes_of_a_starter_model_have_a_proper_covariance(name: str) -> None:
    model = load_model(ModelStore().find(name))
    assert np.linalg.eigvalsh(model.covariance.numpy()).min() > 0
    assert float(model.codes.norm(dim=1).max()) <= 1.001


def test_completing_the_demonstration_scan_brings_it_nearer_to_the_truth() -> None:
    scan, truth = read_geometry(DEMO / "scan.ply"), read_geometry(DEMO / "truth.ply")
    settings = TaskSettings(resolution=128, pose=Pose.KNOWN, quality=Quality.PREVIEW)
    [shape] = Engine(device="cpu").complete("airplanes", [Source(scan)], settings)
    rng = np.random.default_rng(0)
    true_points, _ = sample_surface(truth.vertices, truth.faces, 10_000, rng)
    made_points, _ = sample_surface(shape.vertices, shape.faces, 10_000, rng)
    assert chamfer_distance(made_points, true_points) < 0.25 * chamfer_distance(scan.vertices, true_points)
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0


def test_multi_start_finds_a_table_that_a_fit_from_the_mean_code_misses() -> None:
    """Observed from one side; from the mean of the training codes the fit converges to another table."""
    model = load_model(ModelStore().find("tables"))
    code = model.codes[592:593].numpy()
    [table] = Engine(device="cpu").decode("tables", code, [Similarity.identity()], TaskSettings(resolution=64))
    triangles = table.vertices[table.faces]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    seen = observe_points(triangles[normals @ [1, 0.6, 1] > 0].mean(axis=1))
    settings = replace(surface_settings(Quality.STANDARD), assessed=False)
    [astray], [found] = (
        fit_codes(model, [FitRequest(seen)], one) for one in (replace(settings, restart=None), settings)
    )
    assert found.cost < 0.5 * astray.cost
    away = [float(np.linalg.norm(fit.code.numpy() - code[0])) for fit in (astray, found)]
    assert away[1] < 0.8 * away[0]


def test_multi_start_finds_a_whole_table_that_a_fit_from_the_mean_code_misses() -> None:
    """From the mean of the training codes the fit of this training shape converges to a wrong shape."""
    model = load_model(ModelStore().find("tables"))
    code = model.codes[79:80]
    [table] = Engine(device="cpu").decode("tables", code.numpy(), [Similarity.identity()], TaskSettings(resolution=64))
    rng = np.random.default_rng(0)
    near = table.vertices[rng.integers(0, len(table.vertices), 8_000)]
    points = near + rng.normal(size=near.shape) * np.resize([0.07, 0.022], (len(near), 1))
    distances = model.folded(torch.float32).distances(code, torch.from_numpy(points).float()[None])[0].numpy()
    seen, settings = observe_samples(points, distances, table.vertices), solid_settings(Quality.PREVIEW)
    [astray], [found] = (
        fit_codes(model, [FitRequest(seen)], one) for one in (replace(settings, restart=None), settings)
    )
    assert astray.explained < 0.1
    assert found.explained > 0.95 and found.cost < 0.1 * astray.cost
