"""Shape interpolation with changes of topology: parts recede and grow instead of vanishing at once.

The linear path between two codes, and between their residual fields, is a family of shapes. On it a part that one end
has and the other lacks gets thinner, breaks, and vanishes at once over its whole length, leaving floaters. So the path
is first sampled at keyframes, as coarse meshes, and `part_transitions` gives each vertex of each keyframe a vanishing
time and an appearance time.

The shape at a time is the path's shape, carved where the times of the nearest vertices say so. Time is mapped to the
share of the path so that the Hausdorff distance between equal steps is even.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from sdf_backend.geometry.isosurface import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.devices import EXTRACTION_BATCH
from sdf_backend.model.store import Model
from sdf_backend.shapes.interpolation_settings import DEFAULT_INTERPOLATION, InterpolationSettings
from sdf_backend.shapes.part_transitions import NO_CAUSE, Keyframe, Transition, TransitionSchedule
from sdf_backend.shapes.residual_field import SURFACE_SETTINGS, corrected_field
from sdf_backend.shapes.residual_lattice import densify_residual_field, sparsify_residual_field


@dataclass(frozen=True)
class Carving:
    """A region to be removed from a shape.

    first : (3,) int64, lowest node of a box in the keyframes' grid; step : edge of a grid cell, canonical units
    excess : (a, b, c) float32, signed distance from the border of the region at the box's nodes, positive within it,
    canonical units
    """

    first: np.ndarray
    step: float
    excess: np.ndarray

    def apply(self, field: Field, device: torch.device) -> Field:
        """The field, (n, 3) points -> (n,) distances, without the region."""
        values = torch.from_numpy(self.excess).to(device)[None, None]
        first = torch.from_numpy(self.first).to(device)
        size = torch.tensor(self.excess.shape, device=device)

        def carved(points: torch.Tensor) -> torch.Tensor:
            # grid_sample takes the box from -1 to 1, and the last axis first.
            grid = (2 * ((points + 1) / self.step - first) / (size - 1) - 1).flip(-1)[None, None, None]
            excess = functional.grid_sample(values, grid, padding_mode="border", align_corners=True)
            return torch.maximum(field(points), excess[0, 0, 0, 0])

        return carved


@dataclass(frozen=True)
class ImplicitShape:
    """A shape as a signed distance field.

    code : (code_length,); refinement : its residual field, (m, 2), or None; carving : region to be removed
    """

    code: np.ndarray
    refinement: np.ndarray | None
    carving: Carving | None = None

    def field(self, decoder: FoldedDecoder) -> Field:
        """The signed distance field: canonical points, (n, 3) -> (n,)."""
        latent = torch.from_numpy(self.code).float().to(decoder.device)[None]
        whole = corrected_field(decoder, latent, self.refinement)
        return whole if self.carving is None else self.carving.apply(whole, decoder.device)


class ShapeInterpolation:
    """Interpolation between two shapes of one model; keyframes are computed for the first shape in between.

    progress : called then with the share of the keyframes that is done; an exception it raises ends the work
    """

    def __init__(
        self,
        model: Model,
        first: ImplicitShape,
        last: ImplicitShape,
        progress: Callable[[float], None] = lambda share: None,
        settings: InterpolationSettings = DEFAULT_INTERPOLATION,
    ) -> None:
        self.ends, self._progress, self._settings = (first, last), progress, settings
        self._path = _LinearPath(model, first, last, settings)

    def shape_at(self, share: float) -> ImplicitShape:
        """The shape at a share, 0 to 1, of the path's length.

        Raises `EmptySurfaceError` if there is no surface on the path between the ends.
        """
        if share in (0, 1):
            return self.ends[int(share)]
        time, position = self._time_at(share)
        refinement = sparsify_residual_field(self._path.lattice(position), SURFACE_SETTINGS.minimum_correction)
        return ImplicitShape(self._path.code(position), refinement, self._carving(time, position))

    def remove_floaters(self, share: float, mesh: Extraction) -> Extraction:
        """The mesh of the shape at a share of the path, without cavities and floaters.

        A floater is a component that is wholly in regions which keyframes do not have, or which have been carved.
        Floaters occur between two keyframes, next to carved regions, and at the ends, where a fit left them.
        """
        mesh = mesh.remove_cavities()
        known, carved = np.zeros(len(mesh.vertices), dtype=bool), np.zeros(len(mesh.vertices), dtype=bool)
        time, position = self._time_at(share)
        for number, transitions in self._schedule.around(position):
            transition = transitions[number]
            tree, reach = self._schedule.keyframes[number].tree, self._settings.keyframe_reach
            distance, nearest = tree.query(mesh.vertices, distance_upper_bound=reach)
            near = np.isfinite(distance)
            known |= near
            carved[near] |= (transition.carving_excess(time) > transition.depth)[np.asarray(nearest)[near]]
        return mesh.keep_components(known & ~carved)

    def _time_at(self, share: float) -> tuple[float, float]:
        """The time at a share of the path's length, and its position on the path, 0 to 1."""
        times, lengths = self._schedule.arc_length
        time = float(np.interp(share * lengths[-1], lengths, times))
        return time, min(max(time, 0.0), 1.0)

    @cached_property
    def _schedule(self) -> TransitionSchedule:
        keyframes, steps = [], self._settings.keyframes
        for number in range(steps + 1):
            self._progress(number / (steps + 1))
            mesh = self._path.keyframe_mesh(number / steps)
            keyframes.append(Keyframe.from_mesh(number / steps, mesh, self._settings))
        self._progress(1.0)
        return TransitionSchedule.from_keyframes(keyframes, self._settings)

    def _carving(self, time: float, position: float) -> Carving | None:
        """The region to be removed at a time."""
        grid, limit, found = self._schedule.grid, self._settings.carving_range, None
        for number, transitions in self._schedule.around(position):
            cause, excess = transitions[number].cause, transitions[number].carving_excess(time)
            if not (excess > 0).any():
                continue
            # A front thus moves inwards from the surface as fast as it moves along it.
            nearest, distance = grid.nearest(number)
            spread = excess[nearest] - distance
            for other in np.unique(cause[(excess > 0) & (cause != NO_CAUSE)]):
                near = (spread > -limit) & (cause == other)[nearest]
                spread[near] = np.minimum(spread[near], self._distance_outside(other, transitions[other], near))
            found = spread if found is None else np.maximum(found, spread)
        if found is None:
            return None
        return Carving(grid.first, grid.step, found.clip(-1, limit).astype(np.float32))

    def _distance_outside(self, number: int, transition: Transition, chosen: np.ndarray) -> np.ndarray:
        """Signed distances, (k,), of chosen nodes, (a, b, c) bool, from what remains at a keyframe; positive
        outside."""
        grid, settings = self._schedule.grid, self._settings
        distance, outside = grid.nearest(number)[1][chosen], ~transition.remaining[chosen]
        found = np.where(outside, distance, -distance)
        # The exact distance matters only next to the keyframe's surface. The field includes neither the removal of
        # cavities nor earlier carving; there the grid's distance stays.
        band = distance < settings.band_cells * settings.keyframe_cell
        exact = self._path.distances(number / settings.keyframes, grid.positions(chosen)[band])
        found[band] = np.where(outside[band] & (exact < 0), distance[band], exact)
        return found


class _LinearPath:
    """The linear path between two shapes: codes and residual fields are blended; position runs from 0 to 1."""

    def __init__(
        self, model: Model, first: ImplicitShape, last: ImplicitShape, settings: InterpolationSettings
    ) -> None:
        self._codes, self._settings = (first.code, last.code), settings
        self._decoder, self._clamp = model.folded(torch.bfloat16), model.card.clamp
        self._batch = EXTRACTION_BATCH[model.device.type]
        self._lattices = densify_residual_field(first.refinement), densify_residual_field(last.refinement)

    def code(self, position: float) -> np.ndarray:
        """The code, (code_length,)."""
        return (1 - position) * self._codes[0] + position * self._codes[1]

    def lattice(self, position: float) -> np.ndarray:
        """The residual field on the whole lattice, (LATTICE_SIDE,) * 3."""
        return (1 - position) * self._lattices[0] + position * self._lattices[1]

    def keyframe_mesh(self, position: float) -> Extraction:
        """A coarse mesh without cavities."""
        resolution, lipschitz = self._settings.keyframe_resolution, self._settings.keyframe_lipschitz
        settings = ExtractSettings(resolution, lipschitz=lipschitz, clamp=self._clamp, batch=self._batch)
        return extract_surface(self._field(position), settings, self._decoder.device).remove_cavities()

    @torch.inference_mode()
    def distances(self, position: float, points: np.ndarray) -> np.ndarray:
        """Signed distances, (n,), at points, (n, 3) float32."""
        field = self._field(position)
        parts = torch.from_numpy(points).to(self._decoder.device).split(self._batch)
        return torch.cat([field(part).float() for part in parts]).cpu().numpy() if len(points) else np.zeros(0)

    def _field(self, position: float) -> Field:
        refinement = sparsify_residual_field(self.lattice(position), SURFACE_SETTINGS.minimum_correction)
        return ImplicitShape(self.code(position), refinement).field(self._decoder)
