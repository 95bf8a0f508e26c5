"""SDF Shapes in Blender: select part of an object, press Complete, and the whole of it stands in the scene."""

import bpy

from . import operators, panels, preferences, properties, shape_operators, ticking

CLASSES = (*preferences.CLASSES, *properties.CLASSES, *operators.CLASSES, *shape_operators.CLASSES, *panels.CLASSES)


def register() -> None:
    """Called by Blender when the add-on is switched on."""
    for one in CLASSES:
        bpy.utils.register_class(one)
    properties.attach()
    ticking.start()


def unregister() -> None:
    """Called by Blender when the add-on is switched off, in mid-job perhaps."""
    ticking.stop()
    properties.detach()
    for one in reversed(CLASSES):
        bpy.utils.unregister_class(one)
