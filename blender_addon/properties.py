"""What the user sets and the .blend keeps: `scene.sdf`."""

from typing import Any, cast

import bpy

from .session import session

QUALITIES = (
    ("preview", "Preview", "Quick and coarse", 0),
    ("standard", "Standard", "Good for most", 1),
    ("fine", "Fine", "The most detail; takes some times as long", 2),
)
RESOLUTIONS = {"preview": 96, "standard": 256, "fine": 384}
POSES = (
    ("aligned", "Aligned", "The object stands upright and looks ahead; place and size are found", 0),
    ("upright", "Upright", "The object stands upright; how it is turned is found too", 1),
    ("free", "Free", "The object lies anyhow", 2),
)
FRONTS = (
    ("-y", "-Y", "The object looks along -Y, as Blender's own front view has it", 0),
    ("+y", "+Y", "The object looks along +Y", 1),
    ("-x", "-X", "The object looks along -X", 2),
    ("+x", "+X", "The object looks along +X", 3),
)


def _models(owner: bpy.types.PropertyGroup, context: bpy.types.Context, text: str) -> list[str]:
    return [name for name in session.models if text.lower() in name.lower()]


class SDFSettings(bpy.types.PropertyGroup):
    """How shapes are made; operators take the same."""

    model: bpy.props.StringProperty(
        name="Model", description="What kind of thing it is; the backend says what there is", search=_models
    )
    quality: bpy.props.EnumProperty(
        name="Quality", description="Detail against time", items=QUALITIES, default="standard"
    )
    pose: bpy.props.EnumProperty(
        name="Pose", description="What is known of how the object stands", items=POSES, default="upright"
    )
    front: bpy.props.EnumProperty(
        name="Front", description="Where the object looks, for Aligned", items=FRONTS, default="-y"
    )
    seed: bpy.props.IntProperty(name="Seed", description="The same seed gives the same shape", min=0, default=0)


def settings(scene: bpy.types.Scene | None) -> SDFSettings:
    """Those of a scene."""
    assert scene
    return cast(Any, scene).sdf


def attach() -> None:
    """Give every scene its settings."""
    cast(Any, bpy.types.Scene).sdf = bpy.props.PointerProperty(type=SDFSettings)


def detach() -> None:
    """Take them away."""
    del cast(Any, bpy.types.Scene).sdf


CLASSES = (SDFSettings,)
