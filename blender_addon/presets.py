"""Presets of the settings in the panel, as Blender has them elsewhere: in the header, kept in the user's folder."""

from pathlib import Path

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from .properties import panel_fields

SUBFOLDER = "sdf_shapes"


class SDF_PT_presets(PresetPanel, bpy.types.Panel):
    """Settings that were stored under a name"""

    bl_label = "Presets"
    preset_subdir = SUBFOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "sdf.add_preset"

    def draw(self, context: bpy.types.Context) -> None:
        """The list, which is empty before the first preset; without a folder Blender would miss paths."""
        bpy.utils.user_resource("SCRIPTS", path=str(Path("presets", SUBFOLDER)), create=True)
        super().draw(context)


class SDF_OT_add_preset(AddPresetBase, bpy.types.Operator):
    """Store the settings of Complete under a name, or remove those of that name"""

    bl_idname = "sdf.add_preset"
    bl_label = "Add Preset"
    bl_options = {"REGISTER", "INTERNAL"}  # noqa: RUF012
    preset_menu = "SDF_PT_presets"
    preset_subdir = SUBFOLDER
    preset_defines = ("settings = bpy.context.scene.sdf",)
    preset_values = tuple(f"settings.{name}" for name in ("model", *panel_fields()))


CLASSES = (SDF_PT_presets, SDF_OT_add_preset)
