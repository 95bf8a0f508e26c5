"""Result handlers: how results are displayed in the scene.

`InPlace` and `MeshReplacement` display one shape; `Rows`, `Animation` and `Blend` display several: side by side, one
after another, or as one object with sliders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import bpy
import numpy as np

from .geometry import ObjectGeometry, new_mesh, observed_values, transfer_observed, transform_points
from .keeping import add_vertex_group, completed_mesh, deviation_of, hide, is_unchanged
from .session import NO_MORE_STEPS, Steps, session
from .shapes import (
    PREVIEW,
    StoredShape,
    add_object,
    current_scene_uid,
    find_object,
    pack_refinement,
    remove_object,
    replace_mesh,
    select_objects,
    store_shape,
    stored_shape,
)
from .wire.messages import AMBIGUOUS_CONFIDENCE, Preview, Result, Shape

# A custom property: the mesh with the attribute `observed`, kept while the sliders show another shape.
OBSERVED_MESH = "sdf_seen"
SUFFIXES = {"complete": "completed", "reconstruct": "reconstructed"}


@dataclass(frozen=True)
class DisplaySettings:
    """Spacing, chosen by eye, so that neighbours do not touch."""

    row_gap: float = 0.15
    """between neighbours in a row, relative to the largest shape"""
    candidate_spacing: float = 1.25
    """between candidates of one input, relative to the depth of the best"""


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


class InPlace:
    """Displays a completion or reconstruction at the location of its source, named after the source.

    kept_uid : session UID of the object whose mesh the result keeps; 0 for none
    """

    undoable = True

    def __init__(
        self,
        job: str,
        source: str,
        task: str,
        model: str,
        observation: ObjectGeometry,
        settings: Mapping[str, Any],
        kept_uid: int = 0,
    ) -> None:
        self._job, self._name, self._scene = job, f"{source} {SUFFIXES[task]}", current_scene_uid()
        self._model, self._observation = model, observation
        self._settings = {"task": task, "source": source, **settings}
        self._preview_name, self._preview_uid = f"{source} preview", 0
        self._added: list[int] = []
        self._kept_uid = kept_uid
        self._notices: list[str] = []

    def preview(self, preview: Preview) -> Steps:
        """Display a coarse mesh until the result arrives."""
        mesh = new_mesh(self._preview_name, self._observation.to_result(preview.vertices), preview.faces)
        item = find_object(self._preview_uid)
        if item:
            replace_mesh(item, mesh)
        else:
            item = add_object(self._preview_name, mesh, self._observation.result_matrix, self._scene)
            item[PREVIEW], self._preview_uid = self._job, item.session_uid
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Replace the preview by the best candidate, selected, and display the alternatives in front of it.

        The result is a new object: undo and redo would confuse two states of one object.
        """
        _remove_objects([self._preview_uid, *self._added])
        best, *alternatives = result.shapes
        self._notices = [best.note] if best.note else []
        self._added = [self._add(self._name, best, self._observation.result_matrix)]
        depth = float(np.ptp(best.vertices[:, 1]))
        for number, shape in enumerate(alternatives, start=1):
            yield
            matrix = self._observation.result_matrix.copy()
            matrix[1, 3] -= number * DISPLAY.candidate_spacing * depth
            self._added.append(self._add(f"{self._name} {number + 1:02}", shape, matrix))
        select_objects(self._added[:1])
        if best.confidence < AMBIGUOUS_CONFIDENCE:
            # In the panel only: it is not an error, and a script reads the confidence from the object.
            hint = "the alternative is in front of it" if alternatives else "set Candidates to 2 to see both answers"
            self._notices.append(f"The pose of {self._name} is ambiguous; {hint}")
        if self._notices:
            session.notice = " ".join(dict.fromkeys(self._notices))

    def fail(self) -> Steps:
        """Remove the preview."""
        remove_object(find_object(self._preview_uid))
        return NO_MORE_STEPS

    def _add(self, name: str, shape: Shape, matrix: np.ndarray) -> int:
        """Add an object that stores the shape; returns its session UID."""
        original = self._original() if shape.kept_faces else None
        if original:
            item = self._add_kept(name, shape, matrix, original)
        else:
            vertices = self._observation.to_result(shape.vertices)
            deviation = deviation_of(shape, self._observation)
            mesh = new_mesh(name, vertices, shape.faces, shape.observed, deviation, shape.colors)
            item = add_object(name, mesh, matrix, self._scene)
        pose = self._observation.pose_in_result(shape.pose[0])
        stored = StoredShape(
            self._model, shape.code, pose[None], shape.code[0], pose, refinement=pack_refinement(shape.refinement)
        )
        store_shape(item, stored, {**self._settings, "confidence": shape.confidence})
        return item.session_uid

    def _original(self) -> bpy.types.Object | None:
        """The object whose mesh is kept; None, with a notice, if it is gone or has changed since it was read."""
        original = find_object(self._kept_uid)
        if original and is_unchanged(original, self._observation):
            return original
        source = self._settings["source"]
        self._notices.append(f"{source} has changed meanwhile, so the result lacks its UV maps and materials.")
        return None

    def _add_kept(self, name: str, shape: Shape, matrix: np.ndarray, original: bpy.types.Object) -> bpy.types.Object:
        """Add an object with the mesh of the original and what completes it, in its place; the original is hidden."""
        offset = matrix[:3, 3] - self._observation.result_matrix[:3, 3]
        place = np.array(original.matrix_world, dtype=np.float64)
        place[:3, 3] += offset
        item = add_object(name, completed_mesh(name, original, self._observation, shape), place, self._scene)
        add_vertex_group(item, shape)
        hide(original)
        return item


class MeshReplacement:
    """Replaces the mesh of a shape, after its resolution or its code has changed."""

    undoable = True

    def __init__(self, item: bpy.types.Object, settings: Mapping[str, Any] | None = None) -> None:
        self._uid, self._settings = item.session_uid, settings

    def preview(self, preview: Preview) -> Steps:
        """Ignore it; the object keeps its mesh until the result arrives."""
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Replace the mesh and the stored code and pose; the attribute `observed` is transferred."""
        item, [shape] = find_object(self._uid), result.shapes
        before = stored_shape(item)
        if item is None or before is None:  # deleted in the meantime
            return NO_MORE_STEPS
        vertices, source = transform_points(shape.vertices, np.eye(4)), _observed_mesh(item)
        same_code = np.allclose(before.codes[0], shape.code[0])
        observed = transfer_observed(source, vertices) if source and same_code else None
        if source:
            item[OBSERVED_MESH] = source  # a reference, before the object drops its own
        replace_mesh(item, new_mesh(item.name, vertices, shape.faces, observed))
        store_shape(item, replace(before, code=shape.code[0], pose=shape.pose[0]), self._settings)
        return NO_MORE_STEPS

    def fail(self) -> Steps:
        """Keep the object as it is."""
        return NO_MORE_STEPS


@dataclass(eq=False)
class _NewShapes:
    """Adds an object for each shape, with the origin at the position of its placement.

    placements : one for each shape; settings : of the task, stored in each object; scene : session UID
    """

    name: str
    model: str
    placements: Sequence[Placement]
    settings: Mapping[str, Any]
    scene: int
    _added: list[int] = field(default_factory=list, init=False)

    undoable = True

    def preview(self, preview: Preview) -> Steps:
        """Ignore it; these tasks send none."""
        return NO_MORE_STEPS

    def fail(self) -> Steps:
        """Nothing to remove."""
        return NO_MORE_STEPS

    def _remove_added(self) -> None:
        """Remove what an interrupted `finish` has added."""
        _remove_objects(self._added)
        self._added.clear()

    def _add(self, number: int, shape: Shape, offset: np.ndarray | float = 0.0) -> bpy.types.Object:
        placement = self.placements[number]
        name = self.name if len(self.placements) == 1 else f"{self.name} {number + 1:02}"
        mesh = new_mesh(name, shape.vertices, shape.faces)
        item = add_object(name, mesh, placement.translation(offset), self.scene)
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

    start : (3,), the position of the first shape
    """

    width: int
    start: np.ndarray

    def finish(self, result: Result) -> Steps:
        """Add the shapes, spaced so that none touch."""
        self._remove_added()
        sizes = np.array([np.ptp(shape.vertices[:, :2], axis=0) for shape in result.shapes]).max(axis=0)  # (2,)
        spacing = (1 + DISPLAY.row_gap) * sizes
        for number, shape in enumerate(result.shapes):
            if number:
                yield
            row, column = divmod(number, self.width)
            position = self.start + (spacing[0] * column, -spacing[1] * row, 0)
            self._add(number, shape, position - self.placements[number].position)
        select_objects(self._added)


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
        select_objects(self._added)


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
        select_objects(self._added)
        return NO_MORE_STEPS


def _remove_objects(uids: Sequence[int]) -> None:
    for uid in uids:
        remove_object(find_object(uid))


def _observed_mesh(item: bpy.types.Object) -> bpy.types.Mesh | None:
    """The mesh of a shape that has the attribute `observed`: the stored one, otherwise the current one."""
    stored = item.get(OBSERVED_MESH)
    if isinstance(stored, bpy.types.Mesh):
        return stored
    return item.data if isinstance(item.data, bpy.types.Mesh) and observed_values(item.data) is not None else None


def _insert_visibility_keyframe(item: bpy.types.Object, frame: int, hidden: bool) -> None:
    item.hide_viewport = item.hide_render = hidden
    for path in ("hide_viewport", "hide_render"):
        item.keyframe_insert(path, frame=frame)
