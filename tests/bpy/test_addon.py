"""The operators of the add-on in a real Blender without a window, with a scripted backend."""

from dataclasses import replace
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import Backend, cube, exact, idle, result, submissions, submit_completion, two_cubes, until, world
from mathutils import Euler

from blender_addon import timer
from blender_addon.session import session
from sdf_backend.wire.messages import Accepted, Error, Preview, Progress, Submit


def test_a_completed_shape_has_the_location_of_its_source(connected: Backend) -> None:
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
    # In the units of the object, whose mean scale is 1 here.
    assert item.data.attributes["deviation"].data[7].value == pytest.approx(0.25)
    assert (item["sdf_model"], item["sdf_seed"], list(item["sdf_code"])) == ("cubes", 7, [1, 2, 3, 4])
    [submit] = submissions(connected)
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


def test_the_result_replaces_the_preview(connected: Backend) -> None:
    def with_preview(submit: Submit) -> list[Any]:
        coarse = Preview(submit.sources[0].vertices[:3], np.array([[0, 1, 2]], "<i4"))
        return [Accepted(submit.job), Progress(submit.job, "fitting", 0.5, coarse), *exact(submit)[2:]]

    connected.answer = with_preview
    cube()
    bpy.ops.sdf.complete()
    assert len(result().data.vertices) == 8
    assert len(bpy.data.meshes) == 2  # the coarse mesh is removed


def test_an_error_is_one_sentence_and_leaves_no_preview(connected: Backend) -> None:
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


def test_cancelling_a_running_job_removes_its_preview(connected: Backend) -> None:
    coarse = Preview(np.eye(3, dtype="<f4"), np.array([[0, 1, 2]], "<i4"))
    connected.answer = lambda submit: [Accepted(submit.job), Progress(submit.job, "fitting", 0.5, coarse)]
    cube()
    name = submit_completion()
    until(lambda: len(bpy.data.objects) == 2)
    assert session.jobs[name].phase == "fitting"
    assert bpy.ops.sdf.cancel(job=name) == {"FINISHED"}
    until(lambda: connected.cancelled == [name])
    connected.say(Error("cancelled", "the job was cancelled", name))
    until(lambda: not session.jobs)
    assert len(bpy.data.objects) == 1
    assert session.notice == ""


def test_an_empty_selection_is_refused_before_anything_is_sent(connected: Backend) -> None:
    with pytest.raises(RuntimeError, match="Nothing is selected"):
        bpy.ops.sdf.complete()
    assert not submissions(connected)


def test_operators_without_a_backend_report_the_reason(addon: Any) -> None:
    cube()
    with pytest.raises(RuntimeError, match="start one or connect to one first"):
        bpy.ops.sdf.complete()
    addon.address = "tcp://192.0.2.1:5577"
    with pytest.raises(RuntimeError, match="Blender is offline"):
        bpy.ops.sdf.connect()
    addon.address = "nonsense"
    with pytest.raises(RuntimeError, match="is not an address"):
        bpy.ops.sdf.connect()


def test_the_addon_can_be_disabled_during_a_job(connected: Backend) -> None:
    connected.answer = lambda submit: [Accepted(submit.job)]
    cube()
    submit_completion()
    bpy.ops.preferences.addon_disable(module="blender_addon")
    assert not hasattr(bpy.types.Scene, "sdf")
    bpy.ops.preferences.addon_enable(module="blender_addon")


def test_a_file_stores_settings_but_no_connection(connected: Backend, tmp_path: Any) -> None:
    bpy.context.scene.sdf.quality = "fine"
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert bpy.context.scene.sdf.quality == "fine"
    assert sorted(bpy.context.scene.sdf.bl_rna.properties.keys()) == [
        "arrangement", "candidates", "count", "front", "hold", "keep", "model", "name", "pose", "quads", "quality",
        "refine", "resolution", "rna_type", "seed", "size", "spread", "steps", "through", "triangles", "up",
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


def show_preview(backend: Backend) -> Any:
    """Let a running job display its preview; returns its result, which the backend has not sent."""
    coarse = Preview(np.eye(3, dtype="<f4"), np.array([[0, 1, 2]], "<i4"))
    held: list[Submit] = []
    backend.answer = lambda submit: held.append(submit) or [Progress(submit.job, "fitting", 0.5, coarse)]
    cube()
    bpy.ops.ed.undo_push(message="a cube")
    submit_completion()
    until(lambda: len(bpy.data.objects) == 2)
    return exact(held[0])[-1]


def test_an_undo_during_a_job_removes_the_preview_but_not_the_result(connected: Backend) -> None:
    result_message = show_preview(connected)
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    assert len(bpy.data.objects) == 1
    connected.say(result_message)
    until(lambda: not session.jobs and len(bpy.data.objects) == 2)
    assert result().name == "Cube completed"


def test_objects_may_be_deleted_and_renamed_during_a_job(connected: Backend) -> None:
    result_message = show_preview(connected)
    result().name = "mine now"
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    connected.say(result_message)
    until(lambda: not session.jobs and len(result().data.vertices) == 8)
    assert [item.name for item in bpy.data.objects] == ["Cube completed"]


def test_the_result_is_displayed_after_the_preview_was_deleted(connected: Backend) -> None:
    result_message = show_preview(connected)
    bpy.data.objects.remove(result())
    connected.say(result_message)
    until(lambda: not session.jobs and len(bpy.data.objects) == 2)


def test_opening_another_file_cancels_the_jobs(connected: Backend) -> None:
    result_message = show_preview(connected)
    bpy.ops.wm.read_homefile(use_empty=True)
    assert session.notice == "Another file was opened, so these jobs were cancelled: Cube"
    until(lambda: connected.cancelled)
    assert not bpy.data.objects
    connected.say(result_message)
    connected.answer = exact
    cube()
    assert bpy.ops.sdf.complete() == {"FINISHED"}  # its answer comes after the late result
    assert sorted(bpy.data.objects.keys()) == ["Cube", "Cube completed"]


def test_several_objects_are_one_observation(connected: Backend) -> None:
    left, right = two_cubes()
    bpy.ops.sdf.complete()
    [submit] = submissions(connected)
    assert len(submit.sources) == 1
    assert len(submit.sources[0].vertices) == 16
    assert {left.name, right.name} <= set(bpy.data.objects.keys())


def test_properties_of_an_operator_override_the_scene(connected: Backend) -> None:
    scene = bpy.context.scene.sdf
    scene.quality, scene.seed = "preview", 5
    assert scene.resolution == 96
    cube()
    bpy.ops.sdf.complete(pose="free")
    cube()
    bpy.ops.sdf.complete(quality="fine", seed=6)
    cube()
    bpy.ops.sdf.complete(resolution=33)
    asked = [request.settings for request in submissions(connected)]
    assert [(one.quality, one.resolution, one.seed, one.pose) for one in asked] == [
        ("preview", 96, 5, "free"), ("fine", 384, 6, "upright"), ("preview", 33, 5, "upright"),
    ]  # fmt: skip


def test_operators_have_a_seed_only_if_it_has_an_effect(addon: Any) -> None:
    seeded = {name for name in dir(bpy.ops.sdf) if "seed" in getattr(bpy.ops.sdf, name).get_rna_type().properties}
    assert {"complete", "reconstruct", "sample"} <= seeded and "interpolate" not in seeded


def test_every_operator_and_property_has_a_description(addon: Any) -> None:
    for operator in dir(bpy.ops.sdf):
        kind = getattr(bpy.ops.sdf, operator).get_rna_type()
        assert kind.description, operator
        for setting in kind.properties:
            assert setting.description or setting.is_hidden or setting.identifier == "rna_type", (operator, setting)
    for owner in (bpy.context.scene.sdf, addon):
        for setting in owner.bl_rna.properties:
            assert setting.description or setting.identifier in ("rna_type", "name", "bl_idname"), setting.identifier


def test_every_operator_is_in_a_menu_where_f3_finds_it(addon: Any) -> None:
    from blender_addon import fit_operators, importing, menus, operators, shape_operators

    shown: list[str] = []

    class Layout:
        def operator(self, name: str) -> None:
            shown.append(name)

        def separator(self) -> None:
            pass

    menus.SDF_MT_shapes.draw(type("Menu", (), {"layout": Layout()}), bpy.context)
    internal = {"sdf.tell", "sdf.dismiss", "sdf.choose_model"}  # only for the panel and the timer
    classes = (*operators.CLASSES, importing.SDF_OT_import, *fit_operators.CLASSES, *shape_operators.CLASSES)
    everything = {one.bl_idname for one in classes}
    assert set(shown) == everything - internal


@pytest.mark.parametrize(("confidence", "ambiguous"), [(0.05, True), (0.6, False)])
def test_an_ambiguous_pose_is_reported(connected: Backend, confidence: float, ambiguous: bool) -> None:
    def unsure(submit: Submit) -> list[Any]:
        accepted, progress, found = exact(submit)
        return [accepted, progress, replace(found, shapes=(replace(found.shapes[0], confidence=confidence),))]

    connected.answer = unsure
    cube()
    bpy.ops.sdf.complete()
    expected = "The pose of Cube completed is ambiguous; set Candidates to 2 to see both answers"
    assert session.notice == (expected if ambiguous else "")
    assert result()["sdf_confidence"] == confidence


def test_further_candidates_are_in_a_row_in_front_of_the_best(connected: Backend) -> None:
    source = cube(location=(1, 2, 3), scale=(1, 3, 1), rotation=(0, 0, 1))
    source.name = "Vase"
    bpy.ops.sdf.complete(candidates=3)
    best, *alternatives = (
        bpy.data.objects[name] for name in ("Vase completed", "Vase completed 02", "Vase completed 03")
    )
    np.testing.assert_allclose(world(best), world(source), atol=1e-5)
    assert bpy.context.selected_objects == [best]
    assert [round(item["sdf_code"][0]) for item in (best, *alternatives)] == [1, 2, 3]
    front = world(best)[:, 1].min()
    for item in alternatives:
        assert world(item)[:, 1].max() < front
        np.testing.assert_allclose(np.ptp(world(item), axis=0), np.ptp(world(source), axis=0), atol=1e-5)
        front = world(item)[:, 1].min()


@pytest.mark.parametrize("end", ["disconnect", "connect"])
def test_closing_the_connection_removes_the_preview(connected: Backend, end: str) -> None:
    show_preview(connected)
    assert getattr(bpy.ops.sdf, end)() == {"FINISHED"}
    until(lambda: len(bpy.data.objects) == 1)


def test_disabling_the_addon_removes_the_preview(connected: Backend) -> None:
    show_preview(connected)
    bpy.ops.preferences.addon_disable(module="blender_addon")
    assert len(bpy.data.objects) == 1
    bpy.ops.preferences.addon_enable(module="blender_addon")


def test_a_preview_that_an_undo_restores_is_removed(connected: Backend) -> None:
    result_message = show_preview(connected)
    bpy.ops.ed.undo_push(message="a click during the job")
    connected.say(result_message)
    until(lambda: not session.jobs and len(result().data.vertices) == 8)
    bpy.ops.ed.undo()
    assert [item.name for item in bpy.data.objects] == ["Cube"]
    bpy.ops.ed.redo()
    assert len(result().data.vertices) == 8


@pytest.fixture
def one_step_per_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer displays one step per tick, as on a busy computer."""
    monkeypatch.setattr(timer, "DISPLAY_SECONDS", 0.0)


def test_an_undo_as_soon_as_a_result_is_visible_can_be_redone(connected: Backend, one_step_per_tick: None) -> None:
    result_message = show_preview(connected)
    bpy.ops.ed.undo_push(message="a click during the job")
    connected.say(result_message)
    until(lambda: "Cube completed" in bpy.data.objects)
    bpy.ops.ed.undo()
    assert [item.name for item in bpy.data.objects] == ["Cube"]
    bpy.ops.ed.redo()
    assert len(result().data.vertices) == 8


def test_an_undo_while_candidates_are_being_displayed_loses_none(connected: Backend, one_step_per_tick: None) -> None:
    result_message = show_preview(connected)
    bpy.ops.ed.undo_push(message="a click during the job")
    connected.say(replace(result_message, shapes=result_message.shapes * 3))
    until(lambda: "Cube completed 02" in bpy.data.objects)
    bpy.ops.ed.undo()
    until(idle)
    names = ["Cube", "Cube completed", "Cube completed 02", "Cube completed 03"]
    assert sorted(bpy.data.objects.keys()) == names
    bpy.ops.ed.undo()
    assert [item.name for item in bpy.data.objects] == ["Cube"]
    bpy.ops.ed.redo()
    assert sorted(bpy.data.objects.keys()) == names


def test_a_preview_is_not_saved(connected: Backend, tmp_path: Any) -> None:
    show_preview(connected)
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert [item.name for item in bpy.data.objects] == ["Cube"]


def test_a_result_is_displayed_when_edit_mode_ends(connected: Backend) -> None:
    result_message = show_preview(connected)
    source = bpy.data.objects["Cube"]
    bpy.context.view_layer.objects.active = source
    bpy.ops.object.mode_set(mode="EDIT")
    connected.say(result_message)
    until(lambda: not session.jobs)
    timer.work()
    assert len(session.deliveries) == 1
    assert (bpy.context.mode, source.mode) == ("EDIT_MESH", "EDIT")
    with pytest.raises(RuntimeError, match="Switch to Object Mode first"):
        bpy.ops.sdf.complete()
    bpy.ops.object.mode_set(mode="OBJECT")
    until(lambda: len(result().data.vertices) == 8)


def test_a_result_is_added_to_the_scene_of_its_request(connected: Backend) -> None:
    result_message = show_preview(connected)
    first = bpy.context.scene
    bpy.context.window.scene = other = bpy.data.scenes.new("Other") if bpy.context.window else None
    connected.say(result_message)
    until(lambda: not session.jobs and len(result().data.vertices) == 8)
    assert result().name in first.objects
    assert result().name not in other.objects


def test_disabling_the_addon_cancels_its_jobs(connected: Backend) -> None:
    connected.answer = lambda submit: [Accepted(submit.job)]
    cube()
    name = submit_completion()
    until(lambda: connected.requests)
    bpy.ops.preferences.addon_disable(module="blender_addon")
    until(lambda: connected.cancelled == [name], lambda: None)
    bpy.ops.preferences.addon_enable(module="blender_addon")


def test_a_result_is_marked_as_an_asset_and_then_never_replaced(connected: Backend) -> None:
    source = cube()
    source.name = "Vase"
    bpy.ops.sdf.complete()
    item = bpy.context.object
    assert bpy.ops.sdf.mark_as_asset() == {"FINISHED"} == bpy.ops.sdf.mark_as_asset()
    assert item.asset_data.description == "Completed from Vase with the model cubes, which explains 100% of it"
    assert sorted(tag.name for tag in item.asset_data.tags) == ["completed", "cubes"]
    assert item.preview
    bpy.ops.object.select_all(action="DESELECT")
    source.select_set(True)
    bpy.ops.sdf.complete()
    assert {"Vase completed", "Vase completed.001"} <= set(bpy.data.objects.keys())


def test_marking_as_an_asset_can_be_undone(connected: Backend) -> None:
    cube()
    bpy.ops.sdf.complete()
    bpy.ops.ed.undo_push(message="a result")
    bpy.ops.sdf.mark_as_asset()
    bpy.ops.ed.undo_push(message="Mark as Asset")
    bpy.ops.ed.undo()
    assert result().asset_data is None


def test_a_new_shape_can_be_an_asset_and_a_cube_cannot(connected: Backend) -> None:
    bpy.ops.sdf.sample(count=1)
    bpy.ops.sdf.mark_as_asset()
    assert bpy.context.object.asset_data.description == "New with the model cubes"
    cube()
    with pytest.raises(RuntimeError, match="not a shape"):
        bpy.ops.sdf.mark_as_asset()
