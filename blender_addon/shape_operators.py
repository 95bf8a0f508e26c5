"""Operators that make shapes. What they are not given they take from `scene.sdf`; in background mode they wait."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bpy
import numpy as np

from . import interpolation, live, ticking
from .arrangements import Rows, Standing
from .geometry import GeometryError, observed_of, read_objects
from .material import hide_observed, show_observed, shows_observed
from .properties import RESOLUTIONS, Completing, Extraction, Interpolating, Sampling, settings
from .results import InPlace, Remade
from .session import KEEP_SECONDS, Job, explained, session
from .shapes import Remembered, extent, present_scene, remembered, title, upright, world_pose
from .wire.client import new_job
from .wire.codec import WireError
from .wire.messages import Source, Submit
from .wire.settings import Axis, TaskSettings

BACKGROUND_SECONDS = 3600.0


class _Shaping:
    """What all have in common."""

    properties: Any
    report: Callable[[set[str], str], None]

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Greyed out, with the reason as its tooltip, where it cannot work."""
        reason = session.lacking or ("" if context.mode == "OBJECT" else "Go to Object Mode first")
        if reason:
            cls.poll_message_set(reason)  # type: ignore[attr-defined]
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Ask the backend for it; in background mode, wait for the result too."""
        try:
            self.ask(context)
        except (GeometryError, WireError) as error:
            session.notice = explained(error)
            self.report({"ERROR"}, session.notice)
            return {"CANCELLED"}
        session.notice = ""
        wrong = ticking.finish(BACKGROUND_SECONDS) if bpy.app.background else []
        if wrong:
            self.report({"ERROR"}, "; ".join(wrong))
            return {"CANCELLED"}
        return {"FINISHED"}

    def ask(self, context: bpy.types.Context) -> None:
        """Submit the job; raises `GeometryError` and `WireError`."""
        raise NotImplementedError

    def chosen(self, context: bpy.types.Context, name: str) -> Any:
        """A setting: the operator's own where it was given, or else the scene's."""
        given = self.properties.is_property_set
        if name == "resolution" and not given(name) and hasattr(self, "quality") and given("quality"):
            return RESOLUTIONS[self.properties.quality]
        return getattr(self.properties if given(name) else settings(context.scene), name)

    def chosen_model(self, context: bpy.types.Context) -> str:
        """The model that was chosen, or the first that there is."""
        return self.chosen(context, "model") or next(iter(session.models), "")

    def wanted(self, context: bpy.types.Context) -> TaskSettings:
        """What is asked of a fit."""
        resolution, pose, front, quality = (
            self.chosen(context, name) for name in ("resolution", "pose", "front", "quality")
        )
        return TaskSettings(resolution, pose, Axis.POSITIVE_Z, front, quality)


class _Fit(_Shaping):
    """Completing and reconstructing."""

    task: str

    def ask(self, context: bpy.types.Context) -> None:
        """Submit what is selected, as one observation."""
        objects, model = _selected(context), self.chosen_model(context)
        own = {name: self.chosen(context, name) for name in ("refine", "candidates", "seed")}
        wanted = replace(self.wanted(context), **own)
        seen = read_objects(objects, context.evaluated_depsgraph_get())
        submit = Submit(new_job(), self.task, model, wanted, (Source(seen.vertices, seen.faces),), keep=KEEP_SECONDS)
        purpose = InPlace(submit.job, title(objects[0]), self.task, model, seen, vars(wanted))
        session.submit(submit, Job(submit.job, objects[0].name, purpose))


class SDF_OT_complete(_Fit, Completing, bpy.types.Operator):
    """Make the selected part of an object whole: a closed mesh, in its place and at its scale"""

    bl_idname = "sdf.complete"
    bl_label = "Complete"
    task = "complete"


class SDF_OT_reconstruct(_Fit, Completing, bpy.types.Operator):
    """Make a clean, closed mesh of a whole one, as the model understands it"""

    bl_idname = "sdf.reconstruct"
    bl_label = "Reconstruct"
    task = "reconstruct"


class SDF_OT_interpolate(_Shaping, Interpolating, bpy.types.Operator):
    """Make the shapes between the selected objects"""

    bl_idname = "sdf.interpolate"
    bl_label = "Interpolate"

    def ask(self, context: bpy.types.Context) -> None:
        """Submit the fit of what is no shape yet, or else the shapes between."""
        objects = _selected(context)
        given = self.properties.is_property_set("model")
        known = [] if given else [shape.model for shape in map(remembered, objects) if shape]
        arrangement, through, steps, hold = (
            self.chosen(context, name) for name in ("arrangement", "through", "steps", "hold")
        )
        model = known[0] if known else self.chosen_model(context)
        frame = context.scene.frame_current if context.scene else 1
        wish = interpolation.Wish(
            model, self.wanted(context), arrangement, through, steps, hold, frame, present_scene()
        )
        interpolation.begin(objects, context.evaluated_depsgraph_get(), wish)


class SDF_OT_sample(_Shaping, Sampling, bpy.types.Operator):
    """Make new shapes, as the model knows them, at the 3D cursor"""

    bl_idname = "sdf.sample"
    bl_label = "New Shapes"

    def ask(self, context: bpy.types.Context) -> None:
        """Submit the job."""
        model = self.chosen_model(context)
        _ask_samples(self, context, model, f"New {model}", upright(session.front(model)), _cursor(context), None)


class SDF_OT_vary(_Shaping, Sampling, bpy.types.Operator):
    """Make variations of the active shape, beside it"""

    bl_idname = "sdf.vary"
    bl_label = "Variations"

    def ask(self, context: bpy.types.Context) -> None:
        """Submit the job."""
        item, shape = _active_shape(context)
        pose, (low, size) = world_pose(item, shape.pose), extent(item)
        start = np.array([pose[0, 3], low[1] - BESIDE * size[1], pose[2, 3]])
        pose[:3, 3] = 0
        _ask_samples(self, context, shape.model, f"{title(item)} variation", pose, start, shape.code)


class SDF_OT_redo(_Shaping, Extraction, bpy.types.Operator):
    """Make the active shape anew at this resolution, without another fit"""

    bl_idname = "sdf.redo"
    bl_label = "Redo at This Resolution"

    def ask(self, context: bpy.types.Context) -> None:
        """Submit the job."""
        item, shape = _active_shape(context)
        resolution = self.chosen(context, "resolution")
        submit = live.request(item, shape, resolution)
        session.submit(submit, Job(submit.job, item.name, Remade(item, {"resolution": resolution})))


class SDF_OT_show_observed(bpy.types.Operator):
    """Show what was seen and what was filled in, in two colours; once more for the object's own material"""

    bl_idname = "sdf.show_observed"
    bl_label = "Seen and Filled In"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Give the selected shapes the material, or take it away where the first of them has it."""
        shapes = [item.data for item in _selected(context) if remembered(item)]
        meshes = [mesh for mesh in shapes if isinstance(mesh, bpy.types.Mesh)]
        if not meshes:
            self.report({"ERROR"}, f"There is no shape among the selected objects; {A_SHAPE}")
            return {"CANCELLED"}
        shown = shows_observed(meshes[0])
        known = [mesh for mesh in meshes if observed_of(mesh) is not None]
        if not shown and not known:
            self.report({"ERROR"}, "Nothing is known of what was seen of these shapes; select a completed one")
            return {"CANCELLED"}
        for mesh in meshes if shown else known:
            (hide_observed if shown else show_observed)(mesh)
        if not shown and isinstance(context.space_data, bpy.types.SpaceView3D):
            shading = context.space_data.shading
            if shading and shading.type in ("SOLID", "WIREFRAME"):  # which do not show materials
                shading.type = "MATERIAL"
        return {"FINISHED"}


A_SHAPE = "select a completed, reconstructed or new one"
# How far the first variation's middle stands before its shape, as a share of that one's depth.
BESIDE = 1.0


def _ask_samples(
    operator: _Shaping,
    context: bpy.types.Context,
    model: str,
    name: str,
    pose: np.ndarray,
    start: np.ndarray,
    near: np.ndarray | None,
) -> None:
    """Submit the job for new shapes, or for some near a code, (code_length,), that are laid out from `start`, (3,)."""
    count, seed, resolution = (operator.chosen(context, name) for name in ("count", "seed", "resolution"))
    spread = 0.0 if near is None else operator.chosen(context, "spread")
    submit = Submit(
        new_job(),
        "sample",
        model,
        TaskSettings(resolution, seed=seed),
        codes=None if near is None else near[None],
        poses=pose[None],
        count=count,
        spread=spread,
        keep=KEEP_SECONDS,
    )
    kept = {"task": "sample", "resolution": resolution, "seed": seed, "spread": spread}
    standings = [Standing(np.zeros(3), pose)] * count
    purpose = Rows(name, model, standings, kept, present_scene(), max(4, round(count**0.5)), start)
    session.submit(submit, Job(submit.job, f"{count} of {model}", purpose))


def _cursor(context: bpy.types.Context) -> np.ndarray:
    return np.array(context.scene.cursor.location, dtype=np.float64) if context.scene else np.zeros(3)


def _active_shape(context: bpy.types.Context) -> tuple[bpy.types.Object, Remembered]:
    item = context.active_object
    shape = remembered(item)
    if item is None or shape is None:
        raise GeometryError(f"The active object is no shape; {A_SHAPE}")
    return item, shape


def _selected(context: bpy.types.Context) -> list[bpy.types.Object]:
    """The selected objects, the active one first."""
    return sorted(context.selected_objects, key=lambda item: item != context.active_object)


CLASSES = (
    SDF_OT_complete,
    SDF_OT_reconstruct,
    SDF_OT_interpolate,
    SDF_OT_sample,
    SDF_OT_vary,
    SDF_OT_redo,
    SDF_OT_show_observed,
)
