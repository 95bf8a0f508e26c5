"""How well a fitted code explains the observations, and how certain its surface is."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.observation_batch import batch_observations
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.devices import padded_chunks
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.residuals import EXPLAINED_DISTANCE, interval_residuals


@dataclass(frozen=True)
class DeviationSettings:
    """Bounds of `surface_deviation`."""

    minimum_slope: float = 0.2
    """lower bound of |df/dx|: where the distance field is flat, the division would say that the surface moves without
    limit. No record says what it was chosen on; a distance field has slope 1"""


@torch.inference_mode()
def assess(
    model: Model, code: Tensor, observed: Observations, pose: Similarity, dtype: torch.dtype
) -> tuple[float, float]:
    """Mean absolute residual of a code, and the share of the observed surface that it explains.

    Parameters
    ----------
    code : (code_length,)
    observed : all observations count but the guesses
    pose : canonical frame -> the frame of `observed`
    dtype : precision of the decoder's matrix products

    Returns
    -------
    Mean absolute residual in canonical units, and the share of surface points within `EXPLAINED_DISTANCE`.
    """
    canonical = batch_observations([observed], [pose], model.device)
    known = slice(len(observed.points) - observed.assumed)
    distance = model.distances(code, canonical.points[0, known], dtype)
    residual = interval_residuals(distance, canonical.low[0, known], canonical.high[0, known], model.card.clamp)
    return float(residual.abs().mean()), assess_surface(model, code, observed.surface, pose, dtype)[1]


def assess_surface(
    model: Model, code: Tensor, surface: np.ndarray, pose: Similarity, dtype: torch.dtype
) -> tuple[float, float]:
    """Mean absolute distance of surface points, and the share of them that a code explains; see `assess`.

    surface : (n, 3), in the frame that `pose` leads to. The distance is clamped and in canonical units. (0, 0) without
    points.
    """
    if not len(surface):
        return 0.0, 0.0
    points = torch.from_numpy(pose.inverse().apply(surface)).float().to(model.device)
    distance = model.distances(code, points, dtype).abs()
    return float(distance.clamp_max(model.card.clamp).mean()), float((distance < EXPLAINED_DISTANCE).float().mean())


@torch.inference_mode()
def surface_deviation(
    model: Model,
    code: Tensor,
    covariance_root: Tensor,
    points: Tensor,
    settings: DeviationSettings = DeviationSettings(),
) -> Tensor:
    """Standard deviation of the surface along its normal, from the posterior covariance of the code.

    To first order the surface moves by (df/dz . dz) / |df/dx| along its normal when the code moves by dz.

    Parameters
    ----------
    code : (code_length,)
    covariance_root : (code_length, code_length), a root of the code's posterior covariance; see `Fit`
    points : (n, 3), canonical, on the surface of the code

    Returns
    -------
    (n,) float32, canonical units.
    """
    decoder = model.folded(torch.bfloat16)
    deviations = []
    for part in padded_chunks(points):
        _, by_code, by_point = decoder.gradients(code[None], part[None])  # (1, m, code_length), (1, m, 3)
        slope = by_point[0].norm(dim=1).clamp_min(settings.minimum_slope)
        deviations.append((by_code[0] @ covariance_root).norm(dim=1) / slope)
    return torch.cat(deviations)[: len(points)]
