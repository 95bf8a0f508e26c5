"""Sliders of an object that is a shape: a coarse mesh follows a slider that moves, the full mesh one at rest.

Blender does not report the release of a slider; it counts as at rest once it has not moved for `SETTLED_SECONDS`. An
object has one job at a time; when it ends, the next one is submitted with the current values.
"""

import time
from typing import Any, cast

import bpy
import numpy as np

from .blending import blend_stored_shape
from .directions import DIRECTIONS, ask_for_directions
from .result_handlers import MeshReplacement
from .session import KEEP_SECONDS, NO_MORE_STEPS, Job, JobState, Steps, capitalised, session
from .shapes import StoredShape, find_object, stored_shape, unpack_refinement
from .wire.client import new_job
from .wire.codec import WireError
from .wire.messages import Result, Submit
from .wire.settings import TaskSettings

# Resolution of the mesh that follows a slider.
COARSE_RESOLUTION = 64
# A custom property: the slider values, and last the resolution, with which the mesh was made.
SHOWN = "sdf_shown"
# A custom property: the resolution of the full mesh.
RESOLUTION = "sdf_resolution"
SETTLED_SECONDS = 0.4
# From this distance along the directions on, in standard deviations, nothing is left of what the input showed. By eye.
FADE_LENGTH = 2.0


def _on_move(owner: "SDFSliders", context: bpy.types.Context) -> None:
    if not session.sliders.muted and isinstance(owner.id_data, bpy.types.Object):
        session.sliders.moved_at[owner.id_data.session_uid] = time.monotonic()


def _resolution(owner: "SDFSliders") -> int:
    return int(cast(Any, owner.id_data).get(RESOLUTION, TaskSettings().resolution))


def _set_resolution(owner: "SDFSliders", value: int) -> None:
    cast(Any, owner.id_data)[RESOLUTION] = value


class SDFSliders(bpy.types.PropertyGroup):
    """Sliders of a shape"""

    blend: bpy.props.FloatProperty(
        name="Blend", description="Position of the shape between the objects that it blends", min=0, max=1,
        subtype="FACTOR", update=_on_move,
    )  # fmt: skip
    across: bpy.props.FloatProperty(
        name="Across", description="Position of the shape between the two rows of the grid", min=0, max=1,
        subtype="FACTOR", update=_on_move,
    )  # fmt: skip
    directions: bpy.props.FloatVectorProperty(
        name="Directions", description="How far the shape is moved along what varies most in its category, in "
        "standard deviations", size=DIRECTIONS, soft_min=-2, soft_max=2, min=-4, max=4, update=_on_move,
    )  # fmt: skip

    resolution: bpy.props.IntProperty(
        name="Resolution", description="Cells along each side of the cube around this shape", default=256,
        min=16, max=1024, soft_max=512, get=_resolution, set=_set_resolution,
    )  # fmt: skip


def object_sliders(item: bpy.types.Object) -> SDFSliders:
    """The sliders of an object."""
    return cast(Any, item).sdf


def decode_request(item: bpy.types.Object, shape: StoredShape, resolution: int) -> Submit:
    """The job that meshes an object's shape at its slider values."""
    values = object_sliders(item)
    code, pose = blend_stored_shape(shape, values.blend, values.across)
    weights = np.array(values.directions, dtype=np.float64)[: len(code)]
    refinement, directions = unpack_refinement(shape.refinement), session.sliders.directions.get(shape.model)
    if len(shape.codes) > 1 or (weights.any() and directions is None):
        refinement = None  # it belongs to the fitted code, and that of the moved one is not known
    elif refinement is not None and directions is not None:
        code = code + weights @ directions.steps[: len(weights)]
        refinement = faded(refinement, weights)
        weights = np.zeros(0)
    return Submit(
        new_job(),
        "decode",
        shape.model,
        TaskSettings(resolution=resolution),
        codes=code[None],
        poses=pose[None],
        weights=weights[None] if weights.any() else None,
        refinements=() if refinement is None else (refinement,),
        keep=KEEP_SECONDS,
    )


def faded(refinement: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A residual field, (m, 2), for a shape that was moved along the directions; weaker, the farther it was moved."""
    strength = max(0.0, 1 - float(np.linalg.norm(weights)) / FADE_LENGTH)
    return (refinement * (1, strength)).astype(refinement.dtype)


def follow_moves() -> None:
    """Submit jobs for the sliders that have moved, and cancel those that are outdated."""
    for uid, moved_at in list(session.sliders.moved_at.items()):
        item = find_object(uid)
        shape = stored_shape(item)
        if item is None or shape is None:
            del session.sliders.moved_at[uid]
        elif _needs_directions(item, shape):
            _submit_directions(uid, item.name, shape)
        elif _last_submission(uid)[0] not in session.jobs:
            _follow(uid, item, shape, time.monotonic() - moved_at >= SETTLED_SECONDS)
        else:
            _cancel_outdated(uid, item)


def mark_outdated() -> None:
    """Treat sliders as moved whose mesh is coarse or of other values, as an undo or redo may restore it."""
    for item in bpy.data.objects:
        shown = item.get(SHOWN)
        if shown is not None and (list(shown[:-1]) != _values(item) or shown[-1] == COARSE_RESOLUTION):
            session.sliders.moved_at[item.session_uid] = time.monotonic()


def _needs_directions(item: bpy.types.Object, shape: StoredShape) -> bool:
    """Whether a fitted shape was moved along directions that are not known."""
    return bool(shape.refinement) and shape.model not in session.sliders.directions and any(_values(item)[2:])


def _submit_directions(uid: int, name: str, shape: StoredShape) -> None:
    try:
        ask_for_directions(shape)
    except WireError as error:
        session.sliders.moved_at.pop(uid, None)
        session.notify(f"{name} cannot follow its sliders: {capitalised(str(error))}")


def _follow(uid: int, item: bpy.types.Object, shape: StoredShape, settled: bool) -> None:
    values, resolution = _values(item), object_sliders(item).resolution if settled else COARSE_RESOLUTION
    if settled:
        del session.sliders.moved_at[uid]
    elif _last_submission(uid)[1][:-1] == values:
        return
    submit = decode_request(item, shape, resolution)
    shown = [*values, resolution]
    try:
        session.submit(submit, Job(submit.job, item.name, _SliderFollower(item, shown), hidden=True))
    except WireError as error:
        session.sliders.moved_at.pop(uid, None)
        session.notify(f"{item.name} cannot follow its sliders: {capitalised(str(error))}")
        return
    session.sliders.submitted[uid] = submit.job, shown


def _cancel_outdated(uid: int, item: bpy.types.Object) -> None:
    """Cancel the job for a full mesh if the sliders have moved on; a coarse one ends sooner than a cancel arrives."""
    name, shown = _last_submission(uid)
    if (
        shown[-1] != COARSE_RESOLUTION
        and shown[:-1] != _values(item)
        and session.jobs[name].state is not JobState.CANCELLING
    ):
        session.cancel(name)


def _last_submission(uid: int) -> tuple[str, list[float]]:
    return session.sliders.submitted.get(uid, ("", []))


def _values(item: bpy.types.Object) -> list[float]:
    values = object_sliders(item)
    return [values.blend, values.across, *values.directions]


class _SliderFollower(MeshReplacement):
    """Replaces the mesh of an object by that at some slider values."""

    undoable = False

    def __init__(self, item: bpy.types.Object, shown: list[float]) -> None:
        super().__init__(item)
        self._shown = shown

    def finish(self, result: Result) -> Steps:
        """Replace the mesh, and store the values."""
        super().finish(result)
        item = find_object(self._uid)
        if item:
            item[SHOWN] = self._shown
        return NO_MORE_STEPS
