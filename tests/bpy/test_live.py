"""Sliders that a shape follows, making it anew, and the material that shows what was seen; with a scripted backend."""

import bpy
import numpy as np
import pytest
from conftest import CODE, REFINEMENT, Backend, cube, exact, submissions, two_cubes, until
from mathutils import Vector

from blender_addon import live, ticking
from blender_addon.geometry import new_mesh, observed_of
from blender_addon.results import carried
from blender_addon.session import session
from blender_addon.shapes import remembered
from sdf_backend.wire.messages import Accepted, Error, Submit


@pytest.fixture
def completed(connected: Backend) -> bpy.types.Object:
    cube(location=(1, 2, 3), scale=(2, 2, 2))
    bpy.ops.sdf.complete(resolution=200)
    connected.requests.clear()
    return bpy.context.object


def resolutions(backend: Backend) -> list[int]:
    return [submit.settings.resolution for submit in submissions(backend)]


def at_rest() -> bool:
    return not session.jobs and not live.waiting() and not ticking._coming


def test_a_slider_is_followed_coarsely_and_then_in_full(completed: bpy.types.Object, connected: Backend) -> None:
    completed.sdf.directions[0] = 1.5
    until(at_rest, ticking.work)
    assert resolutions(connected) == [live.COARSE, 200]
    assert all(submit.task == "decode" for submit in submissions(connected))
    np.testing.assert_allclose(submissions(connected)[-1].weights[0], [1.5, 0, 0, 0])
    np.testing.assert_allclose(remembered(completed).code, CODE + 1.5)
    np.testing.assert_allclose(remembered(completed).codes, [CODE])
    completed.sdf.directions[0] = 0
    until(at_rest, ticking.work)
    np.testing.assert_allclose(remembered(completed).code, CODE)


def test_of_a_slider_that_is_dragged_only_the_newest_value_is_followed(
    completed: bpy.types.Object, connected: Backend
) -> None:
    held: list = []
    connected.answer = lambda submit: held.append(submit) or []
    for step in range(50):
        completed.sdf.directions[0] = 0.01 * step
        ticking.work()
    until(lambda: len(held) == 1, ticking.work)
    connected.answer = exact
    connected.say(*exact(held[0]))
    until(at_rest, ticking.work)
    np.testing.assert_allclose(submissions(connected)[-1].weights[0, 0], 0.49, rtol=1e-6)
    assert len(submissions(connected)) <= 3


def test_a_blend_is_between_its_ends(connected: Backend) -> None:
    two_cubes()
    bpy.ops.sdf.interpolate(arrangement="blend")
    item = bpy.context.object
    assert item.sdf.blend == 0.5
    np.testing.assert_allclose(remembered(item).code, CODE + 0.5)
    until(at_rest, ticking.work)  # it was put there, not moved
    assert len(submissions(connected)) == 2
    item.sdf.blend = 1.0
    until(at_rest, ticking.work)
    np.testing.assert_allclose(remembered(item).code, CODE + 1)
    bpy.context.view_layer.update()
    place = item.matrix_world @ Vector(remembered(item).pose[:3, 3])
    np.testing.assert_allclose(place, (4, 2, 1), atol=1e-5)


def test_a_grid_has_two_sliders(connected: Backend) -> None:
    for place in ((-5, -5, 0), (5, -5, 0), (-5, 5, 0), (5, 5, 0)):
        cube(location=place)
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.sdf.interpolate(arrangement="blend", through="grid")
    item = bpy.context.object
    item.sdf.blend, item.sdf.across = 1.0, 0.0
    until(at_rest, ticking.work)
    np.testing.assert_allclose(remembered(item).code, CODE + 1)


def test_an_object_may_be_deleted_or_renamed_while_it_follows(completed: bpy.types.Object, connected: Backend) -> None:
    held: list = []
    connected.answer = lambda submit: held.append(submit) or []
    completed.sdf.directions[0] = 1
    until(lambda: len(held) == 1, ticking.work)
    completed.name = "Something else"
    connected.answer = exact
    connected.say(*exact(held[0]))
    until(at_rest, ticking.work)
    np.testing.assert_allclose(remembered(completed).code, CODE + 1)
    completed.sdf.directions[0] = 2
    bpy.data.objects.remove(completed)
    until(at_rest, ticking.work)
    assert session.notice == ""


def test_without_a_backend_a_slider_says_so_once(completed: bpy.types.Object) -> None:
    bpy.ops.sdf.disconnect()
    completed.sdf.directions[0] = 1
    ticking.work()
    assert "cannot follow its sliders: There is no backend; start one or connect to one first" in session.notice
    assert not live.waiting()


def test_redo_gives_another_resolution_where_the_object_stands_now(
    completed: bpy.types.Object, connected: Backend
) -> None:
    completed.location = (7, 8, 9)
    completed.data.materials.append(bpy.data.materials.new("mine"))
    bpy.ops.sdf.redo(resolution=400)
    assert resolutions(connected) == [400]
    assert completed["sdf_resolution"] == 400
    assert tuple(completed.location) == (7, 8, 9)
    assert [material.name for material in completed.data.materials] == ["mine"]
    assert len(completed.data.vertices) == 4
    assert observed_of(completed.data) is not None  # it is the same shape, so what was seen of it is known


def test_what_was_seen_corrects_the_shape_anew_but_not_where_sliders_led_it(
    completed: bpy.types.Object, connected: Backend
) -> None:
    bpy.ops.sdf.redo(resolution=400)
    completed.sdf.directions[0] = 1
    until(at_rest, ticking.work)
    completed.sdf.directions[0] = 0
    until(at_rest, ticking.work)
    decodes = [one for one in connected.requests if isinstance(one, Submit) and one.task == "decode"]
    for submit in decodes:
        assert bool(submit.refinements) == (submit.weights is None)
        for refinement in submit.refinements:
            np.testing.assert_array_equal(refinement, REFINEMENT)
    assert decodes[0].refinements and decodes[-1].refinements
    assert any(submit.weights is not None for submit in decodes)


def test_the_material_shows_what_was_seen_and_goes_again(completed: bpy.types.Object) -> None:
    mine = bpy.data.materials.new("mine")
    completed.data.materials.append(mine)
    bpy.ops.sdf.show_observed()
    assert [material.name for material in completed.data.materials] == ["SDF observed", "mine"]
    nodes = completed.data.materials[0].node_tree.nodes
    assert [node.attribute_name for node in nodes if node.bl_idname == "ShaderNodeAttribute"] == ["observed"]
    bpy.ops.sdf.show_observed()
    assert list(completed.data.materials) == [mine]


def test_what_was_seen_is_carried_over_to_a_finer_mesh() -> None:
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(20_000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    finer = rng.normal(size=(500_000, 3)).astype(np.float32)
    finer /= np.linalg.norm(finer, axis=1, keepdims=True)
    before = new_mesh("coarse", sphere.astype(np.float32), np.zeros((1, 3), np.int32), (sphere[:, 0] > 0) * 1.0)
    found = carried(before, finer)
    clear = np.abs(finer[:, 0]) > 0.2
    assert np.mean((found[clear] > 0.5) == (finer[clear, 0] > 0)) > 0.9999
    assert carried(new_mesh("unknown", finer[:3], np.zeros((1, 3), np.int32)), finer) is None


def test_an_undo_never_leaves_a_coarse_mesh(completed: bpy.types.Object, connected: Backend) -> None:
    name = completed.name
    completed.sdf.directions[0] = 1
    until(lambda: submissions(connected), ticking.work)
    until(lambda: not session.jobs, ticking.work)
    bpy.ops.ed.undo_push(message="the slider is let go")  # with the coarse mesh
    until(at_rest, ticking.work)
    bpy.ops.ed.undo_push(message="something else")
    connected.requests.clear()
    bpy.ops.ed.undo()
    until(at_rest, ticking.work)
    assert resolutions(connected)[-1] == 200
    assert bpy.data.objects[name][live.SHOWN][-1] == 200


def test_what_was_seen_is_known_again_when_the_sliders_are_back(completed: bpy.types.Object) -> None:
    known = observed_of(completed.data)
    completed.sdf.directions[0] = 1
    until(at_rest, ticking.work)
    assert observed_of(completed.data) is None
    with pytest.raises(RuntimeError, match="Nothing is known of what was seen"):
        bpy.ops.sdf.show_observed()
    completed.sdf.directions[0] = 0
    until(at_rest, ticking.work)
    assert observed_of(completed.data) is not None and known is not None


def test_the_materials_of_single_faces_come_back(completed: bpy.types.Object) -> None:
    for name in ("red", "blue"):
        completed.data.materials.append(bpy.data.materials.new(name))
    before = [number % 2 for number in range(len(completed.data.polygons))]
    completed.data.polygons.foreach_set("material_index", before)
    bpy.ops.sdf.show_observed()
    assert [face.material_index for face in completed.data.polygons] == [0] * len(before)
    bpy.ops.sdf.show_observed()
    assert [face.material_index for face in completed.data.polygons] == before
    assert [material.name for material in completed.data.materials] == ["red", "blue"]


def test_a_full_mesh_that_is_outdated_is_not_waited_for(completed: bpy.types.Object, connected: Backend) -> None:
    def only_coarse(submit: Submit) -> list:
        return exact(submit) if submit.settings.resolution == live.COARSE else [Accepted(submit.job)]

    connected.answer = only_coarse
    completed.sdf.directions[0] = 1
    until(lambda: 200 in resolutions(connected), ticking.work)
    completed.sdf.directions[0] = 2
    [full] = [submit.job for submit in submissions(connected) if submit.settings.resolution == 200]
    until(lambda: connected.cancelled == [full], ticking.work)
    connected.say(Error("cancelled", "the job was cancelled", full))
    connected.answer = exact
    until(at_rest, ticking.work)
    np.testing.assert_allclose(remembered(completed).code, CODE + 2)
