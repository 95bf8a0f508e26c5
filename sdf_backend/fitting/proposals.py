"""Proposals of a model's encoder: poses of an input, and codes, at which fits begin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from sdf_backend.fitting.pose_prior import free_parameters
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.encoder import Guesses, box_frame
from sdf_backend.model.store import Model
from sdf_backend.settings import Pose


@dataclass(frozen=True)
class Proposal:
    """Where a fit may begin.

    pose : canonical frame -> the input's frame
    codes : (k, code_length), the most likely first
    right : log odds that the orientation is right
    """

    pose: Similarity
    codes: Tensor
    right: float


def propose(
    model: Model, surface: np.ndarray, rotations: Sequence[np.ndarray], freedom: Pose, draws: int = 2
) -> list[Proposal]:
    """What a model's encoder makes of an input in each of several orientations, in their order.

    Parameters
    ----------
    surface : (n, 3), points on the surface
    rotations : (3, 3) each, of canonical frame -> the input's frame
    freedom : how far a proposal may turn from its orientation
    draws : sets of points that are shown; their guesses are averaged
    """
    assert model.encoder is not None
    middle = surface.mean(axis=0)  # so that single precision is enough however far away the input is
    shown = _shown_points(surface, model.encoder.settings.points, draws) - middle  # (d, n, 3)
    turned = np.stack([shown @ rotation for rotation in rotations])  # (r, d, n, 3)
    clouds = torch.from_numpy(turned.reshape(-1, *turned.shape[2:])).float().to(model.device)
    with torch.inference_mode():
        boxes, centres, sizes = box_frame(clouds)
        guesses = model.encoder(boxes)
    count = len(rotations)
    scale, centre = sizes.view(count, draws), centres.view(count, draws, 3)
    # From box frame to the input's, turned; then averaged over the draws.
    log_scale = (scale.log() + guesses.log_scale.view(count, draws)).mean(1).double().cpu().numpy()
    place = (scale[..., None] * guesses.shift.view(count, draws, 3) + centre).mean(1).double().cpu().numpy()
    turn = guesses.turn.view(count, draws, 3).mean(1).double().cpu().numpy() * free_parameters(freedom).numpy()[-3:]
    right = guesses.right.view(count, draws).mean(1)
    codes = _codes(model, guesses, count, draws)
    return [
        Proposal(
            Similarity(
                float(np.exp(log_scale[index])),
                rotation @ Rotation.from_rotvec(turn[index]).as_matrix(),
                rotation @ place[index] + middle,
            ),
            codes[index],
            float(right[index]),
        )
        for index, rotation in enumerate(rotations)
    ]


def _shown_points(surface: np.ndarray, points: int, draws: int) -> np.ndarray:
    """Sets of points, (draws, points, 3), the same for the same input."""
    chosen = np.random.default_rng(0).integers(len(surface), size=(draws, points))
    return surface[chosen]


def _codes(model: Model, guesses: Guesses, count: int, draws: int) -> Tensor:
    """Codes, (count, k, code_length), averaged over the draws, the most likely first."""
    kinds = guesses.codes.shape[1]
    weights = guesses.code_weights.view(count, draws, kinds)
    codes = guesses.codes.view(count, draws, kinds, -1)
    averaged = (codes * weights[..., None]).sum(1) / weights.sum(1)[..., None].clamp_min(1e-9)
    order = weights.sum(1).argsort(dim=1, descending=True)  # (count, k)
    averaged = averaged.gather(1, order[..., None].expand_as(averaged))
    return model.mean + model.spread * averaged
