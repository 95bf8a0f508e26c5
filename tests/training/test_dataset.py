"""Datasets on disk: exact on the 16-bit grid, complete or rejected, never unpickled."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from training.dataset import Dataset, ShapeRecord, load_samples, save_samples
from training.sampling import BOUND, SampleSettings, ShapeSamples, quantise, sample_mesh

FIELDS = ("points", "distances", "surface", "normals", "scale", "offset", "uncertain")


def samples_of(points: np.ndarray, distances: np.ndarray) -> ShapeSamples:
    """Samples as `sample_mesh` makes them, with a random surface."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return ShapeSamples(
        quantise(points).astype(np.float32),
        distances.astype(np.float32),
        rng.normal(size=(20, 3)).astype(np.float32),
        normals.astype(np.float32),
        0.123456789,
        np.array([1.0, -2.0, 1 / 3]),
        7,
    )


def some_samples(count: int = 500) -> ShapeSamples:
    rng = np.random.default_rng(1)
    return samples_of(rng.uniform(-BOUND, BOUND, (count, 3)), rng.normal(size=count))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 200))
def test_points_on_the_grid_and_distances_survive_a_round_trip_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-BOUND, BOUND, (count, 3))
    points.flat[: 3 * (count > 1)] = BOUND, -BOUND, 0  # the ends and the middle of the grid
    before = samples_of(points, rng.normal(size=count) * 10.0 ** rng.integers(-8, 1, size=count))
    path = tmp_path_factory.getbasetemp() / "round-trip.npz"
    save_samples(path, before)
    after = load_samples(path)
    for name in ("points", "distances", "surface", "offset"):
        assert getattr(after, name).dtype == getattr(before, name).dtype, name
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert (after.scale, after.uncertain) == (before.scale, before.uncertain)
    assert np.abs(after.normals - before.normals).max() < 1 / 32767


def test_distances_are_exact_at_the_stored_points(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(subdivisions=4)
    settings = SampleSettings(count=2_000, surface_count=200)
    rng = np.random.default_rng(0)
    before = sample_mesh(np.array(sphere.vertices), np.array(sphere.faces), settings, rng)
    save_samples(tmp_path / "sphere.npz", before)
    after = load_samples(tmp_path / "sphere.npz")
    assert np.array_equal(after.points, before.points)
    assert np.array_equal(after.distances, before.distances)
    analytic = np.linalg.norm(after.points, axis=1) - 1 / 1.03
    assert np.abs(after.distances - analytic).max() < 0.003  # an icosphere is not quite round


def test_a_missing_shape_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.npz does not exist; run prepare"):
        load_samples(tmp_path / "gone.npz")


def empty(content: bytes) -> bytes:
    return b""


def cut_short(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def overwritten(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes(200) + content[middle + 200 :]


def garbage(content: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(content))


def one_array_alone(content: bytes) -> bytes:
    file = BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def without_distances(content: bytes) -> bytes:
    with np.load(BytesIO(content)) as arrays:
        kept = {name: arrays[name] for name in FIELDS if name != "distances"}
    file = BytesIO()
    np.savez(file, **kept)
    return file.getvalue()


def fewer_distances(content: bytes) -> bytes:
    with np.load(BytesIO(content)) as arrays:
        kept = {name: arrays[name] for name in FIELDS}
    kept["distances"] = kept["distances"][:-1]
    file = BytesIO()
    np.savez(file, **kept)
    return file.getvalue()


DAMAGES = [empty, cut_short, overwritten, garbage, one_array_alone, without_distances, fewer_distances]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shape_is_rejected(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "shape.npz"
    save_samples(path, some_samples())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"shape\.npz is damaged .*run prepare again"):
        load_samples(path)


@given(place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=40))
def test_overwritten_bytes_are_detected_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: float, junk: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.npz"
    before = some_samples(50)
    save_samples(path, before)
    content = path.read_bytes()
    start = int(place * (len(content) - len(junk)))
    path.write_bytes(content[:start] + junk + content[start + len(junk) :])
    try:
        after = load_samples(path)
    except InputError:
        return
    assert np.array_equal(after.points, before.points)
    assert np.array_equal(after.distances, before.distances)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", FIELDS)
def test_an_object_array_is_rejected_without_unpickling(tmp_path: Path, name: str) -> None:
    path, mark = tmp_path / "shape.npz", tmp_path / "mark"
    save_samples(path, some_samples())
    with np.load(path) as arrays:
        content = {key: arrays[key] for key in FIELDS}
    content[name] = np.array([Trap(mark)], dtype=object)
    np.savez(path, **content)
    with zipfile.ZipFile(path) as archive:
        assert b"touch" in archive.read(f"{name}.npy") or b"Path" in archive.read(f"{name}.npy")  # the trap is set
    with pytest.raises(InputError, match="is damaged"):
        load_samples(path)
    assert not mark.exists()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    records = [ShapeRecord("one", "train"), ShapeRecord("two", "train", "CC0", "Ada"), ShapeRecord("three", "test")]
    made = Dataset(tmp_path / "boxes", "boxes", "-z", {"seed": 0}, records)
    made.save()
    for record in records:
        save_samples(made.path(record.name), some_samples())
    return made


def test_the_description_survives_a_round_trip(dataset: Dataset) -> None:
    assert Dataset.open(dataset.folder) == dataset


def test_a_split_holds_its_prepared_shapes(dataset: Dataset) -> None:
    dataset.path("one").unlink()
    assert [record.name for record in dataset.split("train")] == ["two"]
    assert [record.name for record in dataset.split("test")] == ["three"]


def test_a_split_without_shapes_is_rejected(dataset: Dataset) -> None:
    dataset.path("three").unlink()
    with pytest.raises(InputError, match="no prepared shape of the split 'test'"):
        dataset.split("test")


def test_a_folder_that_is_not_a_dataset_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a dataset.*run prepare first"):
        Dataset.open(tmp_path)


DESCRIPTION = {"category": "boxes", "front": "-z", "settings": {}, "shapes": [{"name": "a", "split": "train"}]}


@pytest.mark.parametrize(
    "content",
    [
        *["", "{", "[]", "5", '"dataset"', "null"],
        *(json.dumps({key: DESCRIPTION[key] for key in DESCRIPTION if key != left}) for left in DESCRIPTION),
        json.dumps({**DESCRIPTION, "shapes": [{"name": "a"}]}),
        json.dumps({**DESCRIPTION, "shapes": ["a"]}),
        json.dumps({**DESCRIPTION, "colour": "blue"}),
    ],
)
def test_a_damaged_description_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json is damaged"):
        Dataset.open(tmp_path)


def test_the_source_mesh_is_read_in_the_canonical_frame(tmp_path: Path) -> None:
    box = trimesh.creation.box((2, 4, 6), transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    box.export(tmp_path / "box.obj")
    settings = SampleSettings(count=2_000, surface_count=100)
    samples = sample_mesh(np.array(box.vertices), np.array(box.faces), settings, np.random.default_rng(0))
    record = ShapeRecord("box", "train", mesh=str(tmp_path / "box.obj"))
    made = Dataset(tmp_path, "boxes", "-z", {"up": "+y", "front": "-z"}, [record])
    vertices, faces = made.read_mesh(record, samples)
    mesh = trimesh.Trimesh(vertices, faces)
    assert np.allclose(mesh.bounds, np.array([[-1, -2, -3], [1, 2, 3]]) / np.sqrt(14) / 1.03)
    assert mesh.volume == pytest.approx(48 / (np.sqrt(14) * 1.03) ** 3)  # positive: the faces are oriented outwards


def test_a_missing_source_mesh_is_an_error(tmp_path: Path) -> None:
    made = Dataset(tmp_path, "boxes", "-z", {"up": "+y", "front": "-z"})
    with pytest.raises(InputError, match="does not exist"):
        made.read_mesh(ShapeRecord("gone", "train", mesh=str(tmp_path / "gone.obj")), some_samples())
    with pytest.raises(InputError, match="deformed copy"):
        made.read_mesh(ShapeRecord("gone~1", "train", copy_of="gone"), some_samples())
