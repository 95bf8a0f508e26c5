"""What the user sets and the .blend keeps: `scene.sdf`, and of an object that is a shape, `object.sdf`."""

from typing import Any, cast

import bpy

from .live import SDFSliders
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
ARRANGEMENTS = (
    ("row", "Row", "Side by side, in front of the objects", 0),
    ("animation", "Animation", "One object a step, each seen in its frames only", 1),
    ("blend", "Blend", "One object with a slider", 2),
)
WAYS = (
    ("path", "Path", "From object to object, from left to right along X", 0),
    ("grid", "Grid", "Between four objects, which are the corners", 1),
)


def _models(owner: bpy.types.PropertyGroup, context: bpy.types.Context, text: str) -> list[str]:
    return [name for name in session.models if text.lower() in name.lower()]


def _quality_chosen(owner: "SDFSettings", context: bpy.types.Context) -> None:
    owner.resolution = RESOLUTIONS[owner.quality]


class Extraction:
    """Of everything that makes meshes."""

    model: bpy.props.StringProperty(
        name="Model", description="What kind of thing it is; the backend says what there is", search=_models
    )
    resolution: bpy.props.IntProperty(
        name="Resolution", description="Cells along each side of the space that the shape is looked for in",
        default=RESOLUTIONS["standard"], min=16, soft_max=512, max=1024,
    )  # fmt: skip


class Fitting(Extraction):
    """Of everything that fits a shape to an object."""

    quality: bpy.props.EnumProperty(
        name="Quality", description="Detail against time", items=QUALITIES, default="standard"
    )
    pose: bpy.props.EnumProperty(
        name="Pose", description="What is known of how the object stands", items=POSES, default="upright"
    )
    front: bpy.props.EnumProperty(
        name="Front", description="Where the object looks, for Aligned", items=FRONTS, default="-y"
    )


class Completing(Fitting):
    """Of completions and reconstructions."""

    refine: bpy.props.FloatProperty(
        name="Follow Input", description="How far the result follows the detail that was seen: 0 is the category alone",
        min=0, max=1, default=1, subtype="FACTOR",
    )  # fmt: skip
    candidates: bpy.props.IntProperty(
        name="Candidates", description="How many results: the best in the object's place, and before it others that "
        "explain the object about as well", min=1, max=16, default=1,
    )  # fmt: skip
    seed: bpy.props.IntProperty(
        name="Seed", description="Which further candidates are drawn; the best is always the same", min=0, default=0
    )


class Interpolating(Fitting):
    """Of interpolations."""

    arrangement: bpy.props.EnumProperty(
        name="As", description="How the shapes come into the scene", items=ARRANGEMENTS, default="row"
    )
    through: bpy.props.EnumProperty(
        name="Through", description="In which order they lie between the objects", items=WAYS, default="path"
    )
    steps: bpy.props.IntProperty(
        name="Steps", description="Shapes from the first object to the last, both included; along each side of a grid",
        default=7, min=2, max=64,
    )  # fmt: skip
    hold: bpy.props.IntProperty(
        name="Frames a step", description="How long each shape of an animation is seen", default=4, min=1, max=1000
    )


class Sampling(Extraction):
    """Of new shapes."""

    count: bpy.props.IntProperty(name="Count", description="How many shapes", default=4, min=1, max=64)
    spread: bpy.props.FloatProperty(
        name="Spread", description="How far variations are from the selected shape: 1 is as far as new shapes are",
        default=0.3, min=0.01, max=1, subtype="FACTOR",
    )  # fmt: skip
    seed: bpy.props.IntProperty(name="Seed", description="The same seed gives the same shapes", min=0, default=0)


class SDFSettings(Completing, Interpolating, Sampling, bpy.types.PropertyGroup):
    """How shapes are made; operators take the same, and what they are not given from here."""

    quality: bpy.props.EnumProperty(
        name="Quality", description="Detail against time", items=QUALITIES, default="standard", update=_quality_chosen
    )


def settings(scene: bpy.types.Scene | None) -> SDFSettings:
    """Those of a scene."""
    assert scene
    return cast(Any, scene).sdf


def attach() -> None:
    """Give every scene its settings, and every object its sliders."""
    cast(Any, bpy.types.Scene).sdf = bpy.props.PointerProperty(type=SDFSettings)
    cast(Any, bpy.types.Object).sdf = bpy.props.PointerProperty(type=SDFSliders)


def detach() -> None:
    """Take them away."""
    del cast(Any, bpy.types.Scene).sdf
    del cast(Any, bpy.types.Object).sdf


CLASSES = (SDFSettings, SDFSliders)
