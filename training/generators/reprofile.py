"""Deformation of lathed pieces: radii and height change, and round sections stay round."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator


@dataclass(frozen=True)
class ReprofileSettings:
    """How far a lathed piece is deformed."""

    radius: float = 0.08
    """standard deviation of the log of the radius at each of the `levels`"""
    height: float = 0.12
    """standard deviation of the log of the height"""
    levels: int = 4
    """heights at which a radius is drawn; between them it changes smoothly"""


def reprofile(vertices: np.ndarray, settings: ReprofileSettings, rng: np.random.Generator) -> np.ndarray:
    """Scale (n, 3) vertices about the y axis by a factor that depends on the height alone, and along it by another."""
    low, high = vertices[:, 1].min(), vertices[:, 1].max()
    factors = np.exp(np.clip(rng.normal(size=settings.levels), -2, 2) * settings.radius)
    factor = PchipInterpolator(np.linspace(low, high, settings.levels), factors)(vertices[:, 1])  # without kinks
    rise = np.exp(np.clip(rng.normal(), -2, 2) * settings.height)
    return vertices * np.stack([factor, np.full_like(factor, rise), factor], axis=1)
