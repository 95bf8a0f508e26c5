"""The add-on in a real Blender without a window: what its operators do, with a scripted backend."""

from typing import Any

import bpy
import numpy as np
import pytest
from conftest import Backend, cube, exact, result, until, world
from mathutils import Euler

from blender_addon import ticking
from blender_addon.geometry import read_objects
from blender_addon.results import InPlace
from blender_addon.session import Job, session
from sdf_backend.wire.messages import Accepted, Error, Preview, Progress, Source, Submit


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
    assert (item["sdf_model"], item["sdf_seed"], list(item["sdf_code"])) == ("cubes", 7, [1, 2, 3, 4])
    [submit] = [request for request in connected.requests if isinstance(request, Submit)]
    assert (submit.task, submit.model, submit.settings.up, submit.settings.seed) == ("complete", "cubes", "+z", 7)
    assert submit.sources[0].vertices.dtype == np.float32


def test_a_parent_that_shears_and_other_units_change_nothing(connected: Backend) -> None:
    bpy.context.scene.unit_settings.system = "IMPERIAL"
    parent, child = cube(scale=(3, 1, 1), rotation=(0, 0, 0.5)), cube()
    child.parent, child.rotation_euler = parent, Euler((0, 0, 0.7))
    bpy.ops.sdf.reconstruct()
    np.testing.assert_allclose(world(result()), world(child), atol=1e-5)


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


def started() -> str:
    """A job as the operator submits it; in background mode that would wait for its end."""
    seen = read_objects([bpy.context.object], bpy.context.evaluated_depsgraph_get())
    submit = Submit("0123456789", "complete", "cubes", sources=(Source(seen.vertices, seen.faces),))
    session.submit(submit, Job(submit.job, "Cube", InPlace("Cube", "complete", "cubes", seen, {})))
    return submit.job


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
    with pytest.raises(RuntimeError, match="is no address"):
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
        "arrangement", "count", "front", "hold", "model", "name", "pose", "quality", "resolution", "rna_type", "seed",
        "spread", "steps", "through",
    ]  # fmt: skip
    assert connected.address.encode() not in (tmp_path / "scene.blend").read_bytes()
