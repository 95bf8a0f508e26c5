"""The way from one shape to another, on which parts recede and grow instead of going out like a lamp.

The straight line between two codes, and between what their fits left over, is a family of shapes. What one end has
and the other lacks gets ever thinner on it, breaks, and is gone at once from as far away as it reached; pieces hang in
the air. So the line is looked at first, as coarse meshes, and `receding` gives each of their vertices a time by when it
must be gone and one from when it may be there.

The shape at a time is then that of the line, cut where the times of the nearest vertices say so. Stops are laid where
the way, measured as the Hausdorff distance that it goes, is even.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from sdf_backend.decoder import FoldedDecoder
from sdf_backend.extract import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.model_store import Model
from sdf_backend.receding import Look, Times
from sdf_backend.refine import LEAST, SIDE, refined_field

# Looks at the line, and cells an axis of its coarse meshes.
LOOKS, COARSE = 24, 128
STEP = 2 / COARSE
# To what distance at most a cut corrects, canonical units: more than any noise of the field.
EMPTY = 0.04
# What is farther from all that was seen has not been seen.
UNSEEN = 0.1
# Points in one call of the decoder.
BATCH = 8192


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
class Stop:
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


class Way:
    """The way between two shapes of one model; the line is looked at when the first shape on the way is asked for.

    progress : hears then of the share of the looks that is done; what it raises ends the work
    """

    def __init__(self, model: Model, first: Stop, last: Stop, progress: Callable[[float], None] = lambda share: None):
        self.ends, self._progress = (first, last), progress
        self._line = _Line(model, first, last)

    def stop(self, share: float) -> Stop:
        """The shape at a share, 0 to 1, of the way's length.

        Raises `EmptySurfaceError` where there is none on the line between the ends.
        """
        if share in (0, 1):
            return self.ends[int(share)]
        time, place = self._moment(share)
        return Stop(self._line.code(place), gathered(self._line.lattice(place)), self._cut(time, place))

    def without_crumbs(self, share: float, mesh: Extraction) -> Extraction:
        """The mesh of the shape at a share of the way, less the pieces of which nothing may be there.

        Such hang in the air between two looks, are left by the cut, or at the ends by a fit.
        """
        seen, past = np.zeros(len(mesh.vertices), dtype=bool), np.zeros(len(mesh.vertices), dtype=bool)
        for look, over in self._times.past(*self._moment(share)):
            away, nearest = look.tree.query(mesh.vertices, distance_upper_bound=UNSEEN)
            near = np.isfinite(away)
            seen |= near
            past[near] |= over[np.asarray(nearest)[near]] > 0
        return mesh.with_pieces(seen & ~past)

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

    @cached_property
    def _box(self) -> "_Box":
        return _Box.about(np.concatenate([look.vertices for look in self._times.looks]))

    def _cut(self, time: float, place: float) -> Cut | None:
        """What must not be there at a time."""
        past = self._times.past(time, place)
        if not any((over > 0).any() for _, over in past):
            return None
        numbers = self._times.about(place)
        spread = [self._box.spread(*one, number) for one, number in zip(past, numbers, strict=True)]
        return Cut(self._box.first, np.maximum(*spread).clip(-1, EMPTY).astype(np.float32))


@dataclass(frozen=True)
class _Box:
    """The nodes about all that is seen, in the grid of the coarse meshes.

    first : (3,) int64, the lowest; size : how many an axis; known : of the looks that were asked for last, by number,
    which vertex is nearest to each node, and how far away that is
    """

    first: np.ndarray
    size: tuple[int, ...]
    known: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def about(cls, points: np.ndarray) -> "_Box":
        """The smallest that holds points, (n, 3), and a node more on each side."""
        nodes = np.round((points + 1) / STEP).astype(np.int64)
        first, last = nodes.min(axis=0) - 1, nodes.max(axis=0) + 1
        return cls(first, tuple(last - first + 1))

    def spread(self, look: Look, values: np.ndarray, number: int) -> np.ndarray:
        """At each node the value, of (n,), of the nearest vertex of a look, less how far that is.

        So a cut goes in from the surface as fast as a part recedes along it.
        """
        if number not in self.known:
            while len(self.known) > 1:
                del self.known[next(iter(self.known))]
            self.known[number] = self._nearest(look.vertices)
        nearest, away = self.known[number]
        return values[nearest] - away

    def _nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = tuple((np.round((points + 1) / STEP).astype(np.int64) - self.first).T)
        vertex = np.full(self.size, -1, dtype=np.int32)
        vertex[at] = np.arange(len(points))
        marked = np.asarray(distance_transform_edt(vertex < 0, return_distances=False, return_indices=True))
        away = STEP * np.linalg.norm(marked - np.indices(self.size), axis=0)
        return vertex[tuple(marked)], away.astype(np.float32)


class _Line:
    """The straight line between two shapes."""

    def __init__(self, model: Model, first: Stop, last: Stop) -> None:
        self._codes = first.code, last.code
        self._decoder, self._clamp = model.folded(torch.bfloat16), model.card.clamp
        self._lattices = spread_out(first.refinement), spread_out(last.refinement)

    def code(self, place: float) -> np.ndarray:
        """The code, (code_length,), at a place from 0 to 1."""
        return (1 - place) * self._codes[0] + place * self._codes[1]

    def lattice(self, place: float) -> np.ndarray:
        """The corrections there, (SIDE, SIDE, SIDE)."""
        return (1 - place) * self._lattices[0] + place * self._lattices[1]

    def mesh(self, place: float) -> Extraction:
        """A coarse mesh of the shape there."""
        shape = Stop(self.code(place), gathered(self.lattice(place)))
        # What the bound is too small for is found where it holds to something, and nothing else counts.
        settings = ExtractSettings(COARSE, lipschitz=1.0, clamp=self._clamp, batch=BATCH)
        return extract_surface(shape.field(self._decoder), settings, self._decoder.device)


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
