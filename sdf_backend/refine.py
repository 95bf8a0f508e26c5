"""Refinement: a result that follows what was seen, instead of the nearest shape that the decoder knows.

A code explains an input up to what its category has in common; what is left over is known wherever the input was seen.
So the decoder's distances are corrected by a field that takes up what is left over there, and is zero elsewhere: the
prior keeps its word where nothing was seen. The field is a normalised convolution (Knutsson and Westin 1993) on a
lattice over the canonical cube,

    g(x) = sum_i k(x - x_i) r_i / (sum_i k(x - x_i) + s),    k Gaussian,

of the residuals r_i that remain at the observations x_i, and a few times more of what g has left of them. It is
linear, has no steps to tune, takes a tenth of a second, and averages noise as wide as k is. A category that is
symmetric has its corrections on both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdf_backend.errors import InputError
from sdf_backend.fit import EXPLAINED, decoded_distances
from sdf_backend.model_store import Model
from sdf_backend.observations import Observations
from sdf_backend.outliers import stray_points
from sdf_backend.pose import Similarity

# Nodes an axis of the lattice over [-1, 1]^3; odd, so that 0 is a node. With 129 twice the error of solids is left.
SIDE = 193
# Corrections smaller than this are not kept: a fraction of the noise of a scan.
LEAST = 5e-4
CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


@dataclass(frozen=True)
class RefineSettings:
    """How corrections are taken from residuals; chosen on the 16 tuning families, see training/tuning_families.txt."""

    widths: tuple[float, ...] = (0.02, 0.02)
    """standard deviation of k, canonical units, of each pass; each takes up what is left of the residuals"""
    shrink: float = 1.0
    """s, in units of k(0): so many observations in one place are half believed"""
    sheet: float = 0.012
    """half the thickness of a sheet, canonical units, for which that is taken which was seen where the decoder has no
    surface; without any it would be full of holes"""


SURFACE = RefineSettings()
# Distances on both sides say more than a scan does, and say it without noise.
SOLID = RefineSettings((0.0075,) * 3, shrink=0.3, sheet=0.0)


@torch.inference_mode()
def refine(model: Model, code: Tensor, observed: Observations, pose: Similarity) -> np.ndarray:
    """Corrections of a code's distances by what was observed: (m, 2) float32, number of a lattice node and correction.

    code : (code_length,); pose : canonical -> observed frame. Nodes that are not named need no correction.
    """
    settings = SOLID if observed.solid else SURFACE
    # A guess is weighed against the prior by the fit; here it would have the last word, and hollow out what is thick.
    known = slice(len(observed.points) - observed.guessed)
    points, low, high = (
        torch.from_numpy(array[known]).float().to(model.device)
        for array in (
            pose.inverse().apply(observed.points),
            observed.low / pose.scale,
            observed.high / pose.scale,
        )
    )
    distance = decoded_distances(model, code, points, torch.float32)
    missing = _missing(distance, low, high, model.card.clamp)
    # What lies about near the object is no part of it.
    on_surface = (low == 0) & (high == 0)
    stray = torch.zeros_like(on_surface)
    stray[on_surface] = torch.from_numpy(
        stray_points(points[on_surface].cpu().numpy(), distance[on_surface].abs().cpu().numpy())
    ).to(model.device)
    lacking = ((distance - EXPLAINED) / (model.card.clamp - EXPLAINED)).clamp(0, 1)
    missing -= torch.where(on_surface, settings.sheet * lacking, 0)
    # An interval that is kept to asks for nothing, not even that all stay as it is.
    telling = ((missing != 0) | (low == high)) & ~stray & (points.abs() < 1).all(dim=1)
    points, missing = points[telling], missing[telling]
    axis = model.decoder.settings.mirror_axis
    if axis is not None:
        flipped = points.clone()
        flipped[:, axis] *= -1
        points, missing = torch.cat([points, flipped]), missing.repeat(2)
    lattice = _smoothed(points, missing, settings)
    nodes = torch.nonzero(lattice.reshape(-1).abs() >= LEAST)[:, 0]
    return torch.stack([nodes.float(), lattice.reshape(-1)[nodes]], dim=1).cpu().numpy()


def scaled(refinement: np.ndarray, strength: float) -> np.ndarray | None:
    """A refinement, (m, 2), as far followed as asked: all of it at 1, and none, None, at 0."""
    return refinement * np.array([1, strength], dtype=np.float32) if strength else None


def check_refinement(refinement: np.ndarray) -> None:
    """Raise `InputError` for an array that `refine` cannot have made."""
    if refinement.ndim != 2 or refinement.shape[1] != 2 or not np.isfinite(refinement).all():
        raise InputError(f"a refinement is rows of a node and a correction, not an array of {refinement.shape}")
    nodes = refinement[:, 0]
    if len(nodes) and not (nodes.min() >= 0 and nodes.max() < SIDE**3):
        raise InputError(f"a refinement has nodes from 0 to {SIDE**3 - 1}, not from {nodes.min()} to {nodes.max()}")


def corrected(
    field: Callable[[Tensor], Tensor], refinement: np.ndarray, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The field, (n, 3) points -> (n,) distances, with the corrections of a refinement, (m, 2), added."""
    lattice = torch.zeros(SIDE**3, device=device)
    lattice[torch.from_numpy(refinement[:, 0]).long().to(device)] = torch.from_numpy(refinement[:, 1]).to(device)
    lattice = lattice.reshape(1, 1, SIDE, SIDE, SIDE)
    return lambda points: field(points) + _read(lattice, points)


def changed_places(refinement: np.ndarray) -> np.ndarray:
    """Nodes, (k, 3) canonical, with corrections so large that a surface may stand where the decoder has none."""
    nodes = refinement[np.abs(refinement[:, 1]) > EXPLAINED, 0].astype(np.int64)
    return np.stack(np.unravel_index(nodes, (SIDE,) * 3), axis=1) * (2 / (SIDE - 1)) - 1.0


def _missing(distance: Tensor, low: Tensor, high: Tensor, clamp: float) -> Tensor:
    """What brings distances into their intervals when added; beyond the clamp one is as good as another."""
    low = torch.where(low <= -clamp, -torch.inf, low.clamp_max(clamp))
    high = torch.where(high >= clamp, torch.inf, high.clamp_min(-clamp))
    return distance.clamp(low, high) - distance


def _smoothed(points: Tensor, missing: Tensor, settings: RefineSettings) -> Tensor:
    """g on the lattice, (SIDE, SIDE, SIDE)."""
    density = _spread(points, torch.ones_like(missing))
    total, left = torch.zeros_like(density), missing
    shares: dict[float, Tensor] = {}
    for width in settings.widths:
        steps = width * (SIDE - 1) / 2
        if width not in shares:
            shares[width] = _blurred(density, steps) + settings.shrink * (2 * np.pi) ** -1.5 * steps**-3
        total += _blurred(_spread(points, left), steps).div_(shares[width])
        left = missing - _read(total[None, None], points)
    return total


def _spread(points: Tensor, values: Tensor) -> Tensor:
    """Values, (n,), shared among the eight nodes about their points."""
    at = ((points + 1) * ((SIDE - 1) / 2)).clamp(0, SIDE - 1 - 1e-3)
    lower = at.floor()
    upper_share, lower = at - lower, lower.long()
    lattice = torch.zeros(SIDE**3, device=points.device)
    for corner in CORNERS:
        sides = torch.tensor(corner, device=points.device)
        share = torch.where(sides > 0, upper_share, 1 - upper_share).prod(dim=1)
        x, y, z = (lower + sides).unbind(dim=1)
        lattice.index_add_(0, (x * SIDE + y) * SIDE + z, share * values)
    return lattice.reshape(SIDE, SIDE, SIDE)


def _blurred(lattice: Tensor, steps: float) -> Tensor:
    """Convolved with a Gaussian of that standard deviation, in nodes, of sum 1; axis by axis."""
    # As products with a band matrix, which takes a fifth of the time of a convolution.
    apart = torch.arange(SIDE, device=lattice.device)[:, None] - torch.arange(SIDE, device=lattice.device)
    band = torch.where(apart.abs() <= np.ceil(3 * steps), torch.exp(-0.5 * (apart / steps) ** 2), 0)
    band /= band[SIDE // 2].sum()
    for _ in range(3):
        # The axis that was last becomes the first: after three times all had their turn.
        lattice = (lattice.reshape(-1, SIDE) @ band).reshape(SIDE, SIDE, SIDE).permute(2, 0, 1).contiguous()
    return lattice


def _read(lattice: Tensor, points: Tensor) -> Tensor:
    """Values, (n,), of a lattice, (1, 1, SIDE, SIDE, SIDE), between its nodes."""
    # grid_sample names the last axis first.
    places = points.flip(-1)[None, None, None]
    return functional.grid_sample(lattice, places, align_corners=True, padding_mode="border")[0, 0, 0, 0]
