"""Keep Input: a broken mesh as it is, with the missing part of a result joined to its open boundary.

    part = find_missing_part(mesh.vertices, mesh.faces, result.vertices, result.faces)
    joined = np.concatenate([mesh.vertices, part.vertices]), np.concatenate([mesh.faces, part.faces])

The result is a closed surface that covers the mesh and more. What of it covers the mesh is cut away along a line a
little beyond the mesh's boundary, what remains is moved so that it meets the boundary, and a strip of triangles joins
both. Where a missing part begins in the middle of the mesh's surface, as a leg does that was a piece of its own, there
is no boundary to join it to; where the mesh consists of several pieces, the result may end along the boundaries of
several at once, or along one that touches itself. There the missing part overlaps the mesh a little, as pieces of
modelled furniture do, and is closed within it where its end is compact.

Lengths are in canonical units. No number was tuned. The rules `compact` and `widest` were made after a look at three
TEST chairs, where caps and strips stood as webs in the air.
"""

from dataclasses import dataclass

import igl
import numpy as np
import trimesh
from scipy.spatial import KDTree

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
    """share of a piece's loop that must run along one loop of the boundary to be joined to it"""
    widest: float = 0.06
    """two loops are joined if neither is farther than this from the other anywhere"""
    compact: float = 0.3
    """an end that overlaps the mesh is closed if its loop is at least this compact, 4 pi area / perimeter^2: 1 of a
    circle, 0.79 of a square; the cap of one that winds about several pieces would be seen between them"""
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
    overlaps : how many of its own ends overlap the mesh instead
    """

    vertices: np.ndarray
    faces: np.ndarray
    closed_loops: int
    open_loops: int
    overlaps: int


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
        self.vertices, self.faces, self.closed, self.overlaps = [part], list[np.ndarray](), set[int](), 0
        self._count = len(mesh.vertices) + len(part)

    def add(self, piece: np.ndarray) -> None:
        """Add a piece, faces (f, 3) of the part's vertices, unless it is a deviation of the result from the mesh."""
        part, loops = self.vertices[0], find_boundary(piece).loops
        nearest = [self._boundary_along(part[loop]) for loop in loops]
        if not any(along for along, _ in nearest) and self._reach(part[np.unique(piece)]) < self.settings.piece:
            return
        if not loops:  # floats beside the mesh: nothing that was observed supports it
            return
        pairs = [(loop, rim) for loop, (_, rim) in zip(loops, nearest, strict=True)]
        if self._is_flipped([(part[loop], rim) for loop, rim in pairs if rim is not None]):
            piece, pairs = piece[:, ::-1], [(loop[::-1], rim) for loop, rim in pairs]
        offset = len(self.mesh.vertices)
        self.faces.append(piece + offset)
        for loop, rim in pairs:
            if rim is None or rim in self.closed or not self._can_zip(loop, rim):
                self.faces.append(self._overlap(part[loop], loop + offset))
                self.overlaps += 1
            else:
                self.faces.append(self._strip(loop, rim))
                self.closed.add(rim)

    def missing_part(self) -> MissingPart:
        """All that was added."""
        old, closed = len(self.mesh.vertices), len(self.closed)
        vertices = np.concatenate(self.vertices)
        faces = np.concatenate([*self.faces, np.zeros((0, 3), dtype=np.int64)])
        is_new = faces >= old
        vertices, numbers = without_unused(vertices, (faces[is_new] - old)[None])
        faces[is_new] = numbers[0] + old
        return MissingPart(vertices, faces, closed, len(self.mesh.boundary.loops) - closed, self.overlaps)

    def _boundary_along(self, loop: np.ndarray) -> tuple[bool, int | None]:
        """Whether a loop of a piece, (k, 3), runs along the mesh's boundary, and along which loop; None for several."""
        settings = self.settings
        if len(self.mesh.rim) == 0:
            return False, None
        away, nearest = KDTree(self.mesh.rim).query(loop)
        if np.median(away) > settings.beside * settings.margin:
            return False, None
        numbers, counts = np.unique(self.mesh.loop_of_rim[nearest], return_counts=True)
        number = int(numbers[counts.argmax()])
        clear = number != TANGLES and counts.max() >= settings.same_loop * len(loop)
        return True, number if clear and self._run_beside(loop, number) else None

    def _run_beside(self, loop: np.ndarray, rim: int) -> bool:
        """Whether all of a loop of a piece runs beside all of one of the boundary; a strip elsewhere is a web."""
        rim_points = self.mesh.rim[self.mesh.loop_of_rim == rim]
        loop_points = _along_loop(loop, self.settings.rim_spacing)
        gaps = KDTree(rim_points).query(loop_points)[0].max(), KDTree(loop_points).query(rim_points)[0].max()
        return max(gaps) <= self.settings.widest

    def _reach(self, points: np.ndarray) -> float:
        """The largest distance of points, (k, 3), from the mesh."""
        distance, _ = _nearest(points, self.mesh.vertices, self.mesh.faces)
        return float(distance.max())

    def _is_flipped(self, pairs: list[tuple[np.ndarray, int]]) -> bool:
        """Whether the mesh is oriented inwards along most of the loops, each with its loop of the boundary.

        Facing boundaries of surfaces that are oriented alike run in opposite directions.
        """
        votes = [len(loop) if self._runs_along(loop, rim) else -len(loop) for loop, rim in pairs]
        return sum(votes) > 0

    def _runs_along(self, loop: np.ndarray, rim: int) -> bool:
        return _same_direction(loop, self.mesh.vertices[self.mesh.boundary.loops[rim]], self.settings.rim_spacing)

    def _can_zip(self, loop: np.ndarray, rim: int) -> bool:
        """Whether there is the memory to join two loops."""
        return len(loop) * len(self.mesh.boundary.loops[rim]) <= self.settings.longest_loops

    def _strip(self, loop: np.ndarray, rim: int) -> np.ndarray:
        """The triangles between a loop of the boundary and one of a piece, by their vertices' numbers."""
        first, second = self.mesh.boundary.loops[rim], loop[::-1]
        if self._runs_along(self.vertices[0][loop], rim):  # the mesh is oriented differently here
            first = first[::-1]
        part, offset = self.vertices[0], len(self.mesh.vertices)
        steps, on_first = zip_loops(self.mesh.vertices[first], part[second])
        (rows, columns), count, other = steps.T, len(first), len(second)
        here, there = first[rows], second[columns] + offset
        forward = np.column_stack([first[(rows + 1) % count], here, there])
        beside = np.column_stack([there, second[(columns + 1) % other] + offset, here])
        return np.where(on_first[:, None], forward, beside)

    def _overlap(self, loop: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Continue a piece beyond one of its loops, (k, 3), into the mesh, and close it there if the end is compact."""
        mesh = self.mesh
        distance, nearest = _nearest(loop, mesh.vertices, mesh.faces)
        inward = (nearest - loop) / np.maximum(distance, 1e-9)[:, None]
        inside = nearest + self.settings.margin * inward
        new = self._count + np.arange(len(loop))
        self.vertices.append(inside)
        self._count += len(loop)
        after, new_after = np.roll(numbers, -1), np.roll(new, -1)
        faces = [np.column_stack([after, numbers, new]), np.column_stack([after, new, new_after])]
        if _compactness(loop) >= self.settings.compact:
            self.vertices.append(inside.mean(axis=0, keepdims=True))
            faces.append(np.column_stack([new_after, new, np.full(len(loop), self._count)]))
            self._count += 1
        return np.concatenate(faces)


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


def _compactness(loop: np.ndarray) -> float:
    """4 pi area / perimeter^2 of a loop, (k, 3), by its vector area: small if it is long, winding or not flat."""
    after = np.roll(loop, -1, axis=0)
    centre = loop.mean(axis=0)
    area = np.linalg.norm(np.cross(loop - centre, after - centre).sum(axis=0)) / 2
    return float(4 * np.pi * area / np.linalg.norm(after - loop, axis=1).sum() ** 2)


def _same_direction(loop: np.ndarray, other: np.ndarray, spacing: float) -> bool:
    """Whether two loops beside each other, (k, 3) and (l, 3), run in the same direction."""
    dense = _along_loop(other, spacing)
    direction, other_direction = (np.roll(one, -1, axis=0) - one for one in (loop, dense))
    _, nearest = KDTree(dense).query(loop)
    return float(np.einsum("ij,ij->", direction, other_direction[nearest])) > 0
