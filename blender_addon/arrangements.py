"""How several shapes come into the scene: side by side, one after the other in time, or as one object with a slider.

Each is the purpose of an `interpolate` or a `decode` job. Its poses are those of `standing`: about the shape's own
middle, so that each object's origin is in the middle of its shape.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from . import live
from .geometry import new_mesh
from .shapes import Remembered, add_object, packed, remember, select
from .wire.messages import Preview, Result, Shape

# Between neighbours, as a share of the widest shape.
GAP = 0.15


@dataclass(frozen=True)
class Standing:
    """A shape's place in the world, (3,), and its turn and scale there, a pose (4, 4) without a shift."""

    place: np.ndarray
    pose: np.ndarray

    @classmethod
    def of(cls, world: np.ndarray) -> "Standing":
        """That of a pose in the world, (4, 4)."""
        pose = world.copy()
        pose[:3, 3] = 0
        return cls(world[:3, 3].copy(), pose)

    def matrix(self, shift: np.ndarray | float = 0.0) -> np.ndarray:
        """The matrix, (4, 4), of an object that stands here, or beside it."""
        matrix = np.eye(4)
        matrix[:3, 3] = self.place + shift
        return matrix


@dataclass(eq=False)
class _Arrangement:
    """What all have in common."""

    name: str
    model: str
    standings: Sequence[Standing]
    settings: Mapping[str, Any]
    scene: int
    """Blender's number for the one into which they come"""

    undoable = True

    def preview(self, preview: Preview) -> Iterator[None]:
        """There is none."""
        yield

    def fail(self) -> Iterator[None]:
        """Nothing was shown."""
        yield

    def _added(self, number: int, shape: Shape, shift: np.ndarray | float) -> bpy.types.Object:
        standing = self.standings[number]
        name = self.name if len(self.standings) == 1 else f"{self.name} {number + 1:02}"
        item = add_object(name, new_mesh(name, shape.vertices, shape.faces), standing.matrix(shift), self.scene)
        kept = Remembered(
            self.model,
            shape.code,
            standing.pose[None],
            shape.code[0],
            standing.pose,
            refinement=packed(shape.refinement),
        )
        remember(item, kept, {**self.settings, "source": self.name})
        return item


@dataclass(eq=False)
class Rows(_Arrangement):
    """Side by side, in rows of `width` along x; further rows, and the first one too, are nearer to the viewer."""

    width: int
    start: np.ndarray
    """the first one's place, (3,)"""

    def finish(self, result: Result) -> Iterator[None]:
        """Show the shapes where no two of them touch."""
        sizes = np.array([np.ptp(shape.vertices[:, :2], axis=0) for shape in result.shapes]).max(axis=0)
        step = (1 + GAP) * sizes
        uids = []
        for number, shape in enumerate(result.shapes):
            row, column = divmod(number, self.width)
            place = self.start + (step[0] * column, -step[1] * row, 0)
            uids.append(self._added(number, shape, place - self.standings[number].place).session_uid)
            yield
        select(uids)


@dataclass(eq=False)
class Animation(_Arrangement):
    """One after the other: each is seen for `hold` frames, from the frame `first` on."""

    hold: int
    first: int

    def finish(self, result: Result) -> Iterator[None]:
        """Show them, each in its time; the first before it too, and the last for ever after."""
        last, uids = len(result.shapes) - 1, []
        for number, shape in enumerate(result.shapes):
            item = self._added(number, shape, 0.0)
            frame = self.first + number * self.hold
            if number:
                _key_hidden(item, self.first - 1, True)
            _key_hidden(item, frame, False)
            if number < last:
                _key_hidden(item, frame + self.hold, True)
            uids.append(item.session_uid)
            yield
        scene = bpy.context.scene
        if scene:
            scene.frame_end = max(scene.frame_end, self.first + len(uids) * self.hold - 1)
            scene.frame_set(scene.frame_current)  # what was just keyed is not looked at before
        select(uids)


@dataclass(eq=False)
class Blend(_Arrangement):
    """One object between its ends, with sliders; the one shape that was asked for is that in the middle.

    codes : (k, code_length) and poses : (k, 4, 4) in the world, of the ends
    """

    codes: np.ndarray
    poses: np.ndarray
    grid: bool

    def finish(self, result: Result) -> Iterator[None]:
        """Show it, with its sliders in the middle."""
        [shape], [standing] = result.shapes, self.standings
        item = self._added(0, shape, 0.0)
        poses = np.linalg.inv(standing.matrix()) @ self.poses
        kept = Remembered(self.model, self.codes, poses, shape.code[0], standing.pose, self.grid)
        remember(item, kept)
        with live.unmoved():
            sliders = live.sliders(item)
            sliders.blend = sliders.across = 0.5
        select([item.session_uid])
        yield


def _key_hidden(item: bpy.types.Object, frame: int, hidden: bool) -> None:
    item.hide_viewport = item.hide_render = hidden
    for path in ("hide_viewport", "hide_render"):
        item.keyframe_insert(path, frame=frame)
