"""Results: their verdict, trials of other models and up axes, completing again, and what a result leaves alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bpy
import pytest
from conftest import Backend, cube, exact, result, submissions, submit_completion, until

from blender_addon import timer
from blender_addon.fit_operators import others_of
from blender_addon.job_status import status_of
from blender_addon.session import session
from blender_addon.verdict import verdict_of
from sdf_backend.wire.messages import AUTO_MODEL, Accepted, ModelInfo, Submit, Welcome


def explaining(share: Callable[[Submit], float]) -> Callable[[Submit], list[Any]]:
    """Answers that explain a share of the input."""

    def answer(submit: Submit) -> list[Any]:
        *before, found = exact(submit)
        shapes = tuple(replace(shape, explained=share(submit)) for shape in found.shapes)
        return [*before, replace(found, shapes=shapes)]

    return answer


def with_models(backend: Backend, *names: str) -> None:
    """Let the backend offer these models."""
    backend._server.welcome = Welcome("fake 1.0", models=tuple(map(ModelInfo, names)), devices=("cpu",))
    bpy.ops.sdf.disconnect()
    bpy.ops.sdf.connect()
    assert session.models == list(names)


def asked(backend: Backend) -> list[tuple[str, str, str]]:
    return [(one.task, one.model, one.settings.up) for one in submissions(backend)]


# --- the verdict ---


def test_a_good_result_says_how_much_it_explains(connected: Backend) -> None:
    connected.answer = explaining(lambda submit: 0.97)
    cube()
    bpy.ops.sdf.complete(up="+z")
    verdict = verdict_of(result())
    assert verdict is not None and not verdict.is_weak and session.notice == ""
    assert verdict.lines == ["Explains 97% of the input", "Pose: Certain", "Category: Fits"]


def test_a_wrong_model_does_not_pass_in_silence(connected: Backend) -> None:
    connected.answer = explaining(lambda submit: 0.4)
    cube()
    bpy.ops.sdf.complete(up="+z")
    verdict = verdict_of(result())
    assert verdict is not None and verdict.is_weak
    assert session.notice.startswith("Only 40% of the input is explained by cubes")


def test_every_other_model_is_tried_and_the_best_one_replaces_the_result(connected: Backend) -> None:
    with_models(connected, "cubes", "spoons", "lamps")
    connected.answer = explaining(lambda submit: {"cubes": 0.3, "spoons": 0.5, "lamps": 0.95}[submit.model])
    cube()
    bpy.ops.sdf.complete(up="+z", seed=4)
    connected.requests.clear()
    assert bpy.ops.sdf.try_models() == {"FINISHED"}
    assert asked(connected) == [
        ("encode", "spoons", "+z"), ("encode", "lamps", "+z"), ("complete", "lamps", "+z"),
    ]  # fmt: skip
    assert (result().name, result()["sdf_model"], result()["sdf_seed"]) == ("Cube completed", "lamps", 4)
    assert session.notice == "lamps explains most: cubes 30%, spoons 50%, lamps 95%."


@pytest.fixture
def choosing(connected: Backend, addon: Any) -> Backend:
    """A backend that takes every input for a lamp where no model is named, and an add-on that names none."""
    addon.model = ""
    with_models(connected, "cubes", "lamps")

    def answer(submit: Submit) -> list[Any]:
        *before, found = exact(submit)
        chosen = "lamps" if submit.model == AUTO_MODEL else ""
        return [*before, replace(found, shapes=tuple(replace(shape, model=chosen) for shape in found.shapes))]

    connected.answer = answer
    return connected


def test_a_result_of_auto_stores_the_model_that_was_chosen(choosing: Backend) -> None:
    cube()
    bpy.ops.sdf.complete(up="+z")
    assert asked(choosing) == [("complete", "auto", "+z")]
    assert result()["sdf_model"] == "lamps"
    choosing.requests.clear()
    bpy.ops.sdf.try_models()
    assert asked(choosing)[0] == ("encode", "cubes", "+z")  # every other one


def test_new_shapes_of_auto_are_of_the_model_of_the_active_shape(choosing: Backend) -> None:
    bpy.ops.sdf.sample(count=1)
    assert submissions(choosing)[-1].model == "cubes"  # the first; there is none yet
    cube()
    bpy.ops.sdf.complete(up="+z")
    bpy.context.view_layer.objects.active = bpy.data.objects["Cube completed"]
    bpy.ops.sdf.sample(count=1)
    assert submissions(choosing)[-1].model == "lamps"


def test_inputs_of_an_interpolation_get_the_model_that_was_chosen(choosing: Backend) -> None:
    first, second = cube(), cube(location=(3, 0, 0))
    first.select_set(True)
    second.select_set(True)
    bpy.ops.sdf.interpolate(steps=3)
    assert [(one.task, one.model) for one in submissions(choosing)] == [("encode", "auto"), ("interpolate", "lamps")]


def test_a_model_that_is_not_much_better_changes_nothing(connected: Backend) -> None:
    with_models(connected, "cubes", "spoons")
    connected.answer = explaining(lambda submit: {"cubes": 0.3, "spoons": 0.31}[submit.model])
    cube()
    bpy.ops.sdf.complete(up="+z")
    before = result().session_uid
    bpy.ops.sdf.try_models()
    assert result().session_uid == before
    assert session.notice == "Nothing explains Cube completed much better: cubes 30%, spoons 31%."


def test_any_orientation_is_tried(connected: Backend) -> None:
    connected.answer = explaining(lambda submit: 0.95 if submit.settings.pose == "free" else 0.2)
    cube()
    bpy.ops.sdf.complete(up="+z")
    bpy.ops.sdf.try_orientations()
    assert result()["sdf_pose"] == "free" and result()["sdf_explained"] == pytest.approx(0.95)
    assert session.notice == "any orientation explains most: upright along +Z 20%, any orientation 95%."


def test_trials_need_the_input(connected: Backend) -> None:
    source = cube()
    bpy.ops.sdf.complete()
    bpy.data.objects.remove(source)
    with pytest.raises(RuntimeError, match="Cube completed cannot be made again, because Cube is gone"):
        bpy.ops.sdf.try_orientations()


# --- the up axis ---


def test_another_up_axis_is_tried_where_z_explains_little(connected: Backend) -> None:
    connected.answer = explaining(lambda submit: 0.95 if submit.settings.up == "+y" else 0.3)
    cube()
    bpy.ops.sdf.complete()
    tried = [up for task, _, up in asked(connected) if task == "encode"]
    assert sorted(tried) == ["+x", "+y", "-x", "-y", "-z"]
    assert result()["sdf_up"] == "+y" and result().name == "Cube completed"
    assert session.notice == "+Y is taken as up: that explains 95%, 30% with +Z."


def test_the_first_result_is_displayed_where_no_up_axis_is_better(connected: Backend) -> None:
    connected.answer = explaining(lambda submit: 0.5)
    cube()
    bpy.ops.ed.undo_push(message="a cube")
    bpy.ops.sdf.complete()
    assert [task for task, *_ in asked(connected)] == ["complete", *["encode"] * 5]
    assert result()["sdf_up"] == "+z"
    assert session.notice.startswith("No other up axis explains more. Only 50%")
    bpy.ops.ed.undo()
    assert [item.name for item in bpy.data.objects] == ["Cube"]


@pytest.mark.parametrize("given", [{"up": "+z"}, {"up": "+y"}, {"pose": "free"}, {"pose": "aligned"}])
def test_a_known_up_axis_is_not_doubted(connected: Backend, given: dict[str, str]) -> None:
    connected.answer = explaining(lambda submit: 0.5)
    cube()
    bpy.ops.sdf.complete(**given)
    assert asked(connected) == [("complete", "cubes", given.get("up", "+z"))]


def test_a_front_along_the_up_axis_is_refused_with_a_sentence(connected: Backend) -> None:
    cube()
    with pytest.raises(RuntimeError, match=r"Up \+y and front -y are parallel; they must be perpendicular"):
        bpy.ops.sdf.complete(pose="aligned", up="+y", front="-y")


# --- again ---


def test_completing_a_result_again_completes_its_input(connected: Backend) -> None:
    source = cube(location=(1, 2, 3))
    bpy.ops.sdf.complete(seed=1)
    first = result().session_uid
    assert bpy.context.active_object == result()
    bpy.ops.sdf.complete(seed=2)
    again = submissions(connected)[1].sources[0]
    assert len(again.vertices) == len(source.data.vertices)
    assert (result().name, result()["sdf_seed"]) == ("Cube completed", 2)
    assert result().session_uid != first and bpy.context.selected_objects == [result()]
    bpy.context.view_layer.objects.active = source
    bpy.ops.object.select_all(action="DESELECT")
    source.select_set(True)
    bpy.ops.sdf.complete(seed=3)
    assert result()["sdf_seed"] == 3


def renamed(item: bpy.types.Object) -> None:
    item.name = "Mine"


def moved(item: bpy.types.Object) -> None:
    item.location.x += 1


def edited(item: bpy.types.Object) -> None:
    item.data.vertices.add(1)


@pytest.mark.parametrize("change", [renamed, moved, edited])
def test_a_result_that_the_user_has_changed_is_kept(connected: Backend, change: Callable[..., None]) -> None:
    source = cube()
    bpy.ops.sdf.complete()
    kept = result()
    change(kept)
    bpy.ops.object.select_all(action="DESELECT")
    source.select_set(True)
    bpy.context.view_layer.objects.active = source
    bpy.ops.sdf.complete()
    assert len(bpy.data.collections["SDF Shapes"].objects) == 2
    assert kept.name in bpy.data.objects


def test_the_same_is_not_asked_for_twice(connected: Backend) -> None:
    connected.answer = lambda submit: [Accepted(submit.job)]
    source = cube()
    submit_completion()
    with pytest.raises(Exception, match="Cube is being completed already; cancel that to start over"):
        submit_completion()
    assert len(session.jobs) == 1 and source.name in bpy.data.objects


def test_each_selected_object_is_completed_by_itself(connected: Backend) -> None:
    for place in (0, 4, 8):
        cube(location=(place, 0, 0))
    bpy.ops.object.select_all(action="SELECT")
    assert bpy.ops.sdf.complete_each() == {"FINISHED"}
    assert [len(submit.sources[0].vertices) for submit in submissions(connected)] == [8, 8, 8]
    names = {"Cube completed", "Cube.001 completed", "Cube.002 completed"}
    assert {item.name for item in bpy.context.selected_objects} == names
    bpy.ops.sdf.complete_each(seed=1)
    assert {item.name for item in bpy.data.collections["SDF Shapes"].objects} == names


def test_a_candidate_takes_the_place_of_the_best(connected: Backend) -> None:
    cube(location=(1, 2, 3))
    bpy.ops.sdf.complete(candidates=3)
    best, chosen = bpy.data.objects["Cube completed"], bpy.data.objects["Cube completed 02"]
    place = best.matrix_world.copy()
    assert len(others_of(chosen)) == 2
    with bpy.context.temp_override(active_object=chosen):
        assert bpy.ops.sdf.use_candidate() == {"FINISHED"}
    assert (result().name, result()["sdf_code"][0], result().matrix_world) == ("Cube completed", 2, place)
    with bpy.context.temp_override(active_object=result()):
        assert not bpy.ops.sdf.use_candidate.poll()


# --- what a result leaves alone ---


def test_a_result_leaves_a_new_selection_alone(connected: Backend) -> None:
    held: list[Submit] = []
    connected.answer = lambda submit: held.append(submit) or [Accepted(submit.job)]
    cube()
    submit_completion()
    until(lambda: held)
    other = cube(location=(5, 0, 0))
    connected.say(exact(held[0])[-1])
    until(lambda: not session.jobs and result())
    assert bpy.context.active_object == other and bpy.context.selected_objects == [other]


def test_the_input_is_hidden_and_shown(connected: Backend) -> None:
    source = cube()
    bpy.ops.sdf.complete(keep="nothing")
    assert not source.hide_get()
    bpy.ops.sdf.toggle_input()
    assert source.hide_get() and source.hide_render
    bpy.ops.sdf.toggle_input()
    assert not source.hide_get() and not source.hide_render


@pytest.mark.parametrize("how", ["hidden", "excluded"])
def test_a_result_in_a_collection_that_is_not_visible_says_so(connected: Backend, how: str) -> None:
    source = cube()
    bpy.ops.sdf.complete()
    layer = bpy.context.view_layer.layer_collection.children["SDF Shapes"]
    setattr(layer, "hide_viewport" if how == "hidden" else "exclude", True)
    source.select_set(True)
    bpy.context.view_layer.objects.active = source
    bpy.ops.sdf.complete(seed=1)
    assert "is not visible, because the collection SDF Shapes is hidden or excluded" in session.notice


def test_a_result_that_waits_for_object_mode_says_so(connected: Backend) -> None:
    held: list[Submit] = []
    connected.answer = lambda submit: held.append(submit) or [Accepted(submit.job)]
    cube()
    submit_completion()
    until(lambda: held)
    bpy.ops.object.mode_set(mode="EDIT")
    connected.say(exact(held[0])[-1])
    until(lambda: session.deliveries)
    timer.work()
    assert [status_of(job) for job in session.listed_jobs] == ["Finished, waits until you return to Object Mode"]
    bpy.ops.object.mode_set(mode="OBJECT")
    until(lambda: not session.deliveries)
    assert session.listed_jobs == []


class Modal:
    def __init__(self, idname: str) -> None:
        self.bl_idname = idname


def test_only_operators_of_blender_hold_a_result_back(addon: Any) -> None:
    assert timer.is_of_blender(Modal("TRANSFORM_OT_translate"))  # type: ignore[arg-type]
    assert not timer.is_of_blender(Modal("SDF_OT_tell"))  # type: ignore[arg-type]


# --- linked objects ---


@pytest.fixture
def linked(connected: Backend, tmp_path: Any) -> bpy.types.Object:
    """A completed cube that is linked from another file."""
    cube()
    bpy.ops.sdf.complete()
    path = str(tmp_path / "library.blend")
    bpy.data.libraries.write(path, {result()})
    for local in list(bpy.data.objects):
        bpy.data.objects.remove(local)
    with bpy.data.libraries.load(path, link=True) as (_, wanted):
        wanted.objects = ["Cube completed"]
    [item] = wanted.objects
    bpy.context.scene.collection.objects.link(item)
    bpy.context.view_layer.update()
    item.select_set(True)
    bpy.context.view_layer.objects.active = item
    return item


def test_a_linked_shape_is_not_changed(linked: bpy.types.Object) -> None:
    for change in (bpy.ops.sdf.redo, bpy.ops.sdf.show_observed):
        with pytest.raises(RuntimeError, match="is linked from another file; choose Object > Relations > Make Local"):
            change()


def test_a_linked_object_is_completed_without_being_changed(linked: bpy.types.Object) -> None:
    assert bpy.ops.sdf.complete(keep="input") == {"FINISHED"}
    assert not bpy.context.active_object.library and bpy.context.active_object != linked
