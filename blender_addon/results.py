"""What becomes of the results of completing, reconstructing and making anew: each a purpose of `session.Job`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import bpy
import numpy as np

from .geometry import Seen, new_mesh, observed_of, positions, transformed
from .shapes import Remembered, add_object, find_object, remember, remembered, remove_object, replace_mesh, select
from .wire.messages import Preview, Result, Shape

SUFFIXES = {"complete": "completed", "reconstruct": "reconstructed"}
# How far other candidates stand before the one before them, as a share of its depth.
BESIDE = 1.25
# Cells an axis, from fine to coarse, in which it is looked up what was observed before.
CARRYING_CELLS = (96, 24, 6)


class InPlace:
    """One object in its source's place, named after it: completed or reconstructed."""

    def __init__(self, source: str, task: str, model: str, seen: Seen, settings: Mapping[str, Any]) -> None:
        self._name = f"{source} {SUFFIXES[task]}"
        self._model, self._seen, self._settings = model, seen, {"task": task, "source": source, **settings}
        self._uid = 0

    def preview(self, preview: Preview) -> Iterator[None]:
        """Show a coarse mesh in the place of the result."""
        self._show(new_mesh(self._name, self._seen.local(preview.vertices), preview.faces))
        yield

    def finish(self, result: Result) -> Iterator[None]:
        """Show the best result instead, selected, and other candidates in a row before it."""
        best, *others = result.shapes
        item = self._show(self._mesh(best))
        self._remember(item, best)
        depth = float(np.ptp(best.vertices[:, 1]))
        for number, shape in enumerate(others, start=1):
            yield
            beside = self._seen.placement.copy()
            beside[1, 3] -= number * BESIDE * depth
            self._remember(add_object(f"{self._name} {number + 1:02}", self._mesh(shape), beside), shape)
        select([item])
        yield

    def fail(self) -> Iterator[None]:
        """Remove the coarse mesh."""
        remove_object(find_object(self._uid))
        yield

    def _mesh(self, shape: Shape) -> bpy.types.Mesh:
        return new_mesh(self._name, self._seen.local(shape.vertices), shape.faces, shape.observed)

    def _remember(self, item: bpy.types.Object, shape: Shape) -> None:
        pose = self._seen.local_pose(shape.pose[0])
        remember(item, Remembered(self._model, shape.code, pose[None], shape.code[0], pose), self._settings)

    def _show(self, mesh: bpy.types.Mesh) -> bpy.types.Object:
        """The object with this mesh; made where there is none, or where somebody has deleted it."""
        item = find_object(self._uid)
        if item is None:
            item = add_object(self._name, mesh, self._seen.placement)
            self._uid = item.session_uid
        else:
            replace_mesh(item, mesh)
        return item


class Remade:
    """An object that is a shape gets another mesh: of another resolution, or of another code."""

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
        vertices = transformed(shape.vertices, np.eye(4))
        observed = None
        if isinstance(item.data, bpy.types.Mesh) and np.allclose(before.code, shape.code[0]):
            observed = carried(item.data, vertices)
        replace_mesh(item, new_mesh(item.name, vertices, shape.faces, observed))
        remember(item, replace(before, code=shape.code[0], pose=shape.pose[0]), self._settings)
        yield

    def fail(self) -> Iterator[None]:
        """Leave the object as it is."""
        yield


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
