"""Observations of spheres, an encoder for them, and what a fit has made of them."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.model.encoder import Encoder, EncoderSettings, Guesses
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_samples

# By which balls are stretched to discs.
FLAT = np.array([1.0, 0.4, 1.0])
QUICK = FitSettings((Stage(8, 300, 1e-6), Stage(6, 1_000, 1e-6, within_clamp=True)), dtype=torch.float32)

SETTINGS = EncoderSettings(3, points=64, point_widths=(4,), width=4, codes=2)


def directions(count: int, seed: int = 0) -> np.ndarray:
    normal = np.random.default_rng(seed).normal(size=(count, 3))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def solid_sphere(radius: float, count: int = 1_000) -> Observations:
    rng = np.random.default_rng(1)
    points = directions(count) * (radius + rng.normal(size=(count, 1)) * 0.05)
    return observe_samples(points, np.linalg.norm(points, axis=1) - radius, directions(200) * radius)


def radius_of(model: Model, code: torch.Tensor) -> float:
    """Where the decoded surface crosses a ray from the origin."""
    along = torch.linspace(0, 1, 2_001)
    points = along[:, None] * torch.tensor([[0.6, 0.48, 0.64]])
    return float(along[model.folded(torch.float32).distances(code[None], points[None])[0].abs().argmin()])


class BallEncoder(Encoder):
    """Takes every cloud for a ball of the radius 0.5; the farther along x its first point lies, the surer it is."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__(SETTINGS)
        self.scale = scale

    def forward(self, points: Tensor) -> Guesses:
        count = len(points)
        codes = torch.tensor([[3.0, 0, 0], [0, 0, 0]]).expand(count, 2, 3)
        weights, zero = torch.tensor([0.2, 0.8]).expand(count, 2), torch.zeros(count, 3)
        log_scale = torch.full((count,), math.log(self.scale))
        return Guesses(codes, weights, log_scale, zero, zero, 20 * points[:, 0, 0])


def ball_model(spheres: Model, scale: float = 2.0) -> Model:
    return replace(spheres, encoder=BallEncoder(scale))


def stretched(model: Model, factors: np.ndarray) -> Model:
    """The model whose shapes are those of another, stretched along the axes."""
    decoder = deepcopy(model.decoder)
    for index in (0, decoder.settings.skip_at):
        layer = decoder.hidden[index]
        weight = layer.weight.detach().clone()
        weight[:, -3:] /= torch.from_numpy(factors).float()
        layer.weight = weight if hasattr(layer, "parametrizations") else torch.nn.Parameter(weight)
    return replace(model, decoder=decoder.requires_grad_(False))
