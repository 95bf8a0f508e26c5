"""The colours that show an attribute, at values where they are known."""

import numpy as np

from sdf_backend.geometry.attribute_colors import LARGEST_DEVIATION, deviation_colors, observed_colors


def test_colours_go_from_orange_for_completed_to_blue_for_observed() -> None:
    completed, middle, blue = 255 * observed_colors(np.array([-1.0, 0.5, 2.0]))
    assert completed[0] > 200 > completed[2]
    assert blue[2] > 150 > blue[0]
    np.testing.assert_allclose(middle, (completed + blue) / 2)


def test_a_heat_map_goes_from_blue_over_yellow_to_red_whatever_the_unit() -> None:
    for unit in (1e-3, 1.0, 1e4):
        certain, half, uncertain, more = deviation_colors(np.array([0, 0.5, 1, 7]) * LARGEST_DEVIATION * unit, unit)
        assert certain[2] > certain[0] and half[:2].min() > 0.8 > half[2] and uncertain[0] > 0.7 > uncertain[1:].max()
        assert np.array_equal(uncertain, more)
