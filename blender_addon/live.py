"""Sliders of an object that is a shape: while they are dragged a coarse mesh follows, and when they rest the full one.

Blender does not tell when a slider is let go, so one that has not moved for a while counts as at rest. Of each object
there is one job at a time; when it is back, the next asks for what the sliders say by then.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import bpy
import numpy as np

from .between import blended
from .results import Remade
from .session import CANCELLING, KEEP_SECONDS, Job, session
from .shapes import Remembered, find_object, remembered, unpacked
from .wire.client import new_job
from .wire.codec import WireError
from .wire.messages import Result, Submit
from .wire.settings import TaskSettings

# Cells an axis while a slider moves.
COARSE = 64
# An object's property: the sliders' values, and the cells, that its mesh was made with.
SHOWN = "sdf_shown"
SETTLED_SECONDS = 0.4
DIRECTIONS = 8

_moved_at: dict[int, float] = {}
# Of each object the last job, and the values and cells that it was asked for.
_asked: dict[int, tuple[str, list[float]]] = {}
_still = False


def _moved(owner: "SDFSliders", context: bpy.types.Context) -> None:
    if not _still and isinstance(owner.id_data, bpy.types.Object):
        uid = owner.id_data.session_uid
        _moved_at[uid] = time.monotonic()


class SDFSliders(bpy.types.PropertyGroup):
    """What can be moved of an object that is a shape."""

    blend: bpy.props.FloatProperty(
        name="Blend", description="Where between its ends the shape is", min=0, max=1, subtype="FACTOR", update=_moved
    )
    across: bpy.props.FloatProperty(
        name="Across", description="Where between its two rows the shape is", min=0, max=1, subtype="FACTOR",
        update=_moved,
    )  # fmt: skip
    directions: bpy.props.FloatVectorProperty(
        name="Directions", description="How far the shape is moved along the model's main directions of variation, in "
        "standard deviations", size=DIRECTIONS, soft_min=-2, soft_max=2, min=-4, max=4, update=_moved,
    )  # fmt: skip


def sliders(item: bpy.types.Object) -> SDFSliders:
    """Those of an object."""
    return cast(Any, item).sdf


@contextmanager
def unmoved() -> Iterator[None]:
    """Let sliders be set without anything following them."""
    global _still
    _still = True
    try:
        yield
    finally:
        _still = False


def request(item: bpy.types.Object, shape: Remembered, resolution: int) -> Submit:
    """The job that makes an object's shape as its sliders say."""
    found = sliders(item)
    code, pose = blended(shape, found.blend, found.across)
    weights = np.array(found.directions, dtype=np.float64)[None, : len(code)]
    wanted = TaskSettings(resolution)
    moved = weights if weights.any() else None
    # What was seen corrects the shape that was fitted to it, and no other.
    own = unpacked(shape.refinement) if moved is None and len(shape.codes) == 1 else None
    return Submit(
        new_job(),
        "decode",
        shape.model,
        wanted,
        codes=code[None],
        poses=pose[None],
        weights=moved,
        refinements=() if own is None else (own,),
        keep=KEEP_SECONDS,
    )


def tick() -> None:
    """Follow the sliders that have moved."""
    for uid, moved_at in list(_moved_at.items()):
        item = find_object(uid)
        shape = remembered(item)
        if item is None or shape is None:
            del _moved_at[uid]
        elif _last(uid)[0] not in session.jobs:
            _follow(uid, item, shape, time.monotonic() - moved_at >= SETTLED_SECONDS)
        else:
            _let_go(uid, item)


def catch_up(*_: object) -> None:
    """After an undo or redo, which may bring back a coarse mesh, or one of other values: follow those sliders again."""
    for item in bpy.data.objects:
        shown = item.get(SHOWN)
        if shown is not None and (list(shown[:-1]) != _values(item) or shown[-1] == COARSE):
            _moved_at[item.session_uid] = time.monotonic()


def waiting() -> bool:
    """Whether some slider has moved that nothing has followed to its end."""
    return bool(_moved_at)


def forget() -> None:
    """Follow nothing any more; the file that all this was about is gone."""
    _moved_at.clear()
    _asked.clear()


def _follow(uid: int, item: bpy.types.Object, shape: Remembered, settled: bool) -> None:
    values, cells = _values(item), int(item.get("sdf_resolution", 256)) if settled else COARSE
    if settled:
        del _moved_at[uid]
    elif _last(uid)[1][:-1] == values:
        return
    submit = request(item, shape, cells)
    try:
        session.submit(submit, Job(submit.job, item.name, _Following(item, [*values, cells]), quiet=True))
    except WireError as error:
        _moved_at.pop(uid, None)
        session.say(f"{item.name} cannot follow its sliders: {error}")
        return
    _asked[uid] = submit.job, [*values, cells]


def _let_go(uid: int, item: bpy.types.Object) -> None:
    """Cancel a job for a full mesh of values that are the sliders' no more; a coarse one is back sooner than that."""
    name, asked = _last(uid)
    if asked[-1] != COARSE and asked[:-1] != _values(item) and session.jobs[name].phase != CANCELLING:
        session.cancel(name)


def _last(uid: int) -> tuple[str, list[float]]:
    return _asked.get(uid, ("", []))


def _values(item: bpy.types.Object) -> list[float]:
    found = sliders(item)
    return [found.blend, found.across, *found.directions]


class _Following(Remade):
    """The mesh at some values of the sliders."""

    undoable = False

    def __init__(self, item: bpy.types.Object, shown: list[float]) -> None:
        super().__init__(item)
        self._shown = shown

    def finish(self, result: Result) -> Iterator[None]:
        """Show it."""
        yield from super().finish(result)
        item = find_object(self._uid)
        if item:
            item[SHOWN] = self._shown
