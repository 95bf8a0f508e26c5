"""Shards of one dataset in processes of their own: together what one process makes, whatever happens to them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trimesh
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from training.catalog import CatalogEntry, Layout, list_meshes
from training.cli import app
from training.dataset import Dataset
from training.prepare import PrepareSettings, prepare_dataset
from training.sampling import SampleSettings
from training.shards import Shard, estimate, merge_shards, prepare_shard

ROOT = Path(__file__).parents[2]
QUICK = PrepareSettings("boxes", sampling=SampleSettings(count=1_000, surface_count=200), timeout=60)
COMMAND = (sys.executable, "-m", "training", "prepare")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight boxes, and a sheet that cannot be used."""
    folder = tmp_path_factory.mktemp("boxes")
    for number in range(8):
        trimesh.creation.box((1, 1 + number / 4, 1 + number / 2)).export(folder / f"box{number}.obj")
    (folder / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n")
    return folder


def result(folder: Path) -> dict[str, bytes]:
    """All files of the store but the times in its index, the description and the rejections."""
    files = {path.name: path.read_bytes() for path in folder.glob("store/*/*.npy")}
    stored = {name: vars(shape) | {"prepared": 0} for name, (_, shape) in Dataset.open(folder).store.shapes.items()}
    report = [row["name"] + row["reason"] for row in json.loads((folder / "report.json").read_text())]
    return files | {
        "index": json.dumps(stored).encode(),
        "description": (folder / "dataset.json").read_bytes(),
        "report": "\n".join(report).encode(),
    }


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of a single process."""
    folder = tmp_path_factory.mktemp("whole")
    prepare_dataset(list_meshes(source, Layout.FOLDER), folder, QUICK, jobs=1)
    return folder


def test_four_shards_one_of_them_killed_and_one_run_twice_are_merged_to_what_one_process_makes(
    source: Path, tmp_path: Path
) -> None:
    def command(output: Path, *options: str) -> list[str]:
        return [*COMMAND, str(source), "-o", str(output), "--samples", "1000", "--jobs", "1", *options]

    output = tmp_path / "shared"
    running = [
        subprocess.Popen(command(output, "--shard", shard), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        for shard in ("1/3", "2/3", "2/3", "3/3")
    ]
    deadline = time.monotonic() + 120
    while not (output / "dataset.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running[-1].pid, signal.SIGKILL)
    assert [process.wait() for process in running[:-1]] == [0, 0, 0]
    running[-1].wait()
    early = subprocess.run(command(output, "--merge"), cwd=ROOT, capture_output=True, text=True)
    assert early.returncode == 1
    assert "of 9 meshes are not prepared yet, the first is box2; run their shards again" in early.stderr
    for options in (("--shard", "3/3"), ("--merge",)):
        subprocess.run(command(output, *options), cwd=ROOT, check=True, capture_output=True)
    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    assert result(output) == result(tmp_path / "whole")
    assert len(Dataset.open(output).prepared()) == 8
    assert not list(output.rglob("*.npz"))


def test_merging_twice_changes_nothing(source: Path, whole: Path, tmp_path: Path) -> None:
    entries = list_meshes(source, Layout.FOLDER)
    for number in (2, 1):
        prepare_shard(entries, tmp_path, QUICK, Shard(number, 2), jobs=1)
    first = merge_shards(entries, tmp_path, QUICK)
    made = result(tmp_path)
    assert made == result(whole)
    assert merge_shards(entries, tmp_path, QUICK) == first
    assert result(tmp_path) == made
    assert all(outcome.seconds > 0 for outcome in first)  # of their shards


def test_a_mesh_that_took_too_long_does_not_hinder_the_merge(source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "hangs.ac"
    os.mkfifo(pipe)  # reading it blocks for ever
    entries = [CatalogEntry("box0", source / "box0.obj"), CatalogEntry("hangs", pipe)]
    settings = PrepareSettings("boxes", sampling=QUICK.sampling, timeout=2)
    for number in (1, 2):
        prepare_shard(entries, tmp_path / "set", settings, Shard(number, 2), jobs=1)
    merged = merge_shards(entries, tmp_path / "set", settings)
    assert [(outcome.name, outcome.reason) for outcome in merged] == [("box0", ""), ("hangs", "took longer than 2 s")]


def test_a_mesh_that_changed_after_its_shard_is_missing_in_the_merge(source: Path, tmp_path: Path) -> None:
    mesh = tmp_path / "box.obj"
    shutil.copy(source / "box0.obj", mesh)
    entries = [CatalogEntry("box", mesh), CatalogEntry("other", source / "box1.obj")]
    prepare_shard(entries, tmp_path / "set", QUICK, Shard(1, 1), jobs=1)
    os.utime(mesh, ns=(time.time_ns() + 10**9, time.time_ns() + 10**9))
    with pytest.raises(
        InputError, match="1 of 2 meshes are not prepared yet, the first is box; run their shards again"
    ):
        merge_shards(entries, tmp_path / "set", QUICK)


def test_shards_of_other_settings_are_refused(source: Path, tmp_path: Path) -> None:
    entries = list_meshes(source, Layout.FOLDER)[:2]
    prepare_shard(entries, tmp_path, QUICK, Shard(1, 2), jobs=1)
    other = PrepareSettings("boxes", sampling=QUICK.sampling, seed=1)
    for act in (
        lambda: prepare_shard(entries, tmp_path, other, Shard(2, 2), jobs=1),
        lambda: merge_shards(entries, tmp_path, other),
    ):
        with pytest.raises(InputError, match=r"was started with other settings \(seed\)"):
            act()


def test_more_shards_than_meshes_leave_some_without_work(source: Path, tmp_path: Path) -> None:
    entries = list_meshes(source, Layout.FOLDER)[:1]
    assert prepare_shard(entries, tmp_path, QUICK, Shard(2, 2), jobs=1) == []
    assert len(prepare_shard(entries, tmp_path, QUICK, Shard(1, 2), jobs=1)) == 1
    assert len(merge_shards(entries, tmp_path, QUICK)) == 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2", "1.5/4", ""])
def test_a_wrong_shard_is_refused_before_anything_is_written(source: Path, tmp_path: Path, text: str) -> None:
    done = CliRunner().invoke(app, ["prepare", str(source), "-o", str(tmp_path / "set"), f"--shard={text}"])
    assert done.exit_code == 1
    assert done.stderr == f"error: the shard is {text!r}; use I/N with I from 1 to N, such as 1/8\n"
    assert not (tmp_path / "set").exists()


def test_a_merge_without_shards_and_two_steps_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["prepare", str(source), "-o", str(tmp_path / "set"), "--merge"])
    assert (done.exit_code, "has no finished shard; run prepare with --shard first" in done.stderr) == (1, True)
    done = CliRunner().invoke(app, ["prepare", str(source), "-o", str(tmp_path / "set"), "--merge", "--shard", "1/2"])
    assert (done.exit_code, "are different steps; give one of them" in done.stderr) == (1, True)
    assert not (tmp_path / "set").exists()


def test_a_dry_run_tells_time_and_disk_and_writes_nothing(source: Path, whole: Path, tmp_path: Path) -> None:
    entries = list_meshes(source, Layout.FOLDER)
    found = estimate(entries, tmp_path / "set", QUICK)
    assert not (tmp_path / "set").exists()
    assert (found.meshes, found.remaining, found.tried, found.rejected) == (9, 9, 5, 1)
    arrays = sum(path.stat().st_size for path in whole.glob("store/*/*.npy"))
    assert found.disk == pytest.approx(arrays, rel=0.2)
    assert found.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert found.seconds > 0
    done = estimate(entries, whole, QUICK)
    assert (done.remaining, done.seconds) == (0, 0)
    printed = CliRunner().invoke(app, ["prepare", str(source), "-o", str(tmp_path / "set"), "--dry-run", "--jobs", "2"])
    assert printed.exit_code == 0, printed.stderr
    assert printed.stdout.startswith("9 of 9 meshes to sample; 1 of 5 tried are unusable\ntime: ")
    assert not (tmp_path / "set").exists()
