"""Sliders that a mesh follows, remeshing, and the material of the observed region; with a scripted backend."""

import bpy
import numpy as np
import pytest
from conftest import CODE, REFINEMENT, Backend, cube, exact, idle, submissions, two_cubes, until, wedge
from mathutils import Vector

from blender_addon import directions, sliders, timer
from blender_addon.geometry import DEVIATION, OBSERVED, new_mesh, transfer_values, vertex_values
from blender_addon.session import session
from blender_addon.shapes import stored_shape
from sdf_backend.wire.messages import Accepted, Error, Result, Shape, Submit


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No slider comes to rest until `release`."""
    monkeypatch.setattr(sliders, "SETTLED_SECONDS", float("inf"))
    return monkeypatch


def release(moving: pytest.MonkeyPatch) -> None:
    """Every slider is at rest from now on."""
    moving.setattr(sliders, "SETTLED_SECONDS", 0.0)


def shows_coarse_mesh(item: bpy.types.Object) -> bool:
    return sliders.SHOWN in item and item[sliders.SHOWN][-1] == sliders.COARSE_RESOLUTION


@pytest.fixture
def completed(connected: Backend) -> bpy.types.Object:
    cube(location=(1, 2, 3), scale=(2, 2, 2))
    bpy.ops.sdf.complete(resolution=200)
    connected.requests.clear()
    return bpy.context.object


def resolutions(backend: Backend) -> list[int]:
    return [submit.settings.resolution for submit in submissions(backend)]


def hold_answers(backend: Backend) -> list[Submit]:
    """Let the backend accept jobs without answering them; returns the list of them."""
    held: list[Submit] = []
    backend.answer = lambda submit: held.append(submit) or []
    return held


def test_a_coarse_mesh_follows_a_slider_and_then_the_full_mesh(
    completed: bpy.types.Object, connected: Backend, moving: pytest.MonkeyPatch
) -> None:
    completed.sdf.directions[0] = 1.5
    until(lambda: shows_coarse_mesh(completed))
    release(moving)
    until(idle)
    assert resolutions(connected) == [directions.DIRECTIONS_RESOLUTION, sliders.COARSE_RESOLUTION, 200]
    assert all(submit.task == "decode" for submit in submissions(connected))
    np.testing.assert_allclose(submissions(connected)[-1].codes[0], CODE + 1.5)
    np.testing.assert_allclose(stored_shape(completed).code, CODE + 1.5)
    np.testing.assert_allclose(stored_shape(completed).codes, [CODE])
    completed.sdf.directions[0] = 0
    until(idle)
    np.testing.assert_allclose(stored_shape(completed).code, CODE)


def test_only_the_newest_value_of_a_dragged_slider_is_followed(completed: bpy.types.Object, connected: Backend) -> None:
    held = hold_answers(connected)
    for step in range(50):
        completed.sdf.directions[0] = 0.01 * step
        timer.work()
    until(lambda: len(held) == 2)  # the shape at 0, and the directions of the model
    connected.answer = exact
    connected.say(*exact(held[0]), *exact(held[1]))
    until(idle)
    np.testing.assert_allclose(submissions(connected)[-1].codes[0], CODE + 0.49, rtol=1e-6)
    assert len(submissions(connected)) <= 4


def test_a_blend_lies_between_its_ends(connected: Backend) -> None:
    two_cubes()
    bpy.ops.sdf.interpolate(arrangement="blend")
    item = bpy.context.object
    assert item.sdf.blend == 0.5
    np.testing.assert_allclose(stored_shape(item).code, CODE + 0.5)
    until(idle)
    assert len(submissions(connected)) == 2  # setting the sliders to the middle submits no job
    item.sdf.blend = 1.0
    until(idle)
    np.testing.assert_allclose(stored_shape(item).code, CODE + 1)
    bpy.context.view_layer.update()
    position = item.matrix_world @ Vector(stored_shape(item).pose[:3, 3])
    np.testing.assert_allclose(position, (4, 2, 1), atol=1e-5)


def test_a_grid_has_two_sliders(connected: Backend) -> None:
    for location in ((-5, -5, 0), (5, -5, 0), (-5, 5, 0), (5, 5, 0)):
        cube(location=location)
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.sdf.interpolate(arrangement="blend", through="grid")
    item = bpy.context.object
    item.sdf.blend, item.sdf.across = 1.0, 0.0
    until(idle)
    np.testing.assert_allclose(stored_shape(item).code, CODE + 1)


def test_an_object_may_be_renamed_or_deleted_while_its_mesh_follows(
    completed: bpy.types.Object, connected: Backend
) -> None:
    held = hold_answers(connected)
    completed.sdf.directions[0] = 1
    until(lambda: len(held) == 1)
    completed.name = "Something else"
    connected.answer = exact
    connected.say(*exact(held[0]))
    until(idle)
    np.testing.assert_allclose(stored_shape(completed).code, CODE + 1)
    completed.sdf.directions[0] = 2
    bpy.data.objects.remove(completed)
    until(idle)
    assert session.notice == ""


def test_a_slider_without_a_backend_reports_it_once(completed: bpy.types.Object) -> None:
    bpy.ops.sdf.disconnect()
    completed.sdf.directions[0] = 1
    timer.work()
    assert "cannot follow its sliders: No backend is connected; start one or connect to one first" in session.notice
    assert not session.sliders.moved_at


def test_remeshing_changes_the_resolution_in_place(completed: bpy.types.Object, connected: Backend) -> None:
    completed.location = (7, 8, 9)
    completed.data.materials.append(bpy.data.materials.new("mine"))
    bpy.ops.sdf.redo(resolution=400)
    assert resolutions(connected) == [400]
    assert completed["sdf_resolution"] == 400
    assert tuple(completed.location) == (7, 8, 9)
    assert [material.name for material in completed.data.materials] == ["mine"]
    assert len(completed.data.vertices) == 4
    # Transferred, since the shape is the same.
    assert vertex_values(completed.data, OBSERVED) is not None and vertex_values(completed.data, DEVIATION) is not None
    completed.sdf.resolution = 300
    bpy.ops.sdf.redo()
    assert resolutions(connected) == [400, 300] and completed["sdf_resolution"] == 300


def test_the_residual_field_fades_as_the_shape_is_moved(completed: bpy.types.Object, connected: Backend) -> None:
    for moved, strength in ((0.01, 0.995), (1, 0.5), (3, 0)):
        completed.sdf.directions[0] = moved
        until(idle)
        [refinement] = submissions(connected)[-1].refinements
        np.testing.assert_array_equal(refinement[:, 0], REFINEMENT[:, 0])
        np.testing.assert_allclose(refinement[:, 1], strength * REFINEMENT[:, 1], rtol=1e-5)
        assert submissions(connected)[-1].weights is None
    asked = [submit for submit in submissions(connected) if submit.weights is not None]
    assert len(asked) == 1  # the directions of a model are asked for once
    with bpy.context.temp_override(active_object=completed):
        bpy.ops.sdf.reset_directions()
    until(idle)
    np.testing.assert_array_equal(submissions(connected)[-1].refinements[0], REFINEMENT)
    np.testing.assert_allclose(submissions(connected)[-1].codes[0], CODE)


def test_a_shape_can_be_moved_where_the_directions_are_not_known(
    completed: bpy.types.Object, connected: Backend
) -> None:
    def refuse_directions(submit: Submit) -> list:
        refused = submit.settings.resolution == directions.DIRECTIONS_RESOLUTION
        return [Error("failed", "it has none", submit.job)] if refused else exact(submit)

    connected.answer = refuse_directions
    completed.sdf.directions[0] = 1
    until(idle)
    assert submissions(connected)[-1].weights is not None and not submissions(connected)[-1].refinements
    np.testing.assert_allclose(stored_shape(completed).code, CODE + 1)


def test_the_material_of_the_observed_region_is_added_and_removed(completed: bpy.types.Object) -> None:
    mine = bpy.data.materials.new("mine")
    completed.data.materials.append(mine)
    bpy.ops.sdf.show_observed()
    assert [material.name for material in completed.data.materials] == ["SDF observed", "mine"]
    nodes = completed.data.materials[0].node_tree.nodes
    assert [node.attribute_name for node in nodes if node.bl_idname == "ShaderNodeAttribute"] == ["observed"]
    bpy.ops.sdf.show_observed()
    assert list(completed.data.materials) == [mine]


def test_the_uncertainty_is_shown_in_units_of_the_object_and_either_material_replaces_the_other(
    completed: bpy.types.Object,
) -> None:
    mine = bpy.data.materials.new("mine")
    completed.data.materials.append(mine)
    bpy.ops.sdf.show_observed()
    bpy.ops.sdf.show_uncertainty()
    assert [material.name for material in completed.data.materials] == ["SDF uncertainty", "mine"]
    nodes = completed.data.materials[0].node_tree.nodes
    shown = {node.attribute_name: node.attribute_type for node in nodes if node.bl_idname == "ShaderNodeAttribute"}
    assert shown == {"deviation": "GEOMETRY", "sdf_unit": "OBJECT"}
    scale = np.linalg.det(np.array(stored_shape(completed).pose)[:3, :3]) ** (1 / 3)
    assert completed["sdf_unit"] == pytest.approx(scale)
    ramp = next(node.color_ramp.elements for node in nodes if node.bl_idname == "ShaderNodeValToRGB")
    assert [element.position for element in ramp] == [0, 0.5, 1] and ramp[0].color[2] > 0.5 > ramp[2].color[2]
    bpy.ops.sdf.show_uncertainty()
    assert list(completed.data.materials) == [mine]


def test_a_shape_of_unknown_uncertainty_cannot_show_it(completed: bpy.types.Object) -> None:
    completed.data.attributes.remove(completed.data.attributes["deviation"])
    with pytest.raises(RuntimeError, match="no known uncertainty; select a completed shape"):
        bpy.ops.sdf.show_uncertainty()
    assert not len(completed.data.materials)


def test_the_observed_region_is_transferred_to_a_finer_mesh() -> None:
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(20_000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    finer = rng.normal(size=(500_000, 3)).astype(np.float32)
    finer /= np.linalg.norm(finer, axis=1, keepdims=True)
    coarse = new_mesh("coarse", sphere.astype(np.float32), np.zeros((1, 3), np.int32), (sphere[:, 0] > 0) * 1.0)
    transferred = transfer_values(coarse, OBSERVED, finer)
    clear = np.abs(finer[:, 0]) > 0.2
    assert np.mean((transferred[clear] > 0.5) == (finer[clear, 0] > 0)) > 0.9999
    assert transfer_values(new_mesh("unknown", finer[:3], np.zeros((1, 3), np.int32)), OBSERVED, finer) is None


def test_an_undo_never_leaves_a_coarse_mesh(
    completed: bpy.types.Object, connected: Backend, moving: pytest.MonkeyPatch
) -> None:
    name = completed.name
    completed.sdf.directions[0] = 1
    until(lambda: shows_coarse_mesh(completed))
    bpy.ops.ed.undo_push(message="the slider is released")  # with the coarse mesh
    release(moving)
    until(idle)
    bpy.ops.ed.undo_push(message="something else")
    connected.requests.clear()
    bpy.ops.ed.undo()
    until(idle)
    assert resolutions(connected)[-1] == 200
    assert bpy.data.objects[name][sliders.SHOWN][-1] == 200


def test_the_observed_region_returns_with_the_sliders_at_zero(completed: bpy.types.Object) -> None:
    known = vertex_values(completed.data, OBSERVED)
    completed.sdf.directions[0] = 1
    until(idle)
    completed.sdf.directions[0] = 0
    until(idle)
    assert vertex_values(completed.data, OBSERVED) is not None and known is not None


def test_the_materials_of_single_faces_are_restored(completed: bpy.types.Object) -> None:
    for name in ("red", "blue"):
        completed.data.materials.append(bpy.data.materials.new(name))
    before = [number % 2 for number in range(len(completed.data.polygons))]
    completed.data.polygons.foreach_set("material_index", before)
    bpy.ops.sdf.show_observed()
    assert [face.material_index for face in completed.data.polygons] == [0] * len(before)
    bpy.ops.sdf.show_observed()
    assert [face.material_index for face in completed.data.polygons] == before
    assert [material.name for material in completed.data.materials] == ["red", "blue"]


def test_an_outdated_full_mesh_is_cancelled(completed: bpy.types.Object, connected: Backend) -> None:
    def only_coarse(submit: Submit) -> list:
        coarse = submit.settings.resolution <= sliders.COARSE_RESOLUTION
        return exact(submit) if coarse else [Accepted(submit.job)]

    connected.answer = only_coarse
    completed.sdf.directions[0] = 1
    until(lambda: 200 in resolutions(connected))
    completed.sdf.directions[0] = 2
    [full] = [submit.job for submit in submissions(connected) if submit.settings.resolution == 200]
    until(lambda: connected.cancelled == [full])
    connected.say(Error("cancelled", "the job was cancelled", full))
    connected.answer = exact
    until(idle)
    np.testing.assert_allclose(stored_shape(completed).code, CODE + 2)


def test_the_directions_of_the_active_shape_are_asked_for_once_and_have_names(
    completed: bpy.types.Object, connected: Backend
) -> None:
    def growing(submit: Submit) -> list:
        """Direction 1 makes the shape wider and somewhat taller, direction 2 thinner; the others change nothing."""
        shapes = []
        for row in submit.weights:
            grown = wedge(CODE + row.sum(), np.eye(4))
            vertices, faces = grown.vertices * np.exp(row[0] * np.array([0.2, 0.15, 0])), grown.faces
            if row[1] > 0:  # a hollow inside
                vertices, faces = (
                    np.concatenate([vertices, 0.9 * vertices]),
                    np.concatenate([faces, faces[:, ::-1] + 4]),
                )
            shapes.append(Shape(vertices, faces, grown.code, grown.pose))
        return [Result(submit.job, tuple(shapes))]

    connected.answer = growing
    directions.prepare_directions()
    directions.prepare_directions()
    until(idle)
    [submit] = submissions(connected)
    assert submit.task == "decode" and submit.weights.shape == (8, 4)
    found = session.sliders.directions["cubes"]
    assert [found.name(index) for index in range(4)] == ["Wider, Taller", "Thinner", "", ""]
    np.testing.assert_allclose(found.steps, np.ones((4, 4)))
