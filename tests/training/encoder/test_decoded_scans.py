"""Scans of a model's own shapes, of spheres, of which the radius is known."""

from dataclasses import replace

import pytest
import torch

from sdf_backend.errors import InputError
from sdf_backend.model.store import Model
from training.encoder.decoded_scans import DecodedScanSettings, scan_codes

FEW = DecodedScanSettings(resolution=24, views=3, pixels=24, points=50, between=0.5, neighbours=4)


def test_points_lie_on_the_surface_of_their_code(spheres: Model) -> None:
    done = []
    scans = scan_codes(spheres, FEW, lambda number, total: done.append((number, total)))
    assert scans.points.shape == (18, 3, 50, 3)
    assert done[-1] == (18, 18)
    radius = 0.5 + 0.1 * scans.codes[:, 0]
    error = scans.points.float().norm(dim=3) - radius[:, None, None]
    assert float(error.abs().mean()) < 0.02


def test_shapes_between_are_mixtures_of_two_training_codes(spheres: Model) -> None:
    between = scan_codes(spheres, FEW).codes[12:]
    low, high = spheres.codes.amin(0), spheres.codes.amax(0)
    assert bool(((between >= low) & (between <= high)).all())
    assert torch.cdist(between, spheres.codes).min() > 0


def test_the_same_seed_gives_the_same_scans(spheres: Model) -> None:
    torch.testing.assert_close(scan_codes(spheres, FEW).points, scan_codes(spheres, FEW).points)


def test_codes_without_a_surface_and_with_specks_alone_are_left_out(spheres: Model) -> None:
    # The radius of the last two would be 0 and 0.1, where the others have about 0.5.
    codes = torch.cat([spheres.codes[:3], torch.tensor([[-5.0, 0, 0], [-4.0, 0, 0]])])
    assert torch.equal(scan_codes(replace(spheres, codes=codes), FEW).codes, spheres.codes[:3])


def test_a_model_without_any_surface_is_refused(spheres: Model) -> None:
    with pytest.raises(InputError, match="no training code of spheres has a surface; train the model for longer"):
        scan_codes(replace(spheres, codes=torch.tensor([[-6.0, 0, 0]])), FEW)
