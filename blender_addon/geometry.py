"""Conversion between Blender objects and arrays: a million triangles in less than a second either way.

Objects are read as they are displayed: evaluated, with modifiers, in world space. Coordinates are relative to the
centre of the bounding box, so that single precision suffices anywhere in the scene; axes and units are the world's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import bpy
import numpy as np
from mathutils.kdtree import KDTree

from .shapes import nearest_similarity

# Points sampled on the faces of an object that is read together with point clouds.
SAMPLED_POINTS = 30_000
# Names of vertex attributes.
OBSERVED, DEVIATION, COLOR = "observed", "deviation", "Color"
# Blender's attribute of the face sets of Sculpt Mode.
FACE_SETS = ".sculpt_face_set"
READABLE_TYPES = ("MESH", "POINTCLOUD", "CURVE", "SURFACE", "META", "FONT")
# Types that have a surface only with a bevel or an extrusion.
BEVEL_TYPES = ("CURVE", "FONT")
# Cells per axis, from fine to coarse, of the grids by which `transfer_values` finds nearby vertices.
TRANSFER_CELLS = (96, 24, 6)


class GeometryError(ValueError):
    """The selection cannot be used; the message names the object, the problem and a remedy."""


@dataclass(frozen=True)
class ObjectGeometry:
    """The geometry of one or more objects, in the world's axes and units, relative to `centre`.

    vertices : (n, 3) float32; faces : (m, 3) int32, or None for a point cloud; centre : (3,) float64, in the world
    result_matrix : (4, 4) float64, location, rotation and uniform scale of the object: the `matrix_world` of results
    colors : (n, 3) float32, sRGB, of the active colour attribute; None where an object has none
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    centre: np.ndarray
    result_matrix: np.ndarray
    colors: np.ndarray | None = None

    def to_result(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices, (n, 3), relative to `centre`, in the coordinates of a result object; (n, 3) float32."""
        return transform_points(vertices, self._centre_to_result())

    def pose_in_result(self, pose: np.ndarray) -> np.ndarray:
        """A pose, (4, 4), relative to `centre`, in the coordinates of a result object."""
        return self._centre_to_result() @ np.asarray(pose, dtype=np.float64)

    @property
    def result_scale(self) -> float:
        """World units per unit of a result object."""
        return abs(float(np.linalg.det(self.result_matrix[:3, :3]))) ** (1 / 3)

    def _centre_to_result(self) -> np.ndarray:
        centre_to_world = np.eye(4)
        centre_to_world[:3, 3] = self.centre
        return np.linalg.inv(self.result_matrix) @ centre_to_world


def transform_points(vertices: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Vertices, (n, 3), transformed by a (4, 4) matrix; (n, 3) float32."""
    moved = np.asarray(vertices, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.ascontiguousarray(moved, dtype=np.float32)


def read_objects(objects: Sequence[bpy.types.Object], depsgraph: bpy.types.Depsgraph) -> ObjectGeometry:
    """Read objects as one observation; `result_matrix` is that of the first.

    Raises
    ------
    GeometryError : for objects without vertices or without a surface, and for coordinates that are not finite
    """
    if not objects:
        raise GeometryError("Nothing is selected; select the object to complete")
    parts = [_read_object(item, depsgraph) for item in objects]
    vertices, faces, colors = _join(parts)
    centre = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    centred = np.ascontiguousarray(vertices - centre, dtype=np.float32)
    return ObjectGeometry(centred, faces, centre, nearest_similarity(np.array(objects[0].matrix_world)), colors)


def new_mesh(
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray,
    observed: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    quads: int = 0,
) -> bpy.types.Mesh:
    """Make a smooth mesh.

    Parameters
    ----------
    name : of the mesh data-block
    vertices : (n, 3)
    faces : (m, 3)
    observed, deviation : (n,), stored as vertex attributes, or None
    colors : (n, 3), sRGB, stored as the active colour attribute, or None
    quads : how many quads the faces begin with, as two triangles each
    """
    mesh, (corners, starts) = bpy.data.meshes.new(name), _polygons(faces, quads)
    mesh.vertices.add(len(vertices))
    mesh.loops.add(len(corners))
    mesh.polygons.add(len(starts))
    # Attributes take whole arrays; `from_pydata` takes seconds.
    _set_attribute(mesh, "position", "vector", vertices.astype(np.float32, copy=False))
    _set_attribute(mesh, ".corner_vert", "value", corners)
    mesh.polygons.foreach_set("loop_start", starts)
    _add_vertex_attributes(mesh, observed, deviation)
    if colors is not None:
        mesh.color_attributes.active_color = mesh.color_attributes.new(COLOR, "BYTE_COLOR", "POINT")
        _set_colors(mesh, colors, 0, 0)
    mesh.update(calc_edges=True)
    return mesh


def _polygons(faces: np.ndarray, quads: int) -> tuple[np.ndarray, np.ndarray]:
    """The corners of polygons one after another, and where each begins, both int32.

    faces : (m, 3), begun by so many quads as the triangles (a, b, c) and (a, c, d)
    """
    whole, rest = faces[: 2 * quads].reshape(-1, 6)[:, [0, 1, 2, 5]].reshape(-1), faces[2 * quads :].reshape(-1)
    starts = np.concatenate([np.arange(0, whole.size, 4), whole.size + np.arange(0, rest.size, 3)])
    return np.concatenate([whole, rest]).astype(np.int32), starts.astype(np.int32)


def append_to_mesh(
    mesh: bpy.types.Mesh,
    vertices: np.ndarray,
    faces: np.ndarray,
    observed: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> None:
    """Add vertices and smooth triangles to a mesh, whose own vertices, polygons and attributes stay as they are.

    The new faces have the material of the nearest polygon, and a face set of their own.

    Parameters
    ----------
    vertices : (k, 3); faces : (l, 3), whose indices count the mesh's vertices first
    observed, deviation : (n + k,), stored as vertex attributes, or None
    colors : (n + k, 3), sRGB, of which the new ones join the active colour attribute, or None
    """
    positions, starts = vertex_positions(mesh), _values(mesh.polygons, "loop_start")
    corners, materials = _values(mesh.loops, "vertex_index"), _nearest_materials(mesh, positions, vertices, faces)
    mesh.vertices.add(len(vertices))
    mesh.loops.add(faces.size)
    mesh.polygons.add(len(faces))
    _set_attribute(mesh, "position", "vector", np.concatenate([positions, vertices]).astype(np.float32))
    _set_attribute(mesh, ".corner_vert", "value", np.concatenate([corners, faces.reshape(-1)]).astype(np.int32))
    new_starts = len(corners) + np.arange(0, faces.size, 3, dtype=np.int32)
    mesh.polygons.foreach_set("loop_start", np.concatenate([starts, new_starts]))
    mesh.polygons.foreach_set("material_index", materials)
    _add_edges(mesh, faces)
    if mesh.attributes.get(FACE_SETS) is None:
        mesh.attributes.new(FACE_SETS, "INT", "FACE")
        _set_attribute(mesh, FACE_SETS, "value", np.ones(len(mesh.polygons), dtype=np.int32))
    sets = _values(_attribute_data(mesh, FACE_SETS), "value")
    sets[len(starts) :] = sets[: len(starts)].max(initial=1) + 1
    _set_attribute(mesh, FACE_SETS, "value", sets)
    _add_vertex_attributes(mesh, observed, deviation)
    if colors is not None:
        _set_colors(mesh, colors, len(positions), len(corners))
    mesh.update()


def vertex_positions(owner: bpy.types.Mesh | bpy.types.PointCloud) -> np.ndarray:
    """The vertices of a mesh, or the points of a point cloud; (n, 3) float64."""
    flat = np.empty(3 * len(owner.vertices if isinstance(owner, bpy.types.Mesh) else owner.points), dtype=np.float32)
    if flat.size:  # Blender would convert to float64 element by element
        _attribute_data(owner, "position").foreach_get("vector", flat)
    return flat.reshape(-1, 3).astype(np.float64)


def vertex_values(mesh: bpy.types.Mesh, name: str) -> np.ndarray | None:
    """An attribute of numbers at vertices, such as `observed`, (n,) float32; None for a mesh without it."""
    attribute = mesh.attributes.get(name)
    if attribute is None or attribute.domain != "POINT" or attribute.data_type != "FLOAT":
        return None
    values = np.empty(len(mesh.vertices), dtype=np.float32)
    _attribute_data(mesh, name).foreach_get("value", values)
    return values


def transfer_values(source: bpy.types.Mesh, name: str, vertices: np.ndarray) -> np.ndarray | None:
    """Transfer an attribute of vertices, such as `observed`, to those, (n, 3), of another mesh of the same shape.

    Each vertex gets the mean of the source's values in its grid cell, of the finest grid whose cell is not empty. A
    search for the nearest vertex would take seconds for a large mesh.

    Returns
    -------
    (n,) float32, or None for a source without the attribute
    """
    values = vertex_values(source, name)
    if values is None:
        return None
    known = vertex_positions(source)
    both = np.concatenate([known, vertices])
    low, size = both.min(axis=0), float(np.ptp(both, axis=0).max()) or 1.0
    transferred = np.full(len(vertices), np.nan)
    for cells in TRANSFER_CELLS:
        source_cells, target_cells = (_cell_indices(points, low, size, cells) for points in (known, vertices))
        sums, counts = (np.bincount(source_cells, weights, (cells + 1) ** 3) for weights in (values, None))
        with np.errstate(invalid="ignore"):
            mean = sums / counts
        transferred = np.where(np.isnan(transferred), mean[target_cells], transferred)
    return np.nan_to_num(transferred).astype(np.float32)


def _cell_indices(points: np.ndarray, low: np.ndarray, size: float, cells: int) -> np.ndarray:
    cell = ((points - low) * (cells / size)).astype(np.int64)
    return (cell[:, 0] * (cells + 1) + cell[:, 1]) * (cells + 1) + cell[:, 2]


# Vertices, (n, 3) float64; faces, (m, 3) int32, or None for points; colours, (n, 3) float32, or None.
_Arrays = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def _read_object(item: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> _Arrays:
    """The vertices of one object in the world, its faces and its colours."""
    if item.type not in READABLE_TYPES:
        raise GeometryError(
            f"{item.name} has no surface because its type is {item.type.title()}; select meshes or point clouds"
        )
    evaluated = item.evaluated_get(depsgraph)
    cloud = evaluated.data
    if isinstance(cloud, bpy.types.PointCloud):
        vertices, faces, colors = vertex_positions(cloud), None, None
    else:
        vertices, faces, colors = _mesh_arrays(evaluated)
    if item.type in BEVEL_TYPES and faces is None:
        raise GeometryError(
            f"{item.name} is a {item.type.lower()} without a surface; give it a bevel or an extrusion, or select a mesh"
        )
    if not len(vertices):
        raise GeometryError(f"{item.name} has no vertices; select an object that has some")
    if invalid := int((~np.isfinite(vertices)).any(axis=1).sum()):
        counts = f"{invalid} of {len(vertices)} vertices"
        raise GeometryError(f"{item.name} has NaN or infinite coordinates in {counts}; remove these vertices")
    matrix = np.array(evaluated.matrix_world, dtype=np.float64)
    world = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if faces is not None and np.linalg.det(matrix[:3, :3]) < 0:  # mirroring turns faces inside out
        faces = faces[:, ::-1]
    return world, faces, colors


def _mesh_arrays(evaluated: bpy.types.Object) -> _Arrays:
    try:
        mesh = evaluated.to_mesh()
    except RuntimeError:  # an object without geometry, such as a curve without a bevel
        mesh = None
    if mesh is None:
        return np.zeros((0, 3)), None, None
    try:
        vertices = vertex_positions(mesh)
        mesh.calc_loop_triangles()
        faces = np.empty((len(mesh.loop_triangles), 3), dtype=np.int32)
        mesh.loop_triangles.foreach_get("vertices", faces.reshape(-1))
        return vertices, faces if len(faces) else None, _vertex_colors(mesh)
    finally:
        evaluated.to_mesh_clear()


def _join(parts: Iterable[_Arrays]) -> _Arrays:
    """One mesh of all parts, or one point cloud if any part is one; with colours if all have some."""
    parts = list(parts)
    known = [colors for _, _, colors in parts if colors is not None]
    colors = np.concatenate(known) if len(known) == len(parts) else None
    if all(faces is None for _, faces, _ in parts):
        return np.concatenate([vertices for vertices, _, _ in parts]), None, colors
    if any(faces is None for _, faces, _ in parts):
        clouds = [vertices if faces is None else _sample_surface(vertices, faces) for vertices, faces, _ in parts]
        return np.concatenate(clouds), None, None
    starts = np.cumsum([0, *(len(vertices) for vertices, _, _ in parts[:-1])])
    faces = [faces + start for (_, faces, _), start in zip(parts, starts, strict=True) if faces is not None]
    joined = np.ascontiguousarray(np.concatenate(faces), np.int32)
    return np.concatenate([vertices for vertices, _, _ in parts]), joined, colors


def _vertex_colors(mesh: bpy.types.Mesh) -> np.ndarray | None:
    """The active colour attribute of a mesh, (n, 3) float32, sRGB: at a vertex the mean of its corners."""
    attribute = mesh.color_attributes.active_color
    if attribute is None or not len(mesh.vertices):
        return None
    colors = _color_values(attribute)[:, :3]
    if attribute.domain == "POINT":
        return np.ascontiguousarray(colors)
    corners, count = _values(mesh.loops, "vertex_index"), len(mesh.vertices)
    sums = np.stack([np.bincount(corners, channel, count) for channel in colors.T], axis=1)
    return (sums / np.bincount(corners, minlength=count).clip(1)[:, None]).astype(np.float32)


def _set_colors(mesh: bpy.types.Mesh, colors: np.ndarray, vertex: int, corner: int) -> None:
    """Set the active colour attribute from a first vertex and a first corner on; colors : (n, 3), sRGB, of vertices."""
    attribute = mesh.color_attributes.active_color
    if attribute is None:
        return
    first, each = (
        (vertex, colors) if attribute.domain == "POINT" else (corner, colors[_values(mesh.loops, "vertex_index")])
    )
    values = _color_values(attribute)
    values[first:] = np.pad(each[first:], ((0, 0), (0, 1)), constant_values=1)
    cast(Any, attribute).data.foreach_set("color_srgb", values.reshape(-1))


def _color_values(attribute: bpy.types.Attribute) -> np.ndarray:
    """The colours of an attribute, (n, 4) float32, sRGB and alpha."""
    data: Any = cast(Any, attribute).data
    values = np.empty(4 * len(data), dtype=np.float32)
    data.foreach_get("color_srgb", values)
    return values.reshape(-1, 4)


def _sample_surface(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Points on a mesh, uniform by area; (SAMPLED_POINTS, 3). The vertices of a mesh without area."""
    rng = np.random.default_rng(0)
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum():
        return vertices
    chosen = rng.choice(len(faces), SAMPLED_POINTS, p=area / area.sum())
    u, v = rng.random((2, SAMPLED_POINTS, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def _add_vertex_attributes(mesh: bpy.types.Mesh, observed: np.ndarray | None, deviation: np.ndarray | None) -> None:
    for attribute, values in ((OBSERVED, observed), (DEVIATION, deviation)):
        if values is not None:
            before = mesh.attributes.get(attribute)
            if before is not None:  # of an earlier completion, or of another kind
                mesh.attributes.remove(before)
            mesh.attributes.new(attribute, "FLOAT", "POINT")
            _set_attribute(mesh, attribute, "value", values.astype(np.float32, copy=False))


def _add_edges(mesh: bpy.types.Mesh, faces: np.ndarray) -> None:
    """Add the edges of a mesh's last faces, (l, 3), that it lacks.

    Blender's own way, `update(calc_edges=True)`, forgets seams and creases up to 4.5.
    """
    known = _values(mesh.edges, "vertices", 2).reshape(-1, 2)
    corners = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)  # each corner's own edge
    every = np.sort(np.concatenate([known, corners]), axis=1).astype(np.int64)
    _, first, which = np.unique(every[:, 0] << 32 | every[:, 1], return_index=True, return_inverse=True)
    is_new = first >= len(known)
    number = np.where(is_new, len(known) + np.cumsum(is_new) - 1, first)
    mesh.edges.add(int(is_new.sum()))
    mesh.edges.foreach_set("vertices", np.concatenate([known, every[first[is_new]]]).astype(np.int32).reshape(-1))
    edges = _values(mesh.loops, "edge_index")
    edges[len(edges) - faces.size :] = number[which.reshape(-1)[len(known) :]]
    mesh.loops.foreach_set("edge_index", edges)


def _nearest_materials(
    mesh: bpy.types.Mesh, positions: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """The material indices of all polygons, then those of new faces, (l, 3): each that of the nearest polygon."""
    known = _values(mesh.polygons, "material_index")
    if len(np.unique(known)) < 2:
        return np.resize(known, len(known) + len(faces)) if len(known) else np.zeros(len(faces), dtype=np.int32)
    tree = KDTree(len(known))
    for polygon in mesh.polygons:
        tree.insert(polygon.center.to_tuple(), polygon.index)
    tree.balance()
    centres = np.concatenate([positions, vertices])[faces].mean(axis=1)
    nearest = np.array([tree.find(centre)[1] for centre in centres.tolist()], dtype=np.int64)
    return np.concatenate([known, known[nearest]])


def _values(items: Any, field: str, size: int = 1) -> np.ndarray:
    """Integers of each item of a collection, `size` each, (n * size,) int32."""
    values = np.empty(len(items) * size, dtype=np.int32)
    items.foreach_get(field, values)
    return values


def _set_attribute(mesh: bpy.types.Mesh, name: str, field: str, values: np.ndarray) -> None:
    _attribute_data(mesh, name).foreach_set(field, np.ascontiguousarray(values).reshape(-1))


def _attribute_data(owner: bpy.types.Mesh | bpy.types.PointCloud, name: str) -> Any:
    """The values of an attribute; the stubs do not declare them."""
    attribute: Any = owner.attributes[name]
    return attribute.data
