"""SDF Shapes in Blender: select part of an object, press Complete, and the whole of it stands in the scene."""

import bpy

from . import menus, operators, panels, preferences, properties, shape_operators, ticking

CLASSES = (
    *preferences.CLASSES,
    *properties.CLASSES,
    *operators.CLASSES,
    *shape_operators.CLASSES,
    *panels.CLASSES,
    *menus.CLASSES,
)


def register() -> None:
    """Called by Blender when the add-on is switched on."""
    for one in CLASSES:
        bpy.utils.register_class(one)
    properties.attach()
    menus.attach()
    ticking.start()


def unregister() -> None:
    """Called by Blender when the add-on is switched off, in mid-job perhaps, and when Blender quits."""
    ticking.stop()
    menus.detach()
    properties.detach()
    for one in reversed(CLASSES):
        bpy.utils.unregister_class(one)
