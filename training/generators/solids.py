"""Closed solids from which furniture is assembled: rounded boxes, lathed profiles, swept walls. Metres, y up."""

from collections.abc import Sequence

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]
Point = Sequence[float] | np.ndarray  # (3,)
# Samples across a rounded edge, and along a face between two edges: enough for a bulge to look round.
FINE = 4, 6
# Enough for a board, whose edges are a bevel and whose faces are flat.
PLAIN = 2, 2


def merge(*meshes: Mesh) -> Mesh:
    """Concatenate several meshes; they may overlap, since signs are taken from outside."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    vertices = np.concatenate([vertices for vertices, _ in meshes])
    return vertices, np.concatenate([faces + start for (_, faces), start in zip(meshes, starts, strict=False)])


def translated(mesh: Mesh, offset: Point) -> Mesh:
    """Translate a mesh by (x, y, z)."""
    return mesh[0] + np.asarray(offset, dtype=float), mesh[1]


def rotated(mesh: Mesh, axis: int, degrees: float, about: Point = (0, 0, 0)) -> Mesh:
    """Rotate a mesh about an axis (0, 1, 2) through the point `about`, by the right-hand rule."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    angle = np.radians(degrees)
    matrix = np.eye(3)
    matrix[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    middle = np.asarray(about, dtype=float)
    return (mesh[0] - middle) @ matrix.T + middle, mesh[1]


def mirrored(mesh: Mesh, axis: int = 0) -> Mesh:
    """The mirror image across the plane through the origin, with its faces still looking outwards."""
    signs = np.ones(3)
    signs[axis] = -1
    return mesh[0] * signs, mesh[1][:, ::-1]


def box(
    low: Point,
    high: Point,
    radius: float = 0.0,
    bulge: Point = (0, 0, 0),
    samples: tuple[int, int] = FINE,
) -> Mesh:
    """A box with rounded edges, whose faces may be cushioned.

    Parameters
    ----------
    low, high : (3,) corners, metres.
    radius : of the rounded edges, metres; at most nearly half the shortest side is taken.
    bulge : (3,) by how far the middle of the two faces across each axis swells, metres.
    samples : across an edge and along a face; `FINE` or `PLAIN`.

    Returns
    -------
    vertices : (n, 3) float64.
    faces : (m, 3) int64, anticlockwise seen from outside.
    """
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    half = (high - low) / 2
    radius = float(np.clip(radius, 1e-4, 0.98 * half.min()))
    cube, faces = _cube([_samples(size, radius, samples) for size in half])
    inner = np.clip(cube, -(half - radius), half - radius)
    outward = cube - inner
    rounded = inner + radius * outward / np.linalg.norm(outward, axis=1, keepdims=True)
    share = cube / half  # (n, 3) in [-1, 1]
    swell = 1 - share**2
    others = np.stack([swell[:, [1, 2]].prod(1), swell[:, [0, 2]].prod(1), swell[:, [0, 1]].prod(1)], axis=1)
    rounded = rounded + np.asarray(bulge) * others * np.sign(share) * (np.abs(share) > 0.999)
    return rounded + (low + high) / 2, faces


def lathe(profile: Sequence[tuple[float, float]], sides: int = 32) -> Mesh:
    """Turn a profile of (radius, height) pairs, from the bottom to the top, about the y axis; its ends are closed."""
    radii, heights = np.array(profile, dtype=float).T
    angles = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angles), np.zeros(sides), np.sin(angles)], axis=1)  # (s, 3)
    rings = [ring * radius + (0, height, 0) for radius, height in zip(radii, heights, strict=True)]
    vertices = np.concatenate([*rings, [[0, heights[0], 0], [0, heights[-1], 0]]])
    return vertices, _skin(len(rings), sides)[:, ::-1]


def beam(
    start: Point,
    end: Point,
    size: tuple[float, float],
    end_share: float = 1.0,
    sides: int = 4,
) -> Mesh:
    """A straight bar with a polygon for its section.

    Parameters
    ----------
    start, end : (3,) middles of its two ends, metres.
    size : width (along x, or z for a bar along x) and depth of the section at the start, metres.
    end_share : the section's size at the end, as a share of that at the start.
    sides : corners of the section; 4 is a rectangle, 12 and more are round.
    """
    start, end = np.array(start, dtype=float), np.array(end, dtype=float)
    axis = (end - start) / np.linalg.norm(end - start)
    reference = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 0, 1.0])
    across = reference - (reference @ axis) * axis
    across /= np.linalg.norm(across)
    other = np.cross(axis, across)
    angles = np.arange(sides) * (2 * np.pi / sides) + (np.pi / 4 if sides == 4 else 0)
    reach = np.sqrt(2) if sides == 4 else 1.0
    section = np.cos(angles)[:, None] * across * size[0] + np.sin(angles)[:, None] * other * size[1]
    section = section * (reach / 2)
    return np.concatenate([start + section, end + section * end_share, [start, end]]), _skin(2, sides)


def tube(path: np.ndarray, radius: float, sides: int = 10) -> Mesh:
    """A round bar along an open path.

    Parameters
    ----------
    path : (n, 3) its middle line, metres; corners are mitred.
    radius : metres.
    sides : corners of the section.
    """
    path = np.asarray(path, dtype=float)
    steps = np.diff(path, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    tangents = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    across = np.cross(tangents[0], np.eye(3)[np.argmin(np.abs(tangents[0]))])
    angles = np.arange(sides) * (2 * np.pi / sides)
    rings = []
    for place, (point, tangent) in enumerate(zip(path, tangents, strict=True)):
        across = across - (across @ tangent) * tangent  # carried along without a twist
        across /= np.linalg.norm(across)
        ring = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * np.cross(tangent, across)
        if 0 < place < len(path) - 1:
            bend = steps[place] - steps[place - 1]
            if (length := np.linalg.norm(bend)) > 1e-6:
                # Mitred: wider across the corner, so that the bar keeps its thickness.
                bend = bend / length
                stretch = 1 / max(float(steps[place] @ tangent), 0.5)
                ring = ring + (ring @ bend)[:, None] * bend * (stretch - 1)
        rings.append(point + ring * radius)
    vertices = np.concatenate([*rings, path[[0, -1]]])
    return vertices, _skin(len(path), sides)


def rounded_path(corners: np.ndarray, radius: float, samples: int = 5) -> np.ndarray:
    """A polyline, (n, 3), whose inner corners are replaced by arcs of about `radius` metres."""
    corners = np.asarray(corners, dtype=float)
    points = [corners[0]]
    for before, corner, after in zip(corners[:-2], corners[1:-1], corners[2:], strict=True):
        cut = min(radius, 0.45 * np.linalg.norm(before - corner), 0.45 * np.linalg.norm(after - corner))
        start = corner + cut * (before - corner) / np.linalg.norm(before - corner)
        end = corner + cut * (after - corner) / np.linalg.norm(after - corner)
        for t in np.linspace(0, 1, samples):
            points.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return np.array([*points, corners[-1]])


def disc(radius: float, thickness: float, edge: float = 0.0, sides: int = 48) -> Mesh:
    """A round plate on y = 0 with edges rounded by `edge` metres."""
    edge = min(edge, 0.49 * thickness, 0.49 * radius)
    if not edge:
        return lathe([(radius, 0), (radius, thickness)], sides)
    arc = np.linspace(0, np.pi / 2, 4)
    low = [(radius - edge + edge * np.sin(a), edge - edge * np.cos(a)) for a in arc]
    high = [(radius - edge + edge * np.cos(a), thickness - edge + edge * np.sin(a)) for a in arc]
    return lathe([*low, *high], sides)


def wall(path: np.ndarray, thickness: float, bottom: np.ndarray, top: np.ndarray) -> Mesh:
    """An upright wall along a path on the ground.

    Parameters
    ----------
    path : (n, 2) x and z of its middle line, metres.
    thickness : metres.
    bottom, top : (n,) heights along the path, metres.
    """
    along = np.gradient(path, axis=0)
    normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normal *= thickness / 2 / np.linalg.norm(normal, axis=1, keepdims=True)
    loop = [  # the section's corners, clockwise seen along the path
        (path - normal, bottom),
        (path - normal, top),
        (path + normal, top),
        (path + normal, bottom),
    ]
    rows = [np.stack([flat[:, 0], height, flat[:, 1]], axis=1) for flat, height in loop]
    count = len(path)
    vertices = np.concatenate(rows)
    steps, faces = np.arange(count - 1), []
    for side in range(4):
        a, b = steps + side * count, steps + (side + 1) % 4 * count
        faces += [np.stack([a, a + 1, b], 1), np.stack([b, a + 1, b + 1], 1)]
    first, last = np.arange(4) * count, np.arange(4) * count + count - 1
    faces += [first[[[0, 1, 2], [0, 2, 3]]], last[[[0, 2, 1], [0, 3, 2]]]]
    return vertices, np.concatenate(faces)


def _skin(rings: int, sides: int) -> np.ndarray:
    """Faces of a closed tube of rings, anticlockwise about its axis seen from its end, then one middle a cap."""
    here, along = np.arange(sides), (np.arange(sides) + 1) % sides
    last, start, end = (rings - 1) * sides, rings * sides, rings * sides + 1
    faces = [np.stack([along, here, np.full(sides, start)], 1)]
    for row in range(0, last, sides):
        a, b = here + row, along + row
        faces += [np.stack([a, b, a + sides], 1), np.stack([b, b + sides, a + sides], 1)]
    faces.append(np.stack([here + last, along + last, np.full(sides, end)], 1))
    return np.concatenate(faces)


def _samples(half: float, radius: float, samples: tuple[int, int]) -> np.ndarray:
    """Coordinates along one side of a box: close together where its edges are round."""
    edge = half - radius * (1 - np.tan(np.linspace(0, np.pi / 4, samples[0])))
    # An edge's arc is traced by its angle: tan(45 degrees) is the corner itself.
    middle = np.linspace(-(half - radius), half - radius, samples[1])
    return np.concatenate([-edge[:0:-1], middle, edge[1:]])


def _cube(axes: list[np.ndarray]) -> Mesh:
    """The surface of a box, gridded at the given coordinates of each axis, as one closed mesh."""
    vertices, faces, start = [], [], 0
    for axis in range(3):
        u, v = axes[(axis + 1) % 3], axes[(axis + 2) % 3]
        grid = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1)  # (nu, nv, 2)
        rows, columns = np.meshgrid(np.arange(len(u) - 1), np.arange(len(v) - 1), indexing="ij")
        a = (rows * len(v) + columns).ravel()
        b, c, d = a + len(v), a + len(v) + 1, a + 1
        quads = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        for end in (axes[axis][0], axes[axis][-1]):
            side = np.empty((len(u) * len(v), 3))
            side[:, axis] = end
            side[:, [(axis + 1) % 3, (axis + 2) % 3]] = grid.reshape(-1, 2)
            vertices.append(side)
            faces.append((quads if end > 0 else quads[:, ::-1]) + start)
            start += len(side)
    points, inverse = np.unique(np.round(np.concatenate(vertices), 9), axis=0, return_inverse=True)
    return points, inverse.reshape(-1)[np.concatenate(faces)]
