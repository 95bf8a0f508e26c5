"""How well a code explains what was observed, and how sure its surface is."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdf_backend.fitting.observation_batch import BLOCK, batched
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.devices import CHUNK
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations

# An observation counts as explained where the model is this near to it, canonical units.
EXPLAINED = 0.02
# Where the distance hardly changes with the place, nobody can say how far its surface moves.
LEAST_SLOPE = 0.2


def residuals(distance: Tensor, low: Tensor, high: Tensor, clamp: float) -> Tensor:
    """How far clamped distances lie outside of their intervals, signed; shapes as `distance`.

    A bound beyond the clamp asks only that the distance be beyond it too.
    """
    clamped = distance.clamp(-clamp, clamp)
    return clamped - clamped.clamp(low.clamp(-clamp, clamp), high.clamp(-clamp, clamp))


@torch.inference_mode()
def assess(
    model: Model, code: Tensor, observed: Observations, pose: Similarity, dtype: torch.dtype
) -> tuple[float, float]:
    """Mean absolute residual over all that was observed, guesses left out, and the share of the surface explained."""
    canonical = batched([observed], [pose], model.device)
    known = slice(len(observed.points) - observed.guessed)
    found = decoded_distances(model, code, canonical.points[0, known], dtype)
    residual = residuals(found, canonical.low[0, known], canonical.high[0, known], model.card.clamp).abs().mean()
    return float(residual), assess_surface(model, code, observed.surface, pose, dtype)[1]


def assess_surface(
    model: Model, code: Tensor, surface: np.ndarray, pose: Similarity, dtype: torch.dtype
) -> tuple[float, float]:
    """Mean absolute distance, clamped, of surface points, (n, 3) in the observed frame, and the share explained."""
    if not len(surface):
        return 0.0, 0.0
    points = torch.from_numpy(pose.inverse().apply(surface)).float().to(model.device)
    found = decoded_distances(model, code, points, dtype).abs()
    return float(found.clamp_max(model.card.clamp).mean()), float((found < EXPLAINED).float().mean())


@torch.inference_mode()
def surface_deviation(model: Model, code: Tensor, deviations: Tensor, points: Tensor) -> Tensor:
    """Standard deviation, (n,), of where the surface lies along its normal at canonical points, (n, 3), on it.

    code : (code_length,); deviations : root of the code's covariance, see `fit.Fit`. To first order the surface moves
    by (df/dz . dz) / |df/dx| when the code moves by dz.
    """
    decoder = model.folded(torch.bfloat16)
    moves = []
    for part in functional.pad(points, (0, 0, 0, -len(points) % BLOCK)).split(CHUNK):
        _, by_code, by_point = decoder.gradients(code[None], part[None])
        slope = by_point[0].norm(dim=1).clamp_min(LEAST_SLOPE)
        moves.append((by_code[0] @ deviations).norm(dim=1) / slope)
    return torch.cat(moves)[: len(points)]


def decoded_distances(model: Model, code: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
    """Of canonical points, (n, 3): (n,)."""
    decoder = model.folded(dtype)
    filled = functional.pad(points, (0, 0, 0, -len(points) % BLOCK))
    return torch.cat([decoder.distances(code[None], part[None])[0] for part in filled.split(CHUNK)])[: len(points)]
