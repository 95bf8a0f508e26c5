"""The mesh of one catalogue row: its format, its pose, its further parts, its rotation and its wheels."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from game_files import RESTING, TRIANGLES, Pmd, write_md2, write_psa

from sdf_backend.errors import InputError
from training.packages import Packages
from training.pieces import read_member, read_piece, split_pose

TRIANGLE = "numvert 3\n0 0 0\n1 0 0\n0 2 0\nnumsurf 1\nSURF 0x10\nmat 0\nrefs 3\n0 0 0\n1 0 0\n2 0 0\nkids 0\n"
BODY, BEACON = f'OBJECT poly\nname "body"\n{TRIANGLE}', f'OBJECT poly\nname "Beacon"\nloc 9 9 9\n{TRIANGLE}'
AC_FILE = f"AC3Db\nOBJECT world\nkids 2\n{BODY}{BEACON}"
CLOCKWISE = [(a, c, b) for a, b, c in TRIANGLES]
ROW = {"category": "cars", "archive": "", "rotation": ""}


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    write_md2(tmp_path / "body.md2", [((1, 1, 1), (0, 0, 0), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])], CLOCKWISE)
    write_md2(tmp_path / "tyre.md2", [((1, 1, 1), (5, 0, 0), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])], CLOCKWISE)
    (tmp_path / "body.ac").write_text(AC_FILE)
    (tmp_path / "body.acc").write_text(AC_FILE)
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "body.obj")
    Pmd().write(tmp_path / "horse.dae.cached.pmd")
    write_psa(tmp_path / "walk.dae.cached.psa", [[RESTING], [((0, 0, 4), (0, 0, 0, 1))]])
    write_psa(tmp_path / "pair.psa", [[RESTING, RESTING]])
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as archive:
        for name in ("horse.dae.cached.pmd", "walk.dae.cached.psa"):
            archive.write(tmp_path / name, f"art/{name}")
            (tmp_path / name).unlink() if name.startswith("walk") else None
    return Packages(tmp_path)


@pytest.mark.parametrize(
    ("member", "extent"),
    [
        ("body.md2", (1, 1, 1)),
        ("body.ac", (10, 11, 9)),
        ("body.acc", (10, 11, 9)),
        ("body.obj", (1, 2, 3)),
        ("horse.dae.cached.pmd", (1, 1, 1)),
    ],
)
def test_each_format_is_read_by_its_suffix(packages: Packages, member: str, extent: tuple) -> None:
    vertices, faces = read_piece({**ROW, "member": member}, packages)
    assert np.ptp(vertices[faces].reshape(-1, 3), axis=0).tolist() == list(extent)


def test_parts_named_by_drop_are_left_out(packages: Packages) -> None:
    _, faces = read_piece({**ROW, "member": "body.ac", "drop": "antenna; beacon"}, packages)
    assert len(faces) == 1
    _, faces = read_piece({**ROW, "member": "body.ac", "drop": "antenna"}, packages)
    assert len(faces) == 2


def test_effects_are_left_out_of_aircraft_alone(packages: Packages) -> None:
    _, faces = read_piece({**ROW, "member": "body.ac", "category": "airplanes"}, packages)
    assert len(faces) == 1


def test_further_parts_are_joined_where_they_stand(packages: Packages) -> None:
    vertices, faces = read_piece({**ROW, "member": "body.md2", "parts": "tyre.md2"}, packages)
    both = trimesh.Trimesh(vertices, faces)
    assert both.bounds.tolist() == [[0, 0, 0], [6, 1, 1]]
    assert both.volume == pytest.approx(2 / 6)


def test_a_rotation_turns_column_vectors(packages: Packages) -> None:
    turned = read_piece({**ROW, "member": "tyre.md2", "rotation": "0 -1 0 1 0 0 0 0 1"}, packages)
    assert trimesh.Trimesh(*turned).bounds.tolist() == [[-1, 5, 0], [0, 6, 1]]


def test_wheels_stand_in_canonical_axes_after_the_rotation(packages: Packages) -> None:
    row = {**ROW, "member": "body.md2", "rotation": "0 -1 0 1 0 0 0 0 1", "wheels": "2 0 0 1 0.5"}
    vertices, faces = read_piece(row, packages)
    assert np.allclose(trimesh.Trimesh(vertices, faces).bounds, [[-2.25, -1, -1], [2.25, 1, 1]])
    assert len(trimesh.Trimesh(vertices, faces).split()) == 3


def test_a_pose_is_taken_from_a_frame_of_an_animation_in_the_same_archive(packages: Packages) -> None:
    row = {**ROW, "member": "art/horse.dae.cached.pmd", "archive": "public.zip", "pose": "art/walk.dae.cached.psa#1"}
    vertices, _ = read_piece(row, packages)
    rest, _ = read_piece({**row, "pose": ""}, packages)
    assert np.allclose(vertices - rest, [(0, 0, -4)] * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"member": "gone.md2"}, r"gone\.md2 is not in the packages' folder"),
        ({"parts": "tyre.md2;gone.md2"}, r"gone\.md2 is not in the packages' folder"),
        ({"pose": "pair.psa#0"}, r"body\.md2 cannot take the pose pair\.psa#0: only PMD meshes have bones"),
        ({"member": "horse.dae.cached.pmd", "pose": "pair.psa#0"}, "moves 2 bones and the mesh has 1"),
        ({"member": "horse.dae.cached.pmd", "pose": "pair.psa#1"}, "there is no frame 1"),
        ({"member": "horse.dae.cached.pmd", "pose": "pair.psa"}, "pose 'pair.psa' is not an animation and a frame"),
        ({"rotation": "1 0 0"}, "rotation '1 0 0' is not nine numbers"),
        ({"rotation": "1 0 0 0 1 0 0 0 x"}, "is not nine numbers"),
        ({"rotation": "1 0 0 0 1 0 0 0 -1"}, "scales, shears or mirrors; give a rotation matrix"),
        ({"rotation": "2 0 0 0 2 0 0 0 2"}, "scales, shears or mirrors"),
        ({"rotation": "1 1 0 0 1 0 0 0 1"}, "scales, shears or mirrors"),
        ({"rotation": "nan 0 0 0 1 0 0 0 1"}, "scales, shears or mirrors"),
        ({"wheels": "1 2"}, "the axle '1 2' is not five numbers"),
    ],
)
def test_a_column_that_is_wrong_is_refused_with_its_value(packages: Packages, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_piece({**ROW, "member": "body.md2", **change}, packages)


def test_a_pose_is_split_at_its_last_mark() -> None:
    assert split_pose("art/walk#2/run.psa#12") == ("art/walk#2/run.psa", 12)


@pytest.mark.parametrize("pose", ["walk.psa", "walk.psa#", "#3", "walk.psa#-1", "walk.psa#two"])
def test_what_is_not_an_animation_and_a_frame_is_no_pose(pose: str) -> None:
    with pytest.raises(InputError, match="write it as walk.psa#12"):
        split_pose(pose)


def test_a_damaged_file_of_another_format_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "body.obj").write_bytes(b"\xff\x00\xff")
    with pytest.raises(InputError, match=r"body\.obj"):
        read_member(tmp_path / "body.obj")
