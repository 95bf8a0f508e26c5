"""What belongs to this Blender and not to a file: where the backend is, and the key to it."""

from typing import cast

import bpy

DEFAULT_ADDRESS = "tcp://127.0.0.1:5577"


class SDFPreferences(bpy.types.AddonPreferences):
    """Shown under Preferences, Add-ons."""

    bl_idname = __package__ or ""

    address: bpy.props.StringProperty(
        name="Address",
        description="Where the backend listens, for example tcp://127.0.0.1:5577",
        default=DEFAULT_ADDRESS,
    )
    key_file: bpy.props.StringProperty(
        name="Key file",
        description="Your key file, for a backend on another computer; its operator gives it to you",
        subtype="FILE_PATH",
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draw them."""
        self.layout.prop(self, "address")
        self.layout.prop(self, "key_file")


def preferences() -> SDFPreferences:
    """Those of this Blender."""
    stored = bpy.context.preferences
    assert stored
    return cast(SDFPreferences, stored.addons[__package__ or ""].preferences)


CLASSES = (SDFPreferences,)
