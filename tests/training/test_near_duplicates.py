"""Near-duplicates by shape: copies that are turned, mirrored, scaled or recoloured are found, other shapes are not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh
from typer.testing import CliRunner

from training.catalog import Layout, list_meshes
from training.cli import app
from training.near_duplicates import DuplicateSettings, near_duplicates, turned_copies

QUICK = DuplicateSettings(points=3000, queries=1000)


def seat() -> trimesh.Trimesh:
    """A shape without any symmetry: a seat with a back and one arm."""
    boxes = [((1, 0.2, 0.8), (0, 0, 0)), ((1, 0.9, 0.1), (0, 0.5, -0.4)), ((0.1, 0.4, 0.6), (0.5, 0.3, 0.05))]
    return trimesh.util.concatenate(
        [trimesh.creation.box(size, trimesh.transformations.translation_matrix(at)) for size, at in boxes]
    )


def folder(path: Path, **pieces: tuple[str, trimesh.Trimesh]) -> Path:
    path.mkdir(exist_ok=True)
    for name, (_, mesh) in pieces.items():
        mesh.export(path / f"{name}.obj")
    rows = [{"name": name, "split": split} for name, (split, _) in pieces.items()]
    (path / "sources.json").write_text(json.dumps(rows))
    return path


def found(path: Path, settings: DuplicateSettings = QUICK) -> list[tuple[str, str]]:
    return [(pair.test.name, pair.train.name) for pair in near_duplicates(list_meshes(path, Layout.FOLDER), settings)]


def changed(matrix: np.ndarray, scale: float = 1.0) -> trimesh.Trimesh:
    mesh = seat()
    vertices = scale * mesh.vertices @ matrix.T + [3, 4, 5]
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


@pytest.mark.parametrize("copy", range(8))
def test_a_turned_mirrored_scaled_and_moved_copy_is_found(tmp_path: Path, copy: int) -> None:
    twin = changed(turned_copies()[copy], scale=7.0)
    assert found(folder(tmp_path, one=("test", seat()), twin=("train", twin))) == [("one", "twin")]


def test_the_eight_copies_are_distinct_and_keep_up_upright() -> None:
    copies = turned_copies()
    assert len({tuple(np.round(copy).astype(int).ravel()) for copy in copies}) == 8
    assert np.allclose(copies @ copies.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(copies[:, 1], [0, 1, 0])
    assert sorted(np.round(np.linalg.det(copies)).tolist()) == [-1] * 4 + [1] * 4


def test_two_samples_of_one_surface_are_hardly_apart(tmp_path: Path) -> None:
    path = folder(tmp_path, one=("test", seat()), twin=("train", seat()))
    [pair] = near_duplicates(list_meshes(path, Layout.FOLDER))
    assert 0 < pair.distance < 0.4


def test_another_shape_is_not_found_and_one_that_stands_on_its_side_neither(tmp_path: Path) -> None:
    side = changed(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    pieces = {"one": ("test", seat()), "side": ("train", side), "ball": ("train", trimesh.creation.icosphere())}
    assert found(folder(tmp_path, **pieces)) == []


def test_what_is_hidden_inside_does_not_count(tmp_path: Path) -> None:
    hollow, box = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))
    filled = trimesh.util.concatenate([box, trimesh.creation.icosphere(4, 0.45)])
    assert found(folder(tmp_path, one=("test", hollow), filled=("train", filled))) == [("one", "filled")]


def test_pieces_of_one_split_are_not_compared(tmp_path: Path) -> None:
    pieces = {"one": ("test", seat()), "two": ("test", seat()), "three": ("train", trimesh.creation.box())}
    assert found(folder(tmp_path, **pieces)) == []


def test_procedural_pieces_are_not_compared(tmp_path: Path) -> None:
    path = folder(tmp_path, one=("test", seat()), drawn=("train", seat()), twin=("train", seat()))
    rows = json.loads((path / "sources.json").read_text())
    rows[1]["procedural"] = True
    (path / "sources.json").write_text(json.dumps(rows))
    assert found(path) == [("one", "twin")]


def test_the_nearest_pair_comes_first_and_the_threshold_is_the_callers(tmp_path: Path) -> None:
    longer = seat().apply_transform(np.diag([1.3, 1, 1, 1]))
    path = folder(tmp_path, one=("test", seat()), longer=("train", longer), twin=("train", seat()))
    settings = DuplicateSettings(threshold=20.0, points=3000, queries=1000)
    assert found(path, settings) == [("one", "twin"), ("one", "longer")]
    assert found(path) == [("one", "twin")]


def test_progress_counts_surfaces_and_pairs(tmp_path: Path) -> None:
    path = folder(tmp_path, one=("test", seat()), two=("train", seat()), three=("train", trimesh.creation.box()))
    told: list[tuple[int, int]] = []
    near_duplicates(list_meshes(path, Layout.FOLDER), QUICK, lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]


def test_the_command_lists_pairs_and_fails_where_there_are_any(tmp_path: Path) -> None:
    path = folder(tmp_path / "chairs", one=("test", seat()), twin=("train", seat()))
    done = CliRunner().invoke(app, ["near-duplicates", str(tmp_path), "--category", "chairs"])
    assert done.exit_code == 1
    assert re.search(r"^0\.\d\d  one  twin$", done.stdout, re.MULTILINE)
    assert "1 test pieces are near-duplicates of a training piece" in done.output
    done = CliRunner().invoke(app, ["near-duplicates", str(path), "--json"])
    [pair] = json.loads(done.stdout)
    assert (pair["test"], pair["train"]) == ("one", "twin")
    done = CliRunner().invoke(app, ["near-duplicates", str(path), "--threshold", "0"])
    assert (done.exit_code, done.stdout) == (0, "")


def test_the_command_refuses_a_mesh_that_cannot_be_read_in_one_line(tmp_path: Path) -> None:
    path = folder(tmp_path / "chairs", one=("test", seat()), twin=("train", seat()))
    (path / "twin.obj").write_text("no mesh")
    done = CliRunner().invoke(app, ["near-duplicates", str(path)])
    assert done.exit_code == 1
    assert "twin.obj" in done.output
    assert "Traceback" not in done.output
