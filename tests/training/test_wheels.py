"""Wheels of cars whose source models the body alone: where they stand and what they enclose."""

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from training.wheels import WheelProfile, wheels


def parts(places: str) -> list[trimesh.Trimesh]:
    split = trimesh.Trimesh(*wheels(places)).split()
    return sorted(split, key=lambda part: tuple(np.round(part.bounds.mean(axis=0)[[2, 0]], 6)))


def test_each_axle_has_a_closed_wheel_on_either_side() -> None:
    found = parts("0.8 0.3 1.2 0.3 0.2; 0.7 0.4 -1.5 0.4 0.3")
    assert all(part.is_watertight and part.volume > 0 for part in found)
    assert np.allclose(
        [part.bounds.mean(axis=0) for part in found],
        [(-0.7, 0.4, -1.5), (0.7, 0.4, -1.5), (-0.8, 0.3, 1.2), (0.8, 0.3, 1.2)],
    )
    assert np.allclose([part.extents for part in found], [(0.3, 0.8, 0.8)] * 2 + [(0.2, 0.6, 0.6)] * 2)


def test_a_wheel_is_a_little_less_than_the_cylinder_around_it() -> None:
    _, wheel = parts("1 0 0 0.5 0.2")
    cylinder = np.pi * 0.5**2 * 0.2
    assert 0.8 * cylinder < wheel.volume < cylinder


def test_a_profile_without_bevels_is_a_prism_of_as_many_sides() -> None:
    flat = WheelProfile(rim=0.5, hub=1.0, shoulder=1.0, tread=1.0, segments=8)
    vertices, faces = wheels("1 0 0 1 2", flat)
    octagon = 2 * np.sqrt(2)
    assert trimesh.Trimesh(vertices, faces).volume == pytest.approx(2 * 2 * octagon)


@pytest.mark.parametrize("axle", ["", "1 2 3 4", "1 2 3 4 5 6", "1 2 3 wide 5"])
def test_an_axle_that_is_not_five_numbers_is_refused(axle: str) -> None:
    with pytest.raises(InputError, match="is not five numbers: x, y, z, radius, width"):
        wheels(f"1 0 0 1 1;{axle}")


@pytest.mark.parametrize("axle", ["1 0 0 0 1", "1 0 0 1 -1", "nan 0 0 1 1", "1 0 0 inf 1"])
def test_an_axle_without_size_or_place_is_refused(axle: str) -> None:
    with pytest.raises(InputError, match=f"the axle '{axle}' needs finite numbers"):
        wheels(axle)
