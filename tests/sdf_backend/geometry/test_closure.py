"""Closed and open meshes, and what they enclose."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.closure import enclosed_volume, is_closed

BOX = trimesh.creation.box([1, 2, 3])
VERTICES, FACES = np.asarray(BOX.vertices), np.asarray(BOX.faces)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_volume_of_a_box_far_away(scale: float) -> None:
    assert enclosed_volume(scale * (VERTICES + [5e5, 5.5e6, 0]), FACES) == pytest.approx(6 * scale**3)


def test_a_box_that_is_inside_out_encloses_less_than_nothing() -> None:
    assert enclosed_volume(VERTICES, FACES[:, ::-1]) == pytest.approx(-6)


@pytest.mark.parametrize(
    "faces",
    [FACES[1:], FACES[:0], np.concatenate([FACES, FACES]), np.concatenate([FACES[:1, ::-1], FACES[1:]])],
    ids=["open", "empty", "double", "flipped"],
)
def test_other_meshes_are_not_closed(faces: np.ndarray) -> None:
    assert not is_closed(faces)
    assert enclosed_volume(VERTICES, faces) is None
