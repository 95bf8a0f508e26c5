"""Packing a dataset: nothing lost, nothing half-written, whatever interrupts it."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from training import pack as module
from training.cli import app
from training.dataset import Dataset, ShapeRecord, save_samples
from training.hold_out import hold_out
from training.pack import pack_dataset
from training.sampling import BOUND, ShapeSamples, quantise

NAMES = ("a", "b", "c", "d.v2", "e")


def samples_of(seed: int) -> ShapeSamples:
    rng = np.random.default_rng(seed)
    count, kept = 200 + 10 * seed, 20 + seed
    normals = rng.normal(size=(kept, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return ShapeSamples(
        quantise(rng.uniform(-BOUND, BOUND, (count, 3))).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
        rng.normal(size=(kept, 3)).astype(np.float32),
        normals.astype(np.float32),
        float(rng.uniform(0.1, 9)),
        rng.normal(size=3),
        seed,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    records = [ShapeRecord(name, "train", family=name) for name in NAMES] + [ShapeRecord("rejected", "train")]
    made = Dataset(tmp_path / "things", "things", "-z", {"up": "+y"}, records)
    made.save()
    for seed, name in enumerate(NAMES):
        save_samples(made.path(name), samples_of(seed))
    return made


def contents(folder: Path) -> dict[str, list]:
    """All that is known of each shape."""
    dataset = Dataset.open(folder)
    return {
        record.name: [np.asarray(value).tolist() for value in vars(dataset.load(record.name)).values()]
        for record in dataset.split("train")
    }


def test_packing_changes_no_sample_and_leaves_a_few_large_files(dataset: Dataset) -> None:
    before = contents(dataset.folder)
    assert pack_dataset(dataset.folder) == 5
    assert contents(dataset.folder) == before
    assert sorted(path.name for path in dataset.folder.rglob("*") if path.is_file()) == [
        "dataset.json",
        "distances.npy",
        "index.json",
        "normals.npy",
        "points.npy",
        "surface.npy",
    ]
    assert pack_dataset(dataset.folder) == 0


def test_a_shape_that_is_sampled_again_replaces_its_packed_samples(dataset: Dataset) -> None:
    pack_dataset(dataset.folder)
    save_samples(dataset.path("b"), samples_of(30))
    for _ in range(2):  # in a file of its own, then packed
        assert len(Dataset.open(dataset.folder).load("b").points) == 500
        pack_dataset(dataset.folder)
    assert [path.name for path in sorted((dataset.folder / "store").iterdir())] == ["0000", "0001"]
    assert len(Dataset.open(dataset.folder).load("a").points) == 200


def test_a_packed_shape_that_was_rejected_since_is_left_out(dataset: Dataset) -> None:
    pack_dataset(dataset.folder)
    (dataset.folder / "rejected").mkdir()
    (dataset.folder / "rejected" / "d.v2.json").write_text("{}")
    assert [record.name for record in Dataset.open(dataset.folder).split("train")] == ["a", "b", "c", "e"]


def test_an_interrupted_packing_loses_nothing_and_continues(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(dataset.folder)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(dataset.folder, stop, part_bytes=5_000)
    assert contents(dataset.folder) == before
    assert not [path for path in (dataset.folder / "store").iterdir() if path.name.startswith(".")]
    # As after SIGKILL: an unfinished part, and sample files whose part is complete.
    (dataset.folder / "store" / ".0009.1.tmp").mkdir()
    monkeypatch.setattr(Path, "unlink", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pack_dataset(dataset.folder)
    monkeypatch.undo()
    assert contents(dataset.folder) == before
    pack_dataset(dataset.folder)
    assert contents(dataset.folder) == before
    assert not list(dataset.folder.rglob("*.npz"))
    assert not list((dataset.folder / "store").glob(".*"))


def test_of_two_writers_of_a_part_one_fails_and_no_sample_is_lost(dataset: Dataset) -> None:
    before = contents(dataset.folder)

    def other_process(done: int, total: int) -> None:
        if done == total:
            pack_dataset(dataset.folder)

    with pytest.raises(InputError, match=r"cannot write .*0000: .*; free disk space, and run one prepare at a time"):
        pack_dataset(dataset.folder, other_process)
    assert contents(dataset.folder) == before


def test_a_full_disk_is_an_error_of_one_line_and_loses_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(dataset.folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.store._GrowingArray.append", full)
    with pytest.raises(InputError, match="cannot write .*0000: No space left on device; free disk space"):
        pack_dataset(dataset.folder)
    assert contents(dataset.folder) == before
    assert not list((dataset.folder / "store").iterdir())


@pytest.mark.parametrize("name", ["points.npy", "distances.npy", "surface.npy", "normals.npy", "index.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_part_is_an_error_that_says_what_to_do(dataset: Dataset, name: str, damage: str) -> None:
    pack_dataset(dataset.folder)
    path = dataset.folder / "store" / "0000" / name
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-40])
        case _ if name == "index.json":
            path.write_text('["a"]')
        case _:
            np.save(path, np.zeros(50, object), allow_pickle=True)
    with pytest.raises(InputError, match=rf"{name} is damaged .*; delete .*0000 and run prepare again"):
        Dataset.open(dataset.folder).split("train")


def test_rows_that_an_array_lacks_are_noticed(dataset: Dataset) -> None:
    pack_dataset(dataset.folder)
    path = dataset.folder / "store" / "0000" / "normals.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match=r"normals\.npy is damaged \(too short\)"):
        Dataset.open(dataset.folder).split("train")


def test_a_held_out_dataset_of_a_packed_one_lists_its_own_shapes_alone(dataset: Dataset, tmp_path: Path) -> None:
    pack_dataset(dataset.folder, part_bytes=5_000)
    dataset = Dataset.open(dataset.folder)
    fewer = Dataset(dataset.folder, "things", "-z", {}, [row for row in dataset.records if row.name != "e"])
    held = hold_out(fewer, {"b"}, tmp_path / "held")
    assert [record.name for record in held.split("test")] == ["b"]
    assert sorted(held.prepared()) == ["a", "b", "c", "d.v2"]
    assert np.array_equal(held.load("c").points, dataset.load("c").points)
    linked = tmp_path / "held" / "store" / "0000" / "points.npy"
    assert linked.stat().st_ino == (dataset.folder / "store" / "0000" / "points.npy").stat().st_ino


def test_the_command_packs_an_old_dataset(dataset: Dataset) -> None:
    done = CliRunner().invoke(app, ["pack", str(dataset.folder)])
    assert (done.exit_code, done.stdout) == (0, f"5 shapes packed in {dataset.folder}\n")
    failed = CliRunner().invoke(app, ["pack", str(dataset.folder / "nowhere")])
    assert failed.exit_code == 1
    assert "is not a dataset" in failed.stderr


def test_sample_files_are_grouped_by_their_size(dataset: Dataset) -> None:
    sizes = [dataset.path(name).stat().st_size for name in NAMES]
    groups = list(module._groups(dataset, list(NAMES), sizes[-1] + 1))
    assert groups == [["a", "b"], ["c", "d.v2"], ["e"]]
