"""Keep Input in a real Blender: what the object's mesh carries survives, and only new faces are added."""

from typing import Any

import bmesh
import bpy
import numpy as np
import pytest
from conftest import Backend, cube, result, submissions, submit_completion, two_cubes, until, world

from blender_addon.session import session
from sdf_backend.wire.messages import Accepted, Result, Shape, Submit
from sdf_backend.wire.settings import Keep

APEX = np.array([[0.0, 0.0, 2.0]])
ROOF_COLOR = [1.0, 0.0, 0.2]


def roofed(submit: Submit) -> list[Any]:
    """The answer of a backend that closes a cube without its top by a roof of four triangles."""
    source = submit.sources[0]
    assert source.faces is not None
    count, shapes = len(source.vertices), []
    vertices = np.concatenate([source.vertices, APEX.astype(source.vertices.dtype)])
    edges = source.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    open_edges = [edge for edge in edges.tolist() if edge[::-1] not in edges.tolist()]
    roof = np.array([[end, start, count] for start, end in open_edges], source.faces.dtype)
    observed = np.append(np.ones(count, "<f4"), np.zeros(1, "<f4"))
    colors = None if source.colors is None else np.append(source.colors, [ROOF_COLOR], axis=0).astype("<f4")
    for _ in range(submit.settings.candidates):
        shapes.append(
            Shape(
                vertices,
                np.concatenate([source.faces, roof]),
                np.ones((1, 4)),
                np.eye(4)[None],
                observed,
                deviation=1 - observed,
                kept_vertices=count,
                kept_faces=len(source.faces),
                note="One opening stayed as found.",
                colors=colors,
                explained=1.0,
            )
        )
    return [Accepted(submit.job), Result(submit.job, tuple(shapes))]


def open_box(**place: Any) -> bpy.types.Object:
    """A cube without its top face, with a UV map, two materials, a vertex group, a crease and a seam."""
    item = cube(**place)
    mesh = item.data
    editable = bmesh.new()
    editable.from_mesh(mesh)
    editable.faces.ensure_lookup_table()
    bmesh.ops.delete(
        editable, geom=[max(editable.faces, key=lambda face: face.calc_center_median().z)], context="FACES"
    )
    editable.to_mesh(mesh)
    editable.free()
    uv = (mesh.uv_layers.active or mesh.uv_layers.new(name="UVMap")).data
    for index, corner in enumerate(uv):
        corner.uv = (index / 100, 1 - index / 100)
    for name in ("red", "blue"):
        mesh.materials.append(bpy.data.materials.new(name))
    for polygon in mesh.polygons:
        polygon.material_index = int(polygon.center.x > 0.5)
    group = item.vertex_groups.new(name="left")
    group.add([0, 1], 0.5, "REPLACE")
    mesh.edges[3].use_seam = True
    mesh.edges[4].use_edge_sharp = True
    return item


def uvs(mesh: bpy.types.Mesh, corners: int) -> list[tuple[float, ...]]:
    return [tuple(corner.uv) for corner in list(mesh.uv_layers.active.data)[:corners]]


def marked(mesh: bpy.types.Mesh, name: str) -> set[tuple[int, ...]]:
    return {tuple(sorted(edge.vertices)) for edge in mesh.edges if getattr(edge, name)}


@pytest.fixture
def roofing(connected: Backend) -> Backend:
    connected.answer = roofed
    return connected


def test_the_object_s_own_mesh_survives_and_the_missing_part_is_added(roofing: Backend) -> None:
    source = open_box(location=(3, -4, 5), rotation=(0.3, 0.5, 2), scale=(1, 2, 0.5))
    before = source.data
    assert bpy.ops.sdf.complete() == {"FINISHED"}
    [submit] = submissions(roofing)
    assert submit.settings.keep is Keep.INPUT
    item, mesh = result(), result().data
    assert mesh is not before and len(before.polygons) == 5  # the object itself is untouched
    assert (len(mesh.vertices), len(mesh.polygons)) == (9, 9) and not mesh.validate()
    assert [list(polygon.vertices) for polygon in list(mesh.polygons)[:5]] == [
        list(p.vertices) for p in before.polygons
    ]
    assert [tuple(vertex.co) for vertex in list(mesh.vertices)[:8]] == [tuple(vertex.co) for vertex in before.vertices]
    assert uvs(mesh, 20) == uvs(before, 20)
    assert [material.name for material in mesh.materials] == ["red", "blue"]
    indices = [polygon.material_index for polygon in mesh.polygons]
    assert indices[:5] == [polygon.material_index for polygon in before.polygons]
    # A new face has the material of the nearest wall: one of the four leans against the blue one.
    assert sorted(indices[5:]) == [0, 0, 0, 1]
    assert {group.name for group in item.vertex_groups} == {"left", "completed"}
    assert [round(mesh.vertices[index].groups[0].weight, 3) for index in (0, 1, 8)] == [0.5, 0.5, 1.0]
    assert marked(mesh, "use_seam") == marked(before, "use_seam")
    assert marked(mesh, "use_edge_sharp") == marked(before, "use_edge_sharp")
    sets = [value.value for value in mesh.attributes[".sculpt_face_set"].data]
    assert sets == [1] * 5 + [2] * 4
    assert [value.value for value in mesh.attributes["observed"].data] == [1.0] * 8 + [0.0]
    np.testing.assert_allclose(world(item)[:8], world(source), atol=1e-6)
    centre = (world(source).min(axis=0) + world(source).max(axis=0)) / 2
    np.testing.assert_allclose(world(item)[8], centre + APEX[0], atol=1e-5)
    edges = bmesh.new()
    edges.from_mesh(mesh)
    assert all(len(edge.link_faces) == 2 for edge in edges.edges)
    edges.free()
    assert source.hide_get() and source.hide_render and session.notice == "One opening stayed as found."


def test_a_mirrored_object_keeps_its_orientation(roofing: Backend) -> None:
    source = open_box()
    source.scale = (-1, 1, 1)
    bpy.context.view_layer.update()
    bpy.ops.sdf.complete()
    edges = bmesh.new()
    edges.from_mesh(result().data)
    assert all(edge.is_contiguous for edge in edges.edges)
    edges.free()


def test_one_undo_brings_the_original_back(roofing: Backend) -> None:
    name = open_box().name
    bpy.ops.ed.undo_push(message="a box")
    bpy.ops.sdf.complete()
    assert len(bpy.data.objects) == 2
    bpy.ops.ed.undo()
    assert [item.name for item in bpy.data.objects] == [name]
    assert not bpy.data.objects[name].hide_get() and not bpy.data.objects[name].hide_render


def test_candidates_stand_in_front_of_each_other(roofing: Backend) -> None:
    source = open_box()
    bpy.ops.sdf.complete(candidates=2)
    best, other = (bpy.data.objects[f"{source.name} completed{number}"] for number in ("", " 02"))
    np.testing.assert_allclose(world(best)[:8], world(source), atol=1e-6)
    assert world(other)[:, 1].max() < world(best)[:, 1].min()


def test_an_object_that_changed_meanwhile_gets_the_bare_mesh(connected: Backend) -> None:
    held: list[Submit] = []
    connected.answer = lambda submit: held.append(submit) or [Accepted(submit.job)]
    source = open_box()
    submit_completion()
    until(lambda: bool(held))
    source.data.vertices[0].co.x += 1
    source.data.update()
    bpy.context.view_layer.update()
    connected.say(roofed(held[0])[-1])
    until(lambda: not session.jobs)
    assert "changed meanwhile" in session.notice and "One opening" in session.notice
    assert len(result().data.polygons) == 14 and not result().data.uv_layers and not source.hide_get()


def test_a_completed_object_is_completed_again_with_its_attributes_renewed(roofing: Backend) -> None:
    source = open_box()
    source.data.attributes.new("observed", "INT", "FACE")  # the object's own, of another kind
    source.data.attributes.new("deviation", "FLOAT", "POINT")
    session.notify("an older notice")
    bpy.ops.sdf.complete()
    mesh = result().data
    assert [value.value for value in mesh.attributes["observed"].data] == [1.0] * 8 + [0.0]
    assert [value.value for value in mesh.attributes["deviation"].data] == [0.0] * 8 + [1.0]
    assert not [one for one in mesh.attributes.values() if one.name.startswith(("observed.", "deviation."))]
    assert session.notice == "One opening stayed as found."


def test_points_several_objects_and_reconstruction_keep_nothing(connected: Backend) -> None:
    two_cubes()
    bpy.ops.sdf.complete()
    cube()
    bpy.ops.sdf.reconstruct()
    cube()
    bpy.ops.sdf.complete(keep="nothing")
    cloud = bpy.data.objects.new("cloud", bpy.data.meshes.new("cloud"))
    cloud.data.from_pydata(np.random.default_rng(0).normal(size=(200, 3)).tolist(), [], [])
    bpy.context.collection.objects.link(cloud)
    bpy.ops.object.select_all(action="DESELECT")
    cloud.select_set(True)
    bpy.context.view_layer.objects.active = cloud
    bpy.ops.sdf.complete()
    assert [submit.settings.keep for submit in submissions(connected)] == [Keep.NOTHING] * 4


def sphere_of(submit: Submit) -> list[Any]:
    """The answer of a backend that returns the source's own points as triangles, with its colours."""
    [source] = submit.sources
    faces = np.arange(len(source.vertices) // 3 * 3).reshape(-1, 3).astype("<i4")
    shape = Shape(source.vertices, faces, np.ones((1, 4)), np.eye(4)[None], colors=source.colors)
    return [Accepted(submit.job), Result(submit.job, (shape,))]


def painted(item: bpy.types.Object, domain: str, kind: str) -> np.ndarray:
    """Give a mesh a colour attribute; its colours, sRGB, (n, 3)."""
    attribute = item.data.color_attributes.new("paint", kind, domain)
    item.data.color_attributes.active_color = attribute
    colors = np.random.default_rng(0).integers(0, 256, (len(attribute.data), 4)) / 255
    colors[:, 3] = 1
    attribute.data.foreach_set("color_srgb", colors.reshape(-1))
    return colors[:, :3]


def colors_of(mesh: bpy.types.Mesh) -> np.ndarray:
    attribute = mesh.color_attributes.active_color
    values = np.empty(4 * len(attribute.data), np.float32)
    attribute.data.foreach_get("color_srgb", values)
    return values.reshape(-1, 4)[:, :3]


@pytest.mark.parametrize("kind", ["BYTE_COLOR", "FLOAT_COLOR"])
@pytest.mark.parametrize("domain", ["POINT", "CORNER"])
def test_new_faces_continue_the_colours_of_a_kept_mesh(roofing: Backend, domain: str, kind: str) -> None:
    source = open_box()
    before = painted(source, domain, kind)
    bpy.ops.sdf.complete()
    [submit] = submissions(roofing)
    sent = submit.sources[0].colors
    assert sent is not None and sent.shape == (8, 3)
    after = colors_of(result().data)
    np.testing.assert_allclose(after[: len(before)], before, atol=1 / 255)
    if domain == "POINT":
        np.testing.assert_allclose(sent, before, atol=1 / 255)
        np.testing.assert_allclose(after[8], ROOF_COLOR, atol=1 / 255)
    else:
        vertices = [loop.vertex_index for loop in source.data.loops]
        mean = np.mean([before[corner] for corner, vertex in enumerate(vertices) if vertex == 3], axis=0)
        np.testing.assert_allclose(sent[3], mean, atol=1 / 255)
        new = [loop.vertex_index for loop in result().data.loops][len(before) :]
        np.testing.assert_allclose(after[len(before) :][np.array(new) == 8], [ROOF_COLOR] * 4, atol=1 / 255)
        np.testing.assert_allclose(after[len(before) :][np.array(new) == 3][0], mean, atol=1 / 255)


def test_points_with_colours_give_a_coloured_surface(connected: Backend) -> None:
    connected.answer = sphere_of
    mesh = bpy.data.meshes.new("cloud")
    mesh.from_pydata(np.random.default_rng(0).normal(size=(300, 3)).tolist(), [], [])
    cloud = bpy.data.objects.new("cloud", mesh)
    bpy.context.collection.objects.link(cloud)
    before = painted(cloud, "POINT", "BYTE_COLOR")
    bpy.ops.object.select_all(action="DESELECT")
    cloud.select_set(True)
    bpy.context.view_layer.objects.active = cloud
    bpy.ops.sdf.complete()
    np.testing.assert_allclose(colors_of(result().data), before, atol=1 / 255)


def test_an_object_without_colours_sends_none(roofing: Backend) -> None:
    open_box()
    bpy.ops.sdf.complete()
    assert submissions(roofing)[0].sources[0].colors is None
    assert result().data.color_attributes.active_color is None
