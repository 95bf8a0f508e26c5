"""Training runs of several real processes, which torchrun starts and which talk over gloo; how ranks share shapes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from test_trainer import SIZES, WITH_DROPOUT

from sdf_backend.errors import InputError
from sdf_backend.model.decoder import initial_codes
from sdf_backend.model.store import load_model
from training.dataset import Dataset, ShapeRecord, save_samples
from training.ranks import Ranks, SharedError, join_ranks
from training.sampling import SampleSettings, sample_mesh
from training.trainer import CHECKPOINT_FILE, HISTORY_FILE, Trainer

ROOT = Path(__file__).parents[2]
PROCESS = Path(__file__).with_name("train_in_ranks.py")
EPOCHS = 12
# Five shapes on two or four ranks, so that some own more than others; with two a step, four ranks idle by turns.
BOXES = {**SIZES, "tile": (1, 0.3, 0.8)}


class Finished(NamedTuple):
    code: int
    stdout: str
    stderr: str


def torchrun(ranks: int, *command: str, restarts: int = 0) -> Finished:
    options = ("--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts))
    finished = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


def train(ranks: int, dataset: Dataset, output: Path, restarts: int = 0, **asked: object) -> Finished:
    arguments = {"dataset": str(dataset.folder), "output": str(output), "epochs": EPOCHS, **asked}
    return torchrun(ranks, str(PROCESS), json.dumps(arguments), restarts=restarts)


def said(output: Path, ranks: int) -> list[dict]:
    return [json.loads((output / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in json.loads((output / HISTORY_FILE).read_text())]


def write_boxes(folder: Path, names: list[str]) -> Dataset:
    dataset = Dataset(folder, "boxes", "-z", {"seed": 0}, [ShapeRecord(name, "train", "CC0-1.0") for name in names])
    dataset.save()
    settings = SampleSettings(count=4_000, surface_count=500)
    for seed, name in enumerate(names):
        box = trimesh.creation.box(BOXES[name])
        rng = np.random.default_rng(seed)
        save_samples(dataset.path(name), sample_mesh(np.array(box.vertices), np.array(box.faces), settings, rng))
    return dataset


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_boxes(tmp_path_factory.mktemp("boxes"), list(BOXES))


@pytest.fixture(scope="module")
def whole(boxes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two ranks that nothing has disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert train(2, boxes, output).code == 0
    return output


def test_runs_of_one_two_and_four_processes_learn_alike(
    boxes: Dataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_write_pictures", lambda trainer: None)
    alone, four = tmp_path / "alone", tmp_path / "four"
    Trainer(boxes, replace(WITH_DROPOUT, epochs=EPOCHS), alone).run()
    assert train(4, boxes, four).code == 0
    curves = np.array([losses(folder) for folder in (alone, whole, four)])  # (3, EPOCHS)
    first, last = curves[:, :2].mean(1), curves[:, -4:].mean(1)
    np.testing.assert_allclose(first, first[0], rtol=0.15)  # of the same weights and codes, on other samples
    np.testing.assert_allclose(last, last[0], rtol=0.1)
    assert (last < 0.8 * first).all()  # without progress, equal curves mean nothing


def test_ranks_hold_equal_weights_and_the_codes_of_their_own_shapes_alone(whole: Path) -> None:
    ranks = said(whole, 2)
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert [rank["codes"] for rank in ranks] == [3, 2]
    assert [rank["code_bytes"] for rank in ranks] == [
        3 * 4 * 4 * 3,
        2 * 4 * 4 * 3,
    ]  # codes and two moments, of 4 floats


def test_the_first_rank_alone_writes_files_and_they_are_those_of_one_process(boxes: Dataset, whole: Path) -> None:
    files = {path.name for path in whole.iterdir()} - {"rank-0.json", "rank-1.json"}
    assert files == {CHECKPOINT_FILE, HISTORY_FILE, "boxes.safetensors"}
    model = load_model(whole / "boxes.safetensors")
    assert model.card.shapes == list(BOXES) and model.codes.shape == (5, 4)
    # Each code is that of its shape: in so few steps it stays near where it began, which the seed alone decides.
    began = initial_codes(5, 4, torch.Generator().manual_seed(WITH_DROPOUT.seed))
    assert torch.cdist(model.codes, began).argmin(1).tolist() == list(range(5))
    assert not torch.equal(model.codes, began.half().float())


def test_a_run_whose_rank_dies_is_resumed_and_ends_with_the_same_bits(
    boxes: Dataset, whole: Path, tmp_path: Path
) -> None:
    died = train(2, boxes, tmp_path, killed_at=8)
    assert died.code == 1 and "Signal 9 (SIGKILL)" in died.stderr
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        CHECKPOINT_FILE,
        HISTORY_FILE,
    }
    refused = train(2, boxes, tmp_path)  # another launch, which nobody told to resume
    assert refused.code == 1 and refused.stderr.count("error: ") == 1
    assert f"error: {tmp_path} already holds a run; continue it with --resume" in refused.stderr
    assert train(2, boxes, tmp_path, resume=True).code == 0
    assert [(rank["before"], rank["began"]) for rank in said(tmp_path, 2)] == [(2, 5), (2, 5)]
    assert same_checkpoints(tmp_path, whole)
    assert losses(tmp_path) == losses(whole)


def test_torchrun_restarts_a_run_whose_rank_dies_from_its_checkpoint(
    boxes: Dataset, whole: Path, tmp_path: Path
) -> None:
    assert train(2, boxes, tmp_path, restarts=1, killed_at=8).code == 0
    assert [(rank["before"], rank["began"]) for rank in said(tmp_path, 2)] == [(2, 5), (2, 5)]
    assert same_checkpoints(tmp_path, whole)


def same_checkpoints(one: Path, other: Path) -> bool:
    mine, theirs = load_file(one / CHECKPOINT_FILE), load_file(other / CHECKPOINT_FILE)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_checkpoint_of_two_ranks_goes_on_in_four_and_in_one_with_its_codes_and_moments(
    boxes: Dataset, whole: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    before = load_file(run / CHECKPOINT_FILE)
    assert sum(value.shape == (5, 4) for value in before.values()) == 3  # codes and two moments
    assert train(4, boxes, run, resume=True, copy=str(tmp_path / "four")).code == 0
    assert [rank["before"] for rank in said(run, 4)] == [2] * 4
    alone = Trainer(boxes, replace(WITH_DROPOUT, epochs=EPOCHS), run)
    assert alone.resume() == 2
    alone.output = tmp_path / "one"
    alone.save_checkpoint()
    for ranks in (4, 1):
        path = tmp_path / {4: "four", 1: "one"}[ranks] / CHECKPOINT_FILE
        after = load_file(path)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("random."))
        # What was drawn from is new, for one stream must not go on in several ranks.
        assert len(after["random.draws"]) * 2 == len(before["random.draws"]) * ranks
        draws = after["random.draws"].view(ranks, -1)
        assert len(torch.unique(torch.cat([draws, before["random.draws"].view(2, -1)]), dim=0)) == ranks + 2
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["ranks"] == str(ranks)


def test_more_ranks_than_shapes_is_one_line(tmp_path: Path) -> None:
    alone = write_boxes(tmp_path / "boxes", ["cube"])
    finished = torchrun(2, "-m", "training", "train", str(alone.folder), "-o", str(tmp_path / "run"), "--device", "cpu")
    assert finished.code == 1
    assert error_lines(finished) == [
        "error: 2 processes are too many for 1 training shapes, of which each owns some; start at most 1"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="this machine has a GPU for each rank")
def test_fewer_gpus_than_ranks_is_one_line(boxes: Dataset, tmp_path: Path) -> None:
    command = ("-m", "training", "train", str(boxes.folder), "-o", str(tmp_path / "run"), "--device", "cuda")
    [line] = error_lines(torchrun(2, *command))
    found = torch.cuda.device_count()
    assert line.startswith(f"error: torchrun started 2 processes on a machine where torch finds {found} CUDA devices; ")
    assert not (tmp_path / "run").exists()


def error_lines(finished: Finished) -> list[str]:
    """What the processes say, without torchrun's own report of exit codes."""
    assert finished.code == 1
    assert finished.stderr.count("Traceback") == 1  # torchrun's own
    return [line for line in finished.stderr.splitlines() if line.startswith("error: ")]


@given(shapes=st.integers(1, 200), world=st.integers(1, 16), a_step=st.integers(1, 70))
def test_every_shape_of_an_epoch_is_one_ranks_and_steps_are_even(shapes: int, world: int, a_step: int) -> None:
    if shapes < world:
        with pytest.raises(InputError, match=f"{world} processes are too many for {shapes} training shapes"):
            Ranks(0, world).own(list(range(shapes)))
        return
    ranks = [Ranks(rank, world) for rank in range(world)]
    assert sorted(shape for rank in ranks for shape in rank.own(list(range(shapes)))) == list(range(shapes))
    shares = np.array([list(rank.shares(shapes, a_step)) for rank in ranks])  # (world, steps, 2)
    assert shares[:, :, 0].sum(1).tolist() == [len(rank.own(list(range(shapes)))) for rank in ranks]
    assert (shares[:, :, 0].sum(0) == shares[0, :, 1]).all() and (shares[:, :, 1] == shares[0, :, 1]).all()
    assert (np.ptp(shares[:, :, 0], axis=0) <= 1).all()
    assert shares[0, :, 1].tolist() == [len(step) for step in torch.arange(shapes).split(a_step)]


def test_without_torchrun_there_is_one_rank_and_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # what other launchers set
    with join_ranks() as ranks:
        assert ranks == Ranks() and not torch.distributed.is_initialized()
    with pytest.raises(InputError) as caught, join_ranks() as ranks, ranks.together():
        raise InputError("as it was")
    assert str(caught.value) == "as it was" and not isinstance(caught.value, SharedError)


def test_one_named_gpu_is_not_taken_by_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda index: None)
    with pytest.raises(InputError, match="the device cuda:0 is one for 2 processes; use cuda"):
        Ranks(1, 2, 1, 2).device("cuda:0")
    assert Ranks(3, 4, 1, 2).device("cuda") == torch.device("cuda:1")  # the second process of the second machine
