"""PMD files written field by field: the rest pose, poses whose answers are known, and damaged files."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import trimesh
from game_files import CORNERS, RESTING, Pmd, turned
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from training.mesh_readers.pmd import posed, read_pmd

# In 0 A.D.'s left-handed frame these are clockwise seen from outside.
CLOCKWISE = [(a, c, b) for a, b, c in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))]
MIRRORED = [[x, y, -z] for x, y, z in CORNERS]


def translation(x: float, y: float, z: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def test_the_rest_pose_is_right_handed_and_faces_outwards(tmp_path: Path) -> None:
    mesh = read_pmd(Pmd(faces=[face[::-1] for face in CLOCKWISE]).write(tmp_path / "horse.pmd"))
    assert mesh.vertices.tolist() == MIRRORED
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).volume == pytest.approx(-1 / 6)
    mesh = read_pmd(Pmd(faces=CLOCKWISE).write(tmp_path / "horse.pmd"))
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).volume == pytest.approx(1 / 6)


@pytest.mark.parametrize("sets", [0, 1, 3])
def test_texture_coordinates_are_passed_over_however_many_there_are(tmp_path: Path, sets: int) -> None:
    mesh = read_pmd(Pmd(texture_sets=sets).write(tmp_path / "horse.pmd"))
    assert mesh.vertices.tolist() == MIRRORED
    assert mesh.bones.tolist() == [[0, -1, -1, -1]] * 4
    assert mesh.weights.tolist() == [[1, 0, 0, 0]] * 4


def test_the_rest_pose_posed_as_it_rests_stays(tmp_path: Path) -> None:
    bone = ((1, 2, 3), turned((0, 0, 1), 30))
    mesh = read_pmd(Pmd(bones=[bone]).write(tmp_path / "horse.pmd"))
    assert np.allclose(posed(mesh, mesh.rest), MIRRORED)


def test_a_bone_takes_its_vertices_along(tmp_path: Path) -> None:
    # The bone rests at (0, 1, 0) and is turned there by a quarter about x (canonical axes).
    mesh = read_pmd(Pmd(bones=[((0, 1, 0), (0, 0, 0, 1))]).write(tmp_path / "horse.pmd"))
    turn = translation(0, 1, 0) @ np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    expected = [(x, 1 - z, y - 1) for x, y, z in MIRRORED]
    assert np.allclose(posed(mesh, turn[None]), expected)


def test_a_vertex_between_two_bones_moves_by_its_weights(tmp_path: Path) -> None:
    blends = [
        ((0, 255, 255, 255), (1, 0, 0, 0)),
        ((1, 255, 255, 255), (1, 0, 0, 0)),
        ((0, 1, 255, 255), (0.25, 0.75, 0, 0)),
        ((255, 255, 255, 255), (0, 0, 0, 0)),
    ]
    mesh = read_pmd(Pmd(bones=[RESTING, RESTING], blends=blends).write(tmp_path / "horse.pmd"))
    moved = posed(mesh, np.array([translation(0, 0, 4), translation(8, 0, 0)])) - mesh.vertices
    assert np.allclose(moved, [(0, 0, 4), (8, 0, 0), (6, 0, 1), (0, 0, 0)])


def test_weights_that_do_not_add_up_to_one_are_normalised(tmp_path: Path) -> None:
    blends = [((0, 255, 255, 255), (0.5, 0, 0, 0))] * 4
    mesh = read_pmd(Pmd(blends=blends).write(tmp_path / "horse.pmd"))
    assert np.allclose(posed(mesh, translation(0, 0, 4)[None]) - mesh.vertices, [(0, 0, 4)] * 4)


def test_a_mesh_without_bones_stays_as_it_is(tmp_path: Path) -> None:
    blends = [((255, 255, 255, 255), (0, 0, 0, 0))] * 4
    mesh = read_pmd(Pmd(bones=[], blends=blends).write(tmp_path / "horse.pmd"))
    assert posed(mesh, np.zeros((0, 4, 4))).tolist() == MIRRORED


def test_a_pose_of_another_number_of_bones_is_refused(tmp_path: Path) -> None:
    mesh = read_pmd(Pmd().write(tmp_path / "horse.pmd"))
    with pytest.raises(InputError, match="moves 2 bones and the mesh has 1"):
        posed(mesh, np.tile(np.eye(4), (2, 1, 1)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Pmd(magic=b"Pmd "), r"is not PMD: it begins with b'Pmd ' instead of b'PSMD'"),
        (Pmd(version=3), "has version 3 of PMD; only version 4"),
        (Pmd(vertices=[], faces=[]), "has no vertices"),
        (Pmd(faces=[(0, 1, 4)]), "vertex 4 is not among its 4"),
        (Pmd(blends=[((1, 255, 255, 255), (1, 0, 0, 0))] * 4), "bone 1 is not among its 1"),
        (Pmd(vertices=[(np.nan, 0, 0), *CORNERS[1:]]), "a vertex has a number that is not finite"),
        (Pmd(blends=[((0, 255, 255, 255), (np.inf, 0, 0, 0))] * 4), "a vertex has a number that is not finite"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_is_wrong(tmp_path: Path, content: Pmd, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pmd(content.write(tmp_path / "horse.pmd"))


@pytest.mark.parametrize(
    ("offset", "what"),
    [(12, "bytes of vertices"), (16, "bytes of vertices"), (228, "corners of faces"), (256, "bones")],
)
def test_counts_that_lie_are_refused_before_anything_is_allocated(tmp_path: Path, offset: int, what: str) -> None:
    content = bytearray(Pmd().write(tmp_path / "horse.pmd").read_bytes())
    content[offset : offset + 4] = struct.pack("<I", 2**32 - 1)
    (tmp_path / "horse.pmd").write_bytes(bytes(content))
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"\d{{10,}} {what} at byte \d+ do not fit"):
        read_pmd(tmp_path / "horse.pmd")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


# What is needed ends with the bones, at byte 288.
@given(length=st.integers(0, 287))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    content = Pmd().write(tmp_path / "whole.pmd").read_bytes()
    (tmp_path / "cut.pmd").write_bytes(content[:length])
    with pytest.raises(InputError, match=r"cut\.pmd"):
        read_pmd(tmp_path / "cut.pmd")


@given(place=st.integers(0, 287), value=st.binary(min_size=1, max_size=8))
def test_changed_bytes_give_a_mesh_or_one_clear_error(tmp_path: Path, place: int, value: bytes) -> None:
    content = bytearray(Pmd().write(tmp_path / "whole.pmd").read_bytes())
    content[place : place + len(value)] = value
    (tmp_path / "changed.pmd").write_bytes(bytes(content))
    try:
        mesh = read_pmd(tmp_path / "changed.pmd")
    except InputError as error:
        assert "changed.pmd" in str(error)
    else:
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.size == 0 or mesh.faces.max() < len(mesh.vertices)
        assert mesh.bones.max() < len(mesh.rest)
