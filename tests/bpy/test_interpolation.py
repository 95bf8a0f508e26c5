"""Interpolation, new shapes and variations, and how the scene displays them; with a scripted backend."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import CODE, REFINEMENT, Backend, cube, exact, submissions, two_cubes, world
from mathutils import Matrix

from blender_addon.blending import blend_along_path, blend_on_grid, interpolate_pose
from blender_addon.shapes import stored_shape, upright_pose, world_pose
from sdf_backend.wire.messages import Result, Submit


def shapes() -> list[bpy.types.Object]:
    return sorted(bpy.data.collections["SDF Shapes"].objects, key=lambda item: item.name)


def spans(items: list[bpy.types.Object]) -> list[tuple[float, float]]:
    """The interval of each along x."""
    bpy.context.view_layer.update()
    across = [[(item.matrix_world @ vertex.co)[0] for vertex in item.data.vertices] for item in items]
    return sorted((min(one), max(one)) for one in across)


def test_steps_are_in_a_row_and_do_not_touch(connected: Backend) -> None:
    two_cubes()
    assert bpy.ops.sdf.interpolate(steps=5) == {"FINISHED"}
    assert [submit.task for submit in submissions(connected)] == ["encode", "interpolate"]
    items = shapes()
    assert [item.name for item in items] == [f"Left to Right {number:02}" for number in range(1, 6)]
    assert all(before[1] < after[0] for before, after in pairwise(spans(items)))
    codes = np.array([stored_shape(item).code for item in items])
    np.testing.assert_allclose(codes, np.linspace(CODE, CODE + 1, 5))
    sizes = [np.cbrt(np.linalg.det(stored_shape(item).pose[:3, :3])) for item in items]
    np.testing.assert_allclose(sizes, np.geomspace(sizes[0], sizes[-1], 5), rtol=1e-5)
    assert set(bpy.context.selected_objects) == set(items)


def test_objects_that_store_a_shape_are_not_fitted_again(connected: Backend) -> None:
    cube(location=(-3, 0, 0))
    bpy.ops.sdf.complete()
    first = bpy.context.object
    cube(location=(3, 0, 0))
    bpy.ops.sdf.complete()
    first.select_set(True)
    connected.requests.clear()
    before = set(shapes())
    bpy.ops.sdf.interpolate(steps=3)
    [submit] = submissions(connected)
    assert submit.task == "interpolate" and submit.count == 3 and len(submit.refinements) == 2
    for refinement in submit.refinements:
        np.testing.assert_array_equal(refinement, REFINEMENT)
    # The ends keep their residual fields; the shapes between them have none.
    between = [item for item in shapes() if item not in before]
    assert [bool(stored_shape(item).refinement) for item in between] == [True, False, True]


def test_residual_fields_of_fitted_objects_are_submitted(connected: Backend) -> None:
    def with_refinement(submit: Submit) -> list[Any]:
        *before, result = exact(submit)
        if submit.task == "encode":
            first, second = result.shapes
            result = Result(submit.job, (replace(first, refinement=REFINEMENT), second))
        return [*before, result]

    connected.answer = with_refinement
    two_cubes()
    bpy.ops.sdf.interpolate(steps=3)
    _, submit = submissions(connected)
    assert [len(refinement) for refinement in submit.refinements] == [len(REFINEMENT), 0]


def test_the_world_pose_includes_later_transforms_of_the_object(connected: Backend) -> None:
    cube(location=(-3, 0, 0))
    bpy.ops.sdf.complete()
    item = bpy.context.object
    moved = Matrix.Translation((5, 6, 7)) @ Matrix.Rotation(1.0, 4, "Z") @ Matrix.Scale(3, 4)
    item.matrix_world = moved @ item.matrix_world
    bpy.context.view_layer.update()
    shape = stored_shape(item)
    np.testing.assert_allclose(world_pose(item, shape.pose), np.array(moved) @ np.diag([1, 1, 1, 1.0])
                               @ np.array(Matrix.Translation((-3, 0, 0))), atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("hold", [1, 4])
def test_one_step_of_an_animation_is_visible_at_a_time(connected: Backend, hold: int) -> None:
    two_cubes()
    scene = bpy.context.scene
    scene.frame_set(11)
    bpy.ops.sdf.interpolate(arrangement="animation", steps=3, hold=hold)
    visible = []
    for frame in range(1, 11 + 5 * hold):
        scene.frame_set(frame)
        [item] = [item for item in shapes() if not item.hide_viewport]
        assert item.hide_render is False
        visible.append(shapes().index(item))
    assert visible == [0] * 10 + [number for number in range(3) for _ in range(hold)] + [2] * (2 * hold)
    assert scene.frame_end >= 10 + 3 * hold


def test_the_corners_of_a_grid_are_the_four_objects(connected: Backend) -> None:
    for name, place in {"d": (5, 5, 0), "a": (-5, -5, 0), "c": (-4, 5, 0), "b": (4, -5, 0)}.items():
        cube(location=place).name = name
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.sdf.interpolate(through="grid", steps=3)
    encode, decode = submissions(connected)
    assert [round(float(np.ptp(source.vertices))) for source in encode.sources] == [2, 2, 2, 2]
    np.testing.assert_allclose(decode.codes[[0, 2, 6, 8]], CODE + np.arange(4)[:, None])
    np.testing.assert_allclose(decode.codes[4], CODE + 1.5)
    items = shapes()
    assert len(items) == 9
    assert items[0].name == "a to d 01"
    assert len({round(item.location.x, 3) for item in items}) == len({round(item.location.y, 3) for item in items}) == 3


def test_all_corners_may_have_the_same_source(connected: Backend) -> None:
    for place in ((-5, -5, 0), (5, -5, 0), (-5, 5, 0), (5, 5, 0)):
        cube(location=place).name = "Vase"
        bpy.context.object.name = "Vase"
        bpy.ops.sdf.complete()
        bpy.context.object["sdf_source"] = "Vase"
    bpy.ops.object.select_all(action="DESELECT")
    for item in shapes():
        item.select_set(True)
    bpy.ops.sdf.interpolate(through="grid", steps=2)
    assert len(shapes()) == 8


@pytest.mark.parametrize(
    ("selected", "settings", "sentence"),
    [
        (1, {}, "two or more objects; select another one"),
        (3, {"through": "grid"}, "four corners, but 3 objects are selected; select four"),
        (4, {"through": "grid", "arrangement": "animation"}, "choose Path"),
        (3, {"steps": 2}, "2 steps were requested for 3 objects; use 3 to 64 steps"),
        (4, {"through": "grid", "steps": 9}, "81 steps were requested for 4 objects; use 4 to 64 steps"),
    ],
)
def test_a_selection_that_cannot_be_interpolated_is_reported(
    connected: Backend, selected: int, settings: dict, sentence: str
) -> None:
    for number in range(selected):
        cube(location=(5 * number, 0, 0))
    bpy.ops.object.select_all(action="SELECT")
    with pytest.raises(RuntimeError, match=sentence):
        bpy.ops.sdf.interpolate(**settings)
    assert not submissions(connected)


def test_shapes_of_two_models_are_not_mixed(connected: Backend) -> None:
    for model in ("cubes", "spheres"):
        cube()
        bpy.ops.sdf.complete(model=model)
    bpy.ops.object.select_all(action="DESELECT")
    for item in shapes():
        item.select_set(True)
    with pytest.raises(RuntimeError, match="select shapes of one model"):
        bpy.ops.sdf.interpolate()


def test_new_shapes_are_upright_at_the_cursor(connected: Backend) -> None:
    bpy.context.scene.cursor.location = (1, 2, 3)
    assert bpy.ops.sdf.sample(count=5, seed=3) == {"FINISHED"}
    [submit] = submissions(connected)
    assert (submit.task, submit.count, submit.settings.seed, submit.codes) == ("sample", 5, 3, None)
    items = shapes()
    assert tuple(items[0].location)[:2] == (1, 2)
    assert len({tuple(item.location) for item in items}) == 5
    np.testing.assert_allclose(submit.poses[0], upright_pose("+z"))
    assert [world(item)[:, 2].min() for item in items] == pytest.approx([3.0] * 5)  # they stand at the cursor


def test_new_shapes_move_on(connected: Backend) -> None:
    for size in (2.0, 6.0, 2.0):
        bpy.ops.sdf.sample(count=2, size=size)
    assert [submit.settings.seed for submit in submissions(connected)] == [0, 1, 2]
    np.testing.assert_allclose(submissions(connected)[1].poses[0], upright_pose("+z") @ np.diag([3, 3, 3, 1]))
    items = shapes()
    assert [item.name for item in items] == [f"New cubes {number:02}" for number in range(1, 7)]
    boxes = [(world(item).min(axis=0)[:2], world(item).max(axis=0)[:2]) for item in items]
    for index, (low, high) in enumerate(boxes):
        for other_low, other_high in boxes[index + 1 :]:
            assert (low > other_high).any() or (high < other_low).any()
    bpy.ops.sdf.sample(count=1, seed=0)
    assert submissions(connected)[-1].settings.seed == 0  # as asked for


def test_variations_are_in_front_of_their_shape(connected: Backend) -> None:
    cube(location=(2, 0, 0))
    bpy.ops.sdf.complete()
    source = bpy.context.object
    bpy.ops.sdf.vary(count=3, spread=0.5)
    submit = submissions(connected)[-1]
    assert (submit.task, submit.count, submit.spread) == ("sample", 3, 0.5)
    np.testing.assert_allclose(submit.codes, CODE[None])
    assert len(shapes()) == 4
    assert all(item.location.y < -1 for item in shapes() if item is not source)
    floor = world(source)[:, 2].min()
    assert [world(item)[:, 2].min() for item in shapes()] == pytest.approx([floor] * 4)
    bpy.ops.object.select_all(action="DESELECT")
    bpy.context.view_layer.objects.active = source
    bpy.ops.sdf.vary(count=3, spread=0.5)
    assert [one.settings.seed for one in submissions(connected) if one.task == "sample"] == [0, 1]


def test_operators_on_shapes_report_a_selection_without_one(connected: Backend) -> None:
    cube()
    for operator in (bpy.ops.sdf.vary, bpy.ops.sdf.redo, bpy.ops.sdf.show_observed):
        with pytest.raises(RuntimeError, match="(not a|no) shape; select a completed"):
            operator()


@pytest.mark.parametrize(
    ("front", "ahead"), [("+z", (0, 0, 1)), ("-z", (0, 0, -1)), ("+x", (1, 0, 0)), ("-x", (-1, 0, 0))]
)
def test_upright_shapes_face_the_viewer(front: str, ahead: tuple[int, ...]) -> None:
    turn = upright_pose(front)[:3, :3]
    np.testing.assert_allclose(turn @ (0, 1, 0), (0, 0, 1))
    np.testing.assert_allclose(turn @ ahead, (0, -1, 0))
    assert np.linalg.det(turn) == pytest.approx(1)


def test_rotation_scale_and_translation_are_interpolated_evenly() -> None:
    first = Matrix.Translation((1, 2, 3)) @ Matrix.Scale(2, 4)
    second = Matrix.Translation((3, 2, 1)) @ Matrix.Rotation(3.0, 4, "X") @ Matrix.Scale(8, 4)
    half = Matrix.Translation((2, 2, 2)) @ Matrix.Rotation(1.5, 4, "X") @ Matrix.Scale(4, 4)
    for weight, expected in ((0.0, first), (0.5, half), (1.0, second)):
        np.testing.assert_allclose(
            interpolate_pose(np.array(first), np.array(second), weight), np.array(expected), atol=1e-5
        )


def test_a_path_and_a_grid_reach_their_keyframes() -> None:
    codes, poses = np.eye(4), np.stack([np.diag([size, size, size, 1.0]) for size in (1, 2, 3, 4)])
    for number in range(4):
        code, pose = blend_along_path(codes, poses, number / 3)
        np.testing.assert_allclose(code, codes[number], atol=1e-9)
        np.testing.assert_allclose(pose, poses[number], atol=1e-6)
        code, pose = blend_on_grid(codes, poses, number % 2, number // 2)
        np.testing.assert_allclose(code, codes[number], atol=1e-9)
        np.testing.assert_allclose(pose, poses[number], atol=1e-6)


def test_names_include_the_source_of_a_shape(connected: Backend) -> None:
    cube().name = "Vase"
    bpy.ops.sdf.complete()
    whole = bpy.context.object
    bpy.ops.sdf.vary(count=1)
    assert bpy.context.object.name == "Vase variation"
    whole.select_set(True)
    whole.location.x -= 10
    bpy.ops.sdf.interpolate(steps=2)
    assert [item.name for item in bpy.context.selected_objects] == [f"Vase to Vase variation 0{n}" for n in (1, 2)]
