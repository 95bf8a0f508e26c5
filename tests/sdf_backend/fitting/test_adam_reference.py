"""The reference against Levenberg-Marquardt, on a sphere."""

import pytest
import torch
from round_things import QUICK, radius_of, solid_sphere

from sdf_backend.fitting.adam_reference import AdamSettings, fit_codes_with_adam
from sdf_backend.fitting.fit import FitRequest, fit_codes
from sdf_backend.model.store import Model


def test_adam_and_levenberg_marquardt_agree(spheres: Model) -> None:
    shape = solid_sphere(0.55)
    [second_order] = fit_codes(spheres, [FitRequest(shape)], QUICK)
    [reference] = fit_codes_with_adam(spheres, [shape], AdamSettings(points=500, dtype=torch.float32))
    assert second_order.residual < 1.05 * reference.residual
    assert radius_of(spheres, reference.code) == pytest.approx(0.55, abs=0.015)
    assert reference.steps == 800
