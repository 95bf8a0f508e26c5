"""Residuals of interval observations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.observation.residuals import interval_residuals


@settings(max_examples=50)
@given(value=st.floats(-1, 1), low=st.floats(-1, 1), width=st.floats(0, 1))
def test_a_residual_is_zero_inside_its_interval_and_the_distance_to_it_outside(
    value: float, low: float, width: float
) -> None:
    clamp = 0.4
    found = float(interval_residuals(*(torch.tensor([number]) for number in (value, low, low + width)), clamp)[0])
    inside = np.clip(value, -clamp, clamp)
    nearest = np.clip(inside, *np.clip([low, low + width], -clamp, clamp))
    assert found == pytest.approx(inside - nearest, abs=1e-6)
