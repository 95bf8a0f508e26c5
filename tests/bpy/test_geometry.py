"""Objects of a real Blender to arrays and back."""

from collections.abc import Iterator

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix

from blender_addon.geometry import DRAWN_POINTS, GeometryError, Seen, new_mesh, read_objects

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32)
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


@pytest.fixture(autouse=True)
def empty_scene() -> Iterator[None]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield


def added(name: str = "cube", vertices: np.ndarray = CUBE, faces: list = SIDES) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(vertices.tolist(), [], faces)
    item = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(item)
    return item


def read(*objects: bpy.types.Object) -> Seen:
    return read_objects(objects, bpy.context.evaluated_depsgraph_get())


def world(seen: Seen) -> np.ndarray:
    return seen.vertices + seen.centre


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_a_mesh_is_read_as_triangles_outside_out() -> None:
    seen = read(added())
    assert seen.vertices.dtype == np.float32
    assert seen.faces.dtype == np.int32
    assert seen.faces.shape == (12, 3)
    np.testing.assert_allclose(np.sort(seen.vertices, 0), np.sort(CUBE, 0))
    assert volume(seen.vertices, seen.faces) == pytest.approx(8)


def test_modifiers_are_part_of_what_is_seen() -> None:
    item = added()
    item.modifiers.new("array", "ARRAY").count = 3
    assert len(read(item).vertices) == 24


PLACES = {
    "moved": Matrix.Translation((3, -4, 5)),
    "far away": Matrix.Translation((1e5, 2e5, -1e5)),
    "turned": Euler((0.3, 1.1, -2)).to_matrix().to_4x4(),
    "scaled": Matrix.Scale(0.01, 4),
    "unevenly": Matrix.LocRotScale((1, 2, 3), Euler((1, 2, 3)), (0.5, 2, 7)),
    "mirrored": Matrix.LocRotScale((1, 2, 3), Euler((1, 2, 3)), (-1, 1, 2)),
}


@pytest.mark.parametrize("place", PLACES)
def test_objects_are_read_where_they_stand_and_results_stand_there_too(place: str) -> None:
    item = added()
    item.matrix_world = PLACES[place]
    bpy.context.view_layer.update()
    seen = read(item)
    matrix = np.array(item.matrix_world, dtype=np.float64)
    expected = CUBE @ matrix[:3, :3].T + matrix[:3, 3]
    size = np.ptp(expected, axis=0).max()
    np.testing.assert_allclose(world(seen), expected, atol=1e-5 * size)
    assert volume(seen.vertices, seen.faces) == pytest.approx(8 * abs(np.linalg.det(matrix[:3, :3])), rel=1e-4)
    check_result_coincides(seen, expected, size)


def check_result_coincides(seen: Seen, expected: np.ndarray, size: float) -> None:
    """A result of the very same shape becomes an object that stands where the source does."""
    result = bpy.data.objects.new("result", new_mesh("result", seen.local(seen.vertices), seen.faces))
    bpy.context.scene.collection.objects.link(result)
    result.matrix_world = Matrix(seen.placement.tolist())
    bpy.context.view_layer.update()
    np.testing.assert_allclose(world(read(result)), expected, atol=1e-5 * size + 1e-7 * np.abs(expected).max())


def test_a_sheared_child_of_a_parent_is_read_as_it_is_seen() -> None:
    parent, item = added("parent"), added("child")
    parent.matrix_world = Matrix.LocRotScale((1, 0, 0), Euler((0, 0, 0.5)), (3, 1, 1))
    item.parent, item.rotation_euler = parent, (0, 0, 0.7)
    bpy.context.scene.unit_settings.system = "IMPERIAL"
    bpy.context.view_layer.update()
    matrix = np.array(item.matrix_world, dtype=np.float64)
    expected = CUBE @ matrix[:3, :3].T + matrix[:3, 3]
    seen = read(item)
    np.testing.assert_allclose(world(seen), expected, atol=1e-5)
    check_result_coincides(seen, expected, float(np.ptp(expected, axis=0).max()))


def test_vertices_alone_are_points() -> None:
    seen = read(added(faces=[]))
    assert seen.faces is None
    assert len(seen.vertices) == 8


def test_a_point_cloud_is_points() -> None:
    item = added()
    bpy.context.view_layer.objects.active = item
    item.select_set(True)
    bpy.ops.object.convert(target="POINTCLOUD")  # before 5.1 a script cannot make one otherwise
    assert item.type == "POINTCLOUD"
    item.location = (1, 2, 3)
    bpy.context.view_layer.update()
    seen = read(item)
    assert seen.faces is None
    np.testing.assert_allclose(seen.vertices, CUBE)
    np.testing.assert_allclose(seen.centre, (1, 2, 3))


def test_several_objects_are_one_observation() -> None:
    first, second = added(), added("other")
    second.location = (5, 0, 0)
    bpy.context.view_layer.update()
    seen = read(first, second)
    assert len(seen.vertices) == 16
    assert len(seen.faces) == 24
    assert seen.faces.max() == 15
    np.testing.assert_allclose(seen.centre, (2.5, 0, 0))


def test_a_mesh_and_points_together_are_points_on_both() -> None:
    seen = read(added(), added("points", CUBE + 10, []))
    assert seen.faces is None
    assert len(seen.vertices) == DRAWN_POINTS + 8
    on_cube = world(seen)[:DRAWN_POINTS]
    np.testing.assert_allclose(np.abs(on_cube).max(axis=1), 1, atol=1e-5)


def test_what_cannot_be_read_says_why() -> None:
    with pytest.raises(GeometryError, match="Nothing is selected"):
        read()
    with pytest.raises(GeometryError, match="empty has no vertices"):
        read(added("empty", np.zeros((0, 3)), []))
    with pytest.raises(GeometryError, match="broken has vertices that are nowhere, NaN or infinite, 1 of 3"):
        read(added("broken", np.array([[0, 0, 0], [np.nan, 0, 0], [1, 1, 1]]), []))
    camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
    bpy.context.scene.collection.objects.link(camera)
    with pytest.raises(GeometryError, match="eye has no surface, being of the type Camera"):
        read(camera)


def test_a_new_mesh_is_whole_smooth_and_carries_what_was_observed() -> None:
    faces = read(added()).faces
    observed = np.linspace(0, 1, 8, dtype=np.float32)
    mesh = new_mesh("new", CUBE, faces, observed)
    assert mesh.validate() is False  # which says that nothing had to be mended
    assert (len(mesh.vertices), len(mesh.edges), len(mesh.polygons)) == (8, 18, 12)
    assert all(polygon.use_smooth for polygon in mesh.polygons)
    stored = np.empty(8, dtype=np.float32)
    mesh.attributes["observed"].data.foreach_get("value", stored)
    np.testing.assert_array_equal(stored, observed)
