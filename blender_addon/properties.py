"""What the user sets and a .blend file keeps: `scene.sdf`, and `object.sdf` of a shape.

The settings of a task are those of `wire.settings.TaskSettings`: names, defaults, bounds, choices and descriptions are
read from it. `PANEL` adds only what concerns the panel. A new field of the dataclass appears in the panel, in the
operators that fit shapes, and in their jobs, without a change here.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, cast

import bpy

from .fit_request import front_for
from .interpolation import Arrangement, Traversal
from .session import capitalised
from .sliders import SDFSliders
from .wire.messages import Limits
from .wire.settings import Axis, Choice, Keep, Pose, Quality, TaskSettings

# The resolution that the panel sets with a quality.
RESOLUTIONS = {Quality.PREVIEW: 96, Quality.STANDARD: TaskSettings().resolution, Quality.FINE: 384}


@dataclass(frozen=True)
class PanelField:
    """How the panel shows a field of the settings, where its name and declaration do not say it."""

    label: str = ""
    """the name of the field in title case by default"""
    choices: Sequence[Choice] = ()
    """those that the panel offers; .blend files store their index, so that new ones go last"""
    default: Choice | None = None
    """where it differs from that of the settings"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments of the Blender property"""


class UpAxis(Choice):
    """What the user knows of the up axis."""

    UNKNOWN = "unknown", "Z is tried first, and the other axes where it explains little of the object"
    Z = "+z", "The object stands upright in the scene"
    Y = "+y", "The object lies on its back, as scans do that were imported without turning them"


# In the order of the panel; fields that are not listed follow.
PANEL = {
    "quality": PanelField(),
    "resolution": PanelField(options={"soft_max": Limits().resolution}),
    "pose": PanelField(choices=(Pose.ALIGNED, Pose.UPRIGHT, Pose.FREE)),
    "up": PanelField(choices=tuple(UpAxis), default=UpAxis.UNKNOWN),
    "front": PanelField(
        choices=(
            *(Axis.NEGATIVE_Y, Axis.POSITIVE_Y, Axis.NEGATIVE_X, Axis.POSITIVE_X),
            *(Axis.NEGATIVE_Z, Axis.POSITIVE_Z),
        )
    ),
    "refine": PanelField("Follow Input", options={"subtype": "FACTOR"}),
    "keep": PanelField(default=Keep.INPUT),
    "triangles": PanelField("Most Triangles"),
    "quads": PanelField(),
    "candidates": PanelField(),
    "seed": PanelField(),
}
# Settings that operators other than Complete and Reconstruct have.
INTERPOLATION_IGNORES = ("refine", "keep", "candidates", "seed")
SAMPLING_USES, REMESHING_USES = ("resolution", "seed", "triangles", "quads"), ("resolution",)


def panel_fields(settings: type[TaskSettings] = TaskSettings) -> list[str]:
    """Names of the settings that the user chooses, in the order of the panel."""
    names = [declared.name for declared in fields(settings)]
    return sorted(names, key=lambda name: list(PANEL).index(name) if name in PANEL else len(PANEL))


def settings_properties(
    settings: type[TaskSettings] = TaskSettings,
    only: Collection[str] | None = None,
    updates: dict[str, Callable[..., None]] | None = None,
) -> dict[str, Any]:
    """Annotations of Blender properties for the settings of a task.

    Parameters
    ----------
    settings : the dataclass that declares them
    only : names of the settings that are wanted; all by default
    updates : functions that Blender calls when a property has changed, by name
    """
    declared = {item.name: item for item in fields(settings)}
    return {
        name: _property(declared[name], (updates or {}).get(name))
        for name in panel_fields(settings)
        if only is None or name in only
    }


def task_settings(choose: Callable[[str], Any], names: Collection[str], settings: type = TaskSettings) -> Any:
    """The settings of a job: `choose` returns the value of each name in `names`; the rest have their defaults.

    An unknown up axis is taken to be Z. Raises `InputError` for a front that is not perpendicular to up.
    """
    values = {name: choose(name) for name in names}
    if "up" in values:
        values["up"] = Axis.POSITIVE_Z if values["up"] == UpAxis.UNKNOWN else Axis(values["up"])
        if values["pose"] != Pose.ALIGNED:
            values["front"] = front_for(values["up"])
    return settings(**values)


def choice_property(label: str, description: str, default: Choice, choices: Sequence[Choice] = (), **more: Any) -> Any:
    """An enum property of `choices`, or of all members of the default's class. The index is what a file stores."""
    items = [
        (choice.value, choice.value.title(), choice.help, index)
        for index, choice in enumerate(choices or tuple(type(default)))
    ]
    return bpy.props.EnumProperty(name=label, description=description, items=items, default=default.value, **more)


def _property(declared: Field[Any], update: Callable[..., None] | None) -> Any:
    panel = PANEL.get(declared.name, PanelField())
    label = panel.label or declared.name.replace("_", " ").title()
    description = capitalised(declared.metadata["help"])
    options = {**panel.options, **({"update": update} if update else {})}
    default = panel.default or declared.default
    if isinstance(default, Choice):
        return choice_property(label, description, default, panel.choices, **options)
    kind = {bool: bpy.props.BoolProperty, int: bpy.props.IntProperty, float: bpy.props.FloatProperty}[type(default)]
    bounds = declared.metadata["bounds"]
    # Blender's integers have 32 bits.
    most = min(bounds.most, 2**31 - 1) if bounds.most is not None else None
    limits = {key: value for key, value in (("min", bounds.least), ("max", most)) if value is not None}
    return kind(name=label, description=description, default=default, **limits, **options)


def _set_resolution(owner: Any, context: bpy.types.Context) -> None:
    owner.resolution = RESOLUTIONS[Quality(owner.quality)]


class ModelProperty:
    """The property of every operator that makes shapes."""

    __annotations__ = {
        "model": bpy.props.StringProperty(
            name="Model",
            description="Object category; that of the preferences, or Auto, if this is empty",
        )
    }


class CompletionProperties(ModelProperty):
    """Properties of Complete and Reconstruct."""

    __annotations__ = settings_properties()


class InterpolationProperties(ModelProperty):
    """Properties of Interpolate."""

    __annotations__ = {
        **settings_properties(only=[name for name in panel_fields() if name not in INTERPOLATION_IGNORES]),
        "arrangement": choice_property("Arrangement", "How the shapes are added to the scene", Arrangement.ROW),
        "through": choice_property(
            "Through",
            "Whether the shapes follow a path through the objects, or fill a grid between four",
            Traversal.PATH,
        ),
        "steps": bpy.props.IntProperty(
            name="Steps",
            description="Number of shapes from the first object to the last, both included; per side of a grid",
            default=7,
            min=2,
            max=64,
        ),
        "hold": bpy.props.IntProperty(
            name="Frames per Step",
            description="How long each shape of an animation is visible",
            default=4,
            min=1,
            max=1000,
        ),
    }


class SamplingProperties(ModelProperty):
    """Properties of New Shapes and Variations."""

    __annotations__ = {
        **settings_properties(only=SAMPLING_USES),
        "count": bpy.props.IntProperty(name="Count", description="Number of shapes", default=4, min=1, max=64),
        "size": bpy.props.FloatProperty(
            name="Size",
            description="The diameter of the sphere that a new shape fits into",
            default=2.0,
            min=1e-6,
            soft_max=100,
            subtype="DISTANCE",
        ),
        "spread": bpy.props.FloatProperty(
            name="Spread",
            description="How much variations differ from the active shape: 1 is as much as new shapes differ",
            default=0.3,
            min=0.01,
            max=1,
            subtype="FACTOR",
        ),
    }


class RemeshingProperties(ModelProperty):
    """Properties of Remesh."""

    __annotations__ = settings_properties(only=REMESHING_USES)


class SDFSettings(CompletionProperties, InterpolationProperties, SamplingProperties, bpy.types.PropertyGroup):
    """Settings of a scene. Operators have the same properties, and take from here those that they are not given"""

    __annotations__ = settings_properties(only=["quality"], updates={"quality": _set_resolution})


def scene_settings(scene: bpy.types.Scene | None) -> Any:
    """The `SDFSettings` of a scene; type checkers do not know their properties."""
    assert scene
    return cast(Any, scene).sdf


def attach() -> None:
    """Add settings to scenes and sliders to objects."""
    cast(Any, bpy.types.Scene).sdf = bpy.props.PointerProperty(type=SDFSettings)
    cast(Any, bpy.types.Object).sdf = bpy.props.PointerProperty(type=SDFSliders)


def detach() -> None:
    """Remove them."""
    del cast(Any, bpy.types.Scene).sdf
    del cast(Any, bpy.types.Object).sdf


CLASSES = (SDFSettings, SDFSliders)
