"""Grid nodes around coarse meshes of balls: which are inside, and which vertex is the nearest."""

import numpy as np
import pytest
import torch

from sdf_backend.geometry.isosurface import ExtractSettings, extract_surface
from sdf_backend.shapes.interpolation_settings import InterpolationSettings
from sdf_backend.shapes.nearest_vertex_grid import CACHED_MESHES, NearestVertexGrid

RADIUS = 0.4
RESOLUTION, STEP = InterpolationSettings().keyframe_resolution, InterpolationSettings().keyframe_cell


def ball(centre: tuple[float, float, float]) -> np.ndarray:
    """The vertices of a ball, (n, 3)."""
    middle = torch.tensor(centre)
    return extract_surface(lambda points: (points - middle).norm(dim=1) - RADIUS, ExtractSettings(RESOLUTION)).vertices


def distances(grid: NearestVertexGrid, centre: tuple[float, float, float]) -> np.ndarray:
    """Distances of all nodes from the centre of a ball, (a, b, c)."""
    return np.linalg.norm(grid.positions(np.ones(grid.size, dtype=bool)) - centre, axis=1).reshape(grid.size)


@pytest.fixture(scope="module")
def grid() -> NearestVertexGrid:
    return NearestVertexGrid.enclosing([ball((0.0, 0.0, 0.0)), ball((0.3, -0.2, 0.1))], STEP)


def test_inside_agrees_with_the_analytic_balls(grid: NearestVertexGrid) -> None:
    for number, centre in enumerate([(0, 0, 0), (0.3, -0.2, 0.1)]):
        np.testing.assert_array_equal(grid.inside(number), distances(grid, centre) < RADIUS)


def test_the_box_encloses_all_meshes_with_one_node_of_margin(grid: NearestVertexGrid) -> None:
    solid = grid.inside(0) | grid.inside(1)
    for axis in range(3):
        ends = solid.swapaxes(0, axis)[[0, -1]]
        assert not ends.any() and solid.swapaxes(0, axis)[[2, -3]].any()


def test_the_nearest_vertex_is_as_far_away_as_the_surface_to_within_a_node(grid: NearestVertexGrid) -> None:
    vertex, away = grid.nearest(1)
    truth = np.abs(distances(grid, (0.3, -0.2, 0.1)) - RADIUS)
    assert np.abs(away - truth).max() < 1.5 * STEP
    every = grid.positions(np.ones(grid.size, dtype=bool)).reshape(*grid.size, 3)
    there = np.linalg.norm(every - grid.vertices[1][vertex], axis=-1)
    assert np.abs(there - truth).max() < 1.5 * STEP


def test_only_some_meshes_stay_in_memory(grid: NearestVertexGrid) -> None:
    many = NearestVertexGrid.enclosing([grid.vertices[0]] * (CACHED_MESHES + 3), STEP)
    for number in range(len(many.vertices)):
        many.nearest(number)
    assert len(many._nearest) == CACHED_MESHES
