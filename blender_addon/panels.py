"""The sidebar's tab. Draws what is, and changes nothing."""

import textwrap
from typing import Any

import bpy

from .launcher import Stage
from .live import DIRECTIONS, sliders
from .preferences import preferences
from .properties import settings
from .session import session
from .shapes import remembered
from .wire.client import State

ICONS: dict[State, Any] = {State.CONNECTED: "LINKED", State.REFUSED: "LOCKED", State.INCOMPATIBLE: "ERROR"}
# The directions of variation that have a slider at once; the others are in the object's properties.
SLIDERS = min(5, DIRECTIONS)
# Width of a letter, and of what stands beside a sentence, before Blender scales its interface.
LETTER, MARGIN, LEAST_LETTERS = 6.6, 90, 16


class _Sidebar:
    """Where all are."""

    layout: Any

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "DeepSDF"


class SDF_PT_shapes(_Sidebar, bpy.types.Panel):
    """The backend, and what is most often wanted of it."""

    bl_idname = "SDF_PT_shapes"
    bl_label = "SDF Shapes"

    def draw(self, context: bpy.types.Context) -> None:
        """Backend, notice, settings, buttons, jobs."""
        if session.state is not State.CLOSED:
            _draw_connection(self.layout, context)
        elif session.launcher.stage in (Stage.LOOKING, Stage.STARTING, Stage.RUNNING):
            _draw_start(self.layout, context)
        else:
            _draw_choice(self.layout)
        if session.notice:
            _draw_notice(self.layout, context)
        if session.state is State.CONNECTED:
            _draw_complete(self.layout, context)
        _draw_jobs(self.layout)


class _Below(_Sidebar):
    """What can be done once there is a backend."""

    bl_parent_id = "SDF_PT_shapes"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Seen with a backend only."""
        return session.state is State.CONNECTED


class SDF_PT_interpolate(_Below, bpy.types.Panel):
    """Shapes between objects."""

    bl_idname = "SDF_PT_interpolate"
    bl_label = "Interpolate"

    def draw(self, context: bpy.types.Context) -> None:
        """Settings and button."""
        chosen, column = settings(context.scene), self.layout.column()
        column.row().prop(chosen, "arrangement", expand=True)
        column.row().prop(chosen, "through", expand=True)
        if chosen.arrangement != "blend":
            column.prop(chosen, "steps")
        if chosen.arrangement == "animation":
            column.prop(chosen, "hold")
        column.operator("sdf.interpolate", icon="MOD_ARRAY")


class SDF_PT_sample(_Below, bpy.types.Panel):
    """New shapes."""

    bl_idname = "SDF_PT_sample"
    bl_label = "New Shapes and Variations"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        """Settings and buttons."""
        chosen, column = settings(context.scene), self.layout.column()
        column.prop(chosen, "count")
        column.operator("sdf.sample", icon="ADD")
        column.separator()
        column.prop(chosen, "spread")
        column.operator("sdf.vary", icon="DUPLICATE")


class SDF_PT_shape(_Below, bpy.types.Panel):
    """The active object, where it is a shape."""

    bl_idname = "SDF_PT_shape"
    bl_label = "Active Shape"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Seen where the active object is a shape."""
        return super().poll(context) and remembered(context.active_object) is not None

    def draw(self, context: bpy.types.Context) -> None:
        """Sliders, material, resolution."""
        item, column = context.active_object, self.layout.column()
        shape = remembered(item)
        if item is None or shape is None:
            return
        found = sliders(item)
        if len(shape.codes) > 1:
            column.prop(found, "blend", slider=True)
        if shape.grid:
            column.prop(found, "across", slider=True)
        column.operator("sdf.show_observed", icon="MATERIAL")
        row = column.row(align=True)
        row.prop(settings(context.scene), "resolution")
        row.operator("sdf.redo", text="", icon="FILE_REFRESH")
        directions = self.layout.column(align=True)
        directions.label(text=f"Main directions of {shape.model}")
        for number in range(min(SLIDERS, len(shape.code))):
            directions.prop(found, "directions", index=number, text=f"Direction {number + 1}", slider=True)


def _draw_choice(layout: bpy.types.UILayout) -> None:
    """There is no backend: the two ways to one."""
    box = layout.box()
    failed = session.launcher.stage is Stage.FAILED
    box.label(text="The backend does not run" if failed else "No backend yet", icon="ERROR" if failed else "INFO")
    large = box.column()
    large.scale_y = 1.4
    large.operator("sdf.start_backend", icon="PLAY")
    if failed:
        box.prop(preferences(), "python")
    box.separator()
    box.label(text="or one that runs already:")
    box.prop(preferences(), "address", text="")
    box.prop(preferences(), "key_file", text="Key")
    box.operator("sdf.connect", icon="LINKED")


def _draw_start(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    box = layout.box()
    row = box.row()
    row.label(text=f"Backend: {session.launcher.stage.value}", icon="SORTTIME")
    row.operator("sdf.stop_backend", text="", icon="X")
    if session.launcher.reason:
        _wrapped(box.column(align=True), session.launcher.reason, context)


def _draw_connection(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    box = layout.box()
    row = box.row()
    where = ", on this computer" if session.is_local and session.state is State.CONNECTED else ""
    row.label(text=session.state.value.capitalize() + where, icon=ICONS.get(session.state, "SORTTIME"))
    row.operator("sdf.stop_backend" if session.is_local else "sdf.disconnect", text="", icon="X")
    if session.welcome and session.state is State.CONNECTED:
        devices = ", ".join(dict.fromkeys(session.welcome.devices))
        _wrapped(box.column(align=True), session.lacking or f"Computes on {devices}", context)
        for model in session.welcome.models:
            if model.problem:
                _wrapped(box.column(align=True), f"{model.name} cannot be used: {model.problem}", context)


def _draw_notice(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    row = layout.box().row()
    _wrapped(row.column(align=True), session.notice, context)
    row.operator("sdf.dismiss", text="", icon="X", emboss=False)


def _draw_complete(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    chosen, column = settings(context.scene), layout.column()
    column.prop(chosen, "model", placeholder=next(iter(session.models), "none yet"))
    if chosen.model and session.models and chosen.model not in session.models:
        column.label(text="The backend has no such model", icon="ERROR")
    for name in ("quality", "resolution", "pose"):
        column.prop(chosen, name)
    if chosen.pose == "aligned":
        column.prop(chosen, "front")
    column.prop(chosen, "refine")
    column.prop(chosen, "candidates")
    column.prop(chosen, "seed")
    buttons = layout.column(align=True)
    buttons.scale_y = 1.4
    buttons.operator("sdf.complete", icon="MOD_REMESH")
    buttons.operator("sdf.reconstruct", icon="MESH_DATA")


def _draw_jobs(layout: bpy.types.UILayout) -> None:
    for job in session.jobs.values():
        if not job.quiet:
            row = layout.row()
            row.progress(factor=job.fraction, text=f"{job.label}: {job.phase}")
            row.operator("sdf.cancel", text="", icon="CANCEL").job = job.name


def _wrapped(layout: bpy.types.UILayout, text: str, context: bpy.types.Context) -> None:
    """A sentence on as many lines as the sidebar needs for it."""
    stored, region = context.preferences, context.region
    width = region.width / stored.system.ui_scale if stored and region else 0
    for line in textwrap.wrap(text, max(LEAST_LETTERS, round((width - MARGIN) / LETTER)), break_long_words=True):
        layout.label(text=line)


CLASSES = (SDF_PT_shapes, SDF_PT_interpolate, SDF_PT_sample, SDF_PT_shape)
