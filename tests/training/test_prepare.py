"""Datasets from folders of good and broken meshes, prepared by real processes, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from training.catalog import CatalogEntry, Layout, list_meshes
from training.cli import app
from training.dataset import Dataset
from training.generators.credits import add_credits
from training.prepare import MeshOutcome, PrepareSettings, in_processes, prepare_dataset, sample_meshes
from training.sampling import SampleSettings

ROOT = Path(__file__).parents[2]
GOOD = ("ball", "block", "cube", "egg", "rod", "slab")
BROKEN = ("empty", "garbage", "nan", "sheet")
BOXES = {"block": (1, 2, 3), "cube": (1, 1, 1), "rod": (0.3, 0.3, 4), "slab": (2, 0.4, 2)}
QUICK = PrepareSettings("boxes", sampling=SampleSettings(count=1_000, surface_count=200), timeout=60)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six analytic meshes, and four that cannot be used."""
    folder = tmp_path_factory.mktemp("meshes")
    for name, size in BOXES.items():
        trimesh.creation.box(size).export(folder / f"{name}.obj")
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.export(folder / "ball.obj")
    ball.apply_scale([1, 1.5, 1]).export(folder / "egg.obj")
    (folder / "empty.obj").touch()
    (folder / "garbage.obj").write_bytes(np.random.default_rng(0).bytes(5_000))
    (folder / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 2 3 4\n")
    (folder / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n")
    return folder


def command(source: Path, output: Path, *options: str) -> list[str]:
    fixed = ("--samples", "20000", "--jobs", "2", "--json")
    return [sys.executable, "-m", "training", "prepare", str(source), "-o", str(output), *fixed, *options]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)


def outcomes_of(finished: subprocess.CompletedProcess[str]) -> dict[str, MeshOutcome]:
    assert finished.returncode == 0, finished.stderr
    return {row["name"]: MeshOutcome(**row) for row in json.loads(finished.stdout)}


def contents(folder: Path) -> dict[str, list[bytes]]:
    """The samples of every prepared shape."""
    dataset = Dataset.open(folder)
    loaded = {name: dataset.load(name) for name in sorted(dataset.prepared())}
    return {name: [np.asarray(value).tobytes() for value in vars(one).values()] for name, one in loaded.items()}


def arrays_of(folder: Path) -> dict[str, bytes]:
    """The files of the store's arrays."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("store/*/*.npy"))}


@pytest.fixture(scope="module")
def uninterrupted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, MeshOutcome]]:
    """The folder and the outcomes of an undisturbed run."""
    output = tmp_path_factory.mktemp("datasets") / "whole"
    return output, outcomes_of(run(*command(source, output)))


def test_broken_meshes_are_rejected_with_reasons_and_all_others_are_used(
    uninterrupted: tuple[Path, dict[str, MeshOutcome]],
) -> None:
    output, outcomes = uninterrupted
    assert sorted(outcomes) == sorted(GOOD + BROKEN)
    assert {name for name, outcome in outcomes.items() if outcome.rejected} == set(BROKEN)
    assert "has no vertices" in outcomes["empty"].reason
    assert "garbage.obj" in outcomes["garbage"].reason
    assert "cannot be read" in outcomes["garbage"].reason or "has no vertices" in outcomes["garbage"].reason
    # Without the corner that is no number one triangle is left.
    assert "encloses no volume" in outcomes["nan"].reason
    assert "encloses no volume" in outcomes["sheet"].reason
    assert not any(outcome.resumed for outcome in outcomes.values())
    report = [MeshOutcome(**row) for row in json.loads((output / "report.json").read_text())]
    assert {outcome.name: outcome for outcome in report} == outcomes


def test_the_distances_of_the_dataset_are_the_analytic_ones(
    uninterrupted: tuple[Path, dict[str, MeshOutcome]],
) -> None:
    dataset = Dataset.open(uninterrupted[0])
    assert sorted(record.name for record in dataset.split("train")) == sorted(GOOD)
    for name, size in BOXES.items():
        samples = dataset.load(name)
        half = np.array(size) / np.linalg.norm(size) / 1.03
        q = np.abs(samples.points) - half
        analytic = np.linalg.norm(q.clip(min=0), axis=1) + q.max(axis=1).clip(max=0)
        assert len(samples.points) > 19_900
        assert np.abs(samples.distances - analytic).max() < 1e-5, name


def test_what_is_left_out_of_a_mesh_is_told(tmp_path: Path) -> None:
    source = tmp_path / "boxes"
    source.mkdir()
    box = trimesh.creation.box((1, 2, 3))
    lines = [f"v {x} {y} {z}" for x, y, z in [*box.vertices, (np.nan, 0, 0)]]
    faces = [f"f {a} {b} {c}" for a, b, c in np.array(box.faces) + 1]
    (source / "holey.obj").write_text("\n".join([*lines, *faces]) + "\n")
    finished = run(*command(source, tmp_path / "data")[:-1])
    assert finished.returncode == 0, finished.stderr
    note = "1 of 9 points have no finite coordinates and were left out."
    assert f"holey: {note}" in finished.stdout
    [row] = json.loads((tmp_path / "data" / "report.json").read_text())
    assert note in row["notes"]


def test_a_contact_sheet_is_drawn(uninterrupted: tuple[Path, dict[str, MeshOutcome]]) -> None:
    with Image.open(uninterrupted[0] / "contact_sheet.png") as image:
        image.load()
        assert min(image.size) > 200
        assert len(image.getcolors(1 << 20) or []) > 50  # shaded, not blank


def test_a_killed_run_continues_and_ends_with_the_same_bits(
    source: Path, uninterrupted: tuple[Path, dict[str, MeshOutcome]], tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    shapes = output / "shapes"
    killed = subprocess.Popen(
        command(source, output), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not list(shapes.glob("[!.]*.npz")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = {path.stem for path in shapes.glob("[!.]*.npz")}
    assert 1 <= len(done) < len(GOOD)
    assert not (output / "report.json").exists()
    # What a writer leaves that is killed while it writes.
    (shapes / ".egg.4711.tmp.npz").write_bytes(b"PK\3\4 half a fi")
    before = {name: (shapes / f"{name}.npz").stat().st_mtime_ns for name in done}
    assert not (output / "store").exists()

    outcomes = outcomes_of(run(*command(source, output)))
    resumed = {name for name, outcome in outcomes.items() if outcome.resumed}
    assert resumed >= done
    assert resumed - done <= set(BROKEN)
    assert {name: Dataset.open(output).store.shapes[name][1].prepared for name in done} == before
    assert {name: outcome.reason for name, outcome in outcomes.items()} == {
        name: outcome.reason for name, outcome in uninterrupted[1].items()
    }
    assert sorted(record.name for record in Dataset.open(output).split("train")) == sorted(GOOD)
    assert len(arrays_of(output)) == 4
    assert arrays_of(output) == arrays_of(uninterrupted[0])


def test_a_damaged_shape_is_prepared_again(source: Path, tmp_path: Path) -> None:
    entries = [entry for entry in list_meshes(source, Layout.FOLDER) if entry.name in ("cube", "rod")]
    sample_meshes(entries, tmp_path, QUICK, in_processes(2))
    whole = contents(tmp_path)
    path = tmp_path / "shapes" / "cube.npz"
    path.write_bytes(path.read_bytes()[:-2_000])
    outcomes = prepare_dataset(entries, tmp_path, QUICK, jobs=2)
    assert {outcome.name: outcome.resumed for outcome in outcomes} == {"cube": False, "rod": True}
    assert contents(tmp_path) == whole


def test_a_mesh_that_has_changed_is_prepared_again(tmp_path: Path) -> None:
    """A broken mesh that was repaired, a good one that was replaced, one that was broken, and one that is the same."""
    box = trimesh.creation.box([1, 0.5, 0.5]).export(file_type="obj")
    sheet = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    meshes, target = tmp_path / "meshes", tmp_path / "dataset"
    meshes.mkdir()
    for name, text in {"repaired": sheet, "replaced": box, "broken": box, "same": box}.items():
        (meshes / f"{name}.obj").write_text(str(text))
    entries = list_meshes(meshes, Layout.FOLDER)
    first = {outcome.name: outcome for outcome in prepare_dataset(entries, target, QUICK, jobs=1)}
    assert [name for name, outcome in first.items() if outcome.reason] == ["repaired"]
    wide = str(trimesh.creation.box([1, 0.5, 2]).export(file_type="obj"))
    for name, text in {"repaired": wide, "replaced": wide, "broken": sheet}.items():
        (meshes / f"{name}.obj").write_text(text)
    for _ in range(2):
        again = {outcome.name: outcome for outcome in prepare_dataset(entries, target, QUICK, jobs=1)}
        assert [name for name, outcome in again.items() if outcome.reason] == ["broken"]
        made = Dataset.open(target)
        assert sorted(record.name for record in made.split("train")) == ["repaired", "replaced", "same"]
        for name in ("repaired", "replaced"):
            assert np.ptp(made.load(name).surface, axis=0).argmax() == 2
        assert again["same"].resumed
    assert all(outcome.resumed for outcome in again.values())


def test_samples_do_not_depend_on_the_number_of_workers_or_other_meshes(source: Path, tmp_path: Path) -> None:
    entries = [entry for entry in list_meshes(source, Layout.FOLDER) if entry.name in ("cube", "rod", "slab")]
    prepare_dataset(entries, tmp_path / "three", QUICK, jobs=2)
    prepare_dataset(entries[1:2], tmp_path / "one", QUICK, jobs=1)
    assert contents(tmp_path / "one")["rod"] == contents(tmp_path / "three")["rod"]


def test_a_mesh_that_hangs_is_rejected_and_tried_again_in_the_next_run(source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "hangs.ac"
    os.mkfifo(pipe)  # reading it blocks for ever
    entries = [CatalogEntry("hangs", pipe), CatalogEntry("cube", source / "cube.obj")]
    start = time.monotonic()
    outcomes = prepare_dataset(entries, tmp_path / "dataset", replace(QUICK, timeout=3), jobs=2)
    assert time.monotonic() - start < 30
    assert [(outcome.name, outcome.reason) for outcome in outcomes] == [("hangs", "took longer than 3 s"), ("cube", "")]
    pipe.unlink()
    pipe.write_text("AC3Db\n")
    again = prepare_dataset(entries, tmp_path / "dataset", replace(QUICK, timeout=30), jobs=1)
    assert {outcome.name: outcome.resumed for outcome in again} == {"hangs": False, "cube": True}
    assert any("has no faces" in outcome.reason for outcome in again)


def die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(path: Path) -> None:
    raise RuntimeError(f"the reader failed on {path.stem}")


@pytest.mark.parametrize(
    ("failure", "reason"), [(die, "its worker process died"), (fail, "RuntimeError: the reader failed on cube")]
)
def test_a_mesh_that_kills_its_worker_affects_no_other(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[Path], None], reason: str
) -> None:
    from training import prepare as module

    read = module.read_noted_mesh
    monkeypatch.setattr(module, "read_noted_mesh", lambda path: (failure if path.stem == "cube" else read)(path))
    entries = [entry for entry in list_meshes(source, Layout.FOLDER) if entry.name in ("block", "cube", "rod")]
    outcomes = {outcome.name: outcome for outcome in prepare_dataset(entries, tmp_path, QUICK, jobs=1)}
    assert reason in outcomes["cube"].reason
    assert [name for name, outcome in outcomes.items() if not outcome.rejected] == ["block", "rod"]


@pytest.mark.parametrize(
    ("name", "value", "least"), [("jobs", "0", 1), ("samples", "999", 1000), ("copies", "-1", 0), ("timeout", "0.5", 1)]
)
def test_a_number_out_of_bounds_is_an_error_of_one_line(
    source: Path, tmp_path: Path, name: str, value: str, least: int
) -> None:
    # Options given last count.
    finished = CliRunner().invoke(app, [*command(source, tmp_path / "dataset")[3:], f"--{name}", value])
    assert (finished.exit_code, finished.stdout) == (1, "")
    assert finished.stderr == f"error: {name} is {value}; use {least} or more\n"
    assert not (tmp_path / "dataset").exists()


def test_other_settings_for_the_same_folder_are_an_error_of_one_line(
    source: Path, uninterrupted: tuple[Path, dict[str, MeshOutcome]]
) -> None:
    finished = CliRunner().invoke(app, command(source, uninterrupted[0], "--noise", "paper")[3:])
    assert finished.exit_code == 1
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        f"error: {uninterrupted[0]} was started with other settings (sampling); use another folder"
    ]


def test_the_timeout_may_change_between_runs(source: Path, tmp_path: Path) -> None:
    entries = [CatalogEntry("cube", source / "cube.obj")]
    prepare_dataset(entries, tmp_path, QUICK, jobs=1)
    [outcome] = prepare_dataset(entries, tmp_path, replace(QUICK, timeout=61), jobs=1)
    assert outcome.resumed


@pytest.mark.parametrize(
    ("up", "front", "expected"), [("+y", "-z", (2, 0.4, 1)), ("+z", "-y", (2, 1, 0.4)), ("+x", "+y", (1, 2, 0.4))]
)
def test_up_and_front_rotate_the_meshes(
    tmp_path: Path, up: str, front: str, expected: tuple[float, float, float]
) -> None:
    size = np.array([2, 0.4, 1])
    box = trimesh.creation.box(size)
    # A ridge on the +x side distinguishes a rotation from a reflection.
    ridge = trimesh.creation.box([0.1, 0.1, 0.1], transform=trimesh.transformations.translation_matrix([1, 0, 0]))
    trimesh.util.concatenate([box, ridge]).export(tmp_path / "plank.obj")
    settings = replace(QUICK, up=up, front=front)
    prepare_dataset([CatalogEntry("plank", tmp_path / "plank.obj")], tmp_path / "dataset", settings, jobs=1)
    dataset = Dataset.open(tmp_path / "dataset")
    samples = dataset.load("plank")
    vertices, _ = dataset.read_mesh(dataset.records[0], samples)
    expected_extent = np.array(expected, dtype=float)
    expected_extent[int(np.argmax(expected))] += 0.05
    assert np.allclose(np.ptp(vertices, axis=0) / samples.scale, expected_extent)
    assert np.allclose(np.ptp(samples.surface, axis=0) / samples.scale, expected_extent, atol=0.1)
    # The front axis of the dataset is the rotated front axis of the source.
    ahead = "xyz".index(dataset.front[-1])
    assert ahead != 1
    assert np.ptp(vertices, axis=0)[ahead] / samples.scale == pytest.approx(expected_extent[ahead])


def test_the_command_rotates_z_up_meshes(tmp_path: Path) -> None:
    folder = tmp_path / "towers"
    folder.mkdir()
    trimesh.creation.box([1, 1, 3]).export(folder / "tower.obj")
    arguments = command(folder, tmp_path / "dataset", "--up", "z", "--front", "-y", "--samples", "1000")
    finished = CliRunner().invoke(app, arguments[3:])
    assert finished.exit_code == 0, finished.stderr
    assert [row["name"] for row in json.loads(finished.stdout)] == ["tower"]
    surface = Dataset.open(tmp_path / "dataset").load("tower").surface
    extent = np.ptp(surface, axis=0)
    assert extent[1] > 2.5 * extent[0]
    assert extent[1] > 2.5 * extent[2]


@pytest.mark.parametrize("settings", [replace(QUICK, up="w"), replace(QUICK, front="+y"), replace(QUICK, up="-z")])
def test_axes_that_are_parallel_or_unknown_are_rejected_before_anything_is_written(
    source: Path, tmp_path: Path, settings: PrepareSettings
) -> None:
    with pytest.raises(InputError, match=r"is not an axis|are parallel"):
        prepare_dataset([CatalogEntry("cube", source / "cube.obj")], tmp_path / "dataset", settings, jobs=1)
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("option", ["--split", "--test-split"])
def test_shapes_that_a_split_file_lists_and_that_are_not_there_are_told_by_name(
    source: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"set": {"boxes": ["cube", "gone", "rod", "lost"]}}))
    arguments = ["prepare", str(source), "-o", str(tmp_path / "data"), "--samples", "1000", "--jobs", "1", "--json"]
    result = CliRunner().invoke(app, [*arguments, option, str(tmp_path / "split.json")])
    assert result.exit_code == 0, result.output
    assert {row["name"]: row["reason"] for row in json.loads(result.stdout)} == {"cube": "", "rod": ""}
    assert result.stderr == "absent: 2 shapes of the splits: gone, lost\n"


def test_a_mesh_in_both_splits_is_rejected(source: Path, tmp_path: Path) -> None:
    entry = CatalogEntry("cube", source / "cube.obj")
    with pytest.raises(InputError, match="2 meshes are named cube"):
        prepare_dataset([entry, replace(entry, split="test")], tmp_path / "dataset", QUICK, jobs=1)


def test_a_folder_without_usable_meshes_is_rejected_with_the_first_reason(source: Path, tmp_path: Path) -> None:
    entries = [CatalogEntry(name, source / f"{name}.obj") for name in ("empty", "sheet")]
    with pytest.raises(InputError, match="none of the 2 meshes could be used; the first reason: .*no vertices"):
        prepare_dataset(entries, tmp_path, QUICK, jobs=1)
    assert len(json.loads((tmp_path / "report.json").read_text())) == 2


def test_training_meshes_get_deformed_copies_but_test_meshes_do_not(source: Path, tmp_path: Path) -> None:
    entries = [CatalogEntry("cube", source / "cube.obj"), CatalogEntry("rod", source / "rod.obj", "test")]
    prepare_dataset(entries, tmp_path, replace(QUICK, copies=2), jobs=2)
    dataset = Dataset.open(tmp_path)
    assert [(record.name, record.copy_of) for record in dataset.split("train")] == [
        ("cube", ""),
        ("cube~1", "cube"),
        ("cube~2", "cube"),
    ]
    assert [record.name for record in dataset.split("test")] == ["rod"]
    extents = [np.ptp(dataset.load(name).surface, axis=0) for name in ("cube", "cube~1", "cube~2")]
    assert min(np.abs(extents[a] - extents[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.01
    assert max(np.linalg.norm(dataset.load("cube~1").surface, axis=1)) < 1


def test_real_and_procedural_meshes_of_one_folder_make_one_dataset(source: Path, tmp_path: Path) -> None:
    """Copies are made of real training meshes alone; what is drawn later joins, and what was sampled stays."""
    meshes, output = tmp_path / "meshes", tmp_path / "dataset"
    meshes.mkdir()
    for name in ("cube", "rod", "slab"):
        (meshes / f"{name}.obj").write_bytes((source / f"{name}.obj").read_bytes())
    credits = [
        {"name": "cube", "licence": "CC0-1.0", "creator": "Ada"},
        {"name": "rod", "licence": "CC-BY-3.0", "creator": "Bo", "split": "test"},
        {"name": "slab", "licence": "BSD-3-Clause", "creator": "a generator", "procedural": True},
    ]
    (meshes / "sources.json").write_text(json.dumps(credits))
    settings = replace(QUICK, copies=2)
    prepare_dataset(list_meshes(meshes, Layout.FOLDER), output, settings, jobs=1)
    assert [record.name for record in Dataset.open(output).split("train")] == ["cube", "cube~1", "cube~2", "slab"]
    (meshes / "block.obj").write_bytes((source / "block.obj").read_bytes())
    add_credits(meshes, [{**credits[2], "name": "block"}])
    outcomes = prepare_dataset(list_meshes(meshes, Layout.FOLDER), output, settings, jobs=1)
    assert [outcome.name for outcome in outcomes if not outcome.resumed] == ["block"]
    dataset = Dataset.open(output)
    assert [record.name for record in dataset.split("test")] == ["rod"]
    credited = {(record.name, record.licence, record.creator) for record in dataset.split("train")}
    assert credited == {
        ("block", "BSD-3-Clause", "a generator"),
        *((name, "CC0-1.0", "Ada") for name in ("cube", "cube~1", "cube~2")),
        ("slab", "BSD-3-Clause", "a generator"),
    }
    assert dataset.store.shapes.keys() == {record.name for record in dataset.records}
    assert not list(output.rglob("*.npz"))


def test_a_procedural_mesh_named_like_a_real_one_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "cube.obj").write_bytes((source / "cube.obj").read_bytes())
    trimesh.creation.box().export(tmp_path / "cube.ply")
    with pytest.raises(InputError, match="contains several meshes named cube; rename all but one"):
        list_meshes(tmp_path, Layout.FOLDER)


def test_an_output_that_is_a_file_is_rejected(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        prepare_dataset([CatalogEntry("cube", source / "cube.obj")], tmp_path / "file", QUICK, jobs=1)
