"""Nodes about coarse meshes: which are inside, and which vertex is the nearest, of balls."""

import numpy as np
import pytest
import torch

from sdf_backend.geometry.isosurface import ExtractSettings, extract_surface
from sdf_backend.shapes.nearest_vertex_grid import COARSE, REMEMBERED, STEP, Nodes

RADIUS = 0.4


def ball(place: tuple[float, float, float]) -> np.ndarray:
    """The vertices of a ball, (n, 3)."""
    centre = torch.tensor(place)
    return extract_surface(lambda points: (points - centre).norm(dim=1) - RADIUS, ExtractSettings(COARSE)).vertices


def distances(nodes: Nodes, place: tuple[float, float, float]) -> np.ndarray:
    """How far all nodes are from the middle of a ball, (a, b, c)."""
    return np.linalg.norm(nodes.points(np.ones(nodes.size, dtype=bool)) - place, axis=1).reshape(nodes.size)


@pytest.fixture(scope="module")
def nodes() -> Nodes:
    return Nodes.about([ball((0.0, 0.0, 0.0)), ball((0.3, -0.2, 0.1))])


def test_inside_is_what_is_inside(nodes: Nodes) -> None:
    for number, place in enumerate([(0, 0, 0), (0.3, -0.2, 0.1)]):
        np.testing.assert_array_equal(nodes.solid(number), distances(nodes, place) < RADIUS)


def test_the_box_holds_all_meshes_and_a_node_more(nodes: Nodes) -> None:
    solid = nodes.solid(0) | nodes.solid(1)
    for axis in range(3):
        ends = solid.swapaxes(0, axis)[[0, -1]]
        assert not ends.any() and solid.swapaxes(0, axis)[[2, -3]].any()


def test_the_nearest_vertex_is_to_within_a_node_as_far_away_as_the_surface(nodes: Nodes) -> None:
    vertex, away = nodes.nearest(1)
    truth = np.abs(distances(nodes, (0.3, -0.2, 0.1)) - RADIUS)
    assert np.abs(away - truth).max() < 1.5 * STEP
    every = nodes.points(np.ones(nodes.size, dtype=bool)).reshape(*nodes.size, 3)
    there = np.linalg.norm(every - nodes.vertices[1][vertex], axis=-1)
    assert np.abs(there - truth).max() < 1.5 * STEP


def test_it_remembers_only_some(nodes: Nodes) -> None:
    many = Nodes.about([nodes.vertices[0]] * (REMEMBERED + 3))
    for number in range(len(many.vertices)):
        many.nearest(number)
    assert len(many._nearest) == REMEMBERED
