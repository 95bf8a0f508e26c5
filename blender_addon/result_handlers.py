"""Result handlers: how results are displayed in the scene.

`MeshReplacement` changes one shape; `Rows`, `Animation` and `Blend` display several: side by side, one after another,
or as one object with sliders. That of Complete and Reconstruct is in `completions.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import bpy
import numpy as np

from .geometry import DEVIATION, OBSERVED, new_mesh, transfer_values, transform_points, vertex_values
from .session import NO_MORE_STEPS, Steps, session
from .shapes import (
    SOURCE,
    Asked,
    StoredShape,
    add_object,
    find_object,
    hidden_notice,
    pack_refinement,
    remove_objects,
    replace_mesh,
    result_boxes,
    store_shape,
    stored_shape,
)
from .wire.messages import Preview, Result, Shape

# A custom property: the mesh with the attribute `observed`, kept while the sliders show another shape.
OBSERVED_MESH = "sdf_seen"


@dataclass(frozen=True)
class DisplaySettings:
    """Spacing, chosen by eye, so that neighbours do not touch."""

    row_gap: float = 0.15
    """between neighbours in a row, relative to the largest shape"""


DISPLAY = DisplaySettings()


@dataclass(frozen=True)
class Placement:
    """The pose of a shape in the world, split into position, (3,), and orientation, (4, 4): rotation and scale."""

    position: np.ndarray
    orientation: np.ndarray

    @classmethod
    def from_pose(cls, pose: np.ndarray) -> "Placement":
        """Split a pose in the world, (4, 4)."""
        orientation = pose.copy()
        orientation[:3, 3] = 0
        return cls(pose[:3, 3].copy(), orientation)

    def translation(self, offset: np.ndarray | float = 0.0) -> np.ndarray:
        """The matrix, (4, 4), of an object at `position` plus an offset, (3,), whose mesh has the orientation."""
        matrix = np.eye(4)
        matrix[:3, 3] = self.position + offset
        return matrix


class MeshReplacement:
    """Replaces the mesh of a shape, after its resolution or its code has changed."""

    undoable = True

    def __init__(self, item: bpy.types.Object, settings: Mapping[str, Any] | None = None) -> None:
        self._uid, self._settings = item.session_uid, settings

    def preview(self, preview: Preview) -> Steps:
        """Ignore it; the object keeps its mesh until the result arrives."""
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Replace the mesh and the stored code and pose; its attributes `observed` and `deviation` are transferred."""
        item, [shape] = find_object(self._uid), result.shapes
        before = stored_shape(item)
        if item is None or before is None:  # deleted in the meantime
            return NO_MORE_STEPS
        vertices, source = transform_points(shape.vertices, np.eye(4)), _observed_mesh(item)
        same_code = np.allclose(before.codes[0], shape.code[0])
        observed, deviation = (
            transfer_values(source, name, vertices) if source and same_code else None for name in (OBSERVED, DEVIATION)
        )
        if source:
            item[OBSERVED_MESH] = source  # a reference, before the object drops its own
        replace_mesh(item, new_mesh(item.name, vertices, shape.faces, observed, deviation, quads=shape.quads))
        store_shape(item, replace(before, code=shape.code[0], pose=shape.pose[0]), self._settings)
        return NO_MORE_STEPS

    def fail(self) -> Steps:
        """Keep the object as it is."""
        return NO_MORE_STEPS


@dataclass(eq=False)
class _NewShapes:
    """Adds an object for each shape, with the origin at the position of its placement.

    placements : one for each shape; settings : of the task, stored in each object; asked : where
    """

    name: str
    model: str
    placements: Sequence[Placement]
    settings: Mapping[str, Any]
    asked: Asked
    _added: list[int] = field(default_factory=list, init=False)
    _earlier: int = field(default=0, init=False)
    """how many shapes of the same name there were before"""

    undoable = True

    def preview(self, preview: Preview) -> Steps:
        """Ignore it; these tasks send none."""
        return NO_MORE_STEPS

    def fail(self) -> Steps:
        """Nothing to remove."""
        return NO_MORE_STEPS

    def _select(self) -> None:
        if self.asked.is_current:
            self.asked.select(self._added)
        session.notice = hidden_notice(self._added) or session.notice

    def _remove_added(self) -> None:
        """Remove what an interrupted `finish` has added."""
        remove_objects(self._added)
        self._added.clear()
        self._earlier = sum(item.get(SOURCE) == self.name for item in bpy.data.objects)

    def _add(self, number: int, shape: Shape, offset: np.ndarray | float = 0.0) -> bpy.types.Object:
        placement = self.placements[number]
        single = len(self.placements) == 1 and not self._earlier
        name = self.name if single else f"{self.name} {self._earlier + number + 1:02}"
        mesh = new_mesh(name, shape.vertices, shape.faces, quads=shape.quads)
        item = add_object(name, mesh, placement.translation(offset), self.asked.scene)
        stored = StoredShape(
            self.model,
            shape.code,
            placement.orientation[None],
            shape.code[0],
            placement.orientation,
            refinement=pack_refinement(shape.refinement),
        )
        store_shape(item, stored, {**self.settings, "source": self.name})
        self._added.append(item.session_uid)
        return item


@dataclass(eq=False)
class Rows(_NewShapes):
    """Displays shapes side by side, `width` per row along x; each further row is nearer to the viewer.

    start : (3,), the position of the first shape, or of one before it if that place is taken
    floor : the height of the lowest vertex of each; None to leave them at the heights of their placements
    """

    width: int
    start: np.ndarray
    floor: float | None = None

    def finish(self, result: Result) -> Steps:
        """Add the shapes, spaced so that none touch each other or an earlier result."""
        self._remove_added()
        sizes = np.array([np.ptp(shape.vertices[:, :2], axis=0) for shape in result.shapes]).max(axis=0)  # (2,)
        spacing, start = (1 + DISPLAY.row_gap) * sizes, self._free_start(sizes, len(result.shapes))
        for number, shape in enumerate(result.shapes):
            if number:
                yield
            row, column = divmod(number, self.width)
            position = start + (spacing[0] * column, -spacing[1] * row, 0)
            if self.floor is not None:
                position[2] = self.floor - shape.vertices[:, 2].min()
            self._add(number, shape, position - self.placements[number].position)
        self._select()

    def _free_start(self, sizes: np.ndarray, count: int) -> np.ndarray:
        """The start, moved to the viewer until none of the rows, of shapes of these sizes, (2,), meets a result."""
        columns, rows = min(count, self.width), -(-count // self.width)
        start, spacing, taken = self.start.copy(), (1 + DISPLAY.row_gap) * sizes, result_boxes(self.asked.scene)
        while True:
            low = start[:2] - np.array([0.5, rows - 0.5]) * spacing
            high = start[:2] + np.array([columns - 0.5, 0.5]) * spacing
            met = [box[0, 1] for box in taken if (box[0] < high).all() and (box[1] > low).all()]
            if not met:
                return start
            start[1] = min(met) - 0.51 * spacing[1]


@dataclass(eq=False)
class Animation(_NewShapes):
    """Displays shapes one after another, each for `hold` frames, beginning with the frame `first`."""

    hold: int
    first: int

    def finish(self, result: Result) -> Steps:
        """Add the shapes with keyframes of their visibility; the first is visible before, and the last after."""
        self._remove_added()
        last = len(result.shapes) - 1
        for number, shape in enumerate(result.shapes):
            if number:
                yield
            item = self._add(number, shape)
            frame = self.first + number * self.hold
            if number:
                _insert_visibility_keyframe(item, self.first - 1, hidden=True)
            _insert_visibility_keyframe(item, frame, hidden=False)
            if number < last:
                _insert_visibility_keyframe(item, frame + self.hold, hidden=True)
        scene = bpy.context.scene
        if scene:
            scene.frame_end = max(scene.frame_end, self.first + len(result.shapes) * self.hold - 1)
            scene.frame_set(scene.frame_current)  # to evaluate the new keyframes
        self._select()


@dataclass(eq=False)
class Blend(_NewShapes):
    """Displays one object with blend sliders; the result is the shape at the middle of the sliders.

    codes : (k, code_length) and poses : (k, 4, 4), in the world, of the shapes that are blended
    """

    codes: np.ndarray
    poses: np.ndarray
    grid: bool

    def finish(self, result: Result) -> Steps:
        """Add the object with its sliders at the middle."""
        self._remove_added()
        [shape], [placement] = result.shapes, self.placements
        item = self._add(0, shape)
        poses = np.linalg.inv(placement.translation()) @ self.poses
        store_shape(item, StoredShape(self.model, self.codes, poses, shape.code[0], placement.orientation, self.grid))
        with session.sliders.mute():
            sliders = cast(Any, item).sdf
            sliders.blend = sliders.across = 0.5
        self._select()
        return NO_MORE_STEPS


def _observed_mesh(item: bpy.types.Object) -> bpy.types.Mesh | None:
    """The mesh of a shape that has the attribute `observed`: the stored one, otherwise the current one."""
    stored = item.get(OBSERVED_MESH)
    if isinstance(stored, bpy.types.Mesh):
        return stored
    return (
        item.data if isinstance(item.data, bpy.types.Mesh) and vertex_values(item.data, OBSERVED) is not None else None
    )


def _insert_visibility_keyframe(item: bpy.types.Object, frame: int, hidden: bool) -> None:
    item.hide_viewport = item.hide_render = hidden
    for path in ("hide_viewport", "hide_render"):
        item.keyframe_insert(path, frame=frame)
