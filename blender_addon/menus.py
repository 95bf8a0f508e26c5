"""The same operators in Blender's own menus: what is in no menu is not found by F3."""

from typing import Any, cast

import bpy

from .operators import SDF_OT_cancel, SDF_OT_connect, SDF_OT_disconnect, SDF_OT_start_backend, SDF_OT_stop_backend
from .shape_operators import CLASSES as SHAPE_OPERATORS


class SDF_MT_shapes(bpy.types.Menu):
    """Everything that the add-on does."""

    bl_idname = "SDF_MT_shapes"
    bl_label = "SDF Shapes"

    def draw(self, context: bpy.types.Context) -> None:
        """One line for each operator."""
        for operator in SHAPE_OPERATORS:
            self.layout.operator(operator.bl_idname)
        self.layout.separator()
        for operator in (
            SDF_OT_cancel,
            SDF_OT_start_backend,
            SDF_OT_stop_backend,
            SDF_OT_connect,
            SDF_OT_disconnect,
        ):
            self.layout.operator(operator.bl_idname)


def attach() -> None:
    """Put the menu into the 3D view's Object menu."""
    cast(Any, bpy.types.VIEW3D_MT_object).append(_draw)


def detach() -> None:
    """Take it out again."""
    cast(Any, bpy.types.VIEW3D_MT_object).remove(_draw)


def _draw(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu(SDF_MT_shapes.bl_idname)


CLASSES = (SDF_MT_shapes,)
