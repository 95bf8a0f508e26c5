"""The optimiser of the released DeepSDF code, Adam: the reference that fits are compared with."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sdf_backend.fitting.assessment import assess
from sdf_backend.fitting.fit import Fit
from sdf_backend.fitting.observation_batch import ObservationBatch, batch_observations
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.devices import CHUNK
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.residuals import interval_residuals
from sdf_backend.progress import PhaseProgress, silent


@dataclass(frozen=True)
class AdamSettings:
    """Settings of the reconstruction in the released DeepSDF code (Park et al., CVPR 2019)."""

    steps: int = 800
    """Adam steps"""
    points: int = 8_000
    """samples in each step, half of them inside where there are any"""
    rate: float = 5e-3
    """learning rate, divided by ten after half of the steps"""
    penalty: float = 1e-4
    """weight of the code's mean squared value"""
    first_sigma: float = 0.01
    """standard deviation of the first code about zero"""
    dtype: torch.dtype = torch.bfloat16
    """precision of the decoder's matrix products"""
    seed: int = 0
    """seed of the first codes and of the samples"""


def fit_codes_with_adam(
    model: Model,
    observations: list[Observations],
    settings: AdamSettings = AdamSettings(),
    progress: PhaseProgress = silent,
) -> list[Fit]:
    """Fit codes as the released DeepSDF code does, with known poses; see `fit_codes`.

    The gradient comes from the same folded decoder as Levenberg-Marquardt's, so that only the optimisers are compared.
    """
    start = time.perf_counter()
    identity = Similarity.identity()
    batch = batch_observations(observations, [identity] * len(observations), model.device)
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (len(observations), model.codes.shape[1])
    codes = (torch.randn(shape, generator=generator) * settings.first_sigma).to(model.device).requires_grad_()
    optimiser = torch.optim.Adam([codes], lr=settings.rate)
    decoder = model.folded(settings.dtype)
    rows = [low[:size] for low, size in zip(batch.low.cpu(), batch.sizes.tolist(), strict=True)]
    inside = [torch.nonzero(low < 0)[:, 0] for low in rows]
    outside = [torch.nonzero(low >= 0)[:, 0] for low in rows]
    for step in range(settings.steps):
        optimiser.param_groups[0]["lr"] = settings.rate * (0.1 if step >= settings.steps // 2 else 1.0)
        chosen = torch.stack(
            [_balanced_indices(*sides, settings.points, generator) for sides in zip(inside, outside, strict=True)]
        ).to(model.device)
        codes.grad = _l1_gradient(decoder, codes.detach(), batch, chosen, model.card.clamp)
        codes.grad += 2 * settings.penalty * codes.detach() / shape[1]
        optimiser.step()
        progress((step + 1) / settings.steps)
    seconds = (time.perf_counter() - start) / len(observations)
    fits = []
    for code, observed in zip(codes.detach(), observations, strict=True):
        residual, explained = assess(model, code, observed, identity, settings.dtype)
        fits.append(Fit(code.clone(), identity, residual, settings.steps, seconds, residual, explained))
    return fits


def _balanced_indices(inside: Tensor, outside: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of samples, (count,), half of them inside where there are any."""
    sides = [side for side in (inside, outside) if len(side)]
    shares = [count // len(sides)] * (len(sides) - 1)
    shares.append(count - sum(shares))
    drawn = [
        side[torch.randint(len(side), (share,), generator=generator)] for side, share in zip(sides, shares, strict=True)
    ]
    return torch.cat(drawn)


@torch.no_grad()
def _l1_gradient(
    decoder: FoldedDecoder, codes: Tensor, batch: ObservationBatch, chosen: Tensor, clamp: float
) -> Tensor:
    """Gradient of the mean absolute residual by the codes, (s, code_length)."""
    total = torch.zeros_like(codes)
    for rows in chosen.split(max(CHUNK // len(codes), 64), dim=1):
        points = batch.points.gather(1, rows[..., None].expand(-1, -1, 3))

        def sign(distance: Tensor, rows: Tensor = rows) -> Tensor:
            residual = interval_residuals(distance, batch.low.gather(1, rows), batch.high.gather(1, rows), clamp)
            return torch.where(distance.abs() < clamp, residual.sign(), 0)

        total += decoder.pull_back(codes, points, sign)
    return total / chosen.shape[1]
