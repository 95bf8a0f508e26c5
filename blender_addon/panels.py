"""The sidebar's tab. Draws what is, and changes nothing."""

from typing import Any

import bpy

from .preferences import preferences
from .properties import settings
from .session import session
from .wire.client import State

ICONS: dict[State, Any] = {State.CONNECTED: "LINKED", State.REFUSED: "LOCKED", State.INCOMPATIBLE: "ERROR"}


class SDF_PT_shapes(bpy.types.Panel):
    """In the 3D view's sidebar."""

    bl_idname = "SDF_PT_shapes"
    bl_label = "SDF Shapes"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "DeepSDF"

    def draw(self, context: bpy.types.Context) -> None:
        """Connection, settings, buttons, jobs."""
        self._draw_connection()
        if session.state is State.CONNECTED:
            self._draw_settings(context)
        self._draw_jobs()

    def _draw_connection(self) -> None:
        box = self.layout.box()
        if session.state is State.CLOSED:
            box.prop(preferences(), "address", text="")
            box.operator("sdf.connect", icon="LINKED")
        else:
            row = box.row()
            row.label(text=session.state.value.capitalize(), icon=ICONS.get(session.state, "SORTTIME"))
            row.operator("sdf.disconnect", text="", icon="X")
            if session.welcome and session.state is State.CONNECTED:
                box.label(text=", ".join(session.welcome.devices) or "The backend is starting its workers")
        if session.notice:
            _wrapped(box.column(align=True), session.notice)

    def _draw_settings(self, context: bpy.types.Context) -> None:
        chosen, column = settings(context.scene), self.layout.column()
        for name in ("model", "quality", "pose"):
            column.prop(chosen, name)
        if chosen.pose == "aligned":
            column.prop(chosen, "front")
        column.prop(chosen, "seed")
        buttons = self.layout.column(align=True)
        buttons.scale_y = 1.4
        buttons.operator("sdf.complete", icon="MOD_REMESH")
        buttons.operator("sdf.reconstruct", icon="MESH_DATA")

    def _draw_jobs(self) -> None:
        for job in session.jobs.values():
            row = self.layout.row()
            row.progress(factor=job.fraction, text=f"{job.source}: {job.phase}")
            row.operator("sdf.cancel", text="", icon="CANCEL").job = job.name


def _wrapped(layout: bpy.types.UILayout, text: str, width: int = 40) -> None:
    """A sentence on as many lines as the sidebar needs for it."""
    line = ""
    for word in [*text.split(), ""]:
        if word and len(line) + len(word) < width:
            line = f"{line} {word}".strip()
        else:
            layout.label(text=line)
            line = word


CLASSES = (SDF_PT_shapes,)
