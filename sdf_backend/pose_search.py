"""Where an input stands: many starts in one batch, fitted coarsely with their codes, ranked, best first.

What makes it work (measured): residuals in the input's units, so that a small model cannot buy a small residual; a real
prior on the scale; starts that face front and back both.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.extract import ExtractSettings, extract_surface
from sdf_backend.fit import FitSettings, Stage, fit_codes
from sdf_backend.model_store import Model
from sdf_backend.observations import Observations
from sdf_backend.pose import Freedom, Similarity, axis_vector


@dataclass(frozen=True)
class PoseSearchSettings:
    """How a pose is searched for."""

    turns: int = 12
    """starts about the up axis, where the turn about it is not known"""
    tilts: int = 60
    """starts over all rotations, where nothing is known"""
    points: int = 1_000
    """observations of a coarse fit"""
    steps: int = 14
    """Levenberg-Marquardt steps of a coarse fit"""
    seed: int = 0
    """which observations are drawn"""


def search_poses(
    model: Model,
    observed: Observations,
    freedom: Freedom,
    axes: np.ndarray,
    settings: PoseSearchSettings = PoseSearchSettings(),
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Similarity]:
    """Poses, canonical -> observed frame, best first.

    `axes`, (3, 3), turns the input's up (and front, where that is given) to the canonical ones. Raises `InputError`
    where the pose is known, since then there is nothing to search.
    """
    if freedom is Freedom.NONE:
        raise InputError("the pose is known; there is nothing to search for")
    low, high = mean_extent(model)
    starts = [_first_estimate(observed, (turn @ axes).T, low, high) for turn in _turns(freedom, settings)]
    fits = fit_codes(
        model,
        [observed] * len(starts),
        FitSettings((Stage(settings.steps, settings.points, 1e-4),), seed=settings.seed),
        starts,
        freedom,
        progress,
    )
    # Costs are in units of each start's own scale; all starts of a search see the same object.
    ranked = sorted(range(len(fits)), key=lambda index: fits[index].cost * starts[index].scale)
    return [fits[index].pose for index in ranked]


def mean_extent(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box around the mean code's surface, (3,) each, canonical."""
    decoder = model.folded(torch.float32)
    mesh = extract_surface(
        lambda points: decoder.distances(model.mean[None], points[None])[0],
        ExtractSettings(resolution=48, clamp=model.card.clamp),
        model.device,
    )
    return mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)


def _first_estimate(observed: Observations, turn: np.ndarray, low: np.ndarray, high: np.ndarray) -> Similarity:
    """The pose, with `turn` canonical -> observed, that lays the mean shape's box over the observed points' box."""
    local = observed.surface @ turn
    seen_low, seen_high = np.percentile(local, 0.5, axis=0), np.percentile(local, 99.5, axis=0)
    scale = float(np.linalg.norm(seen_high - seen_low) / np.linalg.norm(high - low))
    shift = (seen_low + seen_high) / 2 - scale * (low + high) / 2
    return Similarity(scale, turn, turn @ shift)


def _turns(freedom: Freedom, settings: PoseSearchSettings) -> list[np.ndarray]:
    """Rotations, (3, 3) each, of the input's axes to start from."""
    if freedom is Freedom.ALIGNED:
        return [np.eye(3)]
    if freedom is Freedom.UPRIGHT:
        up = axis_vector("+y")
        angles = np.arange(settings.turns) * 2 * np.pi / settings.turns
        return [Rotation.from_rotvec(angle * up).as_matrix() for angle in angles]
    rotations = Rotation.random(settings.tilts, rng=np.random.default_rng(settings.seed))
    return list(rotations.as_matrix())
