"""The commands `train` and `train-all`: what they print, resume, skip and refuse."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from test_ranks import PROCESS, torchrun, write_boxes
from test_trainer import TINY
from typer.testing import CliRunner

from sdf_backend.model.store import load_model
from training import train_settings
from training.cli import app
from training.history import EpochReport
from training.tensorboard_log import TensorboardLog
from training.train_options import Preset
from training.trainer import CHECKPOINT_FILE, Trainer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks in place of the preset `small`, and no pictures."""
    monkeypatch.setattr(Trainer, "_write_pictures", lambda trainer: None)
    monkeypatch.setitem(train_settings.PRESETS, Preset.SMALL, replace(TINY, epochs=6))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories, one of two shapes and one of three."""
    folder = tmp_path_factory.mktemp("data")
    write_boxes(folder / "bricks", ["cube", "plank"])
    write_boxes(folder / "posts", ["cube", "rod", "tower"])
    return folder


def train_all(data: Path, output: Path, *options: str) -> Result:
    return CliRunner().invoke(
        app, ["train-all", str(data), "-o", str(output), "--device", "cpu", *options], env={"COLUMNS": "160"}
    )


def rows(result: Result) -> dict[str, list[str]]:
    """The cells of each row of the table, by category."""
    cells = [line.split("│")[1:-1] for line in result.stdout.splitlines() if line.startswith("│")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_all_categories_are_trained_and_their_table_is_printed(data: Path, tmp_path: Path) -> None:
    result = train_all(data, tmp_path, "--symmetric", "posts")
    assert result.exit_code == 0, result.stderr
    assert list(rows(result)) == ["bricks", "posts"]
    for name, shapes in (("bricks", "2"), ("posts", "3")):
        history = json.loads((tmp_path / name / "history.json").read_text())
        figures = [shapes, "6", f"{history[-1]['loss']:.5f}", f"{history[-1]['code_norm']:.5f}"]
        assert rows(result)[name][:4] == figures and rows(result)[name][-1] == "trained"
        model = load_model(tmp_path / name / "boxes.safetensors")
        assert len(model.codes) == int(shapes)
        assert model.decoder.settings.mirror_axis == (0 if name == "posts" else None)


def test_a_second_call_leaves_finished_models_alone_and_continues_killed_runs(data: Path, tmp_path: Path) -> None:
    assert train_all(data, tmp_path).exit_code == 0
    whole = load_file(tmp_path / "posts" / CHECKPOINT_FILE)
    finished = tmp_path / "bricks" / "boxes.safetensors"
    finished.write_bytes(b"with an encoder")
    (tmp_path / "posts" / "boxes.safetensors").unlink()  # as if killed after the last checkpoint
    result = train_all(data, tmp_path)
    assert result.exit_code == 0, result.stderr
    assert finished.read_bytes() == b"with an encoder"
    assert [row[-1] for row in rows(result).values()] == ["was finished", "trained"]
    assert len(load_model(tmp_path / "posts" / "boxes.safetensors").codes) == 3
    more = train_all(data, tmp_path, "--epochs", "8")  # its rates halve, so that it may go on
    assert [row[1] for row in rows(more).values()] == ["8", "8"]
    assert not torch.equal(load_file(tmp_path / "posts" / CHECKPOINT_FILE)["codes"], whole["codes"])


def test_a_category_that_fails_leaves_its_reason_and_the_others_are_trained(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "bricks"
    run.mkdir()
    (run / CHECKPOINT_FILE).write_bytes(b"damaged")
    result = train_all(data, tmp_path)
    assert result.exit_code == 1
    assert [row[-1] for row in rows(result).values()] == ["failed", "trained"]
    assert f"bricks: {run / CHECKPOINT_FILE} is damaged" in result.stdout
    assert result.stderr.splitlines()[-1] == "error: 1 of 2 categories failed: bricks; see above"
    assert (tmp_path / "posts" / "boxes.safetensors").exists()


def test_a_folder_without_datasets_and_an_unknown_symmetric_category_are_refused(data: Path, tmp_path: Path) -> None:
    empty = train_all(tmp_path, tmp_path / "runs")
    assert (empty.exit_code, empty.stderr.count("\n")) == (1, 1)
    assert "has no folder that prepare wrote" in empty.stderr
    unknown = train_all(data, tmp_path / "runs", "--symmetric", "chairs")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (1, 1)
    assert "--symmetric names chairs" in unknown.stderr
    assert not (tmp_path / "runs").exists()


def test_two_processes_train_all_categories_and_one_of_them_talks(data: Path, tmp_path: Path) -> None:
    command = ["train-all", str(data), "-o", str(tmp_path), "--device", "cpu", "--epochs", "2"]
    finished = torchrun(2, str(PROCESS), json.dumps({"command": command}))
    assert finished.code == 0, finished.stderr
    assert finished.stderr.count("bricks: 2 shapes, 2 epochs") == 1
    assert finished.stdout.count("│ posts") == 1
    for name, shapes in (("bricks", 2), ("posts", 3)):
        assert len(load_model(tmp_path / name / "boxes.safetensors").codes) == shapes


def test_a_missing_tensorboard_is_named_with_its_extra_before_the_first_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    command = ["train", str(data / "bricks"), "-o", str(tmp_path / "run"), "--device", "cpu", "--tensorboard"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr == (
        "error: --tensorboard needs a package that is not installed; pip install 'sdf-shapes[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()


def test_each_epoch_is_logged_for_tensorboard_once(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    command = ["train", str(data / "bricks"), "-o", str(run), "--device", "cpu", "--tensorboard"]
    assert CliRunner().invoke(app, command).exit_code == 0
    lost = TensorboardLog(run / "tensorboard", 6)
    lost.write(EpochReport(7, 9.0, 9.0, 9.0, 9.0))  # of a run that was killed before its next checkpoint
    lost.close()
    assert CliRunner().invoke(app, [*command, "--resume", "--epochs", "8"]).exit_code == 0
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    history = json.loads((run / "history.json").read_text())
    for name in ("loss", "code_norm", "rate"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(row["epoch"], pytest.approx(row[name])) for row in history]
