"""Observations of spheres, and what a fit has made of them."""

import numpy as np
import torch

from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_samples

QUICK = FitSettings((Stage(8, 300, 1e-6), Stage(6, 1_000, 1e-6, within_clamp=True)), dtype=torch.float32)


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
