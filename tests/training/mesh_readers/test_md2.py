"""MD2 files written field by field: what a frame holds, and what a damaged file is answered with."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import trimesh
from game_files import TRIANGLES, write_md2
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from training.mesh_readers.md2 import read_md2

# MD2's triangles are clockwise.
CLOCKWISE = [(a, c, b) for a, b, c in TRIANGLES]
STANDING = ((0.125, 0.25, 0.5), (-1, -2, -3), [(0, 0, 0), (8, 0, 0), (0, 8, 0), (0, 0, 8)])
JUMPING = ((0.125, 0.25, 0.5), (-1, -2, 7), [(0, 0, 0), (255, 0, 0), (0, 8, 0), (0, 0, 8)])


@pytest.fixture
def tetrahedron(tmp_path: Path) -> Path:
    return write_md2(tmp_path / "car.md2", [STANDING, JUMPING], CLOCKWISE)


def test_vertices_are_scaled_and_moved_and_triangles_face_outwards(tetrahedron: Path) -> None:
    vertices, faces = read_md2(tetrahedron)
    assert vertices.tolist() == [[-1, -2, -3], [0, -2, -3], [-1, 0, -3], [-1, -2, 1]]
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx(1 * 2 * 4 / 6)


def test_each_frame_has_its_own_scale_offset_and_vertices(tetrahedron: Path) -> None:
    vertices, _ = read_md2(tetrahedron, frame=1)
    assert vertices.tolist() == [[-1, -2, 7], [30.875, -2, 7], [-1, 0, 7], [-1, -2, 11]]


@pytest.mark.parametrize("frame", [2, -1])
def test_a_frame_that_is_not_there_is_refused_with_how_many_there_are(tetrahedron: Path, frame: int) -> None:
    with pytest.raises(InputError, match=rf"has 2 frames, numbered from 0; there is no frame {frame}"):
        read_md2(tetrahedron, frame)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.md2: No such file"):
        read_md2(tmp_path / "nowhere.md2")


def test_another_format_and_another_version_are_refused_with_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "car.md2").write_bytes(b"IDP3" + bytes(100))
    with pytest.raises(InputError, match=r"is not MD2: it begins with b'IDP3' instead of b'IDP2'"):
        read_md2(tmp_path / "car.md2")
    with pytest.raises(InputError, match="has version 15 of MD2; only version 8"):
        read_md2(write_md2(tmp_path / "car.md2", [STANDING], CLOCKWISE, {"version": 15}))


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"triangles": 2_000_000_000}, "2000000000 triangles at byte 72 do not fit"),
        ({"triangles": -1}, "-1 triangles"),
        ({"triangles_at": -5}, "triangles at byte -5"),
        ({"triangles_at": 100_000}, "triangles at byte 100000"),
        ({"vertices": 2_000_000_000}, "frames of 56 bytes do not match 2000000000 vertices"),
        ({"vertices": 3}, "frames of 56 bytes do not match 3 vertices"),
        ({"frame_size": 2_000_000_000, "vertices": 499_999_990}, "do not fit into its"),
        ({"frames": -3}, "has -3 frames"),
        ({"frames_at": 2_000_000_000}, "frames at byte 2000000000 do not fit"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path, lie: dict, message: str) -> None:
    path = write_md2(tmp_path / "car.md2", [STANDING], CLOCKWISE, lie)
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        read_md2(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_triangle_with_a_corner_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_md2(tmp_path / "car.md2", [STANDING], [(0, 1, 4)])
    with pytest.raises(InputError, match="vertex 4 is not among its 4"):
        read_md2(path)


def test_a_scale_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    path = write_md2(tmp_path / "car.md2", [((np.inf, 1, 1), (0, 0, 0), STANDING[2])], CLOCKWISE)
    with pytest.raises(InputError, match="frame 0 has a scale or an offset that is not finite"):
        read_md2(path)


@given(length=st.integers(0, 231))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    content = write_md2(tmp_path / "whole.md2", [STANDING, JUMPING], CLOCKWISE).read_bytes()
    assert len(content) == 232
    (tmp_path / "cut.md2").write_bytes(content[:length])
    with pytest.raises(InputError, match=r"cut\.md2"):
        read_md2(tmp_path / "cut.md2", frame=1)


@given(place=st.integers(0, 57), value=st.integers(0, 2**32 - 1))
def test_a_changed_word_gives_a_mesh_or_one_clear_error(tmp_path: Path, place: int, value: int) -> None:
    content = bytearray(write_md2(tmp_path / "whole.md2", [STANDING, JUMPING], CLOCKWISE).read_bytes())
    content[4 * place : 4 * place + 4] = struct.pack("<I", value)
    (tmp_path / "changed.md2").write_bytes(bytes(content))
    try:
        vertices, faces = read_md2(tmp_path / "changed.md2")
    except InputError as error:
        assert "changed.md2" in str(error)
    else:
        assert np.isfinite(vertices).all()
        assert faces.size == 0 or faces.max() < len(vertices)
