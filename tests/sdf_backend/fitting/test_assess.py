"""What a code explains of spheres, and how sure their surface is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from round_things import radius_of

from sdf_backend.fitting.assess import residuals, surface_deviation
from sdf_backend.model.store import Model


@settings(max_examples=50, deadline=None)
@given(value=st.floats(-1, 1), low=st.floats(-1, 1), width=st.floats(0, 1))
def test_a_residual_is_zero_inside_its_interval_and_the_distance_to_it_outside(
    value: float, low: float, width: float
) -> None:
    clamp = 0.4
    found = float(residuals(*(torch.tensor([number]) for number in (value, low, low + width)), clamp)[0])
    inside = np.clip(value, -clamp, clamp)
    nearest = np.clip(inside, *np.clip([low, low + width], -clamp, clamp))
    assert found == pytest.approx(inside - nearest, abs=1e-6)


def test_the_surface_deviates_as_codes_drawn_from_the_deviations_do(spheres: Model) -> None:
    root = 0.3 * torch.linalg.cholesky(spheres.covariance)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, len(spheres.mean), generator=generator)
    radii = [radius_of(spheres, spheres.mean + root @ one) for one in noise]
    place = torch.tensor([[0.6, 0.48, 0.64]]) * radius_of(spheres, spheres.mean)
    found = float(surface_deviation(spheres, spheres.mean, root, place)[0])
    assert found == pytest.approx(float(np.std(radii)), rel=0.3)
