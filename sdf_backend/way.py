"""The way from one shape to another, on which parts recede and grow instead of going out like a lamp.

The straight line between two codes, and between what their fits left over, is a family of shapes. What one end has
and the other lacks gets ever thinner on it, breaks, and is gone at once from as far away as it reached; pieces hang in
the air. So the line is looked at first, as coarse meshes, and each of their vertices is given a time: by when it must
be gone, and from when it may be there. A part that vanishes at some time must have receded by then, along itself,
towards what stays, at a given speed; so its vertices' times are that time less their geodesic distances. A part that
appears grows in the same manner, which is the same backwards; and what holds to nothing large is not there at all.

The shape at a time is then that of the line, cut where its vertices' times say so. The cut is a correction on the
lattice of `refine`, so a stop on the way is a code and a refinement, like any fitted shape. Stops are laid where the
way, measured as the Hausdorff distance that it goes, is even.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import igl
import numpy as np
import torch
from scipy import sparse
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

from sdf_backend.extract import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.model_store import Model
from sdf_backend.refine import LEAST, SIDE, refined_field

# Looks at the line, and cells an axis of its coarse meshes.
LOOKS, COARSE = 24, 128
# Farther than this from one look to the next no surface moves, it vanishes or appears; across narrower gaps pieces hold
# together. Three cells of a coarse mesh, canonical units.
GAP = 0.045
# How far, canonical units, a part recedes or grows while the line goes from one end to the other.
SPEED = 3.0
# Where nothing is seen to move the way is still as long as this, so that it has a length.
SLOWEST = 1e-3
# A piece with fewer vertices than this share of the largest one's hangs in the air unless it holds to a larger one.
LARGE = 0.3
# Where less of a shape stays it has become another one, and nothing would be left that it could recede towards.
ANOTHER = 0.3
# How near a cut vertex nodes of the lattice are corrected, and to what distance at most: more than any noise of it.
REACH, EMPTY = 0.1, 0.04
NODE = 2 / (SIDE - 1)
# Vertices, those farthest from the next look's, of which the distance from its surface is measured.
CANDIDATES = 500
# Points in one call of the decoder.
BATCH = 8192


@dataclass(frozen=True)
class Stop:
    """A shape on the way.

    code : (code_length,); refinement : (m, 2), corrections of its distances as `refine` gives them, or None
    """

    code: np.ndarray
    refinement: np.ndarray | None


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
        lattice = self._line.lattice(place)
        self._cut(lattice, time, place)
        return Stop(self._line.code(place), gathered(lattice))

    def without_crumbs(self, share: float, mesh: Extraction) -> Extraction:
        """The mesh of the shape at a share of the way, less the pieces of which nothing may be there.

        Such hang in the air between two looks, or are left by the cut. The ends stay as they are.
        """
        if share in (0, 1):
            return mesh
        seen, past = np.zeros(len(mesh.vertices), dtype=bool), np.zeros(len(mesh.vertices), dtype=bool)
        for look, over in self._times.past(*self._moment(share)):
            away, nearest = look.tree.query(mesh.vertices, distance_upper_bound=REACH)
            near = np.isfinite(away)
            seen |= near
            past[near] |= over[nearest[near]] > 0
        piece = connected_components(_edge_lengths(mesh), directed=False)[1]
        kept = np.bincount(piece, seen & ~past)[piece] > 0
        if kept.all() or not kept.any():
            return mesh
        number = np.cumsum(kept) - 1
        return Extraction(mesh.vertices[kept], number[mesh.faces[kept[mesh.faces[:, 0]]]], mesh.evaluations)

    def _moment(self, share: float) -> tuple[float, float]:
        """The time at a share of the way's length, and its place on the line, 0 to 1."""
        times, lengths = self._times.clock
        time = float(np.interp(share * lengths[-1], lengths, times))
        return time, min(max(time, 0.0), 1.0)

    @cached_property
    def _times(self) -> "_Times":
        looks = []
        for number in range(LOOKS + 1):
            self._progress(number / (LOOKS + 1))
            looks.append(_Look.at(self._line, number / LOOKS))
        self._progress(1.0)
        return _Times.of(looks)

    def _cut(self, lattice: np.ndarray, time: float, place: float) -> None:
        """Add to the corrections at a place of the line, (SIDE, SIDE, SIDE), what cuts off what must not be there."""
        past = self._times.past(time, place)
        cut = np.concatenate([look.vertices[over > 0] for look, over in past])
        if not len(cut):
            return
        nodes = _nodes_near(cut)
        points, over = nodes * NODE - 1, np.full(len(nodes), -np.inf)
        for look, far in past:
            away, nearest = look.tree.query(points, distance_upper_bound=REACH + NODE)
            over = np.maximum(over, np.append(far, -np.inf)[np.where(np.isfinite(away), nearest, len(far))])
        at = tuple(nodes.T)
        distance = self._line.distances(place, points) + lattice[at]
        lattice[at] += np.maximum(np.minimum(over, EMPTY) - distance, 0)


class _Line:
    """The straight line between two shapes."""

    def __init__(self, model: Model, first: Stop, last: Stop) -> None:
        self._codes = first.code, last.code
        self._decoder, self._clamp, self._device = model.folded(torch.bfloat16), model.card.clamp, model.device
        self._lattices = spread_out(first.refinement), spread_out(last.refinement)

    def code(self, place: float) -> np.ndarray:
        """The code, (code_length,), at a place from 0 to 1."""
        return (1 - place) * self._codes[0] + place * self._codes[1]

    def lattice(self, place: float) -> np.ndarray:
        """The corrections there, (SIDE, SIDE, SIDE)."""
        return (1 - place) * self._lattices[0] + place * self._lattices[1]

    def distances(self, place: float, points: np.ndarray) -> np.ndarray:
        """The decoder's distances, (n,), at points, (n, 3), without corrections."""
        field = self._field(place)
        with torch.inference_mode():
            parts = torch.from_numpy(points).float().to(self._device).split(BATCH)
            return torch.cat([field(part) for part in parts]).cpu().numpy()

    def mesh(self, place: float) -> Extraction:
        """A coarse mesh of the shape there."""
        field = self._field(place, gathered(self.lattice(place)))
        # What the bound is too small for is found where it holds to something, and nothing else counts.
        settings = ExtractSettings(COARSE, lipschitz=1.0, clamp=self._clamp, batch=BATCH)
        return extract_surface(field, settings, self._device)

    def _field(self, place: float, refinement: np.ndarray | None = None) -> Field:
        latent = torch.from_numpy(self.code(place)).float().to(self._device)[None]
        return refined_field(self._decoder, latent, refinement)


@dataclass(frozen=True)
class _Look:
    """The shape at one time.

    vertices : (n, 3); faces : (m, 3); edges : (n, n), their lengths; piece : (n,), which connected piece a vertex is of
    held : (n,), whether that is large or holds to a large one; tree : of the vertices
    end : whether this is an end of the line, where all that is there must stay until the way begins
    """

    time: float
    vertices: np.ndarray
    faces: np.ndarray
    edges: sparse.csr_array
    piece: np.ndarray
    held: np.ndarray
    tree: KDTree
    end: bool

    @classmethod
    def at(cls, line: _Line, place: float) -> "_Look":
        """What is seen at a place of the line, 0 to 1."""
        mesh = line.mesh(place)
        edges = _edge_lengths(mesh)
        piece = connected_components(edges, directed=False)[1]
        tree = KDTree(mesh.vertices)
        held = _held(piece, tree.query_pairs(GAP, output_type="ndarray"))
        return cls(place, mesh.vertices, mesh.faces, edges, piece, held, tree, place in (0, 1))

    def backwards(self) -> "_Look":
        """The same when time runs from the last shape to the first."""
        return replace(self, time=1 - self.time)


@dataclass(frozen=True)
class _Times:
    """When what is seen at each look may be there.

    there, gone : from when and by when, (n,) for each look of n vertices
    clock : times, (k,), from before the line's begin to after its end, and how far the way has gone by then, (k,)
    """

    looks: list[_Look]
    there: list[np.ndarray]
    gone: list[np.ndarray]
    clock: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, looks: list[_Look]) -> "_Times":
        """Those of looks from one end of the line to the other."""
        moved, gone = _last_moments(looks)
        # What appears is what vanishes when time runs backwards.
        back, ungone = _last_moments([look.backwards() for look in reversed(looks)])
        there = [1 - moments for moments in reversed(ungone)]
        return cls(looks, there, gone, _clock(np.maximum(moved, back[::-1]), there, gone))

    def past(self, time: float, place: float) -> list[tuple[_Look, np.ndarray]]:
        """The looks about a place of the line, and how far past being cut off their vertices are then, (n,), canonical.

        Below zero for what stays.
        """
        before, after = _about(place)
        return [
            (self.looks[before], SPEED * (time - self.gone[before])),
            (self.looks[after], SPEED * (self.there[after] - time)),
        ]


def _about(place: float) -> tuple[int, int]:
    """The looks before and after a place of the line, 0 to 1."""
    before = int(place * LOOKS)
    return before, before + (place > before / LOOKS)


def _clock(moved: np.ndarray, there: list[np.ndarray], gone: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """See `_Times.clock`; moved : (LOOKS,), how far surfaces move from each look to the next."""
    # The ends are whole: what must be gone early recedes before the line begins, what comes late grows after its end.
    start, end = min(0.0, gone[0].min()), max(1.0, there[-1].max())
    times = np.linspace(start, end, 4 * LOOKS + 1)
    step, length = times[1] - times[0], [0.0]
    for time in (times[1:] + times[:-1]) / 2:
        before, after = _about(min(max(time, 0.0), 1.0))
        cutting = any((np.abs(moments - time) < step).any() for moments in (gone[before], there[after]))
        speed = moved[before] * LOOKS if 0 < time < 1 else 0.0
        length.append(length[-1] + step * max(speed, SPEED if cutting else 0.0, SLOWEST))
    return times, np.array(length)


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


def _last_moments(looks: Sequence[_Look]) -> tuple[np.ndarray, list[np.ndarray]]:
    """How far surfaces move from each look to the next, (looks - 1,), and by when each look's vertices must be gone.

    These are (n,) for each look, infinite for what stays to the end, -infinite for what must not be there at all.
    """
    moments, moved = [np.full(len(looks[-1].vertices), np.inf)], []
    for after, look in pairwise(reversed(looks)):
        found, farthest = _moments_before(look, after, moments[-1])
        moments.append(found)
        moved.append(farthest)
    return np.array(moved[::-1]), moments[::-1]


def _moments_before(look: _Look, after: _Look, moments: np.ndarray) -> tuple[np.ndarray, float]:
    """By when the vertices of a look must be gone, from those, (n,), of the look after it; and how far they move.

    What is still there then has the moment that it has then. What is not has to have receded towards it by now.
    """
    held = np.flatnonzero(after.held)
    away, nearest = KDTree(after.vertices[held]).query(look.vertices)
    stays = (away <= GAP) & look.held
    found = np.where(stays, moments[held[nearest]], look.time)
    if stays.mean() < ANOTHER:
        found[~stays] = np.inf
    elif not stays.all():
        late = SPEED * (look.time - np.minimum(found[stays], look.time))
        far = _distances_along(_joined(look, stays), stays, late)
        found = np.where(stays, found, look.time - far / SPEED)
    if not look.end:
        found[~look.held] = -np.inf
    return found, _farthest(look.vertices[stays], away[stays], after)


def _farthest(vertices: np.ndarray, away: np.ndarray, after: _Look) -> float:
    """How far the farthest of vertices, (n, 3), is from the surface of the look after, to whose vertices it is `away`.

    The vertices of two meshes of one surface do not coincide: of a body, that would be most of the distance.
    """
    if not len(vertices):
        return 0.0
    candidates = vertices[np.argsort(away)[-CANDIDATES:]]
    squared, _, _ = igl.point_mesh_squared_distance(candidates, after.vertices, after.faces)
    return float(np.sqrt(np.max(squared)))


def _edge_lengths(mesh: Extraction) -> sparse.csr_array:
    """The lengths of a mesh's edges, (n, n)."""
    ends = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    lengths = np.linalg.norm(np.subtract(*mesh.vertices[ends.T]), axis=1)
    return sparse.coo_array((lengths, tuple(ends.T)), shape=(len(mesh.vertices),) * 2).tocsr()


def _held(piece: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Whether each vertex, (n,), belongs to something large: pieces that are no farther apart than pairs, (k, 2)."""
    count = piece.max() + 1
    links = sparse.coo_array((np.ones(len(near)), tuple(piece[near].T)), shape=(count, count))
    group = connected_components(links, directed=False)[1][piece]
    sizes = np.bincount(group)
    return sizes[group] >= LARGE * sizes.max()


def _joined(look: _Look, towards: np.ndarray) -> sparse.csr_array:
    """The edges of a look, and bridges over the narrowest gaps, so that all vertices hang together with some, (n,)."""
    edges, piece = look.edges, look.piece
    while True:
        loose = np.setdiff1d(piece, piece[towards])
        if not len(loose):
            return edges
        bridges = [_bridge(look.vertices, piece == one) for one in loose]
        lengths, one, other = (np.array(column) for column in zip(*bridges, strict=True))
        edges = edges + sparse.coo_array((lengths, (one, other)), shape=edges.shape).tocsr()
        piece = connected_components(edges, directed=False)[1]


def _bridge(vertices: np.ndarray, mine: np.ndarray) -> tuple[float, int, int]:
    """The narrowest gap between the vertices that are mine, (n,), and the others: its width and its two sides."""
    own, others = np.flatnonzero(mine), np.flatnonzero(~mine)
    gaps, nearest = KDTree(vertices[others]).query(vertices[own])
    narrowest = int(np.argmin(gaps))
    return float(gaps[narrowest]), int(own[narrowest]), int(others[np.asarray(nearest)[narrowest]])


def _distances_along(edges: sparse.csr_array, towards: np.ndarray, late: np.ndarray) -> np.ndarray:
    """The shortest distances, (n,), along edges, (n, n), from some vertices, (n,), at which it is `late`, (k,)."""
    count, sources = len(towards), np.flatnonzero(towards)
    # One vertex more, from which the sources are as far as they are late. An edge of no length would be none.
    start = sparse.coo_array((late + 1e-9, (np.zeros(len(sources), dtype=int), sources)), shape=(1, count))
    whole = sparse.block_array([[edges, None], [start, sparse.csr_array((1, 1))]], format="csr")
    return np.asarray(dijkstra(whole, directed=False, indices=count))[:count]


def _nodes_near(points: np.ndarray) -> np.ndarray:
    """The nodes of the lattice, (k, 3), that are no farther than REACH from points, (n, 3)."""
    reach = int(np.ceil(REACH / NODE))
    marks = np.unique(np.round((points + 1) / NODE).astype(np.int64), axis=0)
    low, high = np.maximum(marks.min(axis=0) - reach, 0), np.minimum(marks.max(axis=0) + reach, SIDE - 1)
    marks = marks[((marks >= low) & (marks <= high)).all(axis=1)] - low
    unmarked = np.ones(high - low + 1, dtype=bool)
    unmarked[tuple(marks.T)] = False
    return np.argwhere(np.asarray(distance_transform_edt(unmarked)) <= reach) + low
