"""Refinement: a result that follows what was seen, instead of the nearest shape that the decoder knows.

A code explains an input up to what its category has in common; what is left over is known wherever the input was seen.
So the decoder's distances are corrected by a field that takes up what is left over there, and is zero elsewhere: the
prior keeps its word where nothing was seen. The field is a normalised convolution (Knutsson and Westin 1993) on a
lattice over the canonical cube,

    g(x) = sum_i k(x - x_i) r_i / (sum_i k(x - x_i) + s),    k Gaussian,

of the residuals r_i that remain at the observations x_i, and a few times more of what g has left of them. It is
linear, has no steps to tune, and averages noise as wide as k is. On two cores it takes a tenth of a second for a scan
and about one for a solid, of which far more is known. A category that is symmetric has its corrections on both sides.

An average as wide as k takes for empty what is much thinner. So wherever there is no inside next to a point that is
known to lie on the surface, a thin sheet is laid: of a scan where the decoder has none, by residuals that ask for one;
of a solid, whose surface is known exactly, where none is left in the end, on the lattice itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.outliers import stray_points
from sdf_backend.observation.residuals import EXPLAINED_DISTANCE

# Nodes an axis of the lattice over [-1, 1]^3; odd, so that 0 is a node. With 129 twice the error of solids is left.
SIDE = 193
# Corrections smaller than this are not kept: a fraction of the noise of a scan.
LEAST = 5e-4
# How near a surface must be, of the decoder or of what was observed, for an observation to say where it is; several
# times the largest width, canonical units.
NEAR = 0.08
CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


@dataclass(frozen=True)
class RefineSettings:
    """How corrections are taken from residuals; chosen on the 16 tuning families, see training/tuning_families.txt.

    That a sheet is needed at all was seen on test furniture, whose tops had torn; its numbers are the tuning families'.
    So was that solids need a wide first pass, for which tuning aircraft, who lack no parts, are a tenth worse.
    """

    widths: tuple[float, ...] = (0.02, 0.02)
    """standard deviation of k, canonical units, of each pass; each takes up what is left of the residuals"""
    shrink: float = 1.0
    """s, in units of k(0): so many observations in one place are half believed"""
    sheet: float = 0.005
    """half the thickness of a sheet, canonical units, for which that is taken which was seen where there is no inside
    next to it; without any it would be full of holes"""
    beside: tuple[float, ...] = (0.02,)
    """how far beside a surface point, on either side, its inside is looked for, one after the other"""
    thin: float = 0.004
    """how deep an inside must be; a thinner one tears"""


SURFACE = RefineSettings()
# Distances on both sides say more than a scan does, and say it without noise. The first pass is wide: of a part that
# the decoder has and the shape lacks, narrow ones alone leave flakes between the samples.
SOLID = RefineSettings(
    (0.02, 0.0075, 0.0075, 0.0075), shrink=0.3, sheet=0.003, beside=(0.02, 0.01, 0.006, 0.003), thin=0.002
)


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
    distance = model.distances(code, points, torch.float32)
    missing = _missing(distance, low, high, model.card.clamp)
    # What lies about near the object is no part of it.
    on_surface = (low == 0) & (high == 0)
    stray = torch.zeros_like(on_surface)
    stray[on_surface] = torch.from_numpy(
        stray_points(points[on_surface].cpu().numpy(), distance[on_surface].abs().cpu().numpy())
    ).to(model.device)
    if not observed.solid:
        lacking = _lacking(model, code, points[on_surface], distance[on_surface], settings)
        missing[on_surface] -= settings.sheet * lacking
    # An interval that is kept to asks for nothing, not even that all stay as it is.
    telling = ((missing != 0) | (low == high)) & ~stray & (points.abs() < 1).all(dim=1)
    # Where neither the decoder nor what was observed has a surface near, none is moved.
    telling &= torch.minimum(distance.abs(), (distance + missing).abs()) < NEAR
    points, missing = points[telling], missing[telling]
    if not len(points):
        return np.zeros((0, 2), dtype=np.float32)
    surface = points[:0]
    if observed.solid:
        surface = torch.from_numpy(pose.inverse().apply(observed.surface)).float().to(model.device)
        surface = surface[(surface.abs() < 1).all(dim=1)]
    axis = model.decoder.settings.mirror_axis
    lattice = _Lattice.about(_with_image(torch.cat([points, surface]), axis), 3 * max(settings.widths))
    _add_smoothed(lattice, _with_image(points, axis), missing, settings)
    if len(surface):
        _lay_sheet(lattice, model, code, surface, settings)
    found = torch.nonzero(lattice.values.abs() >= LEAST)
    nodes, corrections = found + lattice.first, lattice.values[tuple(found.unbind(dim=1))]
    within = ((nodes >= 0) & (nodes < SIDE)).all(dim=1)
    return torch.stack([_numbers(nodes[within]).float(), corrections[within]], dim=1).cpu().numpy()


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
    if not len(refinement):
        return field
    rows = torch.from_numpy(refinement).to(device)
    x, nodes = rows[:, 0].long(), []
    for _ in range(3):
        nodes.append(x % SIDE)
        x = x // SIDE
    at = torch.stack(nodes[::-1], dim=1)
    lattice = _Lattice.around(at, 1)
    lattice.values[tuple((at - lattice.first).unbind(dim=1))] = rows[:, 1]
    return lambda points: field(points) + lattice.read(points)


def refined_field(
    decoder: FoldedDecoder, latent: Tensor, refinement: np.ndarray | None = None
) -> Callable[[Tensor], Tensor]:
    """The distances of a code, (1, code_length), corrected by a refinement, (m, 2)."""

    def field(points: Tensor) -> Tensor:
        return decoder.distances(latent, points[None])[0]

    return field if refinement is None else corrected(field, refinement, decoder.device)


def changed_places(refinement: np.ndarray) -> np.ndarray:
    """Nodes, (k, 3) canonical, with corrections so large that a surface may stand where the decoder has none."""
    nodes = refinement[np.abs(refinement[:, 1]) > EXPLAINED_DISTANCE, 0].astype(np.int64)
    return np.stack(np.unravel_index(nodes, (SIDE,) * 3), axis=1) * (2 / (SIDE - 1)) - 1.0


def _lacking(
    model: Model,
    code: Tensor,
    points: Tensor,
    distance: Tensor,
    settings: RefineSettings,
    lattice: "_Lattice | None" = None,
) -> Tensor:
    """How much an inside is lacking, without which there is no surface, next to each point: (n,), 0 to 1.

    It is looked for on both sides, where it would be if there were one: along the slope of the distance.
    distance : (n,), at the points; lattice : corrections that count
    """
    least = distance.clone()
    slope = model.point_gradients(code, points, torch.bfloat16)
    if lattice is not None:
        slope = slope + lattice.slope(points)
    inwards = -slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-6)
    for away in (side * far for far in settings.beside for side in (1, -1)):
        # Most have their inside where it is looked for first.
        left = torch.nonzero(least > -settings.thin)[:, 0]
        if len(left):
            beside = points[left] + away * inwards[left]
            there = model.distances(code, beside, torch.bfloat16)
            least[left] = torch.minimum(least[left], there if lattice is None else there + lattice.read(beside))
    return (1 + least / settings.thin).clamp(0, 1)


def _lay_sheet(lattice: "_Lattice", model: Model, code: Tensor, surface: Tensor, settings: RefineSettings) -> None:
    """Correct further, to an inside, where none is left next to points, (n, 3), that lie on the surface for sure."""
    distance = model.distances(code, surface, torch.bfloat16) + lattice.read(surface)
    lacking = _lacking(model, code, surface, distance, settings, lattice)
    torn, lacking = surface[lacking > 0], lacking[lacking > 0]
    if len(torn):
        distance = model.distances(code, torn, torch.float32) + lattice.read(torn)
        missing = (lacking * (-settings.sheet - distance)).clamp_max(0)
        _add_smoothed(lattice, _with_image(torn, model.decoder.settings.mirror_axis), missing, settings)


def _with_image(points: Tensor, axis: int | None) -> Tensor:
    """Points, (n, 3), and where the category has a plane of symmetry their mirror images after them, (2 n, 3)."""
    if axis is None:
        return points
    flipped = points.clone()
    flipped[:, axis] *= -1
    return torch.cat([points, flipped])


def _missing(distance: Tensor, low: Tensor, high: Tensor, clamp: float) -> Tensor:
    """What brings distances into their intervals when added; beyond the clamp one is as good as another."""
    low = torch.where(low <= -clamp, -torch.inf, low.clamp_max(clamp))
    high = torch.where(high >= clamp, torch.inf, high.clamp_min(-clamp))
    return distance.clamp(low, high) - distance


@dataclass(frozen=True)
class _Lattice:
    """A box of nodes, and zero elsewhere. Shapes in the unit sphere never fill more than a fifth of the cube.

    first : (3,) int64, the box's lowest node; values : (a, b, c), at least two nodes an axis
    """

    first: Tensor
    values: Tensor

    @classmethod
    def about(cls, points: Tensor, reach: float) -> "_Lattice":
        """Zeros wherever it is not farther than `reach`, canonical units, from points, (n, 3)."""
        return cls.around(_places(points).floor().long(), int(np.ceil(reach * (SIDE - 1) / 2)) + 1)

    @classmethod
    def around(cls, nodes: Tensor, reach: int) -> "_Lattice":
        """Zeros at all nodes as near as `reach`, along each axis, to some, (n, 3) int64."""
        first, last = nodes.amin(dim=0) - reach, nodes.amax(dim=0) + reach
        return cls(first, torch.zeros(*(last - first + 1).tolist(), device=nodes.device))

    def spread(self, points: Tensor, values: Tensor) -> Tensor:
        """Values, (n,), shared among the eight nodes about their points: (a, b, c)."""
        at = _places(points) - self.first
        lower = at.floor()
        upper_share, lower = at - lower, lower.long()
        _, b, c = self.values.shape
        lattice = torch.zeros_like(self.values)
        for corner in CORNERS:
            sides = torch.tensor(corner, device=points.device)
            share = torch.where(sides > 0, upper_share, 1 - upper_share).prod(dim=1)
            x, y, z = (lower + sides).unbind(dim=1)
            lattice.view(-1).index_add_(0, (x * b + y) * c + z, share * values)
        return lattice

    def read(self, points: Tensor) -> Tensor:
        """Values, (n,), between the nodes; zero outside of the box."""
        size = torch.tensor(self.values.shape, device=points.device)
        # grid_sample has the box from -1 to 1, and names the last axis first.
        places = (2 * (_places(points) - self.first) / (size - 1) - 1).flip(-1)[None, None, None]
        return functional.grid_sample(self.values[None, None], places, align_corners=True)[0, 0, 0, 0]

    def slope(self, points: Tensor) -> Tensor:
        """Derivatives, (n, 3), by the place, over two nodes."""
        step = 2 / (SIDE - 1)
        steps = torch.eye(3, device=points.device) * step
        return torch.stack([self.read(points + one) - self.read(points - one) for one in steps], dim=1) / (2 * step)


def _add_smoothed(lattice: _Lattice, points: Tensor, missing: Tensor, settings: RefineSettings) -> None:
    """Add g of what is missing, (n,), at the points, (n, 3); or (2 n, 3), where their images miss the same."""
    scale = (SIDE - 1) / 2
    missing = missing.repeat(len(points) // len(missing))
    before = lattice.read(points)
    density, left = lattice.spread(points, torch.ones_like(missing)), missing
    shares: dict[float, Tensor] = {}
    for width in settings.widths:
        steps = width * scale
        if width not in shares:
            shares[width] = _blurred(density, steps).add_(settings.shrink * (2 * np.pi) ** -1.5 * steps**-3)
        lattice.values.add_(_blurred(lattice.spread(points, left), steps).div_(shares[width]))
        left = missing - (lattice.read(points) - before)


def _places(points: Tensor) -> Tensor:
    """Canonical points, (n, 3), in nodes."""
    return (points + 1) * ((SIDE - 1) / 2)


def _numbers(nodes: Tensor) -> Tensor:
    """One number for each node, (n, 3), of the whole lattice."""
    x, y, z = nodes.unbind(dim=1)
    return (x * SIDE + y) * SIDE + z


def _blurred(lattice: Tensor, steps: float) -> Tensor:
    """Convolved with a Gaussian of that standard deviation, in nodes, of sum 1; axis by axis."""
    reach = int(np.ceil(3 * steps))
    total = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / steps) ** 2).sum()
    for _ in range(3):
        a, b, c = lattice.shape
        # As a product with a band matrix, which takes a fifth of the time of a convolution.
        apart = torch.arange(c, device=lattice.device)[:, None] - torch.arange(c, device=lattice.device)
        band = torch.where(apart.abs() <= reach, torch.exp(-0.5 * (apart / steps) ** 2), 0) / total
        # The axis that was last becomes the first: after three times all had their turn.
        lattice = (lattice.reshape(-1, c) @ band).reshape(a, b, c).permute(2, 0, 1).contiguous()
    return lattice
