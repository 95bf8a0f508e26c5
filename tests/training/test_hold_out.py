"""Held-out families form the test split; neither they nor the real test shapes are in the training split."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from training.cli import app
from training.dataset import Dataset, ShapeRecord
from training.hold_out import hold_out


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    records = [
        ShapeRecord("a", "train", family="fa"),
        ShapeRecord("a~1", "train", family="fa", copy_of="a"),
        ShapeRecord("b", "train", family="fb"),
        ShapeRecord("b~1", "train", family="fb", copy_of="b"),
        ShapeRecord("unusable", "train", family="fb"),
        ShapeRecord("t", "test", family="ft"),
    ]
    dataset = Dataset(tmp_path / "all", "things", "-z", {"up": "+y"}, records)
    dataset.path("").parent.mkdir(parents=True)
    for record in records:
        if record.name != "unusable":
            dataset.path(record.name).write_text(record.name)
    dataset.save()
    return dataset


def test_held_out_families_become_the_test_split(dataset: Dataset, tmp_path: Path) -> None:
    hold_out(dataset, {"fa"}, tmp_path / "held")
    held = Dataset.open(tmp_path / "held")
    assert [record.name for record in held.split("test")] == ["a"]
    assert [record.name for record in held.split("train")] == ["b", "b~1"]
    assert sorted(path.name for path in held.path("").parent.iterdir()) == ["a.npz", "b.npz", "b~1.npz"]
    assert held.path("a").read_text() == "a"
    assert (held.category, held.front, held.settings) == ("things", "-z", {"up": "+y"})


def test_unknown_families_and_used_folders_are_rejected_and_leave_no_files(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training family ft, fx"):
        hold_out(dataset, {"fa", "fx", "ft"}, tmp_path / "held")
    assert not (tmp_path / "held").exists()
    with pytest.raises(InputError, match="not empty"):
        hold_out(dataset, {"fa"}, dataset.folder)


def test_the_command_prints_the_numbers_of_shapes(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "families.txt").write_text("fb\n")
    result = CliRunner().invoke(
        app, ["hold-out", str(dataset.folder), str(tmp_path / "families.txt"), "-o", str(tmp_path / "held")]
    )
    assert result.exit_code == 0, result.stderr
    assert "2 training shapes, 2 held out" in result.stdout
    missing = CliRunner().invoke(app, ["hold-out", str(dataset.folder), "nowhere", "-o", str(tmp_path / "other")])
    assert missing.exit_code == 1
    assert "nowhere does not exist" in missing.stderr
