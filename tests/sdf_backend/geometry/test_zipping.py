"""Strips between loops: every edge is used once, and the strip between two circles is a ring."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.geometry.zipping import zip_loops


def circle(count: int, radius: float, start: float = 0.0) -> np.ndarray:
    angles = start + np.linspace(0, 2 * np.pi, count, endpoint=False)
    return radius * np.column_stack([np.cos(angles), np.sin(angles), np.zeros(count)])


def strip_area(first: np.ndarray, second: np.ndarray) -> float:
    steps, on_first = zip_loops(first, second)
    (rows, columns), total = steps.T, 0.0
    for row, column, along in zip(rows, columns, on_first, strict=True):
        third = first[(row + 1) % len(first)] if along else second[(column + 1) % len(second)]
        total += float(np.linalg.norm(np.cross(second[column] - first[row], third - first[row]))) / 2
    return total


@given(st.integers(3, 40), st.integers(3, 40), st.floats(0, 6), st.integers(0, 2**32 - 1))
def test_every_edge_of_both_loops_is_used_once(count: int, other: int, start: float, seed: int) -> None:
    noise = 0.2 * np.random.default_rng(seed).normal(size=(count, 3))
    steps, on_first = zip_loops(circle(count, 1.0) + noise, circle(other, 0.7, start))
    assert len(steps) == count + other
    assert sorted(steps[on_first, 0].tolist()) == list(range(count))
    assert sorted(steps[~on_first, 1].tolist()) == list(range(other))
    # Each triangle begins where the one before ends.
    for (before, after), along in zip(pairwise([*steps.tolist(), steps[0].tolist()]), on_first, strict=True):
        row, column = before
        assert after == ([(row + 1) % count, column] if along else [row, (column + 1) % other])


def test_the_strip_between_two_circles_is_the_ring_between_them() -> None:
    ring = np.pi * (1 - 0.9**2)
    assert strip_area(circle(400, 1.0), circle(300, 0.9, 2.0)) == pytest.approx(ring, rel=0.01)
    # A square about a circle: few vertices against many.
    assert strip_area(circle(4, 1.0), circle(200, 0.5)) == pytest.approx(2 - np.pi / 4, rel=0.01)
