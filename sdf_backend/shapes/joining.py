"""Keep Input: a broken mesh as it is, with the missing part of a result joined to its open boundary.

    part = find_missing_part(mesh.vertices, mesh.faces, result.vertices, result.faces)
    joined = np.concatenate([mesh.vertices, part.vertices]), np.concatenate([mesh.faces, part.faces])

The result is a closed surface that covers the mesh and more. What of it covers the mesh is cut away along a line a
little beyond the mesh's boundary, what remains is moved so that it meets the boundary, and a strip of triangles joins
both. Where a missing part begins in the middle of the mesh's surface, as a leg does that was a piece of its own, there
is no boundary to join it to: it becomes a closed piece that reaches a little into the mesh, as pieces of modelled
furniture do.

Lengths are in canonical units. Nothing here was tuned on test pieces.
"""

from dataclasses import dataclass

import igl
import numpy as np
import trimesh
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.boundary import Boundary, find_boundary
from sdf_backend.geometry.clipping import clip_above, without_unused
from sdf_backend.geometry.zipping import zip_loops


@dataclass(frozen=True)
class JoinSettings:
    """Where a result covers a mesh, and how the missing part is joined to it; canonical units."""

    covered: float = 0.03
    """a surface of the result this near to the mesh, and nearest to its inside, is what the mesh has already"""
    margin: float = 0.008
    """distance from the mesh at which the missing part is cut off; the strip is as wide"""
    rim: float = 1e-6
    """a point of the mesh this near to its boundary lies on it"""
    fade: float = 0.08
    """distance from the boundary within which the missing part is moved to meet it"""
    rim_spacing: float = 0.005
    """distance between the points of the boundary at which that movement is measured"""
    rim_neighbours: int = 8
    """such points that move one vertex"""
    piece: float = 0.06
    """a piece that touches no boundary must reach this far from the mesh, or it is a deviation of the result"""
    beside: float = 3.0
    """a loop of a piece runs along the boundary if the median distance is at most this many margins"""
    same_loop: float = 0.8
    """share of a piece's loop that must run along one loop of the boundary"""
    smallest_faces: int = 12
    """pieces of fewer faces are crumbs"""
    longest_loops: int = 20_000_000
    """largest product of the numbers of vertices of two loops that are joined, for the memory that it takes"""


@dataclass(frozen=True)
class MissingPart:
    """What is added to a mesh.

    vertices : (k, 3), the new ones
    faces : (l, 3), oriented as the mesh's; indices count the mesh's vertices first, then the new ones
    closed_loops, open_loops : how many loops of the mesh's boundary it closes, and how many stay open
    """

    vertices: np.ndarray
    faces: np.ndarray
    closed_loops: int
    open_loops: int


def find_missing_part(
    vertices: np.ndarray,
    faces: np.ndarray,
    result_vertices: np.ndarray,
    result_faces: np.ndarray,
    settings: JoinSettings = JoinSettings(),
) -> MissingPart:
    """Find the part of a result that a mesh lacks, joined to the mesh's boundary; it is empty where nothing is missing.

    Vertices of the mesh at the same place count as one, as at the seams of a texture.

    Parameters
    ----------
    vertices, faces : (n, 3), (m, 3), the broken mesh, canonical
    result_vertices, result_faces : (v, 3), (f, 3), closed, oriented outwards, canonical

    Raises
    ------
    InputError : why nothing can be joined: where a part is missing the boundary is no loop, or the result does not meet
        it loop by loop
    """
    mesh = _Mesh.of(vertices, faces, settings)
    beyond = mesh.distance_beyond(result_vertices, settings)
    part, part_faces = clip_above(result_vertices, result_faces, beyond, settings.margin)
    part = mesh.meet_boundary(part, result_vertices, result_faces, settings)
    builder = _Builder(mesh, settings, part)
    for piece in _pieces(part_faces, settings):
        builder.add(piece)
    return builder.missing_part()


# Stands for the tangles among the numbers of loops.
TANGLES = -1


@dataclass(frozen=True)
class _Mesh:
    """A broken mesh: vertices (n, 3), faces (m, 3), its boundary, and points along that.

    rim : (r, 3), points on the boundary; loop_of_rim : (r,), the loop of each, or `TANGLES`
    """

    vertices: np.ndarray
    faces: np.ndarray
    boundary: Boundary
    rim: np.ndarray
    loop_of_rim: np.ndarray

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray, settings: JoinSettings) -> "_Mesh":
        """Find the boundary."""
        boundary = find_boundary(_welded(vertices, faces))
        points = [_along_loop(vertices[loop], settings.rim_spacing) for loop in boundary.loops]
        numbers = np.repeat(np.arange(len(points)), [len(some) for some in points])
        tangled = vertices[np.unique(boundary.tangles)]
        loop_of_rim = np.concatenate([numbers, np.full(len(tangled), TANGLES)])
        return cls(vertices, faces, boundary, np.concatenate([*points, tangled]), loop_of_rim)

    def distance_beyond(self, points: np.ndarray, settings: JoinSettings) -> np.ndarray:
        """How far points, (v, 3), lie beyond the mesh, (v,); 0 for those that it covers."""
        distance, nearest = _nearest(points, self.vertices, self.faces)
        return np.where((distance > settings.covered) | self._on_boundary(nearest, settings), distance, 0.0)

    def meet_boundary(
        self, points: np.ndarray, result_vertices: np.ndarray, result_faces: np.ndarray, settings: JoinSettings
    ) -> np.ndarray:
        """Points of a result, (k, 3), moved so that its surface passes through the boundary; the movement fades."""
        if len(self.rim) == 0 or len(points) == 0:
            return points
        _, nearest = _nearest(self.rim, result_vertices, result_faces)
        offset = self.rim - nearest  # (r, 3)
        away, around = KDTree(self.rim).query(points, k=min(settings.rim_neighbours, len(self.rim)))
        away, around = away.reshape(len(points), -1), around.reshape(len(points), -1)  # (k, neighbours)
        weight = 1 / (away + settings.rim_spacing) ** 2
        mean = np.einsum("kn,kni->ki", weight, offset[around]) / weight.sum(axis=1)[:, None]
        share = np.clip(1 - away[:, :1] / settings.fade, 0, 1)
        return points + share**2 * (3 - 2 * share) * mean

    def _on_boundary(self, points: np.ndarray, settings: JoinSettings) -> np.ndarray:
        """Which points of the mesh lie on its boundary, (v,) bool."""
        edges = self.boundary.edges
        if len(edges) == 0:
            return np.zeros(len(points), dtype=bool)
        distance, _ = _nearest(points, self.vertices, edges)
        return distance < settings.rim


class _Builder:
    """Collects the missing part, piece by piece."""

    def __init__(self, mesh: _Mesh, settings: JoinSettings, part: np.ndarray) -> None:
        self.mesh, self.settings = mesh, settings
        self.vertices, self.faces, self.closed = [part], list[np.ndarray](), set[int]()
        self._count = len(mesh.vertices) + len(part)

    def add(self, piece: np.ndarray) -> None:
        """Add a piece, faces (f, 3) of the part's vertices, unless it is a deviation of the result from the mesh.

        Raises `InputError` where it does not meet the boundary loop by loop.
        """
        part, boundary = self.vertices[0], find_boundary(piece)
        if len(boundary.tangles):
            raise InputError("the result cannot be cut along its boundary")
        loops = boundary.loops
        rims = [self._rim_of(part[loop]) for loop in loops]
        joined = [number for number in rims if number is not None]
        if not joined and (not loops or self._reach(part[np.unique(piece)]) < self.settings.piece):
            return
        if len(set(joined)) < len(joined) or self.closed & set(joined):
            raise InputError("two pieces of the result meet one loop of its boundary")
        self.closed |= set(joined)
        pairs = list(zip(loops, rims, strict=True))
        if self._is_flipped([(part[loop], rim) for loop, rim in pairs if rim is not None]):
            piece, pairs = piece[:, ::-1], [(loop[::-1], rim) for loop, rim in pairs]
        offset = len(self.mesh.vertices)
        self.faces.append(piece + offset)
        for loop, rim in pairs:
            self.faces.append(self._cap(part[loop], loop + offset) if rim is None else self._strip(loop, rim))

    def missing_part(self) -> MissingPart:
        """All that was added."""
        old, closed = len(self.mesh.vertices), len(self.closed)
        vertices = np.concatenate(self.vertices)
        faces = np.concatenate([*self.faces, np.zeros((0, 3), dtype=np.int64)])
        is_new = faces >= old
        vertices, numbers = without_unused(vertices, (faces[is_new] - old)[None])
        faces[is_new] = numbers[0] + old
        return MissingPart(vertices, faces, closed, len(self.mesh.boundary.loops) - closed)

    def _rim_of(self, loop: np.ndarray) -> int | None:
        """The loop of the boundary along which a loop of a piece, (k, 3), runs; None where it runs across the mesh."""
        settings = self.settings
        if len(self.mesh.rim) == 0:
            return None
        away, nearest = KDTree(self.mesh.rim).query(loop)
        if np.median(away) > settings.beside * settings.margin:
            return None
        numbers, counts = np.unique(self.mesh.loop_of_rim[nearest], return_counts=True)
        number = int(numbers[counts.argmax()])
        if number == TANGLES:
            raise InputError("its open boundary touches itself, or breaks off, where a part is missing")
        if counts.max() < settings.same_loop * len(loop):
            raise InputError("one piece of the result meets several loops of its boundary at once")
        return number

    def _reach(self, points: np.ndarray) -> float:
        """The largest distance of points, (k, 3), from the mesh."""
        distance, _ = _nearest(points, self.mesh.vertices, self.mesh.faces)
        return float(distance.max())

    def _is_flipped(self, pairs: list[tuple[np.ndarray, int]]) -> bool:
        """Whether the mesh is oriented inwards where the loops of a piece, each with its loop of the boundary, meet it.

        Facing boundaries of surfaces that are oriented alike run in opposite directions.
        """
        alike = [_same_direction(loop, self.mesh.vertices[self.mesh.boundary.loops[rim]]) for loop, rim in pairs]
        if len(set(alike)) > 1:
            raise InputError("its parts are oriented differently; recalculate its normals")
        return any(alike)

    def _strip(self, loop: np.ndarray, rim: int) -> np.ndarray:
        """The triangles between a loop of the boundary and one of a piece, by their vertices' numbers."""
        first, second = self.mesh.boundary.loops[rim], loop[::-1]
        if len(first) * len(second) > self.settings.longest_loops:
            raise InputError(f"a loop of its boundary has {len(first)} vertices, too many to join")
        part, offset = self.vertices[0], len(self.mesh.vertices)
        steps, on_first = zip_loops(self.mesh.vertices[first], part[second])
        (rows, columns), count, other = steps.T, len(first), len(second)
        here, there = first[rows], second[columns] + offset
        forward = np.column_stack([first[(rows + 1) % count], here, there])
        beside = np.column_stack([there, second[(columns + 1) % other] + offset, here])
        return np.where(on_first[:, None], forward, beside)

    def _cap(self, loop: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Close a loop of a piece, (k, 3), that runs across the mesh: into the mesh, and there by a fan."""
        mesh = self.mesh
        distance, nearest = _nearest(loop, mesh.vertices, mesh.faces)
        inward = (nearest - loop) / np.maximum(distance, 1e-9)[:, None]
        inside = nearest + self.settings.margin * inward
        new = self._count + np.arange(len(loop))
        self.vertices += [inside, inside.mean(axis=0, keepdims=True)]
        self._count += len(loop) + 1
        after, new_after = np.roll(numbers, -1), np.roll(new, -1)
        centre = np.full(len(loop), self._count - 1)
        return np.concatenate(
            [
                np.column_stack([after, numbers, new]),
                np.column_stack([after, new, new_after]),
                np.column_stack([new_after, new, centre]),
            ]
        )


def _welded(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces, (m, 3), with the first of all vertices at a place in place of each, and without those that collapse."""
    _, first, which = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    welded = first[which.reshape(-1)][faces]
    return welded[(welded != np.roll(welded, 1, axis=1)).all(axis=1)]


def _nearest(points: np.ndarray, vertices: np.ndarray, simplices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance, (n,), of points from faces, (m, 3), or edges, (m, 2), and the nearest points there, (n, 3)."""
    arrays = (np.ascontiguousarray(points), np.ascontiguousarray(vertices), np.ascontiguousarray(simplices))
    squared, _, nearest = igl.point_mesh_squared_distance(*arrays)
    return np.sqrt(np.asarray(squared)), np.asarray(nearest)


def _pieces(faces: np.ndarray, settings: JoinSettings) -> list[np.ndarray]:
    """The connected pieces of faces, (m, 3), without crumbs."""
    if len(faces) == 0:
        return []
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    labels = trimesh.graph.connected_component_labels(edges, node_count=int(faces.max()) + 1)[faces[:, 0]]
    pieces = [faces[labels == label] for label in np.unique(labels)]
    return [piece for piece in pieces if len(piece) >= settings.smallest_faces]


def _along_loop(loop: np.ndarray, spacing: float) -> np.ndarray:
    """Points along a closed polygon, (k, 3), its vertices among them."""
    after = np.roll(loop, -1, axis=0)
    counts = np.maximum(np.ceil(np.linalg.norm(after - loop, axis=1) / spacing).astype(int), 1)
    which = np.repeat(np.arange(len(loop)), counts)
    share = (np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[which]
    return loop[which] + share[:, None] * (after - loop)[which]


def _same_direction(loop: np.ndarray, other: np.ndarray) -> bool:
    """Whether two loops beside each other, (k, 3) and (l, 3), run in the same direction."""
    dense = _along_loop(other, JoinSettings.rim_spacing)
    direction, other_direction = (np.roll(one, -1, axis=0) - one for one in (loop, dense))
    _, nearest = KDTree(dense).query(loop)
    return float(np.einsum("ij,ij->", direction, other_direction[nearest])) > 0
