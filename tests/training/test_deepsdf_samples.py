"""Samples of the released DeepSDF code become a dataset: of a ball, whose distances are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from training.catalog import Layout, list_meshes
from training.cli import app
from training.dataset import Dataset
from training.deepsdf_samples import read_deepsdf_samples
from training.prepare import PrepareSettings, prepare_dataset
from training.sampling import SampleSettings

SETTINGS = SampleSettings(count=20_000, surface_count=500)
SYNSET = "03001627"
# Ball of radius 2 about CENTRE, normalised to RADIUS.
CENTRE, RADIUS = np.array([1.0, 2.0, 3.0]), 0.9
SCALE, OFFSET = RADIUS / 2, -CENTRE


def write_shape(data: Path, name: str, synset: str = SYNSET, with_surface: bool = True) -> Path:
    """The files of one ball, as the released preprocessing writes them."""
    rng = np.random.default_rng(len(name))
    points = rng.uniform(-1, 1, (20_000, 3))
    rows = np.c_[points, np.linalg.norm(points, axis=1) - RADIUS].astype(np.float32)
    rows[7] = np.nan
    path = data / "SdfSamples" / "ShapeNetV2" / synset / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, pos=rows[~(rows[:, 3] < 0)], neg=rows[rows[:, 3] < 0])
    if with_surface:
        normals = rng.normal(size=(800, 3))
        surface = CENTRE + 2 * normals / np.linalg.norm(normals, axis=1, keepdims=True)
        for kind in ("SurfaceSamples", "NormalizationParameters"):
            (data / kind / "ShapeNetV2" / synset).mkdir(parents=True, exist_ok=True)
        trimesh.PointCloud(surface).export(data / "SurfaceSamples" / "ShapeNetV2" / synset / f"{name}.ply")
        np.savez(
            data / "NormalizationParameters" / "ShapeNetV2" / synset / f"{name}.npz",
            offset=OFFSET.astype(np.float32),
            scale=np.float32(SCALE),
        )
    return path


@pytest.mark.parametrize("with_surface", [True, False])
def test_samples_surface_and_normals_are_those_of_the_ball(tmp_path: Path, with_surface: bool) -> None:
    path = write_shape(tmp_path, "ball", with_surface=with_surface)
    samples = read_deepsdf_samples(path, SETTINGS, np.random.default_rng(0))
    assert len(samples.points) == 19_999  # all but the one that is not a number
    assert np.abs(np.linalg.norm(samples.points, axis=1) - RADIUS - samples.distances).max() < 1e-4
    assert len(samples.surface) == 500
    lengths = np.linalg.norm(samples.surface, axis=1)
    assert np.abs(lengths - RADIUS).max() < (1e-5 if with_surface else 5e-3)
    outwards = np.einsum("ij,ij->i", samples.normals, samples.surface / lengths[:, None])
    assert outwards.min() > 0.98
    expected = (SCALE, OFFSET.tolist()) if with_surface else (1.0, [0.0, 0.0, 0.0])
    assert (samples.scale, samples.offset.tolist()) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_a_dataset_is_prepared_from_samples_alone_and_absent_shapes_of_its_split_are_listed(tmp_path: Path) -> None:
    for name in ("a1", "b2", "c3"):
        write_shape(tmp_path / "data", name)
    split = tmp_path / "train.json"
    split.write_text(json.dumps({"ShapeNetV2": {SYNSET: ["b2", "gone", "a1", "lost"]}}))
    arguments = ["prepare", str(tmp_path / "data"), "-o", str(tmp_path / "set"), "--layout", "deepsdf"]
    options = ["--category", SYNSET, "--split", str(split), "--samples", "5000", "--jobs", "1", "--json"]
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, done.stderr
    assert done.stderr == "absent: 2 shapes of the splits: gone, lost\n"
    assert [row["name"] for row in json.loads(done.stdout)] == ["a1", "b2"]
    dataset = Dataset.open(tmp_path / "set")
    assert [(record.name, record.mesh) for record in dataset.split("train")] == [("a1", ""), ("b2", "")]
    assert len(dataset.load("a1").points) == 5_000
    assert (tmp_path / "set" / "contact_sheet.png").exists()


def test_up_and_front_rotate_samples_and_surface(tmp_path: Path) -> None:
    write_shape(tmp_path / "data", "ball")
    settings = PrepareSettings("balls", up="+z", front="-y", sampling=SETTINGS)
    prepare_dataset(list_meshes(tmp_path / "data", Layout.DEEPSDF), tmp_path / "set", settings, jobs=1)
    samples = Dataset.open(tmp_path / "set").load("ball")
    # z up and -y ahead become y up and +z ahead: (x, y, z) -> (x, z, -y).
    assert samples.offset.tolist() == pytest.approx([OFFSET[0], OFFSET[2], -OFFSET[1]])
    assert np.abs(np.linalg.norm(samples.points, axis=1) - RADIUS - samples.distances).max() < 1e-4
    assert np.einsum("ij,ij->i", samples.normals, samples.surface).min() > 0.98 * RADIUS


def one_sided(path: Path) -> None:
    np.savez(path, pos=np.ones((500, 4), np.float32), neg=np.zeros((0, 4), np.float32))


def without_negatives(path: Path) -> None:
    np.savez(path, pos=np.ones((500, 4), np.float32))


def flat(path: Path) -> None:
    np.savez(path, pos=np.ones(500, np.float32), neg=np.ones((5, 4), np.float32))


def pickled(path: Path) -> None:
    np.savez(path, pos=np.array([print], dtype=object), neg=np.ones((5, 4), np.float32))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (one_sided, "0 of its 500 samples are inside; training needs both sides"),
        (without_negatives, "is damaged .*neg"),
        (flat, r"pos has the shape \(500,\); it must be \(n, 4\)"),
        (pickled, "is damaged"),
        (lambda path: path.write_bytes(b"PK"), "is damaged"),
    ],
)
def test_a_shape_that_cannot_be_used_is_rejected_with_its_reason(tmp_path: Path, damage, said: str) -> None:
    write_shape(tmp_path / "data", "good")
    damage(write_shape(tmp_path / "data", "bad!"))
    settings = PrepareSettings("balls", sampling=SETTINGS)
    entries = list_meshes(tmp_path / "data", Layout.DEEPSDF)
    bad, good = prepare_dataset(entries, tmp_path / "set", settings, jobs=1)
    assert (bad.name, bad.rejected, good.rejected) == ("bad!", True, False)
    with pytest.raises(InputError, match=said):
        read_deepsdf_samples(entries[0].path, SETTINGS, np.random.default_rng(0))


def test_samples_of_several_categories_and_copies_of_samples_are_refused(tmp_path: Path) -> None:
    write_shape(tmp_path, "chair")
    settings = PrepareSettings("balls", copies=2, sampling=SETTINGS)
    with pytest.raises(InputError, match="copies is 2, but samples without their meshes cannot be deformed"):
        prepare_dataset(list_meshes(tmp_path, Layout.DEEPSDF), tmp_path / "set", settings)
    write_shape(tmp_path, "plane", "02691156")
    with pytest.raises(InputError, match="several categories; name one by --category: 02691156, 03001627"):
        list_meshes(tmp_path, Layout.DEEPSDF)
    assert [entry.name for entry in list_meshes(tmp_path, Layout.DEEPSDF, "02691156")] == ["plane"]
    with pytest.raises(InputError, match="contains no mesh in the layout deepsdf"):
        list_meshes(tmp_path, Layout.DEEPSDF, "1")
    assert replace(settings, copies=0).copies == 0
