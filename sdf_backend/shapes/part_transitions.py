"""When what is seen along a line of shapes may be there, so that parts recede and grow along themselves.

    times = Times.of([Look.of(place, mesh) for place, mesh in ...])      # from one end of the line, 0, to the other, 1

Between two looks a part may go out like a lamp. So each vertex of each look is given the time by when it must be gone
and that from when it may be there, such that whatever goes has something next to it that goes a little later. Looked
at from the line's end backwards, a vertex goes when that goes which is in its place at the next look, or by now where
nothing is; and of what goes before the next look each vertex goes before one that it hangs on, earlier by the way
between them at a given speed. What appears is what vanishes when time runs backwards. Both are found in turns,
because what is not there yet is nothing to recede to, and what is gone nothing to grow from. What does not hold to
the one shape that goes on from look to look hangs in the air, and is not there at all.

What goes takes with it what is next to it inside, to the depth to which the next look has nothing there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import igl
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from sdf_backend.geometry.isosurface import Extraction
from sdf_backend.shapes.nearest_vertex_grid import Nodes

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
# What goes, but not for what is there at another look: the decoder is not asked.
WHATEVER = -1


@dataclass(frozen=True)
class Look:
    """The shape at one time.

    vertices : (n, 3); faces : (m, 3); edges : (n, n), their lengths
    group : (n,), which group of pieces that are near each other a vertex is of; piece : (n,), of which connected one
    """

    time: float
    vertices: np.ndarray
    faces: np.ndarray
    edges: sparse.csr_array
    piece: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, time: float, mesh: Extraction) -> "Look":
        """What a mesh, extracted on the grid of `Nodes`, shows at a time, 0 to 1."""
        edges = _edge_lengths(mesh)
        piece = mesh.pieces
        near = piece[KDTree(mesh.vertices).query_pairs(HOLD, output_type="ndarray")]
        links = sparse.coo_array((np.ones(len(near)), tuple(near.T)), shape=(piece.max() + 1,) * 2)
        return cls(time, mesh.vertices, mesh.faces, edges, piece, connected_components(links, directed=False)[1][piece])

    @cached_property
    def tree(self) -> KDTree:
        """Of the vertices."""
        return KDTree(self.vertices)

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
class Leaving:
    """What of a look leaves onwards, or, what appears, backwards.

    moments : (n,), by when, or from when; why : (n,), the number of the look at which nothing is in its place any more,
    or WHATEVER; depth : (n,), how far from the vertex what leaves with it reaches, canonical units
    left : the nodes, (a, b, c) bool, that are inside at the look's own time, when some may have left already
    """

    moments: np.ndarray
    why: np.ndarray
    depth: np.ndarray
    left: np.ndarray
    onwards: bool

    def past(self, time: float) -> np.ndarray:
        """How far past being cut off its vertices are at a time, (n,), canonical; below zero for what stays.

        What is `depth` away is cut off last.
        """
        return SPEED * (time - self.moments if self.onwards else self.moments - time) + self.depth

    def cutting(self, time: float, step: float) -> bool:
        """Whether something of it is being cut off within a step of a time."""
        past = self.past(time)
        return bool(((past > -SPEED * step) & (past < self.depth + SPEED * step)).any())


@dataclass(frozen=True)
class Times:
    """When what is seen at each look may be there.

    there, gone : from when and by when, for each look
    clock : times, (k,), from before the line's begin to after its end, and how far the way has gone by then, (k,)
    """

    looks: list[Look]
    nodes: Nodes
    there: list[Leaving]
    gone: list[Leaving]
    clock: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, looks: list[Look]) -> "Times":
        """Those of looks, evenly spaced, from one end of the line to the other."""
        nodes = Nodes.about([look.vertices for look in looks])
        onwards = [_Step.between(look, after) for look, after in pairwise(looks)]
        back = [step.backwards() for step in reversed(onwards)]
        held = _that_goes_on(onwards, back[::-1])
        moved = np.maximum(
            [step.length(there) for step, there in zip(onwards, held[:-1], strict=True)],
            [step.length(there) for step, there in zip(back, held[:0:-1], strict=True)][::-1],
        )
        leave, come = _in_turns(onwards, back, held)
        gone = _leavings(nodes, looks, leave, onwards=True)
        there = _leavings(nodes, looks, come, onwards=False)
        return cls(looks, nodes, there, gone, _clock(moved, there, gone))

    def about(self, place: float) -> list[tuple[int, list[Leaving]]]:
        """The looks before and after a place of the line, 0 to 1, by number, and what leaves of all looks, seen so."""
        before, after = _about(place, len(self.looks) - 1)
        return [(before, self.gone), (after, self.there)]


# Of a look: by when its vertices must be gone, (n,), and why, (n,); see `Leaving`.
_Moments = tuple[np.ndarray, np.ndarray]


def _edge_lengths(mesh: Extraction) -> sparse.csr_array:
    """The lengths of a closed mesh's edges, (n, n), in both directions."""
    ends = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    lengths = np.linalg.norm(np.subtract(*mesh.vertices[ends.T]), axis=1)
    return sparse.coo_array((lengths, tuple(ends.T)), shape=(len(mesh.vertices),) * 2).tocsr()


def _about(place: float, steps: int) -> tuple[int, int]:
    before = int(place * steps)
    return before, before + (place > before / steps)


def _leavings(nodes: Nodes, looks: Sequence[Look], found: Sequence[_Moments], onwards: bool) -> list[Leaving]:
    """What of each look leaves, by its moments."""
    known: dict[int, Leaving] = {}
    # Why it leaves is to be seen at looks that are farther on.
    for number in reversed(range(len(looks))) if onwards else range(len(looks)):
        known[number] = _leaving(nodes, number, looks[number].time, found[number], known, onwards)
    return [known[number] for number in range(len(looks))]


def _leaving(
    nodes: Nodes, number: int, time: float, found: _Moments, farther: Mapping[int, Leaving], onwards: bool
) -> Leaving:
    """What of a look leaves: what is inside, and not inside any more at the look that is why."""
    (moments, why), inside = found, nodes.solid(number)
    leaving = Leaving(moments, why, np.zeros(len(why), dtype=np.float32), inside, onwards)
    if not (np.isfinite(moments) | (leaving.past(time) > 0)).any():
        return leaving
    nearest, away = nodes.nearest(number)
    goes, reason = inside.copy(), why[nearest]
    for other in np.unique(why[why != WHATEVER]):
        # What has not grown yet is what it was at a look that is not farther on.
        stays = farther[other].left if other in farther else nodes.solid(other)
        goes &= (reason != other) | ~stays
    due = goes & (reason != WHATEVER)
    np.maximum.at(leaving.depth, nearest[due], away[due])
    return replace(leaving, left=inside & ~(goes & (leaving.past(time)[nearest] > away)))


def _clock(moved: np.ndarray, there: Sequence[Leaving], gone: Sequence[Leaving]) -> tuple[np.ndarray, np.ndarray]:
    """See `Times.clock`; moved : (looks - 1,), how far surfaces move from each look to the next."""
    steps = len(moved)
    # The ends are whole: what must be gone early recedes before the line begins, what comes late grows after its end.
    begin, close = gone[0].moments - gone[0].depth / SPEED, there[-1].moments + there[-1].depth / SPEED
    start = begin.min(initial=0.0, where=np.isfinite(begin))
    end = close.max(initial=1.0, where=np.isfinite(close))
    times = np.linspace(start, end, 4 * steps + 1)
    step, length = times[1] - times[0], [0.0]
    for time in (times[1:] + times[:-1]) / 2:
        before, after = _about(min(max(time, 0.0), 1.0), steps)
        cutting = gone[before].cutting(time, step) or there[after].cutting(time, step)
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
        """Whether each vertex, (n,), is inside the next shape: no part goes there."""
        inside, left = np.zeros(len(self.away), dtype=bool), np.flatnonzero(self.away > GAP)
        if len(left):
            turns = igl.fast_winding_number(self.after.vertices, self.after.faces, self.look.vertices[left])
            inside[left] = np.atleast_1d(turns) > 0.5
        return inside

    def backwards(self) -> "_Step":
        """The same when time runs from the last shape to the first."""
        away, nearest = self.look.tree.query(self.after.vertices)
        return _Step(self.after.backwards(), self.look.backwards(), np.asarray(away), np.asarray(nearest))

    @property
    def near(self) -> np.ndarray:
        """Whether there still is a surface about where each vertex is, (n,)."""
        return self.away <= GAP

    def length(self, held: np.ndarray) -> float:
        """How far the farthest vertex of what stays, of those that are `held`, (n,), is from the next surface.

        The vertices of two meshes of one surface do not coincide: of a body, that would be most of the distance.
        """
        stays = np.flatnonzero(held & self.near)
        if not len(stays):
            return 0.0
        candidates = self.look.vertices[stays[np.argsort(self.away[stays])[-CANDIDATES:]]]
        squared, _, _ = igl.point_mesh_squared_distance(candidates, self.after.vertices, self.after.faces)
        return float(np.sqrt(np.max(squared)))

    def shared(self) -> np.ndarray:
        """How much, of 1, of each group of the look, (a,), is in the place of each group of the next, (a, b)."""
        pairs = np.stack([self.look.group, self.after.group[self.nearest]])[:, self.near]
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


def _in_turns(
    onwards: Sequence[_Step], back: Sequence[_Step], held: Sequence[np.ndarray]
) -> tuple[list[_Moments], list[_Moments]]:
    """By when each look's vertices must be gone, and from when they may be there.

    held : (n,) of each look, whether a vertex holds to the shape
    """
    gone, there = [], [(np.full(len(kept), -np.inf), np.full(len(kept), WHATEVER)) for kept in held]
    for _ in range(TURNS):
        gone = _last_moments(onwards, held, there)
        there = _reversed(_last_moments(back, held[::-1], _reversed(gone)))
    return gone, there


def _reversed(found: Sequence[_Moments]) -> list[_Moments]:
    """The same when time runs from the last shape to the first."""
    last = len(found) - 1
    return [(1 - moments, np.where(why == WHATEVER, why, last - why)) for moments, why in reversed(found)]


def _last_moments(steps: Sequence[_Step], held: Sequence[np.ndarray], there: Sequence[_Moments]) -> list[_Moments]:
    """By when each look's vertices must be gone, infinite for what stays to the end.

    held, there : of each look, whether a vertex holds to the shape, (n,), and from when it may be there. What does not
    hold is not there at all, -infinite, but at the ends.
    """
    count = len(held[-1])
    found = [(np.full(count, np.inf), np.full(count, WHATEVER))]
    for number in range(len(steps) - 1, -1, -1):
        step = steps[number]
        found.append(_moments_before(step, number + 1, held[number], found[-1], held[number + 1], there[number + 1]))
    return found[::-1]


def _moments_before(
    step: _Step, after: int, held: np.ndarray, later: _Moments, carried: np.ndarray, there: _Moments
) -> _Moments:
    """By when the vertices of a look, those that are held, must be gone, from the moments of the look after it, (n,).

    What is still there then, as it is carried, has the moment that it has then. What is not has to have receded by now.
    """
    known, turned = held & step.near & carried[step.nearest], ~step.near & step.filled
    grown = (there[0] <= step.after.time)[step.nearest]
    latest = np.where(known & grown, later[0][step.nearest], np.where(turned, np.inf, step.look.time))
    # What the line has then, but has not grown yet, is what it was before.
    why = np.where(grown, later[1][step.nearest], there[1][step.nearest])
    why = np.where(known, why, np.where(step.near | turned, WHATEVER, after))
    whole = held | step.look.substance if step.look.end else held
    lasting = held & (latest >= step.after.time)
    if not lasting.any():  # it has become another shape, and nothing is left that it could recede towards
        return np.where(whole, np.inf, -np.inf), np.full(len(held), WHATEVER)
    moments = _receded(_joined(step.look, whole, lasting), latest, lasting)
    return np.where(whole, moments, -np.inf), np.where(whole, why, WHATEVER)


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
