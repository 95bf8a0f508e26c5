"""The add-on in a real Blender without a window: what its operators do, with a scripted backend."""

from dataclasses import replace
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import Backend, cube, exact, result, started, two_cubes, until, world
from mathutils import Euler

from blender_addon import ticking
from blender_addon.session import session
from sdf_backend.wire.messages import Accepted, Error, Preview, Progress, Submit


def test_a_completed_shape_stands_where_its_source_does(connected: Backend) -> None:
    source = cube(location=(3, -4, 5), rotation=(0.3, 0.5, 2), scale=(1, 2, 0.5))
    source.name = "Vase"
    bpy.context.scene.sdf.seed = 7
    assert bpy.ops.sdf.complete() == {"FINISHED"}
    item = result()
    assert item.name == "Vase completed"
    np.testing.assert_allclose(world(item), world(source), atol=1e-5)
    np.testing.assert_allclose(item.matrix_world.translation, source.matrix_world.translation)
    assert bpy.context.selected_objects == [item]
    assert bpy.context.active_object == item
    assert item.data.attributes["observed"].data[0].value == 0.0
    # As large in the world as the backend says, whatever the object's scale, which here is 1 on the average.
    assert item.data.attributes["deviation"].data[7].value == pytest.approx(0.25)
    assert (item["sdf_model"], item["sdf_seed"], list(item["sdf_code"])) == ("cubes", 7, [1, 2, 3, 4])
    [submit] = [request for request in connected.requests if isinstance(request, Submit)]
    assert (submit.task, submit.model, submit.settings.up, submit.settings.seed) == ("complete", "cubes", "+z", 7)
    assert submit.sources[0].vertices.dtype == np.float32


def placed(**place: Any) -> bpy.types.Object:
    return cube(**place)


def mirrored() -> bpy.types.Object:
    item = cube(rotation=(1, 2, 3))
    item.scale = (-1, 2, 0.3)
    return item


def in_a_sheared_parent() -> bpy.types.Object:
    parent, child = cube(scale=(3, 1, 1), rotation=(0, 0, 0.5)), cube()
    child.parent, child.rotation_euler = parent, Euler((0, 0, 0.7))
    return child


def in_feet() -> bpy.types.Object:
    bpy.context.scene.unit_settings.system = "IMPERIAL"
    bpy.context.scene.unit_settings.scale_length = 0.3048
    return cube(location=(1, 2, 3), scale=(1, 2, 3))


@pytest.mark.parametrize(
    "source",
    [
        lambda: placed(location=(30, -4, 5), rotation=(0.3, 0.5, 2)),
        lambda: placed(scale=(1, 2, 0.5), rotation=(3, 2, 1)),
        lambda: placed(scale=(1e-3, 1e-3, 2e-3), location=(0.01, 0, 0)),
        lambda: placed(scale=(4e3, 1e3, 1e3), location=(1e4, 0, 0)),
        mirrored,
        in_a_sheared_parent,
        in_feet,
    ],
    ids=["turned", "scaled", "tiny", "huge", "mirrored", "in a sheared parent", "in feet"],
)
@pytest.mark.parametrize("task", ["complete", "reconstruct"])
def test_an_exact_result_coincides_with_its_source(connected: Backend, source: Any, task: str) -> None:
    item = source()
    getattr(bpy.ops.sdf, task)()
    size = np.ptp(world(item), axis=0).max()
    assert np.abs(world(result()) - world(item)).max() <= 1e-5 * size


def test_a_preview_is_replaced_by_the_result(connected: Backend) -> None:
    def with_preview(submit: Submit) -> list[Any]:
        coarse = Preview(submit.sources[0].vertices[:3], np.array([[0, 1, 2]], "<i4"))
        return [Accepted(submit.job), Progress(submit.job, "fitting", 0.5, coarse), *exact(submit)[2:]]

    connected.answer = with_preview
    cube()
    bpy.ops.sdf.complete()
    assert len(result().data.vertices) == 8
    assert len(bpy.data.meshes) == 2  # the coarse one is gone


def test_an_error_is_one_sentence_and_leaves_nothing(connected: Backend) -> None:
    def refuse(submit: Submit) -> list[Any]:
        coarse = Preview(submit.sources[0].vertices[:3], np.array([[0, 1, 2]], "<i4"))
        error = Error("bad_input", "it is flat; give it a thickness", submit.job)
        return [Accepted(submit.job), Progress(submit.job, "fitting", 0.5, coarse), error]

    connected.answer = refuse
    cube().name = "Plane"
    with pytest.raises(RuntimeError, match="Plane: it is flat; give it a thickness"):
        bpy.ops.sdf.complete()
    assert [item.name for item in bpy.data.objects] == ["Plane"]
    assert len(bpy.data.meshes) == 1


def test_a_job_that_runs_can_be_cancelled_and_takes_its_preview_along(connected: Backend) -> None:
    coarse = Preview(np.eye(3, dtype="<f4"), np.array([[0, 1, 2]], "<i4"))
    connected.answer = lambda submit: [Accepted(submit.job), Progress(submit.job, "fitting", 0.5, coarse)]
    cube()
    name = started()
    until(lambda: len(bpy.data.objects) == 2, ticking.work)
    assert session.jobs[name].phase == "fitting"
    assert bpy.ops.sdf.cancel(job=name) == {"FINISHED"}
    until(lambda: connected.cancelled == [name], ticking.work)
    connected.say(Error("cancelled", "the job was cancelled", name))
    until(lambda: not session.jobs, ticking.work)
    assert len(bpy.data.objects) == 1
    assert session.notice == ""


def test_what_cannot_be_asked_is_refused_before_anything_is_sent(connected: Backend) -> None:
    with pytest.raises(RuntimeError, match="Nothing is selected"):
        bpy.ops.sdf.complete()
    assert not [request for request in connected.requests if isinstance(request, Submit)]


def test_without_a_backend_the_buttons_say_so(addon: Any) -> None:
    cube()
    with pytest.raises(RuntimeError, match="start one or connect to one first"):
        bpy.ops.sdf.complete()
    addon.address = "tcp://192.0.2.1:5577"
    with pytest.raises(RuntimeError, match="set to be offline"):
        bpy.ops.sdf.connect()
    addon.address = "nonsense"
    with pytest.raises(RuntimeError, match="is not an address"):
        bpy.ops.sdf.connect()


def test_the_addon_can_be_switched_off_in_mid_job(connected: Backend) -> None:
    connected.answer = lambda submit: [Accepted(submit.job)]
    cube()
    started()
    bpy.ops.preferences.addon_disable(module="blender_addon")
    assert not hasattr(bpy.types.Scene, "sdf")
    bpy.ops.preferences.addon_enable(module="blender_addon")


def test_nothing_of_the_connection_is_saved_in_a_file(connected: Backend, tmp_path: Any) -> None:
    bpy.context.scene.sdf.quality = "fine"
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert bpy.context.scene.sdf.quality == "fine"
    assert sorted(bpy.context.scene.sdf.bl_rna.properties.keys()) == [
        "arrangement", "candidates", "count", "front", "hold", "model", "name", "pose", "quality", "refine",
        "resolution", "rna_type", "seed", "spread", "steps", "through",
    ]  # fmt: skip
    assert connected.address.encode() not in (tmp_path / "scene.blend").read_bytes()


def test_one_undo_removes_one_result(connected: Backend) -> None:
    source = cube().name
    bpy.ops.ed.undo_push(message="a cube")
    bpy.ops.sdf.complete()
    bpy.ops.object.select_all(action="DESELECT")
    bpy.data.objects[source].select_set(True)
    bpy.ops.sdf.reconstruct()
    names = {f"{source} completed", f"{source} reconstructed"}
    assert names <= set(bpy.data.objects.keys())
    bpy.ops.ed.undo()
    assert set(bpy.data.objects.keys()) == {source, f"{source} completed"}
    bpy.ops.ed.undo()
    assert set(bpy.data.objects.keys()) == {source}
    bpy.ops.ed.redo()
    assert list(bpy.data.objects[f"{source} completed"]["sdf_code"]) == [1, 2, 3, 4]


def in_the_middle(backend: Backend) -> Any:
    """A job that runs, and whose preview is to be seen; the rest of its answer is given back."""
    coarse = Preview(np.eye(3, dtype="<f4"), np.array([[0, 1, 2]], "<i4"))
    held: list[Submit] = []
    backend.answer = lambda submit: held.append(submit) or [Progress(submit.job, "fitting", 0.5, coarse)]
    cube()
    bpy.ops.ed.undo_push(message="a cube")
    started()
    until(lambda: len(bpy.data.objects) == 2, ticking.work)
    return exact(held[0])[-1]


def test_an_undo_in_mid_job_takes_the_preview_and_not_the_result(connected: Backend) -> None:
    rest = in_the_middle(connected)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    assert len(bpy.data.objects) == 1
    connected.say(rest)
    until(lambda: not session.jobs and len(bpy.data.objects) == 2, ticking.work)
    assert result().name == "Cube completed"


def test_objects_may_be_deleted_and_renamed_in_mid_job(connected: Backend) -> None:
    rest = in_the_middle(connected)
    result().name = "mine now"
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    connected.say(rest)
    until(lambda: not session.jobs and len(result().data.vertices) == 8, ticking.work)
    assert [item.name for item in bpy.data.objects] == ["Cube completed"]


def test_a_preview_that_was_deleted_comes_again_as_the_result(connected: Backend) -> None:
    rest = in_the_middle(connected)
    bpy.data.objects.remove(result())
    connected.say(rest)
    until(lambda: not session.jobs and len(bpy.data.objects) == 2, ticking.work)


def test_another_file_ends_the_jobs_of_this_one(connected: Backend) -> None:
    rest = in_the_middle(connected)
    bpy.ops.wm.read_homefile(use_empty=True)
    assert session.notice == "Another file was opened, so these jobs were cancelled: Cube"
    connected.say(rest)
    until(lambda: connected.cancelled, ticking.work)
    for _ in range(20):
        ticking.work()
    assert not bpy.data.objects
    connected.answer = exact
    cube()
    assert bpy.ops.sdf.complete() == {"FINISHED"}


def test_several_objects_are_one_observation(connected: Backend) -> None:
    left, right = two_cubes()
    bpy.ops.sdf.complete()
    [submit] = [request for request in connected.requests if isinstance(request, Submit)]
    assert len(submit.sources) == 1
    assert len(submit.sources[0].vertices) == 16
    assert {left.name, right.name} <= set(bpy.data.objects.keys())


def test_an_operator_prefers_what_it_is_given_to_the_scene(connected: Backend) -> None:
    scene = bpy.context.scene.sdf
    scene.quality, scene.seed = "preview", 5
    assert scene.resolution == 96
    cube()
    bpy.ops.sdf.complete(pose="free")
    cube()
    bpy.ops.sdf.complete(quality="fine", seed=6)
    cube()
    bpy.ops.sdf.complete(resolution=33)
    asked = [request.settings for request in connected.requests if isinstance(request, Submit)]
    assert [(one.quality, one.resolution, one.seed, one.pose) for one in asked] == [
        ("preview", 96, 5, "free"), ("fine", 384, 6, "upright"), ("preview", 33, 5, "upright"),
    ]  # fmt: skip


def test_a_seed_is_asked_for_where_it_decides_something(addon: Any) -> None:
    seeded = {name for name in dir(bpy.ops.sdf) if "seed" in getattr(bpy.ops.sdf, name).get_rna_type().properties}
    assert {"complete", "reconstruct", "sample"} <= seeded and "interpolate" not in seeded


def test_every_operator_and_setting_explains_itself(addon: Any) -> None:
    for operator in dir(bpy.ops.sdf):
        kind = getattr(bpy.ops.sdf, operator).get_rna_type()
        assert kind.description, operator
        for setting in kind.properties:
            assert setting.description or setting.is_hidden or setting.identifier == "rna_type", (operator, setting)
    for owner in (bpy.context.scene.sdf, addon):
        for setting in owner.bl_rna.properties:
            assert setting.description or setting.identifier in ("rna_type", "name", "bl_idname"), setting.identifier


def test_all_that_it_does_is_in_a_menu_and_so_found_by_f3(addon: Any) -> None:
    from blender_addon import menus, operators, shape_operators

    shown: list[str] = []

    class Layout:
        def operator(self, name: str) -> None:
            shown.append(name)

        def separator(self) -> None:
            pass

    menus.SDF_MT_shapes.draw(type("Menu", (), {"layout": Layout()}), bpy.context)
    internal = {"sdf.tell", "sdf.dismiss"}  # what the panel alone has a use for
    everything = {one.bl_idname for one in (*operators.CLASSES, *shape_operators.CLASSES)}
    assert set(shown) == everything - internal


@pytest.mark.parametrize(("confidence", "told"), [(0.05, True), (0.6, False)])
def test_an_answer_that_may_as_well_be_another_says_so(connected: Backend, confidence: float, told: bool) -> None:
    def unsure(submit: Submit) -> list[Any]:
        accepted, progress, found = exact(submit)
        return [accepted, progress, replace(found, shapes=(replace(found.shapes[0], confidence=confidence),))]

    connected.answer = unsure
    cube()
    bpy.ops.sdf.complete()
    assert ("could stand otherwise as well" in session.notice) is told
    assert result()["sdf_confidence"] == confidence


def test_other_candidates_stand_in_a_row_before_the_best(connected: Backend) -> None:
    source = cube(location=(1, 2, 3), scale=(1, 3, 1), rotation=(0, 0, 1))
    source.name = "Vase"
    bpy.ops.sdf.complete(candidates=3)
    best, *others = (bpy.data.objects[name] for name in ("Vase completed", "Vase completed 02", "Vase completed 03"))
    np.testing.assert_allclose(world(best), world(source), atol=1e-5)
    assert bpy.context.selected_objects == [best]
    assert [round(item["sdf_code"][0]) for item in (best, *others)] == [1, 2, 3]
    front = world(best)[:, 1].min()
    for item in others:
        assert world(item)[:, 1].max() < front
        np.testing.assert_allclose(np.ptp(world(item), axis=0), np.ptp(world(source), axis=0), atol=1e-5)
        front = world(item)[:, 1].min()


@pytest.mark.parametrize("end", ["disconnect", "connect"])
def test_no_preview_stays_where_the_connection_is_ended(connected: Backend, end: str) -> None:
    in_the_middle(connected)
    assert getattr(bpy.ops.sdf, end)() == {"FINISHED"}
    until(lambda: len(bpy.data.objects) == 1, ticking.work)


def test_no_preview_stays_where_the_addon_is_switched_off(connected: Backend) -> None:
    in_the_middle(connected)
    bpy.ops.preferences.addon_disable(module="blender_addon")
    assert len(bpy.data.objects) == 1
    bpy.ops.preferences.addon_enable(module="blender_addon")


def test_a_preview_that_an_undo_brings_back_does_not_stay(connected: Backend) -> None:
    rest = in_the_middle(connected)
    bpy.ops.ed.undo_push(message="a click in mid-job")
    connected.say(rest)
    until(lambda: not session.jobs and len(result().data.vertices) == 8, ticking.work)
    bpy.ops.ed.undo()
    assert [item.name for item in bpy.data.objects] == ["Cube"]
    bpy.ops.ed.redo()
    assert len(result().data.vertices) == 8


def test_a_preview_is_not_saved(connected: Backend, tmp_path: Any) -> None:
    in_the_middle(connected)
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert [item.name for item in bpy.data.objects] == ["Cube"]


def test_a_result_waits_until_edit_mode_is_left(connected: Backend) -> None:
    rest = in_the_middle(connected)
    source = bpy.data.objects["Cube"]
    bpy.context.view_layer.objects.active = source
    bpy.ops.object.mode_set(mode="EDIT")
    connected.say(rest)
    until(lambda: not session.jobs, ticking.work)
    for _ in range(10):
        ticking.work()
    assert (bpy.context.mode, source.mode) == ("EDIT_MESH", "EDIT")
    with pytest.raises(RuntimeError, match="Go to Object Mode first"):
        bpy.ops.sdf.complete()
    bpy.ops.object.mode_set(mode="OBJECT")
    until(lambda: len(result().data.vertices) == 8, ticking.work)


def test_a_result_comes_into_the_scene_from_which_it_was_asked_for(connected: Backend) -> None:
    rest = in_the_middle(connected)
    first = bpy.context.scene
    bpy.context.window.scene = other = bpy.data.scenes.new("Other") if bpy.context.window else None
    connected.say(rest)
    until(lambda: not session.jobs and len(result().data.vertices) == 8, ticking.work)
    assert result().name in first.objects
    assert result().name not in other.objects


def test_the_cancel_of_a_job_arrives_when_the_addon_is_switched_off(connected: Backend) -> None:
    connected.answer = lambda submit: [Accepted(submit.job)]
    cube()
    name = started()
    until(lambda: connected.requests, ticking.work)
    bpy.ops.preferences.addon_disable(module="blender_addon")
    until(lambda: connected.cancelled == [name], lambda: None)
    bpy.ops.preferences.addon_enable(module="blender_addon")
