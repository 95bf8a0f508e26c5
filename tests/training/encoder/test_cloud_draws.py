"""Random clouds: what the encoder is to say of them must be true of them."""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from training.encoder.cloud_draws import CloudSettings, draw_clouds
from training.encoder.decoded_scans import DecodedScans

CLEAN = CloudSettings(noise=0.0, cut=0.0)


def two_shapes() -> DecodedScans:
    """A box's corners and a rod, each from two views that see all of it."""
    box = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.3, 0.3) for z in (-0.2, 0.2)])
    rod = torch.linspace(-0.9, 0.9, 8)[:, None] * torch.tensor([[0.0, 1.0, 0.0]])
    return DecodedScans(torch.stack([box, rod])[:, None].expand(2, 2, 8, 3).half(), torch.eye(2))


def test_pose_and_turn_lead_back_to_the_canonical_points() -> None:
    scans = two_shapes()
    clouds = draw_clouds(scans, 40, 64, torch.Generator().manual_seed(0), CLEAN)
    for cloud, shape, log_scale, shift, turn in zip(
        clouds.points, clouds.shapes, clouds.log_scale, clouds.shift, clouds.turn, strict=True
    ):
        rotation = Rotation.from_rotvec(turn.numpy()).as_matrix()
        canonical = (cloud.numpy() - shift.numpy()) @ rotation / math.exp(float(log_scale))
        known = scans.points[shape, 0].float().numpy()
        nearest = np.linalg.norm(canonical[:, None] - known[None], axis=2).min(axis=1)
        assert nearest.max() < 1e-3


def test_clouds_are_in_their_box_frames() -> None:
    clouds = draw_clouds(two_shapes(), 40, 64, torch.Generator().manual_seed(0))
    middle = (clouds.points.amin(1) + clouds.points.amax(1)) / 2
    torch.testing.assert_close(middle, torch.zeros_like(middle), atol=1e-5, rtol=0)
    torch.testing.assert_close(clouds.points.norm(dim=2).amax(1), torch.ones(40))


def test_an_orientation_is_right_up_to_a_small_turn() -> None:
    clouds = draw_clouds(two_shapes(), 400, 16, torch.Generator().manual_seed(0), CLEAN)
    small = clouds.turn.norm(dim=1) <= math.radians(CLEAN.right_turn)
    assert torch.equal(small, clouds.right)
    assert 0.6 < float(clouds.right.float().mean()) < 0.8
    upright = clouds.turn[:, [0, 2]].norm(dim=1) < 1e-6
    assert 0.6 < float(upright.float().mean()) < 0.8


def test_a_cut_takes_points_away_on_one_side_and_leaves_as_many_points() -> None:
    torch.manual_seed(0)
    ball = torch.nn.functional.normalize(torch.randn(1, 1, 500, 3), dim=3).half()
    scans = DecodedScans(ball, torch.zeros(1, 1))
    always = replace(CLEAN, cut=1.0)
    clouds = draw_clouds(scans, 50, 400, torch.Generator().manual_seed(0), always)
    assert clouds.points.shape == (50, 400, 3)
    # The box of a part of a ball has its centre away from that of the ball.
    assert float(clouds.shift.norm(dim=1).mean()) > 0.08
    whole = draw_clouds(scans, 50, 400, torch.Generator().manual_seed(0), CLEAN)
    assert float(whole.shift.norm(dim=1).max()) < 0.05
