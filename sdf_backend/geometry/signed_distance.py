"""The signed distance to a mesh, however broken.

The distance is exact, to the original triangles (libigl). The sign cannot come from normals or winding numbers:
real meshes carry faces twice, back to back, or flipped, and the winding number is then silently 0 everywhere. It
comes from rays instead: a point from which light escapes is outside. Where only a little light escapes, a point is
either in a deep cavity or inside a shell that has a hole; there the parity of crossings decides, and where escape
and parity disagree the sign is uncertain.
"""

import igl
import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from sdf_backend.errors import InputError

# DeepSDF normalises to the unit sphere with this much air (Park et al. 2019, released preprocessing).
SPHERE_MARGIN = 1.03
FIRST_RAYS, ALL_RAYS = 16, 64
# A ray restarts this far behind a hit: coincident walls count as one.
STEP = 2e-5
MAXIMUM_CROSSINGS = 24
# Hidden walls are told from visible ones piece by piece; no piece is longer than this.
PIECE = 0.03
PROBE = 3e-4
ON_SURFACE = 1e-6


def clean_mesh(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices, drop faces that are degenerate, not finite, or there already (turned either way).

    Raises `InputError` where nothing is left.
    """
    faces = faces[((faces >= 0) & (faces < len(vertices))).all(axis=1)]
    finite = np.isfinite(vertices).all(axis=1)
    faces = faces[np.take(finite, faces).all(axis=1)]
    if len(faces) == 0:
        raise InputError("no face with finite corners")
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    extent = np.ptp(vertices, axis=0).max()
    if extent == 0:
        raise InputError("all vertices are in one place")
    grid = np.round((vertices - vertices.min(axis=0)) / (extent * 1e-7)).astype(np.int64)
    _, first, merged = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    vertices, faces = vertices[first], merged.reshape(-1)[faces]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    faces = faces[np.sort(first)]
    edges = vertices[faces[:, 1:]] - vertices[faces[:, :1]]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    faces = faces[area > (extent * 1e-7) ** 2]
    if len(faces) == 0:
        raise InputError("all faces are degenerate")
    return vertices, faces


def normalisation(vertices: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and offset that centre the bounding box and fit the vertices into the sphere of radius 1 / 1.03."""
    offset = -(vertices.min(axis=0) + vertices.max(axis=0)) / 2
    radius = np.linalg.norm(vertices + offset, axis=1).max()
    return float(1 / (radius * SPHERE_MARGIN)), offset


class Signs:
    """Tells inside from outside for one mesh in canonical scale."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.scene = EmbreeScene()
        TriangleMesh(self.scene, vertices[faces].astype(np.float32))
        self.first = _directions(FIRST_RAYS)
        self.rest = _directions(ALL_RAYS - FIRST_RAYS)

    def of(self, points: np.ndarray) -> np.ndarray:
        """Sign of (n, 3) points as (n,) int8: +1 outside, -1 inside, 0 uncertain."""
        points = points.astype(np.float32)
        signs = np.ones(len(points), dtype=np.int8)
        escaped = self._escapes(points, self.first)
        unsure = np.flatnonzero(escaped < FIRST_RAYS // 2)
        if len(unsure):
            share = (escaped[unsure] + self._escapes(points[unsure], self.rest)) / ALL_RAYS
            signs[unsure] = self._weigh(points[unsure], share)
        return signs

    def _weigh(self, points: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Decide by the share of rays that escaped and, where that is small but not zero, by parity."""
        signs = np.where(share == 0, -1, 1).astype(np.int8)
        doubtful = np.flatnonzero((share > 0) & (share < 0.35))
        odd = self._odd_share(points[doubtful])
        # Even crossings agree with the escape. Mostly odd ones and little light speak for a hole in a shell.
        leaked = (odd > 0.6) & (share[doubtful] < 0.2)
        signs[doubtful] = np.select([odd < 0.25, leaked], [1, -1], 0)
        return signs

    def _escapes(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        count = np.zeros(len(points), dtype=np.int16)
        for direction in directions:
            rays = np.ascontiguousarray(np.broadcast_to(direction, points.shape))
            count += self.scene.run(points, rays, query="OCCLUDED") != 0
        return count

    def _odd_share(self, points: np.ndarray) -> np.ndarray:
        """Share of rays that cross the surface an odd number of times, (n,)."""
        odd = np.zeros(len(points))
        for direction in self.first:
            odd += self._crossings(points, direction) % 2
        return odd / FIRST_RAYS

    def _crossings(self, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
        count = np.zeros(len(points), dtype=np.int16)
        origins, alive = points.copy(), np.arange(len(points))
        for _ in range(MAXIMUM_CROSSINGS):
            rays = np.ascontiguousarray(np.broadcast_to(direction, (len(alive), 3)))
            distance = self.scene.run(origins, rays, query="DISTANCE")
            hit = distance < 10
            alive, origins = alive[hit], origins[hit] + (distance[hit, None] + STEP) * direction
            count[alive] += 1
            if len(alive) == 0:
                break
        return count


def visible_surface(vertices: np.ndarray, faces: np.ndarray, signs: Signs) -> tuple[np.ndarray, np.ndarray]:
    """Triangles that can be seen from outside, (n, 3, 3), and their unit normals, which point there, (n, 3).

    Walls inside a body are no part of its surface; distances to them would dent the field. Faces are tested in
    small pieces; a face of which some pieces are hidden is replaced by those that are not. Pieces lie in the plane of
    their face, so that distances stay exact.
    """
    cut = trimesh.remesh.subdivide_to_size(vertices, faces, PIECE, max_iter=20, return_index=True)
    corners, pieces, source = cut[0], np.asarray(cut[1], np.int64), np.asarray(cut[-1], np.int64)
    triangles = corners[pieces]
    normals = unit_normals(triangles)
    front, back, hidden = _probe(triangles, normals, signs)
    normals[(front < 0) & (back > 0)] *= -1
    # Where every piece of a face is seen and all agree on its outside, the face itself serves.
    direction = np.einsum("ij,ij->i", normals, unit_normals(vertices[faces])[source]) > 0
    total, along = np.bincount(source, minlength=len(faces)), np.bincount(source, direction, minlength=len(faces))
    lost = np.bincount(source, hidden, minlength=len(faces))
    whole = (lost == 0) & ((along == 0) | (along == total))
    loose = ~hidden & ~whole[source]
    turned = np.where(along > 0, 1.0, -1.0)[:, None]
    return (
        np.concatenate([vertices[faces[whole]], triangles[loose]]),
        np.concatenate([(unit_normals(vertices[faces]) * turned)[whole], normals[loose]]),
    )


def _probe(triangles: np.ndarray, normals: np.ndarray, signs: Signs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs just before and just behind each triangle, and whether all of it is hidden from outside."""
    centres = triangles.mean(axis=1)
    front, back = signs.of(centres + PROBE * normals), signs.of(centres - PROBE * normals)
    hidden = np.flatnonzero((front < 0) & (back < 0))
    # A piece that another wall cuts can show a corner although its middle is hidden.
    for corner in range(3):
        probe = 0.9 * triangles[hidden, corner] + 0.1 * centres[hidden]
        seen = [signs.of(probe + side * PROBE * normals[hidden]) >= 0 for side in (1, -1)]
        hidden = hidden[~(seen[0] | seen[1])]
    mask = np.zeros(len(triangles), dtype=bool)
    mask[hidden] = True
    return front, back, mask


def unit_normals(triangles: np.ndarray) -> np.ndarray:
    """Unit normals, (n, 3), of (n, 3, 3) triangles, by the order of their corners."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)


def unsigned_distance(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Exact distance from (n, 3) points to the nearest of (m, 3, 3) triangles, (n,)."""
    corners, indices = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    faces = np.ascontiguousarray(indices.reshape(-1, 3))
    squared = igl.point_mesh_squared_distance(points.astype(np.float64), corners, faces)[0]
    return np.sqrt(np.maximum(squared, 0))


def spread_signs(points: np.ndarray, distances: np.ndarray, signs: Signs) -> np.ndarray:
    """Sign of (n, 3) points with known unsigned distances (n,), as (n,) int8, by few ray tests.

    No surface lies nearer to a point than its distance, so all points within that ball have its sign. In ever finer
    cells of space the point farthest from the surface is tested and speaks for those of the cell that its ball holds.
    """
    # On the surface itself a ray ends where it begins; the sign of zero does not matter.
    flags = (distances < ON_SURFACE).astype(np.int8)
    pending = np.flatnonzero(flags == 0)
    for cell in (0.08, 0.04, 0.02, 0.01):
        pending = pending[np.argsort(-distances[pending], kind="stable")]
        keys = np.floor(points[pending] / cell).astype(np.int64) @ np.array([1, 1 << 20, 1 << 40])
        _, first, member = np.unique(keys, return_index=True, return_inverse=True)
        speakers = pending[first]
        speaks = signs.of(points[speakers])
        reach = np.linalg.norm(points[pending] - points[speakers][member], axis=1)
        covered = (reach < distances[speakers][member]) & (speaks[member] != 0)
        flags[pending[covered]] = speaks[member][covered]
        pending = pending[~covered]
    flags[pending] = signs.of(points[pending])
    return flags


def surface_points(triangles: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Area-weighted random points, (count, 3), and the triangles they lie on, (count,)."""
    edges = triangles[:, 1:] - triangles[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    if not area.sum() > 0:
        raise InputError("all faces are degenerate")
    which = rng.choice(len(triangles), size=count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    return triangles[which, 0] + u * edges[which, 0] + v * edges[which, 1], which


def spiral(count: int) -> np.ndarray:
    """Well-spread unit vectors, (count, 3), on a Fibonacci spiral about the last axis."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)


def _directions(count: int) -> np.ndarray:
    """Well-spread unit vectors, turned off the axes that man-made meshes favour; (count, 3)."""
    turn, _ = np.linalg.qr(np.array([[0.36, 0.48, -0.80], [-0.70, 0.64, 0.31], [0.61, 0.45, 0.65]]))
    return (spiral(count) @ turn).astype(np.float32)
