"""SDF Shapes for Blender: completes partial, broken or scanned objects."""

import bpy

from . import (
    fit_operators,
    importing,
    menus,
    model_pictures,
    operators,
    panels,
    preferences,
    presets,
    properties,
    shape_operators,
    timer,
    translations,
)

CLASSES = (
    *preferences.CLASSES,
    *properties.CLASSES,
    *operators.CLASSES,
    *fit_operators.CLASSES,
    *importing.CLASSES,
    *shape_operators.CLASSES,
    *presets.CLASSES,
    *panels.CLASSES,
    *menus.CLASSES,
)


def register() -> None:
    """Called by Blender when the add-on is enabled."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    properties.attach()
    menus.attach()
    model_pictures.attach()
    translations.attach()
    timer.start()


def unregister() -> None:
    """Called by Blender when the add-on is disabled, possibly while jobs run, and when Blender quits."""
    timer.stop()
    translations.detach()
    model_pictures.detach()
    menus.detach()
    properties.detach()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
