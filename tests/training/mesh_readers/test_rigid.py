"""Bones as matrices: turns whose answers are known, in the mirrored frame."""

from pathlib import Path

import numpy as np
import pytest
from game_files import RESTING, packed_bone, turned

from sdf_backend.errors import InputError
from training.mesh_readers.rigid import BONE, bone_matrices


def matrices(*bones: tuple) -> np.ndarray:
    return bone_matrices(np.frombuffer(b"".join(map(packed_bone, bones)), BONE), Path("horse.pmd"))


def test_a_resting_bone_changes_nothing() -> None:
    assert matrices(RESTING).tolist() == [np.eye(4).tolist()]


def test_translations_are_mirrored_in_z() -> None:
    assert matrices(((1, 2, 3), (0, 0, 0, 1)))[0, :3, 3].tolist() == [1, 2, -3]


@pytest.mark.parametrize(
    ("axis", "point", "image"),
    [
        # In the file's frame a quarter turn about y takes (1, 0, 0) to (0, 0, -1); z is negated on either side.
        ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
        ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
        ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    ],
)
def test_quarter_turns_are_those_of_the_mirrored_frame(axis: tuple, point: tuple, image: tuple) -> None:
    [matrix] = matrices(((0, 0, 0), turned(axis, 90)))
    assert np.allclose(matrix[:3, :3] @ point, image)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_quaternions_are_normalised() -> None:
    assert matrices(((0, 0, 0), (0, 0, 0, 3))).tolist() == [np.eye(4).tolist()]


@pytest.mark.parametrize(
    "bone", [((0, 0, 0), (0, 0, 0, 0)), ((np.nan, 0, 0), (0, 0, 0, 1)), ((0, 0, 0), (np.inf, 0, 0, 1))]
)
def test_a_bone_that_is_no_rigid_transform_is_refused(bone: tuple) -> None:
    with pytest.raises(InputError, match=r"horse\.pmd is damaged: a bone has a number that is not finite"):
        matrices(RESTING, bone)
