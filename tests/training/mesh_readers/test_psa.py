"""PSA files written field by field: where bones are in each frame, and what a damaged file is answered with."""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from game_files import RESTING, turned, write_psa
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from training.mesh_readers.psa import read_psa

MOVED = ((1, 2, 3), turned((0, 1, 0), 90))
FRAMES = [[RESTING, RESTING], [RESTING, MOVED], [MOVED, RESTING]]


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return write_psa(tmp_path / "walk.psa", FRAMES)


def test_each_frame_has_the_state_of_every_bone(walk: Path) -> None:
    resting, moved = np.eye(4), np.array([[0, 0, -1, 1], [0, 1, 0, 2], [1, 0, 0, -3], [0, 0, 0, 1]])
    assert np.allclose(read_psa(walk, 0), [resting, resting])
    assert np.allclose(read_psa(walk, 1), [resting, moved])
    assert np.allclose(read_psa(walk, 2), [moved, resting])


@pytest.mark.parametrize("frame", [3, -1])
def test_a_frame_that_is_not_there_is_refused_with_how_many_there_are(walk: Path, frame: int) -> None:
    with pytest.raises(InputError, match=rf"has 3 frames, numbered from 0; there is no frame {frame}"):
        read_psa(walk, frame)


def test_another_format_and_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "walk.psa").write_bytes(b"PSMD" + bytes(100))
    with pytest.raises(InputError, match="is not PSA: it begins with b'PSMD' instead of b'PSSA'"):
        read_psa(tmp_path / "walk.psa", 0)
    with pytest.raises(InputError, match="has version 2 of PSA; only version 1"):
        read_psa(write_psa(tmp_path / "walk.psa", FRAMES, version=2), 0)


def test_a_number_of_bones_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = write_psa(tmp_path / "walk.psa", FRAMES, bones=2**32 - 1)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"12884901885 bone states at byte 32 do not fit into its 200 bytes"):
        read_psa(path, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@given(length=st.integers(0, 199))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    content = write_psa(tmp_path / "whole.psa", FRAMES).read_bytes()
    assert len(content) == 200
    (tmp_path / "cut.psa").write_bytes(content[:length])
    with pytest.raises(InputError, match=r"cut\.psa"):
        read_psa(tmp_path / "cut.psa", 2)


@given(place=st.integers(0, 49), value=st.integers(0, 2**32 - 1))
def test_a_changed_word_gives_bones_or_one_clear_error(tmp_path: Path, place: int, value: int) -> None:
    content = bytearray(write_psa(tmp_path / "whole.psa", FRAMES).read_bytes())
    content[4 * place : 4 * place + 4] = struct.pack("<I", value)
    (tmp_path / "changed.psa").write_bytes(bytes(content))
    try:
        bones = read_psa(tmp_path / "changed.psa", 1)
    except InputError as error:
        assert "changed.psa" in str(error)
    else:
        assert np.isfinite(bones).all()
