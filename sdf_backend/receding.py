"""When what is seen along a line of shapes may be there, so that parts recede and grow along themselves.

    times = Times.of([Look.of(place, mesh) for place, mesh in ...])      # from one end of the line, 0, to the other, 1

Between two looks a part may go out like a lamp. So each vertex of each look is given the time by when it must be gone
and that from when it may be there, such that whatever goes has something next to it that goes a little later. Looked
at from the line's end backwards, a vertex goes when that goes which is in its place at the next look, or by now where
nothing is; and of what goes before the next look each vertex goes before one that it hangs on, earlier by the way
between them at a given speed. What appears is what vanishes when time runs backwards. Both are found in turns,
because what is not there yet is nothing to recede to, and what is gone nothing to grow from. What does not hold to
the one shape that goes on from look to look hangs in the air, and is not there at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import igl
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from sdf_backend.extract import Extraction

# Farther than this from one look to the next no surface moves, it vanishes or appears. Three cells of a coarse mesh,
# canonical units.
GAP = 0.045
# Across gaps narrower than this, little more than such a cell, pieces hold together: how far a step may jump at least.
HOLD = 0.02
# How far, canonical units, a part recedes or grows while the line goes from one end to the other.
SPEED = 3.0
# Where nothing is seen to move the way is still as long as this, so that it has a length.
SLOWEST = 1e-3
# A smaller share of an end that holds to nothing is none of it, but a flake that its fit has left.
FLAKE = 0.02
# A share of a shape that is next to none of it.
NEXT_TO_NONE = 1e-4
# Vertices, those farthest from the next look's, of which the distance from its surface is measured.
CANDIDATES = 500
# How often it is found in turns what is gone and what is not there yet.
TURNS = 2


@dataclass(frozen=True)
class Look:
    """The shape at one time.

    vertices : (n, 3); faces : (m, 3); edges : (n, n), their lengths
    piece, group : (n,), which connected piece a vertex is of, and which group of pieces that are near each other
    """

    time: float
    vertices: np.ndarray
    faces: np.ndarray
    edges: sparse.csr_array
    piece: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, time: float, mesh: Extraction) -> "Look":
        """What a mesh shows at a time, 0 to 1."""
        edges = _edge_lengths(mesh)
        piece = connected_components(edges, directed=False)[1]
        near = piece[KDTree(mesh.vertices).query_pairs(HOLD, output_type="ndarray")]
        links = sparse.coo_array((np.ones(len(near)), tuple(near.T)), shape=(piece.max() + 1,) * 2)
        return cls(time, mesh.vertices, mesh.faces, edges, piece, connected_components(links, directed=False)[1][piece])

    @cached_property
    def tree(self) -> KDTree:
        """Of the vertices."""
        return KDTree(self.vertices)

    @cached_property
    def hollow(self) -> np.ndarray:
        """Whether each vertex, (n,), is of a piece that bounds a hollow in what is solid."""
        volumes = np.linalg.det(self.vertices[self.faces])
        return np.bincount(self.piece[self.faces[:, 0]], volumes)[self.piece] < 0

    @property
    def end(self) -> bool:
        """Whether this is an end of the line, where all that is there must stay until the way begins."""
        return self.time in (0, 1)

    @property
    def substance(self) -> np.ndarray:
        """Whether each vertex, (n,), is of a group that is more than a flake."""
        return (np.bincount(self.group) >= FLAKE * len(self.group))[self.group]

    def backwards(self) -> "Look":
        """The same when time runs from the last shape to the first."""
        return replace(self, time=1 - self.time)


@dataclass(frozen=True)
class Times:
    """When what is seen at each look may be there.

    there, gone : from when and by when, (n,) for each look of n vertices
    clock : times, (k,), from before the line's begin to after its end, and how far the way has gone by then, (k,)
    """

    looks: list[Look]
    there: list[np.ndarray]
    gone: list[np.ndarray]
    clock: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, looks: list[Look]) -> "Times":
        """Those of looks, evenly spaced, from one end of the line to the other."""
        onwards = [_Step.between(look, after) for look, after in pairwise(looks)]
        back = [step.backwards() for step in reversed(onwards)]
        held = _that_goes_on(onwards, back[::-1])
        moved = np.maximum(
            [step.length(there) for step, there in zip(onwards, held[:-1], strict=True)],
            [step.length(there) for step, there in zip(back, held[:0:-1], strict=True)][::-1],
        )
        there, gone = [np.full(len(look.vertices), -np.inf) for look in looks], []
        for _ in range(TURNS):
            gone = _last_moments(onwards, held, there)
            ungone = _last_moments(back, held[::-1], [1 - moments for moments in reversed(gone)])
            there = [1 - moments for moments in reversed(ungone)]
        return cls(looks, there, gone, _clock(moved, there, gone))

    def about(self, place: float) -> tuple[int, int]:
        """The looks before and after a place of the line, 0 to 1."""
        return _about(place, len(self.looks) - 1)

    def past(self, time: float, place: float) -> list[tuple[Look, np.ndarray]]:
        """The looks about a place of the line, and how far past being cut off their vertices are then, (n,), canonical.

        Below zero for what stays.
        """
        before, after = self.about(place)
        return [
            (self.looks[before], SPEED * (time - self.gone[before])),
            (self.looks[after], SPEED * (self.there[after] - time)),
        ]


def _edge_lengths(mesh: Extraction) -> sparse.csr_array:
    """The lengths of a closed mesh's edges, (n, n), in both directions."""
    ends = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    lengths = np.linalg.norm(np.subtract(*mesh.vertices[ends.T]), axis=1)
    return sparse.coo_array((lengths, tuple(ends.T)), shape=(len(mesh.vertices),) * 2).tocsr()


def _about(place: float, steps: int) -> tuple[int, int]:
    before = int(place * steps)
    return before, before + (place > before / steps)


def _clock(moved: np.ndarray, there: list[np.ndarray], gone: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """See `Times.clock`; moved : (looks - 1,), how far surfaces move from each look to the next."""
    steps = len(moved)
    # The ends are whole: what must be gone early recedes before the line begins, what comes late grows after its end.
    start = gone[0].min(initial=0.0, where=np.isfinite(gone[0]))
    end = there[-1].max(initial=1.0, where=np.isfinite(there[-1]))
    times = np.linspace(start, end, 4 * steps + 1)
    step, length = times[1] - times[0], [0.0]
    for time in (times[1:] + times[:-1]) / 2:
        before, after = _about(min(max(time, 0.0), 1.0), steps)
        cutting = any((np.abs(moments - time) < step).any() for moments in (gone[before], there[after]))
        speed = moved[before] * steps if 0 < time < 1 else 0.0
        length.append(length[-1] + step * max(speed, SPEED if cutting else 0.0, SLOWEST))
    return times, np.array(length)


@dataclass(frozen=True)
class _Step:
    """From a look to the next: how far its vertices are away from the nearest ones then, and which those are, (n,)."""

    look: Look
    after: Look
    away: np.ndarray
    nearest: np.ndarray

    @classmethod
    def between(cls, look: Look, after: Look) -> "_Step":
        """That between two looks."""
        away, nearest = after.tree.query(look.vertices)
        return cls(look, after, np.asarray(away), np.asarray(nearest))

    @cached_property
    def filled(self) -> np.ndarray:
        """Whether each vertex, (n,), is inside the next shape: no part goes there, but a hollow is filled."""
        inside, left = np.zeros(len(self.away), dtype=bool), np.flatnonzero(self.away > GAP)
        if len(left):
            turns = igl.fast_winding_number(self.after.vertices, self.after.faces, self.look.vertices[left])
            inside[left] = np.atleast_1d(turns) > 0.5
        return inside

    def backwards(self) -> "_Step":
        """The same when time runs from the last shape to the first."""
        away, nearest = self.look.tree.query(self.after.vertices)
        return _Step(self.after.backwards(), self.look.backwards(), np.asarray(away), np.asarray(nearest))

    def length(self, held: np.ndarray) -> float:
        """How far the farthest vertex of what stays, of those that are `held`, (n,), is from the next surface.

        The vertices of two meshes of one surface do not coincide: of a body, that would be most of the distance.
        """
        stays = np.flatnonzero((held | self.look.hollow) & ((self.away <= GAP) | self.filled))
        if not len(stays):
            return 0.0
        candidates = self.look.vertices[stays[np.argsort(self.away[stays])[-CANDIDATES:]]]
        squared, _, _ = igl.point_mesh_squared_distance(candidates, self.after.vertices, self.after.faces)
        return float(np.sqrt(np.max(squared)))

    def shared(self) -> np.ndarray:
        """How much, of 1, of each group of the look, (a,), is in the place of each group of the next, (a, b)."""
        pairs = np.stack([self.look.group, self.after.group[self.nearest]])[:, self.away <= GAP]
        counts = np.zeros((self.look.group.max() + 1, self.after.group.max() + 1))
        np.add.at(counts, tuple(pairs), 1 / len(self.away))
        return counts


def _that_goes_on(steps: Sequence[_Step], back: Sequence[_Step]) -> list[np.ndarray]:
    """Of each look the vertices, (n,), of one group: those of which most goes on from look to look (Viterbi 1967).

    back : the same steps, backwards
    """
    gain, came = np.zeros(steps[0].look.group.max() + 1), []
    for step, other in zip(steps, back, strict=True):
        # A product of shares, so that a way over which nothing is carried is the last to be taken.
        ways = gain[:, None] + np.log(step.shared() + other.shared().T + NEXT_TO_NONE)
        came.append(np.argmax(ways, axis=0))
        gain = ways.max(axis=0)
    chosen = [int(np.argmax(gain))]
    for before in reversed(came):
        chosen.append(int(before[chosen[-1]]))
    looks = [steps[0].look, *(step.after for step in steps)]
    return [look.group == one for look, one in zip(looks, reversed(chosen), strict=True)]


def _last_moments(steps: Sequence[_Step], held: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> list[np.ndarray]:
    """By when each look's vertices must be gone, (n,) each; infinite for what stays to the end.

    held, there : (n,) of each look, whether a vertex holds to the shape, and from when it may be there. What does not
    hold is not there at all, -infinite, but at the ends.
    """
    moments = [np.full(len(held[-1]), np.inf)]
    for number in range(len(steps) - 1, -1, -1):
        step = steps[number]
        carried = held[number + 1] & (there[number + 1] <= step.after.time)
        moments.append(_moments_before(step, held[number], moments[-1], carried))
    return moments[::-1]


def _moments_before(step: _Step, held: np.ndarray, moments: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """By when the vertices of a look, those that are held, must be gone, from the moments of the look after it, (n,).

    What is still there then, as it is carried, has the moment that it has then. What is not has to have receded by now.
    """
    stays = held & (step.away <= GAP) & carried[step.nearest]
    found = np.where(stays, moments[step.nearest], np.where(step.filled, np.inf, step.look.time))
    whole = held | step.look.substance if step.look.end else held
    lasting = held & (found >= step.after.time)
    if lasting.any():
        found = _receded(_joined(step.look, whole, lasting), found, lasting)
    else:  # it has become another shape, and nothing is left that it could recede towards
        found = np.full(len(held), np.inf)
    return np.where(whole, found, np.where(step.look.hollow, np.inf, -np.inf))


def _receded(edges: sparse.csr_array, latest: np.ndarray, lasting: np.ndarray) -> np.ndarray:
    """The largest moments, (n,), of which none is later than it may be, nor than a neighbour's less the way to there.

    edges : (n, n), lengths; latest : (n,), what they may be; lasting : (n,), those that need no neighbour
    """
    moments = np.where(lasting, latest, -np.inf)
    rows = np.flatnonzero(~lasting & (np.diff(edges.indptr) > 0))
    if not len(rows):
        return moments
    some = edges[rows]
    delays, capped = some.data / SPEED, latest[rows]
    while True:
        # The latest neighbour of each row; each has one, and rows follow each other without gaps.
        reached = np.maximum.reduceat(moments[some.indices] - delays, some.indptr[:-1])
        found = np.minimum(reached, capped)
        if (found <= moments[rows]).all():
            return moments
        moments[rows] = np.maximum(found, moments[rows])


def _joined(look: Look, whole: np.ndarray, towards: np.ndarray) -> sparse.csr_array:
    """The edges of a look, and bridges over the narrowest gaps, so that all of some vertices hang together with others.

    whole, towards : (n,), which those are
    """
    edges, piece = look.edges, look.piece
    while True:
        loose = np.setdiff1d(piece[whole], piece[towards])
        if not len(loose):
            return edges
        # Two pieces may choose the same bridge, from both sides.
        bridges = dict(_bridge(look.vertices, piece == one, whole) for one in loose)
        one, other = np.array(list(bridges)).T
        ends, lengths = (np.concatenate([one, other]), np.concatenate([other, one])), np.array(list(bridges.values()))
        edges = edges + sparse.coo_array((np.tile(lengths, 2), ends), shape=edges.shape).tocsr()
        piece = connected_components(edges, directed=False)[1]


def _bridge(vertices: np.ndarray, mine: np.ndarray, whole: np.ndarray) -> tuple[tuple[int, int], float]:
    """The narrowest gap between the vertices that are mine, (n,), and the others: its two sides, and its width."""
    own, others = np.flatnonzero(mine), np.flatnonzero(whole & ~mine)
    gaps, nearest = KDTree(vertices[others]).query(vertices[own])
    narrowest = int(np.argmin(gaps))
    one, other = sorted((int(own[narrowest]), int(others[np.asarray(nearest)[narrowest]])))
    # A width of nothing would be no edge.
    return (one, other), float(gaps[narrowest]) + 1e-9
