"""Observed weights of the vertices of results."""

import numpy as np

from sdf_backend.observation.sources import observed_weights


def test_observed_weights_fall_with_distance_and_scale_with_the_object() -> None:
    surface = np.random.default_rng(0).random((40_000, 3)) * [1, 1, 0]
    vertices = np.array([[0.5, 0.5, height] for height in (0.0, 0.035, 0.2)])
    for scale in (1.0, 1e3):
        weights = observed_weights(vertices * scale, surface * scale, scale)
        assert weights[0] == 1 and 0.3 < weights[1] < 0.7 and weights[2] == 0
