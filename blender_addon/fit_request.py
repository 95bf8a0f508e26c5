"""What Complete and Reconstruct ask for: which objects, as one observation, with which model and settings."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import bpy

from .geometry import GeometryError, ObjectGeometry, read_objects
from .session import session
from .shapes import INPUTS, Asked, input_names, is_untouched, source_name, stored_shape
from .wire.client import new_job
from .wire.messages import Source, Submit
from .wire.settings import Axis, Keep, Pose, TaskSettings

SUFFIXES = {"complete": "completed", "reconstruct": "reconstructed"}


@dataclass(frozen=True, eq=False)
class FitRequest:
    """A task on the objects `names`, which are one observation; the first gives the result its name and place."""

    task: str
    model: str
    settings: TaskSettings
    names: tuple[str, ...]
    source: str
    """the name from which that of the result is derived"""
    observation: ObjectGeometry
    asked: Asked
    kept_uid: int = 0
    """session UID of the object whose mesh the result keeps"""
    guesses_up: bool = False
    """whether the up axis of the settings is a guess"""

    @property
    def name(self) -> str:
        """The name of the result."""
        return f"{self.source} {SUFFIXES[self.task]}"

    @property
    def stored(self) -> dict[str, Any]:
        """What the result stores of it."""
        declared = {one.name: getattr(self.settings, one.name) for one in fields(self.settings)}
        return {"task": self.task, "source": self.source, "inputs": "\n".join(self.names), **declared}

    def is_repeated_by(self, other: "FitRequest") -> bool:
        """Whether another request asks for the same."""
        return (self.task, self.model, self.settings, self.names) == (
            other.task, other.model, other.settings, other.names
        )  # fmt: skip

    def submit(self, task: str) -> Submit:
        """The message for a task on the observation: its own, or `encode` for the fit alone."""
        seen = self.observation
        source = Source(seen.vertices, seen.faces, colors=seen.colors)
        return Submit(new_job(), task, self.model, self.settings, (source,), keep=session.keep_seconds)


def read_request(
    task: str,
    model: str,
    settings: TaskSettings,
    objects: Sequence[bpy.types.Object],
    asked: Asked,
    guesses_up: bool = False,
) -> FitRequest:
    """Read objects as one observation. Raises `GeometryError` for objects that have no surface."""
    observation = read_objects(objects, bpy.context.evaluated_depsgraph_get())
    if task != "complete" or len(objects) > 1 or observation.faces is None:
        settings = replace(settings, keep=Keep.NOTHING)
    names, first = tuple(item.name for item in objects), objects[0]
    guesses_up = guesses_up and settings.pose is Pose.UPRIGHT
    return FitRequest(
        task, model, settings, names, source_name(first), observation, asked, first.session_uid, guesses_up
    )


def request_of_result(item: bpy.types.Object, asked: Asked) -> FitRequest:
    """The request that an object is the result of, with its inputs as they are now.

    Raises
    ------
    GeometryError : for an object that is no result, and where an input is gone
    """
    shape, inputs = stored_shape(item), inputs_of(item)
    if shape is None or not inputs:
        gone = ", ".join(input_names(item)) or "its input"
        raise GeometryError(f"{item.name} cannot be made again, because {gone} is gone; select an object to complete")
    stored: dict[str, Any] = {
        one.name: type(one.default)(item[f"sdf_{one.name}"])
        for one in fields(TaskSettings)
        if f"sdf_{one.name}" in item
    }
    return read_request(str(item["sdf_task"]), shape.model, TaskSettings(**stored), inputs, asked)


def inputs_of(item: bpy.types.Object) -> list[bpy.types.Object]:
    """The objects that a result was made of; empty if one of them is gone, or for an object that is no result."""
    names = input_names(item)
    scene = bpy.context.scene
    inputs = [scene.objects[name] for name in names if scene and name in scene.objects]
    return inputs if len(inputs) == len(names) else []


def replace_results_by_inputs(objects: Sequence[bpy.types.Object]) -> list[bpy.types.Object]:
    """The objects, with what untouched results were made of in their place, so that Complete works on it again."""
    chosen: dict[str, bpy.types.Object] = {}
    for item in objects:
        for one in (inputs_of(item) if is_untouched(item) else []) or [item]:
            chosen[one.name] = one
    return list(chosen.values())


def front_for(up: Axis) -> Axis:
    """A front axis that fits an up axis, for poses that do not use it."""
    return Axis.POSITIVE_Z if up[1] == "y" else Axis.NEGATIVE_Y


def other_up_axes(request: FitRequest) -> list[FitRequest]:
    """The request with each other up axis."""
    return [
        replace(request, settings=replace(request.settings, up=up, front=front_for(up)))
        for up in Axis
        if up is not request.settings.up
    ]


def earlier_results(request: FitRequest) -> list[bpy.types.Object]:
    """The results of the same task on the same objects that nobody has renamed, moved or edited."""
    return [
        item
        for item in bpy.data.objects
        if item.get(INPUTS) == request.stored["inputs"]
        and item.get("sdf_task") == request.task
        and item.name.startswith(request.name)
        and is_untouched(item)
    ]
