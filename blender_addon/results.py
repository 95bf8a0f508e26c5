"""What becomes of the results of completing, reconstructing and making anew: each a purpose of `session.Job`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import bpy
import numpy as np

from .geometry import Seen, new_mesh, observed_of, positions, transformed
from .session import session
from .shapes import (
    PREVIEW,
    Remembered,
    add_object,
    find_object,
    packed,
    present_scene,
    remember,
    remembered,
    remove_object,
    replace_mesh,
    select,
)
from .wire.messages import Preview, Result, Shape

SEEN = "sdf_seen"
SUFFIXES = {"complete": "completed", "reconstruct": "reconstructed"}
# Below this confidence the user is told that there is another answer.
UNSURE = 0.15
# How far other candidates stand before the one before them, as a share of its depth.
BESIDE = 1.25
# Cells an axis, from fine to coarse, in which it is looked up what was observed before.
CARRYING_CELLS = (96, 24, 6)


class InPlace:
    """One object in its source's place, named after it: completed or reconstructed."""

    undoable = True

    def __init__(self, job: str, source: str, task: str, model: str, seen: Seen, settings: Mapping[str, Any]) -> None:
        self._job, self._name, self._scene = job, f"{source} {SUFFIXES[task]}", present_scene()
        self._model, self._seen, self._settings = model, seen, {"task": task, "source": source, **settings}
        self._preview_name, self._uid = f"{source} preview", 0

    def preview(self, preview: Preview) -> Iterator[None]:
        """Show a coarse mesh in the place of the result."""
        mesh = new_mesh(self._preview_name, self._seen.local(preview.vertices), preview.faces)
        item = find_object(self._uid)
        if item:
            replace_mesh(item, mesh)
        else:
            item = self._added(self._preview_name, mesh, self._seen.placement)
            item[PREVIEW], self._uid = self._job, item.session_uid
        yield

    def finish(self, result: Result) -> Iterator[None]:
        """Show the best result instead, selected, and other candidates in a row before it.

        It is another object than the preview: an undo and a redo would mix up two states of one.
        """
        remove_object(find_object(self._uid))
        best, *others = result.shapes
        uid = self._shown(self._name, best, self._seen.placement)
        depth = float(np.ptp(best.vertices[:, 1]))
        for number, shape in enumerate(others, start=1):
            yield
            beside = self._seen.placement.copy()
            beside[1, 3] -= number * BESIDE * depth
            self._shown(f"{self._name} {number + 1:02}", shape, beside)
        select([uid])
        if best.confidence < UNSURE:
            # For the panel alone: nothing went wrong, and a script finds the number on the object.
            where = "the other answer is beside it" if others else "with 2 candidates the other answer comes too"
            session.notice = f"{self._name} could stand otherwise as well; {where}"
        yield

    def fail(self) -> Iterator[None]:
        """Remove the coarse mesh."""
        remove_object(find_object(self._uid))
        yield

    def _shown(self, name: str, shape: Shape, matrix: np.ndarray) -> int:
        """Blender's number for a new object that is this shape, and remembers it."""
        # The placement has the scale of the object, and lengths on a mesh are in its own units.
        deviation = None if shape.deviation is None else shape.deviation / self._seen.scale
        mesh = new_mesh(name, self._seen.local(shape.vertices), shape.faces, shape.observed, deviation)
        item, pose = self._added(name, mesh, matrix), self._seen.local_pose(shape.pose[0])
        kept = Remembered(self._model, shape.code, pose[None], shape.code[0], pose, refinement=packed(shape.refinement))
        remember(item, kept, {**self._settings, "confidence": shape.confidence})
        return item.session_uid

    def _added(self, name: str, mesh: bpy.types.Mesh, matrix: np.ndarray) -> bpy.types.Object:
        return add_object(name, mesh, matrix, self._scene)


class Remade:
    """An object that is a shape gets another mesh: of another resolution, or of another code."""

    undoable = True

    def __init__(self, item: bpy.types.Object, settings: Mapping[str, Any] | None = None) -> None:
        self._uid, self._settings = item.session_uid, settings

    def preview(self, preview: Preview) -> Iterator[None]:
        """There is none; the object stays as it is."""
        yield

    def finish(self, result: Result) -> Iterator[None]:
        """Put the mesh in the place of the old one."""
        item, [shape] = find_object(self._uid), result.shapes
        before = remembered(item)
        if item is None or before is None:  # deleted meanwhile
            return
        vertices, seen = transformed(shape.vertices, np.eye(4)), _seen_mesh(item)
        same = np.allclose(before.codes[0], shape.code[0])
        observed = carried(seen, vertices) if seen and same else None
        if seen:
            item[SEEN] = seen  # before it is let go
        replace_mesh(item, new_mesh(item.name, vertices, shape.faces, observed))
        remember(item, replace(before, code=shape.code[0], pose=shape.pose[0]), self._settings)
        yield

    def fail(self) -> Iterator[None]:
        """Leave the object as it is."""
        yield


def _seen_mesh(item: bpy.types.Object) -> bpy.types.Mesh | None:
    """The mesh that knows what was observed of a shape; kept while sliders have led the shape away from it."""
    known = item.get(SEEN)
    if isinstance(known, bpy.types.Mesh):
        return known
    return item.data if isinstance(item.data, bpy.types.Mesh) and observed_of(item.data) is not None else None


def carried(before: bpy.types.Mesh, vertices: np.ndarray) -> np.ndarray | None:
    """What was observed of one mesh, for the vertices, (n, 3), of another of the same shape; None where it is unknown.

    Both are sorted into cells: a search for the nearest vertex would take seconds for a large mesh.
    """
    known = observed_of(before)
    if known is None:
        return None
    old = positions(before)
    both = np.concatenate([old, vertices])
    low, size = both.min(axis=0), float(np.ptp(both, axis=0).max()) or 1.0
    found = np.full(len(vertices), np.nan)
    for cells in CARRYING_CELLS:
        at, wanted = (_cell_numbers(points, low, size, cells) for points in (old, vertices))
        sums, counts = (np.bincount(at, weights, (cells + 1) ** 3) for weights in (known, None))
        with np.errstate(invalid="ignore"):
            mean = sums / counts
        found = np.where(np.isnan(found), mean[wanted], found)
    return np.nan_to_num(found).astype(np.float32)


def _cell_numbers(points: np.ndarray, low: np.ndarray, size: float, cells: int) -> np.ndarray:
    place = ((points - low) * (cells / size)).astype(np.int64)
    return (place[:, 0] * (cells + 1) + place[:, 1]) * (cells + 1) + place[:, 2]
