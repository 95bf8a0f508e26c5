"""The way from one shape to another, on which parts recede and grow instead of going out like a lamp.

The straight line between two codes, and between what their fits left over, is a family of shapes. What one end has
and the other lacks gets ever thinner on it, breaks, and is gone at once from as far away as it reached; pieces hang in
the air. So the line is looked at first, as coarse meshes, and `receding` gives each of their vertices a time by when it
must be gone and one from when it may be there.

The shape at a time is then that of the line, cut where the times of the nearest vertices say so. Stops are laid where
the way, measured as the Hausdorff distance that it goes, is even.
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
from sdf_backend.shapes.nearest_vertex_grid import COARSE, STEP
from sdf_backend.shapes.part_transitions import WHATEVER, Leaving, Look, Times
from sdf_backend.shapes.residual_field import LEAST, SIDE, refined_field

# Looks at the line.
LOOKS = 24
# To what distance at most a cut corrects, canonical units: more than any noise of the field.
EMPTY = 0.04
# How near to a look's surface its distance is asked for, canonical units: what is nearest is known to within a node.
BAND = 3 * STEP
# What is farther from all that was seen has not been seen.
UNSEEN = 0.1


@dataclass(frozen=True)
class Cut:
    """What must not be there.

    first : (3,) int64, the lowest node of a box in the grid of the coarse meshes; past : (a, b, c) float32, how far
    past being cut off each node is, canonical units, below zero where nothing is cut
    """

    first: np.ndarray
    past: np.ndarray

    def of(self, whole: Field, device: torch.device) -> Field:
        """A field, (n, 3) points -> (n,) distances, without that."""
        values = torch.from_numpy(self.past).to(device)[None, None]
        first = torch.from_numpy(self.first).to(device)
        size = torch.tensor(self.past.shape, device=device)

        def left(points: torch.Tensor) -> torch.Tensor:
            # grid_sample has the box from -1 to 1, and names the last axis first.
            places = (2 * ((points + 1) / STEP - first) / (size - 1) - 1).flip(-1)[None, None, None]
            past = functional.grid_sample(values, places, padding_mode="border", align_corners=True)
            return torch.maximum(whole(points), past[0, 0, 0, 0])

        return left


@dataclass(frozen=True)
class ImplicitShape:
    """A shape on the way.

    code : (code_length,); refinement : (m, 2), corrections of its distances as `refine` gives them, or None; cut : what
    of that is not there
    """

    code: np.ndarray
    refinement: np.ndarray | None
    cut: Cut | None = None

    def field(self, decoder: FoldedDecoder) -> Field:
        """Its distances, (n,), at points, (n, 3)."""
        latent = torch.from_numpy(self.code).float().to(decoder.device)[None]
        whole = refined_field(decoder, latent, self.refinement)
        return whole if self.cut is None else self.cut.of(whole, decoder.device)


class ShapeInterpolation:
    """The way between two shapes of one model; the line is looked at when the first shape on the way is asked for.

    progress : hears then of the share of the looks that is done; what it raises ends the work
    """

    def __init__(self, model: Model, first: ImplicitShape, last: ImplicitShape, progress: Callable[[float], None] = lambda share: None):
        self.ends, self._progress = (first, last), progress
        self._line = _Line(model, first, last)

    def stop(self, share: float) -> ImplicitShape:
        """The shape at a share, 0 to 1, of the way's length.

        Raises `EmptySurfaceError` where there is none on the line between the ends.
        """
        if share in (0, 1):
            return self.ends[int(share)]
        time, place = self._moment(share)
        return ImplicitShape(self._line.code(place), gathered(self._line.lattice(place)), self._cut(time, place))

    def without_crumbs(self, share: float, mesh: Extraction) -> Extraction:
        """The mesh of the shape at a share of the way, less the pieces of which nothing may be there.

        Such hang in the air between two looks, are left by the cut, or at the ends by a fit. Nor are there hollows.
        """
        mesh = mesh.remove_cavities()
        seen, past = np.zeros(len(mesh.vertices), dtype=bool), np.zeros(len(mesh.vertices), dtype=bool)
        time, place = self._moment(share)
        for number, leavings in self._times.about(place):
            leaving = leavings[number]
            away, nearest = self._times.looks[number].tree.query(mesh.vertices, distance_upper_bound=UNSEEN)
            near = np.isfinite(away)
            seen |= near
            past[near] |= (leaving.past(time) > leaving.depth)[np.asarray(nearest)[near]]
        return mesh.keep_components(seen & ~past)

    def _moment(self, share: float) -> tuple[float, float]:
        """The time at a share of the way's length, and its place on the line, 0 to 1."""
        times, lengths = self._times.clock
        time = float(np.interp(share * lengths[-1], lengths, times))
        return time, min(max(time, 0.0), 1.0)

    @cached_property
    def _times(self) -> Times:
        looks = []
        for number in range(LOOKS + 1):
            self._progress(number / (LOOKS + 1))
            looks.append(Look.of(number / LOOKS, self._line.mesh(number / LOOKS)))
        self._progress(1.0)
        return Times.of(looks)

    def _cut(self, time: float, place: float) -> Cut | None:
        """What must not be there at a time."""
        nodes, found = self._times.nodes, None
        for number, leavings in self._times.about(place):
            why, past = leavings[number].why, leavings[number].past(time)
            if not (past > 0).any():
                continue
            # So a front goes in from the surface as fast as it goes along it.
            nearest, away = nodes.nearest(number)
            spread = past[nearest] - away
            for other in np.unique(why[(past > 0) & (why != WHATEVER)]):
                near = (spread > -EMPTY) & (why == other)[nearest]
                spread[near] = np.minimum(spread[near], self._outside(other, leavings[other], near))
            found = spread if found is None else np.maximum(found, spread)
        return None if found is None else Cut(nodes.first, found.clip(-1, EMPTY).astype(np.float32))

    def _outside(self, number: int, leaving: Leaving, some: np.ndarray) -> np.ndarray:
        """How far some nodes, (a, b, c) bool, are outside what is left at a look, (k,)."""
        nodes = self._times.nodes
        away, outside = nodes.nearest(number)[1][some], ~leaving.left[some]
        found = np.where(outside, away, -away)
        # Only next to its surface the line must be asked how far away that is exactly; of hollows, and of what has left
        # already, it does not know.
        band = away < BAND
        asked = self._line.distances(number / LOOKS, nodes.points(some)[band])
        found[band] = np.where(outside[band] & (asked < 0), away[band], asked)
        return found


class _Line:
    """The straight line between two shapes."""

    def __init__(self, model: Model, first: ImplicitShape, last: ImplicitShape) -> None:
        self._codes = first.code, last.code
        self._decoder, self._clamp = model.folded(torch.bfloat16), model.card.clamp
        self._batch = EXTRACTION_BATCH[model.device.type]
        self._lattices = spread_out(first.refinement), spread_out(last.refinement)

    def code(self, place: float) -> np.ndarray:
        """The code, (code_length,), at a place from 0 to 1."""
        return (1 - place) * self._codes[0] + place * self._codes[1]

    def lattice(self, place: float) -> np.ndarray:
        """The corrections there, (SIDE, SIDE, SIDE)."""
        return (1 - place) * self._lattices[0] + place * self._lattices[1]

    def mesh(self, place: float) -> Extraction:
        """A coarse mesh of the shape there, without its hollows."""
        # What this bound is too small for is found where it holds to something, and nothing else counts.
        settings = ExtractSettings(COARSE, lipschitz=1.0, clamp=self._clamp, batch=self._batch)
        return extract_surface(self._field(place), settings, self._decoder.device).remove_cavities()

    @torch.inference_mode()
    def distances(self, place: float, points: np.ndarray) -> np.ndarray:
        """The distances of points, (n, 3) float32, from the shape there, (n,)."""
        ask = self._field(place)
        parts = torch.from_numpy(points).to(self._decoder.device).split(self._batch)
        return torch.cat([ask(part).float() for part in parts]).cpu().numpy() if len(points) else np.zeros(0)

    def _field(self, place: float) -> Field:
        return ImplicitShape(self.code(place), gathered(self.lattice(place))).field(self._decoder)


def spread_out(refinement: np.ndarray | None) -> np.ndarray:
    """A refinement, (m, 2), on the whole of its lattice: (SIDE, SIDE, SIDE) float32."""
    lattice = np.zeros(SIDE**3, dtype=np.float32)
    if refinement is not None:
        lattice[refinement[:, 0].astype(np.int64)] = refinement[:, 1]
    return lattice.reshape(SIDE, SIDE, SIDE)


def gathered(lattice: np.ndarray) -> np.ndarray:
    """The refinement, (m, 2) float32, of corrections on the whole lattice: the inverse of `spread_out`."""
    values = lattice.reshape(-1)
    nodes = np.flatnonzero(np.abs(values) >= LEAST)
    return np.stack([nodes, values[nodes]], axis=1).astype(np.float32)
