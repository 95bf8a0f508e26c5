"""Keep Input: the object's own mesh with everything that it carries, and the faces that complete it.

The backend returns the vertices and faces that it was sent, unchanged, followed by new ones. Blender's mesh has more
than vertices and triangles: polygons, UV maps, materials, vertex groups, custom normals. So the new ones are added to a
copy of it.
"""

import bpy
import numpy as np

from .geometry import GeometryError, ObjectGeometry, append_to_mesh, read_objects, transform_points
from .wire.messages import Shape

# The vertex group of the new vertices.
COMPLETED = "completed"


def is_unchanged(item: bpy.types.Object, observation: ObjectGeometry) -> bool:
    """Whether an object still has the geometry, and stands where it stood, when it was read."""
    try:
        now = read_objects([item], _depsgraph())
    except GeometryError:
        return False
    return (
        observation.faces is not None
        and now.faces is not None
        and np.array_equal(now.vertices, observation.vertices)
        and np.array_equal(now.faces, observation.faces)
        and np.array_equal(now.centre, observation.centre)
    )


def completed_mesh(name: str, item: bpy.types.Object, observation: ObjectGeometry, shape: Shape) -> bpy.types.Mesh:
    """A copy of an object's evaluated mesh with the new vertices and faces of a shape, in the object's coordinates.

    Parameters
    ----------
    observation : what was read of the object; shape : the answer to it
    """
    depsgraph = _depsgraph()
    evaluated = item.evaluated_get(depsgraph)
    mesh = bpy.data.meshes.new_from_object(evaluated, preserve_all_data_layers=True, depsgraph=depsgraph)
    mesh.name = name
    world = np.array(evaluated.matrix_world, dtype=np.float64)
    to_world = np.eye(4)
    to_world[:3, 3] = observation.centre
    added = transform_points(shape.vertices[shape.kept_vertices :], np.linalg.inv(world) @ to_world)
    faces = shape.faces[shape.kept_faces :]
    if np.linalg.det(world[:3, :3]) < 0:  # as when it was read
        faces = faces[:, ::-1]
    append_to_mesh(mesh, added, faces, shape.observed, deviation_of(shape, observation), shape.colors)
    return mesh


def add_vertex_group(item: bpy.types.Object, shape: Shape) -> None:
    """Put the new vertices of a shape into a vertex group of their own."""
    count = len(shape.vertices) - shape.kept_vertices
    if count:
        group = item.vertex_groups.new(name=COMPLETED)
        group.add(np.arange(shape.kept_vertices, len(shape.vertices)).tolist(), 1.0, "REPLACE")


def hide(original: bpy.types.Object) -> None:
    """Hide an object that its completion takes the place of; Blender draws and renders them at the same place."""
    _set_hidden(original, True)


def show(original: bpy.types.Object) -> None:
    """Undo `hide`."""
    _set_hidden(original, False)


def is_hidden(item: bpy.types.Object) -> bool:
    """Whether an object is hidden in the viewport or not in the view layer."""
    return item.name not in _view_layer().objects or item.hide_get()


def _set_hidden(item: bpy.types.Object, hidden: bool) -> None:
    if item.name in _view_layer().objects:
        item.hide_set(hidden)
    if item.is_editable:  # not of a linked object
        item.hide_render = hidden


def deviation_of(shape: Shape, observation: ObjectGeometry) -> np.ndarray | None:
    """The attribute `deviation`: a shape's is in world units, and attributes are in the units of the object."""
    return None if shape.deviation is None else shape.deviation / observation.result_scale


def _view_layer() -> bpy.types.ViewLayer:
    layer = bpy.context.view_layer
    assert layer
    return layer


def _depsgraph() -> bpy.types.Depsgraph:
    return bpy.context.evaluated_depsgraph_get()
