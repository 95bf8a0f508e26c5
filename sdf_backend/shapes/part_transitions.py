"""Vanishing and appearance times of the parts of shapes along a path, so that parts recede and grow along themselves.

    keyframes = [Keyframe.from_mesh(time, mesh, settings) for time, mesh in ...]
    schedule = TransitionSchedule.from_keyframes(keyframes, settings)

Between two keyframes a part may vanish at once. So each vertex of each keyframe is given a vanishing time, by which it
must be gone, and an appearance time, from which it may be there, so that every vanishing vertex has a neighbour that
vanishes a little later. From the path's end backwards, a vertex has the vanishing time of its correspondence at the
next keyframe, or its own keyframe's time if there is none; and of a part that vanishes before the next keyframe each
vertex vanishes before a neighbour, earlier by the distance between them over a given speed. Appearance is vanishing in
reverse time. The two are computed in turn, because a part cannot recede towards what has not appeared yet, nor grow
from what has vanished. Components that are not connected to the tracked shape are floaters and are removed.

A vanishing vertex carves the inside next to it, to the depth to which the causing keyframe is empty there.
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
from sdf_backend.shapes.interpolation_settings import InterpolationSettings
from sdf_backend.shapes.nearest_vertex_grid import NearestVertexGrid

# The cause of a vertex that vanishes for another reason than a keyframe: the field is not evaluated.
NO_CAUSE = -1


@dataclass(frozen=True)
class Keyframe:
    """The shape at one time, 0 to 1, as a coarse mesh.

    vertices : (n, 3); faces : (m, 3); edges : (n, n), their lengths
    component : (n,), the connected component of each vertex
    group : (n,), its group of components that are near each other
    """

    time: float
    vertices: np.ndarray
    faces: np.ndarray
    edges: sparse.csr_array
    component: np.ndarray
    group: np.ndarray
    settings: InterpolationSettings

    @classmethod
    def from_mesh(cls, time: float, mesh: Extraction, settings: InterpolationSettings) -> "Keyframe":
        """The keyframe of a mesh that was extracted at the keyframes' resolution."""
        component = mesh.components
        near = component[KDTree(mesh.vertices).query_pairs(settings.connection_gap, output_type="ndarray")]
        links = sparse.coo_array((np.ones(len(near)), tuple(near.T)), shape=(component.max() + 1,) * 2)
        group = connected_components(links, directed=False)[1][component]
        return cls(time, mesh.vertices, mesh.faces, _edge_lengths(mesh), component, group, settings)

    @cached_property
    def tree(self) -> KDTree:
        """Of the vertices."""
        return KDTree(self.vertices)

    @property
    def is_end(self) -> bool:
        """Whether this is an end of the path, where everything stays until the path begins."""
        return self.time in (0, 1)

    @property
    def is_substantial(self) -> np.ndarray:
        """Whether each vertex, (n,), belongs to a group that is too large for a floater."""
        return (np.bincount(self.group) >= self.settings.floater_share * len(self.group))[self.group]

    def reversed(self) -> "Keyframe":
        """The same in reverse time."""
        return replace(self, time=1 - self.time)


@dataclass(frozen=True)
class Transition:
    """When the vertices of a keyframe vanish or, in reverse time, appear.

    times : (n,), vanishing times, or appearance times if not `forward`
    cause : (n,), number of the keyframe that has no surface at the vertex any more, or NO_CAUSE
    depth : (n,), carving depth: how far from the vertex the inside extends that vanishes with it, canonical units
    remaining : (a, b, c) bool, the grid's nodes that are inside at the keyframe's own time, carved parts left out
    speed : of the transition, canonical units a unit of time
    """

    times: np.ndarray
    cause: np.ndarray
    depth: np.ndarray
    remaining: np.ndarray
    forward: bool
    speed: float

    def carving_excess(self, time: float) -> np.ndarray:
        """How far carving has gone past each vertex at a time, (n,), canonical units; negative where it stays.

        The inside at `depth` from a vertex is carved last.
        """
        return self.speed * (time - self.times if self.forward else self.times - time) + self.depth

    def is_active(self, time: float, step: float) -> bool:
        """Whether something is being carved within a step of a time."""
        excess = self.carving_excess(time)
        return bool(((excess > -self.speed * step) & (excess < self.depth + self.speed * step)).any())


@dataclass(frozen=True)
class TransitionSchedule:
    """The transitions of all keyframes of a path.

    appearing, vanishing : of each keyframe
    arc_length : times, (k,), from before the path's beginning to after its end, and the length of the path by then,
    (k,)
    """

    keyframes: list[Keyframe]
    grid: NearestVertexGrid
    appearing: list[Transition]
    vanishing: list[Transition]
    arc_length: tuple[np.ndarray, np.ndarray]

    @classmethod
    def from_keyframes(cls, keyframes: list[Keyframe], settings: InterpolationSettings) -> "TransitionSchedule":
        """The schedule of keyframes that are evenly spaced from one end of the path, time 0, to the other, time 1."""
        grid = NearestVertexGrid.enclosing([keyframe.vertices for keyframe in keyframes], settings.keyframe_cell)
        forward = [_Correspondence.between(keyframe, following) for keyframe, following in pairwise(keyframes)]
        backward = [step.reversed() for step in reversed(forward)]
        tracked = _track_main_group(forward, backward[::-1])
        moved = np.maximum(
            [step.largest_motion(there) for step, there in zip(forward, tracked[:-1], strict=True)],
            [step.largest_motion(there) for step, there in zip(backward, tracked[:0:-1], strict=True)][::-1],
        )
        vanishing_times, appearance_times = _alternate_times(forward, backward, tracked)
        vanishing = _transitions(grid, keyframes, vanishing_times, forward=True)
        appearing = _transitions(grid, keyframes, appearance_times, forward=False)
        return cls(keyframes, grid, appearing, vanishing, _arc_length(moved, appearing, vanishing, settings))

    def around(self, position: float) -> list[tuple[int, list[Transition]]]:
        """Numbers of the keyframes before and after a position, 0 to 1, each with the transitions that act from
        there."""
        before, after = _keyframes_around(position, len(self.keyframes) - 1)
        return [(before, self.vanishing), (after, self.appearing)]


_VertexTimes = tuple[np.ndarray, np.ndarray]
"""Of the vertices of a keyframe: vanishing times, (n,), and causes, (n,); see `Transition`."""


def _edge_lengths(mesh: Extraction) -> sparse.csr_array:
    """The lengths of a closed mesh's edges, (n, n), in both directions."""
    ends = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    lengths = np.linalg.norm(np.subtract(*mesh.vertices[ends.T]), axis=1)
    return sparse.coo_array((lengths, tuple(ends.T)), shape=(len(mesh.vertices),) * 2).tocsr()


def _keyframes_around(position: float, steps: int) -> tuple[int, int]:
    before = int(position * steps)
    return before, before + (position > before / steps)


def _transitions(
    grid: NearestVertexGrid, keyframes: Sequence[Keyframe], times: Sequence[_VertexTimes], forward: bool
) -> list[Transition]:
    """The transitions of all keyframes."""
    known: dict[int, Transition] = {}
    # A cause is a keyframe farther on, so its transition comes first.
    for number in reversed(range(len(keyframes))) if forward else range(len(keyframes)):
        known[number] = _transition(grid, number, keyframes[number], times[number], known, forward)
    return [known[number] for number in range(len(keyframes))]


def _transition(
    grid: NearestVertexGrid,
    number: int,
    keyframe: Keyframe,
    vertex_times: _VertexTimes,
    farther: Mapping[int, Transition],
    forward: bool,
) -> Transition:
    """The transition of one keyframe: nodes inside it that are not inside the causing keyframe are carved."""
    (times, cause), inside = vertex_times, grid.inside(number)
    speed = keyframe.settings.transition_speed
    transition = Transition(times, cause, np.zeros(len(cause), dtype=np.float32), inside, forward, speed)
    if not (np.isfinite(times) | (transition.carving_excess(keyframe.time) > 0)).any():
        return transition
    nearest, distance = grid.nearest(number)
    goes, node_cause = inside.copy(), cause[nearest]
    for other in np.unique(cause[cause != NO_CAUSE]):
        # The cause of a part that has not grown yet is a keyframe that is not farther on.
        stays = farther[other].remaining if other in farther else grid.inside(other)
        goes &= (node_cause != other) | ~stays
    due = goes & (node_cause != NO_CAUSE)
    np.maximum.at(transition.depth, nearest[due], distance[due])
    carved = transition.carving_excess(keyframe.time)[nearest] > distance
    return replace(transition, remaining=inside & ~(goes & carved))


def _arc_length(
    moved: np.ndarray,
    appearing: Sequence[Transition],
    vanishing: Sequence[Transition],
    settings: InterpolationSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """See `TransitionSchedule.arc_length`; moved : (keyframes - 1,), how far surfaces move between keyframes."""
    steps, speed = len(moved), settings.transition_speed
    # The ends are whole: parts with early vanishing times recede before the path begins, late ones grow after its end.
    first, last = vanishing[0], appearing[-1]
    begin, close = first.times - first.depth / speed, last.times + last.depth / speed
    start = begin.min(initial=0.0, where=np.isfinite(begin))
    end = close.max(initial=1.0, where=np.isfinite(close))
    times = np.linspace(start, end, 4 * steps + 1)
    step, length = times[1] - times[0], [0.0]
    for time in (times[1:] + times[:-1]) / 2:
        before, after = _keyframes_around(min(max(time, 0.0), 1.0), steps)
        active = vanishing[before].is_active(time, step) or appearing[after].is_active(time, step)
        motion = moved[before] * steps if 0 < time < 1 else 0.0
        length.append(length[-1] + step * max(motion, speed if active else 0.0, settings.minimum_speed))
    return times, np.array(length)


@dataclass(frozen=True)
class _Correspondence:
    """The correspondence of a keyframe's vertices with the following keyframe.

    distance : (n,), from each vertex to the nearest vertex there; nearest : (n,), which that is
    """

    keyframe: Keyframe
    following: Keyframe
    distance: np.ndarray
    nearest: np.ndarray

    @classmethod
    def between(cls, keyframe: Keyframe, following: Keyframe) -> "_Correspondence":
        distance, nearest = following.tree.query(keyframe.vertices)
        return cls(keyframe, following, np.asarray(distance), np.asarray(nearest))

    def reversed(self) -> "_Correspondence":
        """From the following keyframe to this one, in reverse time."""
        distance, nearest = self.keyframe.tree.query(self.following.vertices)
        return _Correspondence(
            self.following.reversed(), self.keyframe.reversed(), np.asarray(distance), np.asarray(nearest)
        )

    @property
    def is_matched(self) -> np.ndarray:
        """Whether each vertex, (n,), still has a surface near it at the following keyframe."""
        return self.distance <= self.keyframe.settings.correspondence_distance

    @cached_property
    def is_filled(self) -> np.ndarray:
        """Whether each unmatched vertex, (n,), is inside the following keyframe, so that no part vanishes there."""
        inside, unmatched = np.zeros(len(self.distance), dtype=bool), np.flatnonzero(~self.is_matched)
        if len(unmatched):
            winding = igl.fast_winding_number(
                self.following.vertices, self.following.faces, self.keyframe.vertices[unmatched]
            )
            inside[unmatched] = np.atleast_1d(winding) > 0.5
        return inside

    def largest_motion(self, tracked: np.ndarray) -> float:
        """Largest distance of matched and tracked, (n,), vertices from the following keyframe's surface.

        Distances between vertices would not serve: the vertices of two meshes of one surface do not coincide, and of
        bodies that would be most of the distance.
        """
        matched = np.flatnonzero(tracked & self.is_matched)
        if not len(matched):
            return 0.0
        farthest = np.argsort(self.distance[matched])[-self.keyframe.settings.hausdorff_candidates :]
        candidates = self.keyframe.vertices[matched[farthest]]
        squared, _, _ = igl.point_mesh_squared_distance(candidates, self.following.vertices, self.following.faces)
        return float(np.sqrt(np.max(squared)))

    def group_overlap(self) -> np.ndarray:
        """Share of the keyframe's vertices that are in group a here and matched with group b there, (a, b)."""
        pairs = np.stack([self.keyframe.group, self.following.group[self.nearest]])[:, self.is_matched]
        overlap = np.zeros((self.keyframe.group.max() + 1, self.following.group.max() + 1))
        np.add.at(overlap, tuple(pairs), 1 / len(self.distance))
        return overlap


def _track_main_group(forward: Sequence[_Correspondence], backward: Sequence[_Correspondence]) -> list[np.ndarray]:
    """Component tracking: of each keyframe the vertices, (n,), of the group in the sequence of largest overlap.

    By dynamic programming over the keyframes (Viterbi 1967). backward : the same steps in reverse time
    """
    gain, predecessors = np.zeros(forward[0].keyframe.group.max() + 1), []
    for step, reverse in zip(forward, backward, strict=True):
        no_overlap = step.keyframe.settings.no_overlap
        # Shares are multiplied, so that a sequence without any overlap somewhere is the last choice.
        gains = gain[:, None] + np.log(step.group_overlap() + reverse.group_overlap().T + no_overlap)  # (a, b)
        predecessors.append(np.argmax(gains, axis=0))
        gain = gains.max(axis=0)
    chosen = [int(np.argmax(gain))]
    for predecessor in reversed(predecessors):
        chosen.append(int(predecessor[chosen[-1]]))
    keyframes = [forward[0].keyframe, *(step.following for step in forward)]
    return [keyframe.group == group for keyframe, group in zip(keyframes, reversed(chosen), strict=True)]


def _alternate_times(
    forward: Sequence[_Correspondence], backward: Sequence[_Correspondence], tracked: Sequence[np.ndarray]
) -> tuple[list[_VertexTimes], list[_VertexTimes]]:
    """Vanishing and appearance times of all keyframes, computed in turn.

    tracked : (n,) of each keyframe, whether a vertex belongs to the tracked shape
    """
    vanishing, appearance = [], [(np.full(len(kept), -np.inf), np.full(len(kept), NO_CAUSE)) for kept in tracked]
    for _ in range(forward[0].keyframe.settings.alternations):
        vanishing = _vanishing_times(forward, tracked, appearance)
        appearance = _reverse_times(_vanishing_times(backward, tracked[::-1], _reverse_times(vanishing)))
    return vanishing, appearance


def _reverse_times(found: Sequence[_VertexTimes]) -> list[_VertexTimes]:
    """The same in reverse time."""
    last = len(found) - 1
    return [(1 - times, np.where(cause == NO_CAUSE, cause, last - cause)) for times, cause in reversed(found)]


def _vanishing_times(
    steps: Sequence[_Correspondence], tracked: Sequence[np.ndarray], appearance: Sequence[_VertexTimes]
) -> list[_VertexTimes]:
    """Vanishing times of all keyframes, infinite for vertices that stay to the end.

    Untracked vertices are never there, -infinite, except at the ends.

    tracked, appearance : of each keyframe, whether a vertex belongs to the tracked shape, (n,), and its appearance time
    """
    count = len(tracked[-1])
    found = [(np.full(count, np.inf), np.full(count, NO_CAUSE))]
    for number in range(len(steps) - 1, -1, -1):
        following = number + 1
        found.append(
            _times_before(
                steps[number], following, tracked[number], found[-1], tracked[following], appearance[following]
            )
        )
    return found[::-1]


def _times_before(
    step: _Correspondence,
    following: int,
    tracked: np.ndarray,
    later: _VertexTimes,
    tracked_later: np.ndarray,
    appearance: _VertexTimes,
) -> _VertexTimes:
    """Vanishing times of a keyframe from those of the following one, which has that number.

    A vertex with a correspondence has its vanishing time. A vertex without one must have receded by its own keyframe.

    tracked, tracked_later : (n,) here and (m,) there; later, appearance : there
    """
    matched, filled = step.is_matched, ~step.is_matched & step.is_filled
    continued = tracked & matched & tracked_later[step.nearest]
    appeared = (appearance[0] <= step.following.time)[step.nearest]
    latest = np.where(continued & appeared, later[0][step.nearest], np.where(filled, np.inf, step.keyframe.time))
    # A part of the path that has not appeared yet at the following keyframe keeps the cause of its absence.
    cause = np.where(appeared, later[1][step.nearest], appearance[1][step.nearest])
    cause = np.where(continued, cause, np.where(matched | filled, NO_CAUSE, following))
    present = tracked | step.keyframe.is_substantial if step.keyframe.is_end else tracked
    lasting = tracked & (latest >= step.following.time)
    if not lasting.any():  # the shape has changed entirely, and there is no vertex to recede towards
        return np.where(present, np.inf, -np.inf), np.full(len(tracked), NO_CAUSE)
    edges = _bridge_components(step.keyframe, present, lasting)
    times = _propagate_times(edges, latest, lasting, step.keyframe.settings.transition_speed)
    return np.where(present, times, -np.inf), np.where(present, cause, NO_CAUSE)


def _propagate_times(edges: sparse.csr_array, latest: np.ndarray, lasting: np.ndarray, speed: float) -> np.ndarray:
    """The largest times, (n,), none later than allowed, nor than a neighbour's less the time to get there.

    edges : (n, n), lengths; latest : (n,), latest times allowed; lasting : (n,), vertices that need no neighbour
    """
    times = np.where(lasting, latest, -np.inf)
    rows = np.flatnonzero(~lasting & (np.diff(edges.indptr) > 0))
    if not len(rows):
        return times
    chosen = edges[rows]
    delays, capped = chosen.data / speed, latest[rows]
    while True:
        # The latest neighbour of each row; each row has one, and rows follow each other without gaps.
        reached = np.maximum.reduceat(times[chosen.indices] - delays, chosen.indptr[:-1])
        found = np.minimum(reached, capped)
        if (found <= times[rows]).all():
            return times
        times[rows] = np.maximum(found, times[rows])


def _bridge_components(keyframe: Keyframe, present: np.ndarray, targets: np.ndarray) -> sparse.csr_array:
    """The edges of a keyframe, plus bridges over the narrowest gaps that connect all present vertices with targets.

    present, targets : (n,) bool
    """
    edges, component = keyframe.edges, keyframe.component
    while True:
        loose = np.setdiff1d(component[present], component[targets])
        if not len(loose):
            return edges
        # Two components may choose the same bridge, from both sides.
        bridges = dict(_narrowest_gap(keyframe.vertices, component == one, present) for one in loose)
        start, end = np.array(list(bridges)).T
        ends, lengths = (np.concatenate([start, end]), np.concatenate([end, start])), np.array(list(bridges.values()))
        edges = edges + sparse.coo_array((np.tile(lengths, 2), ends), shape=edges.shape).tocsr()
        component = connected_components(edges, directed=False)[1]


def _narrowest_gap(vertices: np.ndarray, own: np.ndarray, present: np.ndarray) -> tuple[tuple[int, int], float]:
    """The narrowest gap between own vertices, (n,) bool, and other present ones: both ends, and its width."""
    own_indices, other_indices = np.flatnonzero(own), np.flatnonzero(present & ~own)
    gaps, nearest = KDTree(vertices[other_indices]).query(vertices[own_indices])
    narrowest = int(np.argmin(gaps))
    start, end = sorted((int(own_indices[narrowest]), int(other_indices[np.asarray(nearest)[narrowest]])))
    # A width of zero would be no edge.
    return (start, end), float(gaps[narrowest]) + 1e-9
