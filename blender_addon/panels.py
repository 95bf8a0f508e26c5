"""The panels of the sidebar tab `DeepSDF`. They only draw; they change nothing."""

import textwrap
from typing import Any
from unicodedata import east_asian_width

import bpy

from .directions import DIRECTIONS
from .fit_operators import others_of
from .installer import Stage as Installation
from .interpolation import Arrangement
from .job_status import status_of
from .launcher import Stage
from .model_pictures import icon_of
from .preferences import chosen_model, preferences
from .presets import SDF_PT_presets
from .properties import panel_fields, scene_settings
from .session import capitalised, session
from .shapes import stored_shape
from .sliders import object_sliders
from .translations import translated, translated_message
from .verdict import verdict_of
from .wire.client import State
from .wire.messages import AUTO_MODEL
from .wire.settings import Pose

STATE_LABELS = {
    State.CLOSED: "Not Connected",
    State.CONNECTING: "Connecting",
    State.CONNECTED: "Connected",
    State.LOST: "Connection Lost",
    State.REFUSED: "Connection Refused",
    State.INCOMPATIBLE: "Incompatible Version",
}
STAGE_LABELS = {
    Stage.SEARCHING: "Searching for Python",
    Stage.STARTING: "Starting Backend",
    Stage.RUNNING: "Backend Running",
}
ICONS: dict[State, Any] = {State.CONNECTED: "LINKED", State.REFUSED: "LOCKED", State.INCOMPATIBLE: "ERROR"}
# Directions of variation with a slider in the panel; the rest are among the object's properties.
PANEL_DIRECTIONS = min(5, DIRECTIONS)
# Mean width of a character and width beside a text, in pixels at a resolution scale of 1; shortest line.
CHARACTER_WIDTH, MARGIN, MINIMUM_CHARACTERS = 6.6, 90, 16


class _SidebarPanel:
    """Location of all panels."""

    layout: Any

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "DeepSDF"


class SDF_PT_shapes(_SidebarPanel, bpy.types.Panel):
    """Backend and completion"""

    bl_idname = "SDF_PT_shapes"
    bl_label = "SDF Shapes"

    def draw_header_preset(self, context: bpy.types.Context) -> None:
        """Presets of the settings."""
        if session.state is State.CONNECTED:
            SDF_PT_presets.draw_panel_header(self.layout)

    def draw(self, context: bpy.types.Context) -> None:
        """Backend, settings, buttons."""
        if session.state is not State.CLOSED:
            _draw_connection(self.layout, context)
        elif session.launcher.is_active:
            _draw_start(self.layout, context)
        if session.state is State.CONNECTED:
            _draw_complete(self.layout, context)
        elif not session.launcher.is_active:
            _draw_no_backend(self.layout, context)


class _SubPanel(_SidebarPanel):
    """A panel that needs a backend."""

    bl_parent_id = "SDF_PT_shapes"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Visible while a backend is connected."""
        return session.state is State.CONNECTED


class SDF_PT_interpolate(_SubPanel, bpy.types.Panel):
    """Interpolation between objects"""

    bl_idname = "SDF_PT_interpolate"
    bl_label = "Interpolate"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        """Settings and button."""
        settings, column = scene_settings(context.scene), self.layout.column()
        column.row().prop(settings, "arrangement", expand=True)
        column.row().prop(settings, "through", expand=True)
        if settings.arrangement != Arrangement.BLEND:
            column.prop(settings, "steps")
        if settings.arrangement == Arrangement.ANIMATION:
            column.prop(settings, "hold")
        column.operator("sdf.interpolate", icon="MOD_ARRAY")


class SDF_PT_sample(_SubPanel, bpy.types.Panel):
    """New shapes and variations"""

    bl_idname = "SDF_PT_sample"
    bl_label = "New Shapes and Variations"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        """Settings and buttons."""
        settings, column = scene_settings(context.scene), self.layout.column()
        column.prop(settings, "count")
        column.prop(settings, "size")
        column.operator("sdf.sample", icon="ADD")
        column.separator()
        column.prop(settings, "spread")
        column.operator("sdf.vary", icon="DUPLICATE")


class SDF_PT_shape(_SubPanel, bpy.types.Panel):
    """The active shape"""

    bl_idname = "SDF_PT_shape"
    bl_label = "Active Shape"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Visible if the active object is a shape."""
        return super().poll(context) and stored_shape(context.active_object) is not None

    def draw(self, context: bpy.types.Context) -> None:
        """Sliders, material, resolution."""
        item, column = context.active_object, self.layout.column()
        shape = stored_shape(item)
        if item is None or shape is None:
            return
        _draw_verdict(column, item, context)
        sliders = object_sliders(item)
        if len(shape.codes) > 1:
            column.prop(sliders, "blend", slider=True)
        if shape.grid:
            column.prop(sliders, "across", slider=True)
        column.operator("sdf.show_observed", icon="MATERIAL")
        column.operator("sdf.show_uncertainty", icon="MATERIAL")
        column.operator("sdf.mark_as_asset", icon="ASSET_MANAGER")
        row = column.row(align=True)
        row.prop(sliders, "resolution")
        row.operator("sdf.redo", text="", icon="FILE_REFRESH")
        directions = self.layout.column(align=True)
        title = directions.row()
        title.label(text=translated("Main Directions of {model}", model=shape.model))
        title.operator("sdf.reset_directions", text="", icon="LOOP_BACK")
        for index in range(min(PANEL_DIRECTIONS, len(shape.code))):
            directions.prop(sliders, "directions", index=index, text=_direction_label(shape.model, index), slider=True)


class SDF_PT_messages(_SidebarPanel, bpy.types.Panel):
    """The last message and the jobs; the last panel, so that what comes and goes moves no button"""

    bl_parent_id = "SDF_PT_shapes"
    bl_idname = "SDF_PT_messages"
    bl_label = "Messages and Jobs"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Visible if there is anything to tell."""
        return bool(session.notice or session.listed_jobs or session.offered)

    def draw(self, context: bpy.types.Context) -> None:
        """Jobs, message."""
        _draw_jobs(self.layout)
        if session.offered:
            _draw_offer(self.layout, context)
        if session.notice:
            _draw_notice(self.layout, context)


def _direction_label(model: str, index: int) -> str:
    """The number of a direction and, once it is known, what it does."""
    directions = session.sliders.directions.get(model)
    name = directions.name(index) if directions else ""
    return f"{index + 1}: {name}" if name else translated("Direction {number}", number=str(index + 1))


def _draw_no_backend(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """Start or install a local backend, or connect to a running one."""
    box = layout.box()
    failed = session.launcher.stage is Stage.FAILED
    box.label(text="Backend Failed" if failed else "No Backend", icon="ERROR" if failed else "INFO")
    large = box.column()
    large.scale_y = 1.4
    large.operator("sdf.start_backend", icon="PLAY")
    _draw_installation(box, context)
    if failed:
        box.prop(preferences(), "python")
    if failed or session.installer.stage is Installation.FAILED:
        box.operator("sdf.copy_log", icon="COPYDOWN")
    box.separator()
    box.label(text="Or Connect to a Running Backend:")
    box.prop(preferences(), "address", text="")
    box.prop(preferences(), "key_file")
    box.operator("sdf.connect", icon="LINKED")


def _draw_installation(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    if not session.installer.is_active:
        layout.operator("sdf.install_backend", icon="IMPORT")
        return
    row = layout.row()
    _draw_wrapped(row.column(align=True), session.installer.reason, context)
    row.operator("sdf.cancel_installation", text="", icon="X")


def _draw_start(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    box = layout.box()
    row = box.row()
    row.label(text=STAGE_LABELS[session.launcher.stage], icon="SORTTIME")
    row.operator("sdf.stop_backend", text="", icon="X")
    if session.launcher.reason:
        _draw_wrapped(box.column(align=True), session.launcher.reason, context)


def _draw_connection(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    box = layout.box()
    row = box.row()
    local = " (Local)" if session.is_local and session.state is State.CONNECTED else ""
    row.label(text=STATE_LABELS[session.state] + local, icon=ICONS.get(session.state, "SORTTIME"))
    row.operator("sdf.stop_backend" if session.is_local else "sdf.disconnect", text="", icon="X")
    if session.welcome and session.state is State.CONNECTED:
        devices = ", ".join(dict.fromkeys(session.welcome.devices))
        _draw_wrapped(
            box.column(align=True),
            session.unavailable_reason or translated("Computing on {devices}", devices=devices),
            context,
        )
        for model in session.welcome.models:
            if model.problem:
                _draw_wrapped(box.column(align=True), f"{model.name} cannot be used: {model.problem}", context)


def _draw_offer(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """What was not done when Blender closed."""
    box = layout.box()
    names = ", ".join(record.source for record in session.offered)
    _draw_wrapped(box.column(align=True), translated("Not done when Blender closed: {names}", names=names), context)
    row = box.row(align=True)
    row.operator("sdf.fetch_results", icon="IMPORT")
    row.operator("sdf.forget_results", icon="X")


def _draw_notice(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    row = layout.box().row()
    _draw_wrapped(row.column(align=True), session.notice, context)
    row.operator("sdf.dismiss", text="", icon="X", emboss=False)


def _draw_verdict(layout: bpy.types.UILayout, item: bpy.types.Object, context: bpy.types.Context) -> None:
    """How well the model fits, and what to do if it does not; which input there is, and other candidates."""
    verdict = verdict_of(item)
    if verdict is None:
        return
    box = layout.box().column(align=True)
    for line in verdict.lines:
        box.label(text=line)
    if verdict.is_weak:
        _draw_wrapped(box, verdict.warning, context)
        box.operator("sdf.try_models", icon="VIEWZOOM")
        box.operator("sdf.try_orientations", icon="ORIENTATION_GIMBAL")
    layout.operator("sdf.toggle_input", icon="HIDE_OFF")
    if others_of(item):
        layout.operator("sdf.use_candidate", icon="CHECKMARK")


def _draw_complete(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    settings, column = scene_settings(context.scene), layout.column()
    row = column.split(factor=0.25)
    row.label(text="Model:")
    model = chosen_model(settings.model)
    row.menu("SDF_MT_models", text=capitalised(model), icon_value=icon_of(model))
    if session.models and model not in (AUTO_MODEL, *session.models):
        column.label(text="The backend does not have this model", icon="ERROR")
    for name in panel_fields():
        if _has_effect(name, Pose(settings.pose)):
            column.prop(settings, name)
    buttons = layout.column(align=True)
    buttons.scale_y = 1.4
    buttons.operator("sdf.complete", icon="MOD_REMESH")
    buttons.operator("sdf.complete_each", icon="DUPLICATE")
    buttons.operator("sdf.reconstruct", icon="MESH_DATA")


def _has_effect(name: str, pose: Pose) -> bool:
    """Whether a setting has an effect with this pose."""
    return pose is Pose.ALIGNED if name == "front" else pose is not Pose.FREE or name != "up"


def _draw_jobs(layout: bpy.types.UILayout) -> None:
    column = layout.column()
    for job in session.listed_jobs:
        row = column.row()
        row.progress(factor=job.fraction, text=f"{job.label}: {status_of(job)}")
        if job.name in session.jobs:
            row.operator("sdf.cancel", text="", icon="CANCEL").job = job.name
    if len(session.jobs) > 1:
        column.operator("sdf.cancel", text="Cancel All", icon="CANCEL")


def _draw_wrapped(layout: bpy.types.UILayout, text: str, context: bpy.types.Context) -> None:
    """A text, wrapped to the width of the sidebar."""
    stored, region = context.preferences, context.region
    width = region.width / stored.system.ui_scale if stored and region else 0
    characters = max(MINIMUM_CHARACTERS, round((width - MARGIN) / CHARACTER_WIDTH))
    text = translated_message(text)
    if any(east_asian_width(character) == "W" for character in text):
        characters //= 2
    for line in textwrap.wrap(text, characters, break_long_words=True):
        layout.label(text=line)


CLASSES = (SDF_PT_shapes, SDF_PT_interpolate, SDF_PT_sample, SDF_PT_shape, SDF_PT_messages)
