"""The operators in the Object menu, where Blender's operator search (F3) finds them."""

from typing import Any, cast

import bpy

from .fit_operators import CLASSES as FIT_OPERATORS
from .importing import SDF_OT_import
from .model_pictures import icon_of
from .operators import CLASSES as OPERATORS
from .session import capitalised, session
from .shape_operators import CLASSES as SHAPE_OPERATORS
from .translations import translated, translated_message
from .wire.messages import AUTO_MODEL

# Those that are for the panel and the timer only have no entry.
INTERNAL = ("sdf.tell", "sdf.dismiss", "sdf.choose_model")
# Of an entry in the menu of models, so that its picture can be seen; 1 is that of other menus.
LINE_HEIGHT = 2.0


class SDF_MT_shapes(bpy.types.Menu):
    """Every operator of the add-on"""

    bl_idname = "SDF_MT_shapes"
    bl_label = "SDF Shapes"

    def draw(self, context: bpy.types.Context) -> None:
        """One entry for each operator."""
        for operator in (SDF_OT_import, *FIT_OPERATORS, *SHAPE_OPERATORS):
            self.layout.operator(operator.bl_idname)
        self.layout.separator()
        for operator in OPERATORS:
            if operator.bl_idname not in INTERNAL:
                self.layout.operator(operator.bl_idname)


class SDF_MT_models(bpy.types.Menu):
    """Auto, and the models of the backend, one line each"""

    bl_idname = "SDF_MT_models"
    bl_label = "Model"

    def draw(self, context: bpy.types.Context) -> None:
        """One entry for each model that can be used."""
        lines = {AUTO_MODEL: translated("Auto: the one that explains the input best")}
        for model in session.usable_models:
            name, shapes = capitalised(model.name), str(model.shapes)
            learned = translated("{name}: learned from {shapes} shapes", name=name, shapes=shapes)
            lines[model.name] = learned if model.shapes else name
        row = self.layout.row()
        pictures, entries = row.column(), row.column()
        entries.scale_y = LINE_HEIGHT
        for name in lines:  # all pictures first: in turns, Blender draws a menu as stairs
            pictures.template_icon(icon_of(name), scale=LINE_HEIGHT)
        for name, line in lines.items():
            entries.operator("sdf.choose_model", text=line).model = name
        if not session.usable_models:
            entries.label(text=translated_message(session.unavailable_reason))


def attach() -> None:
    """Append the menu to the 3D viewport's Object menu."""
    cast(Any, bpy.types.VIEW3D_MT_object).append(_draw)


def detach() -> None:
    """Remove the menu."""
    cast(Any, bpy.types.VIEW3D_MT_object).remove(_draw)


def _draw(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu(SDF_MT_shapes.bl_idname)


CLASSES = (SDF_MT_shapes, SDF_MT_models)
