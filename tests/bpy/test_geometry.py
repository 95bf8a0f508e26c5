"""Conversion between objects of a real Blender and arrays."""

from collections.abc import Iterator

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix

from blender_addon.geometry import SAMPLED_POINTS, GeometryError, ObjectGeometry, new_mesh, read_objects

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32)
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


@pytest.fixture(autouse=True)
def empty_scene() -> Iterator[None]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield


def add_mesh(name: str = "cube", vertices: np.ndarray = CUBE, faces: list = SIDES) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(vertices.tolist(), [], faces)
    item = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(item)
    return item


def read(*objects: bpy.types.Object) -> ObjectGeometry:
    return read_objects(objects, bpy.context.evaluated_depsgraph_get())


def world(geometry: ObjectGeometry) -> np.ndarray:
    return geometry.vertices + geometry.centre


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_a_mesh_is_read_as_triangles_that_face_outwards() -> None:
    geometry = read(add_mesh())
    assert geometry.vertices.dtype == np.float32
    assert geometry.faces.dtype == np.int32
    assert geometry.faces.shape == (12, 3)
    np.testing.assert_allclose(np.sort(geometry.vertices, 0), np.sort(CUBE, 0))
    assert volume(geometry.vertices, geometry.faces) == pytest.approx(8)


def test_modifiers_are_applied() -> None:
    item = add_mesh()
    item.modifiers.new("array", "ARRAY").count = 3
    assert len(read(item).vertices) == 24


TRANSFORMS = {
    "translated": Matrix.Translation((3, -4, 5)),
    "far away": Matrix.Translation((1e5, 2e5, -1e5)),
    "rotated": Euler((0.3, 1.1, -2)).to_matrix().to_4x4(),
    "scaled": Matrix.Scale(0.01, 4),
    "scaled non-uniformly": Matrix.LocRotScale((1, 2, 3), Euler((1, 2, 3)), (0.5, 2, 7)),
    "mirrored": Matrix.LocRotScale((1, 2, 3), Euler((1, 2, 3)), (-1, 1, 2)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_results_coincide_with_transformed_objects(transform: str) -> None:
    item = add_mesh()
    item.matrix_world = TRANSFORMS[transform]
    bpy.context.view_layer.update()
    geometry = read(item)
    matrix = np.array(item.matrix_world, dtype=np.float64)
    expected = CUBE @ matrix[:3, :3].T + matrix[:3, 3]
    size = np.ptp(expected, axis=0).max()
    np.testing.assert_allclose(world(geometry), expected, atol=1e-5 * size)
    assert volume(geometry.vertices, geometry.faces) == pytest.approx(8 * abs(np.linalg.det(matrix[:3, :3])), rel=1e-4)
    check_result_coincides(geometry, expected, size)


def check_result_coincides(geometry: ObjectGeometry, expected: np.ndarray, size: float) -> None:
    """Check that a result of the same shape coincides with its source."""
    result = bpy.data.objects.new("result", new_mesh("result", geometry.to_result(geometry.vertices), geometry.faces))
    bpy.context.scene.collection.objects.link(result)
    result.matrix_world = Matrix(geometry.result_matrix.tolist())
    bpy.context.view_layer.update()
    np.testing.assert_allclose(world(read(result)), expected, atol=1e-5 * size + 1e-7 * np.abs(expected).max())


def test_a_sheared_child_is_read_as_it_is_displayed() -> None:
    parent, item = add_mesh("parent"), add_mesh("child")
    parent.matrix_world = Matrix.LocRotScale((1, 0, 0), Euler((0, 0, 0.5)), (3, 1, 1))
    item.parent, item.rotation_euler = parent, (0, 0, 0.7)
    bpy.context.scene.unit_settings.system = "IMPERIAL"
    bpy.context.view_layer.update()
    matrix = np.array(item.matrix_world, dtype=np.float64)
    expected = CUBE @ matrix[:3, :3].T + matrix[:3, 3]
    geometry = read(item)
    np.testing.assert_allclose(world(geometry), expected, atol=1e-5)
    check_result_coincides(geometry, expected, float(np.ptp(expected, axis=0).max()))


def test_a_mesh_without_faces_is_a_point_cloud() -> None:
    geometry = read(add_mesh(faces=[]))
    assert geometry.faces is None
    assert len(geometry.vertices) == 8


def test_a_point_cloud_has_no_faces() -> None:
    item = add_mesh()
    bpy.context.view_layer.objects.active = item
    item.select_set(True)
    bpy.ops.object.convert(target="POINTCLOUD")  # before 5.1 a script cannot make one otherwise
    assert item.type == "POINTCLOUD"
    item.location = (1, 2, 3)
    bpy.context.view_layer.update()
    geometry = read(item)
    assert geometry.faces is None
    np.testing.assert_allclose(geometry.vertices, CUBE)
    np.testing.assert_allclose(geometry.centre, (1, 2, 3))


def test_several_objects_are_one_observation() -> None:
    first, second = add_mesh(), add_mesh("other")
    second.location = (5, 0, 0)
    bpy.context.view_layer.update()
    geometry = read(first, second)
    assert len(geometry.vertices) == 16
    assert len(geometry.faces) == 24
    assert geometry.faces.max() == 15
    np.testing.assert_allclose(geometry.centre, (2.5, 0, 0))


def test_a_mesh_read_with_points_is_sampled() -> None:
    geometry = read(add_mesh(), add_mesh("points", CUBE + 10, []))
    assert geometry.faces is None
    assert len(geometry.vertices) == SAMPLED_POINTS + 8
    on_cube = world(geometry)[:SAMPLED_POINTS]
    np.testing.assert_allclose(np.abs(on_cube).max(axis=1), 1, atol=1e-5)


def test_an_object_that_cannot_be_read_is_reported() -> None:
    with pytest.raises(GeometryError, match="Nothing is selected"):
        read()
    with pytest.raises(GeometryError, match="empty has no vertices"):
        read(add_mesh("empty", np.zeros((0, 3)), []))
    with pytest.raises(GeometryError, match="broken has NaN or infinite coordinates in 1 of 3 vertices"):
        read(add_mesh("broken", np.array([[0, 0, 0], [np.nan, 0, 0], [1, 1, 1]]), []))
    camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
    bpy.context.scene.collection.objects.link(camera)
    with pytest.raises(GeometryError, match="eye has no surface because its type is Camera"):
        read(camera)


def test_a_new_mesh_is_valid_and_smooth_and_has_the_observed_attribute() -> None:
    faces = read(add_mesh()).faces
    observed = np.linspace(0, 1, 8, dtype=np.float32)
    mesh = new_mesh("new", CUBE, faces, observed)
    assert mesh.validate() is False  # nothing had to be repaired
    assert (len(mesh.vertices), len(mesh.edges), len(mesh.polygons)) == (8, 18, 12)
    assert all(polygon.use_smooth for polygon in mesh.polygons)
    stored = np.empty(8, dtype=np.float32)
    mesh.attributes["observed"].data.foreach_get("value", stored)
    np.testing.assert_array_equal(stored, observed)


@pytest.mark.parametrize("quads", [0, 4, 6])
def test_a_new_mesh_has_its_quads_whole(quads: int) -> None:
    halves = np.array([(a, b, c, a, c, d) for a, b, c, d in SIDES]).reshape(-1, 3)
    mesh = new_mesh("cube", CUBE, halves, np.ones(8), quads=quads)
    assert not mesh.validate()  # nothing had to be corrected
    assert [tuple(polygon.vertices) for polygon in mesh.polygons[:quads]] == SIDES[:quads]
    assert len(mesh.polygons) == 12 - quads and len(mesh.edges) == 18 - quads
    assert not any(len(polygon.vertices) != 3 for polygon in mesh.polygons[quads:])
