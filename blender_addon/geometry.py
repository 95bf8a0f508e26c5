"""Blender objects to arrays and back, fast: a million triangles in less than a second either way.

What is read is what the user sees: evaluated, with modifiers, in world space. It is handed on about its own centre, so
that single precision is enough wherever in the scene it stands, with the axes and units of the world.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from .shapes import similar

# Points drawn on the faces of an object that is read together with mere points.
DRAWN_POINTS = 30_000
OBSERVED, DEVIATION = "observed", "deviation"
READABLE = ("MESH", "POINTCLOUD", "CURVE", "SURFACE", "META", "FONT")
# What is a line where nothing gives it a width, which is neither a surface nor points on one.
WITH_BEVEL = ("CURVE", "FONT")


class GeometryError(ValueError):
    """What was selected cannot be used; the message says which object, why, and what to do."""


@dataclass(frozen=True)
class Seen:
    """What was read, in world axes and units about `centre`.

    vertices : (n, 3) float32; faces : (m, 3) int32, or None for points; centre : (3,) float64, in the world
    placement : (4, 4) float64, the object's location, rotation and, for all axes one, scale: where results stand
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    centre: np.ndarray
    placement: np.ndarray

    def local(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices, (n, 3), about the centre, as (n, 3) float32 of an object that stands at `placement`."""
        return transformed(vertices, self._inward())

    def local_pose(self, pose: np.ndarray) -> np.ndarray:
        """A pose, (4, 4), about the centre, as one in the coordinates of an object that stands at `placement`."""
        return self._inward() @ np.asarray(pose, dtype=np.float64)

    @property
    def scale(self) -> float:
        """How many units of the world one unit of an object is that stands at `placement`."""
        return abs(float(np.linalg.det(self.placement[:3, :3]))) ** (1 / 3)

    def _inward(self) -> np.ndarray:
        outward = np.eye(4)
        outward[:3, 3] = self.centre
        return np.linalg.inv(self.placement) @ outward


def transformed(vertices: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Vertices, (n, 3), moved by a (4, 4) matrix, as (n, 3) float32."""
    moved = np.asarray(vertices, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.ascontiguousarray(moved, dtype=np.float32)


def read_objects(objects: Sequence[bpy.types.Object], depsgraph: bpy.types.Depsgraph) -> Seen:
    """Several objects as one observation; the first says where results stand.

    Raises `GeometryError` for objects without vertices, and for coordinates that are not finite.
    """
    if not objects:
        raise GeometryError("Nothing is selected; select the object that is to be completed")
    parts = [_read(item, depsgraph) for item in objects]
    vertices, faces = _joined(parts)
    centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    placed = np.ascontiguousarray(vertices - centre, dtype=np.float32)
    return Seen(placed, faces, centre, similar(np.array(objects[0].matrix_world)))


def new_mesh(
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray,
    observed: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
) -> bpy.types.Mesh:
    """A mesh of (n, 3) vertices and (m, 3) faces, smooth; `observed` and `deviation`, (n,), become attributes."""
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(vertices))
    mesh.loops.add(faces.size)
    mesh.polygons.add(len(faces))
    # By way of attributes the arrays are copied as they are; `from_pydata` takes seconds.
    _set(mesh, "position", "vector", vertices.astype(np.float32, copy=False))
    _set(mesh, ".corner_vert", "value", faces.astype(np.int32, copy=False))
    mesh.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    for attribute, values in ((OBSERVED, observed), (DEVIATION, deviation)):
        if values is not None:
            mesh.attributes.new(attribute, "FLOAT", "POINT")
            _set(mesh, attribute, "value", values.astype(np.float32, copy=False))
    mesh.update(calc_edges=True)
    return mesh


def positions(owner: bpy.types.Mesh | bpy.types.PointCloud) -> np.ndarray:
    """Its vertices or points, (n, 3) float64."""
    flat = np.empty(3 * len(owner.vertices if isinstance(owner, bpy.types.Mesh) else owner.points), dtype=np.float32)
    if flat.size:  # into float64 Blender would convert one by one
        _layer(owner, "position").foreach_get("vector", flat)
    return flat.reshape(-1, 3).astype(np.float64)


def observed_of(mesh: bpy.types.Mesh) -> np.ndarray | None:
    """What was observed, (n,) float32, of a mesh that knows it."""
    attribute = mesh.attributes.get(OBSERVED)
    if attribute is None or attribute.domain != "POINT" or attribute.data_type != "FLOAT":
        return None
    values = np.empty(len(mesh.vertices), dtype=np.float32)
    _layer(mesh, OBSERVED).foreach_get("value", values)
    return values


def _read(item: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> tuple[np.ndarray, np.ndarray | None]:
    """World vertices, (n, 3) float64, and faces, (m, 3) int32, of one object; None for mere points."""
    if item.type not in READABLE:
        raise GeometryError(
            f"{item.name} has no surface, being of the type {item.type.title()}; select meshes or point clouds"
        )
    evaluated = item.evaluated_get(depsgraph)
    cloud = evaluated.data
    if isinstance(cloud, bpy.types.PointCloud):
        vertices, faces = positions(cloud), None
    else:
        vertices, faces = _mesh_arrays(evaluated)
    if item.type in WITH_BEVEL and faces is None:
        raise GeometryError(
            f"{item.name} is a {item.type.lower()} without a surface; give it a bevel or an extrusion, or select a mesh"
        )
    if not len(vertices):
        raise GeometryError(f"{item.name} has no vertices; select an object that has some")
    if bad := int((~np.isfinite(vertices)).any(axis=1).sum()):
        of = f"{bad} of {len(vertices)}"
        raise GeometryError(f"{item.name} has vertices that are nowhere, NaN or infinite, {of}; remove them")
    matrix = np.array(evaluated.matrix_world, dtype=np.float64)
    world = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if faces is not None and np.linalg.det(matrix[:3, :3]) < 0:  # a mirrored object is turned inside out
        faces = faces[:, ::-1]
    return world, faces


def _mesh_arrays(evaluated: bpy.types.Object) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        mesh = evaluated.to_mesh()
    except RuntimeError:  # an object that comes to nothing, a curve without a bevel for one
        mesh = None
    if mesh is None:
        return np.zeros((0, 3)), None
    try:
        vertices = positions(mesh)
        mesh.calc_loop_triangles()
        faces = np.empty((len(mesh.loop_triangles), 3), dtype=np.int32)
        mesh.loop_triangles.foreach_get("vertices", faces.reshape(-1))
        return vertices, faces if len(faces) else None
    finally:
        evaluated.to_mesh_clear()


def _joined(parts: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> tuple[np.ndarray, np.ndarray | None]:
    """One mesh of all parts, or one cloud where some of them are mere points."""
    parts = list(parts)
    if any(faces is None for _, faces in parts):
        clouds = [vertices if faces is None else _drawn(vertices, faces) for vertices, faces in parts]
        return np.concatenate(clouds), None
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts[:-1])])
    faces = [faces + start for (_, faces), start in zip(parts, starts, strict=True) if faces is not None]
    return np.concatenate([vertices for vertices, _ in parts]), np.ascontiguousarray(np.concatenate(faces), np.int32)


def _drawn(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Points on a mesh, evenly by area."""
    rng = np.random.default_rng(0)
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum():
        return vertices
    chosen = rng.choice(len(faces), DRAWN_POINTS, p=area / area.sum())
    along, across = rng.random((2, DRAWN_POINTS, 1))
    beyond = along + across > 1
    along, across = np.where(beyond, 1 - along, along), np.where(beyond, 1 - across, across)
    return a[chosen] + along * (b - a)[chosen] + across * (c - a)[chosen]


def _set(mesh: bpy.types.Mesh, name: str, field: str, values: np.ndarray) -> None:
    _layer(mesh, name).foreach_set(field, np.ascontiguousarray(values).reshape(-1))


def _layer(owner: bpy.types.Mesh | bpy.types.PointCloud, name: str) -> Any:
    """An attribute's values; the stubs do not know that it has some."""
    attribute: Any = owner.attributes[name]
    return attribute.data
