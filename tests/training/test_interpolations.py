"""Ways between shapes."""

import numpy as np
import pytest
import trimesh

from training.interpolations import PairOutcome, hausdorff


def test_the_hausdorff_distance_is_the_farthest_of_either_side() -> None:
    line = np.stack([np.linspace(0, 1, 11), np.zeros(11), np.zeros(11)], axis=1)
    longer = np.concatenate([line, [[1.5, 0, 0]]])
    assert hausdorff(line, longer) == hausdorff(longer, line) == pytest.approx(0.5)
    small, large = (np.array(trimesh.creation.icosphere(subdivisions=4, radius=r).vertices) for r in (0.5, 0.6))
    assert hausdorff(small, large) == pytest.approx(0.1)


def test_a_jump_is_the_largest_step_over_the_median() -> None:
    assert PairOutcome("a", "b", 64, 64, 0.06, 0.02).ratio == pytest.approx(3)
    assert PairOutcome("a", "a", 64, 64, 0.0, 0.0).ratio == float("inf")
