"""How certain the surface of a fitted sphere is."""

import numpy as np
import pytest
import torch
from round_things import radius_of

from sdf_backend.fitting.assessment import surface_deviation
from sdf_backend.model.store import Model


def test_the_surface_deviation_is_that_of_codes_drawn_from_the_posterior(spheres: Model) -> None:
    root = 0.3 * torch.linalg.cholesky(spheres.covariance)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, len(spheres.mean), generator=generator)
    radii = [radius_of(spheres, spheres.mean + root @ one) for one in noise]
    point = torch.tensor([[0.6, 0.48, 0.64]]) * radius_of(spheres, spheres.mean)
    found = float(surface_deviation(spheres, spheres.mean, root, point)[0])
    assert found == pytest.approx(float(np.std(radii)), rel=0.3)
