"""Ground planes and outliers, and parts of objects that look like them."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sdf_backend.observation.outliers import find_ground_plane, find_outliers, find_strays

UP = np.array([0.0, 1.0, 0.0])


def ball(seed: int, count: int = 4_000) -> np.ndarray:
    normal = np.random.default_rng(seed).normal(size=(count, 3))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True) * 0.5


def ground_plane(seed: int, height: float, count: int, reach: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    plan = rng.uniform(-reach, reach, size=(count, 2))
    return np.stack([plan[:, 0], height + rng.normal(size=count) * 0.003, plan[:, 1]], axis=1)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.06, 0.4),
    scale=st.floats(1e-3, 1e4),
    turn=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_a_ground_plane_is_found_in_any_unit_and_orientation(seed: int, share: float, scale: float, turn: list) -> None:
    body = ball(seed)
    ground = ground_plane(seed, -0.5, round(len(body) * share))
    rotation = Rotation.from_rotvec(turn).as_matrix()
    points = np.concatenate([body, ground]) @ rotation.T * scale + scale
    found = find_ground_plane(points, rotation @ UP)
    assert found[len(body) :].mean() > 0.95
    assert found[: len(body)].mean() < 0.05


def on_feet() -> np.ndarray:
    feet = [trimesh.creation.box([0.06, 0.4, 0.06]) for _ in range(4)]
    for foot, corner in zip(feet, [(-0.4, -0.4), (-0.4, 0.4), (0.4, -0.4), (0.4, 0.4)], strict=True):
        foot.apply_translation([corner[0], -0.2, corner[1]])
    top = trimesh.creation.box([1, 0.05, 1])
    return trimesh.util.concatenate([top, *feet]).sample(6_000, seed=0)


@pytest.mark.parametrize(
    "points",
    [
        ball(0),
        trimesh.creation.box([1, 0.6, 0.8]).sample(6_000, seed=0),
        trimesh.creation.cylinder(radius=0.4, height=1.0).sample(6_000, seed=0)[:, [0, 2, 1]],
        on_feet(),
        trimesh.creation.box([1, 0.01, 1]).sample(6_000, seed=0),
    ],
    ids=["ball", "box", "cylinder", "table", "plate"],
)
def test_the_underside_of_an_object_is_no_ground_plane(points: np.ndarray) -> None:
    assert not find_ground_plane(points, UP).any()


def test_a_table_on_a_ground_plane_keeps_all_but_the_soles_of_its_feet() -> None:
    table = on_feet()
    found = find_ground_plane(np.concatenate([table, ground_plane(0, -0.4, 700)]), UP)
    assert found[len(table) :].mean() > 0.95 and found[: len(table)].mean() < 0.03


def glider() -> np.ndarray:
    """Two crossed thin rods, whose undersides are most of the lowest points."""
    body = trimesh.creation.cylinder(radius=0.05, height=1.0).sample(2_000, seed=0)
    return np.concatenate([body[:, [0, 1, 2]], body[:, [2, 1, 0]]])


@pytest.mark.parametrize(
    ("points", "lowest"),
    [(glider(), -0.05), (trimesh.creation.box([1, 0.6, 0.8]).sample(6_000, seed=0), -0.3)],
    ids=["flat", "box"],
)
def test_a_ground_plane_is_found_under_flat_objects_and_objects_with_walls(points: np.ndarray, lowest: float) -> None:
    found = find_ground_plane(np.concatenate([points, ground_plane(0, lowest, len(points) // 9)]), UP)
    assert found[len(points) :].mean() > 0.95
    # Of the object only points within the plane's slab.
    assert points[found[: len(points)], 1].max() < lowest + 0.03
    assert not find_ground_plane(points, UP).any()


@pytest.mark.parametrize(("count", "is_outlier"), [(150, True), (900, False)])
def test_outliers_are_small_components_far_from_the_model_and_not_connected_to_it(count: int, is_outlier: bool) -> None:
    body = ball(1)
    rng = np.random.default_rng(2)
    connected = np.stack([rng.uniform(0.5, 0.9, 150), *rng.normal(size=(2, 150)) * 0.003], axis=1)
    apart = np.stack([rng.uniform(-0.9, -0.7, count), *rng.normal(size=(2, count)) * 0.003], axis=1)
    points = np.concatenate([body, connected, apart])
    found = find_outliers(points, np.abs(np.linalg.norm(points, axis=1) - 0.5))
    assert not found[: len(body) + 150].any()
    assert found[len(body) + 150 :].all() if is_outlier else not found.any()


def test_there_are_no_outliers_if_the_model_explains_nothing_or_everything() -> None:
    points = ball(3, 200)
    assert not find_outliers(points, np.full(200, 1.0)).any()
    assert not find_outliers(points, np.zeros(200)).any()


def test_a_cloud_in_one_place_takes_no_more_memory_than_others() -> None:
    heap = np.random.default_rng(0).normal(size=(20_000, 3)) * 1e-3
    distance = np.full(20_000, 0.5)
    distance[0] = 0.0
    assert not find_outliers(heap, distance).any()


@pytest.mark.parametrize("count", [500, 2_500, 15_000])
@pytest.mark.parametrize("reach", [1.5, 2.5, 25.0])
def test_strays_at_any_distance_are_found_and_the_object_stays(count: int, reach: float) -> None:
    body, rng = ball(1, count), np.random.default_rng(2)
    strays = rng.normal(size=(count // 20, 3))
    strays *= reach * (0.5 + 0.5 * rng.random((len(strays), 1))) / np.linalg.norm(strays, axis=1, keepdims=True)
    found = find_strays(np.concatenate([body, strays]) * 7 + 30)
    assert not found[:count].any()
    left = np.linalg.norm(strays[~found[count:]], axis=1)
    assert found[count:].mean() > 0.8 and left.max(initial=0) < 1.2


def test_a_piece_of_wall_far_behind_is_a_stray_and_a_part_beside_is_not() -> None:
    body, rng = ball(1), np.random.default_rng(2)
    patch = rng.uniform(-0.1, 0.1, size=(200, 3)) * [1, 1, 0]
    found = find_strays(np.concatenate([body, patch + [3, 0, 0], patch + [0, 0.8, 0]]))
    assert found[4_000:4_200].all() and not found[4_200:].any() and not found[:4_000].any()


def test_a_cloud_of_two_densities_loses_nothing() -> None:
    assert not find_strays(np.concatenate([ball(1, 4_000) * 0.02, ball(2, 1_000)])).any()
    assert not find_strays(np.repeat(ball(1, 40), 50, axis=0)).any()
