"""Objects that are shapes of a model: what they remember of it, and how they come into the scene.

A shape's codes are its ends: one for a completed object, several for one that is blended between others. `code` is what
it shows now. Poses are matrices from the model's canonical frame to the object's own coordinates, so that an object
that was moved, turned or scaled since is made anew where it stands.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import bpy
import numpy as np
from mathutils import Matrix, Vector

COLLECTION = "SDF Shapes"
# Beside them stand the settings that it was made with, under the names that `scene.sdf` has for them.
MODEL, CODES, POSES, CODE, POSE, GRID, SOURCE = (
    f"sdf_{name}" for name in ("model", "codes", "matrices", "code", "matrix", "grid", "source")
)
# Of a coarse mesh that is shown while its job runs: the job's name. Of a collection that results come into: that it is.
PREVIEW, RESULTS = "sdf_preview", "sdf_results"
# The corrections of a fitted shape, as text: Blender cuts bytes at their first zero, and takes seconds for a long list.
REFINEMENT = "sdf_refinement"


@dataclass(frozen=True)
class Remembered:
    """What an object remembers: all that is needed to make it anew, to vary it, or to interpolate it, without a fit.

    codes : (k, code_length); poses : (k, 4, 4); code : (code_length,); pose : (4, 4)
    refinement : by what the shape of the only code was corrected, see `packed`; empty where it was not
    """

    model: str
    codes: np.ndarray
    poses: np.ndarray
    code: np.ndarray
    pose: np.ndarray
    grid: bool = False
    """whether the codes are the corners of a square; they lie along a path otherwise"""
    refinement: str = ""


def remember(item: bpy.types.Object, shape: Remembered, settings: Mapping[str, Any] | None = None) -> None:
    """Keep a shape, and the settings that it was made with, as custom properties."""
    item[MODEL], item[GRID] = shape.model, shape.grid
    for name, values in ((CODES, shape.codes), (POSES, shape.poses), (CODE, shape.code), (POSE, shape.pose)):
        item[name] = np.asarray(values, dtype=np.float64).reshape(-1).tolist()
    if shape.refinement:
        item[REFINEMENT] = shape.refinement
    for name, value in (settings or {}).items():
        item[f"sdf_{name}"] = value


def remembered(item: bpy.types.Object | None) -> Remembered | None:
    """What an object remembers; None for one that is no shape, or whose properties somebody has spoilt."""
    if item is None or MODEL not in item:
        return None
    try:
        codes, poses, code, pose = (np.array(list(item[name]), dtype=np.float64) for name in (CODES, POSES, CODE, POSE))
        poses, pose = poses.reshape(-1, 4, 4), pose.reshape(4, 4)
        codes = codes.reshape(len(poses), len(code))
        grid = bool(item[GRID]) and len(poses) == 4
        return Remembered(str(item[MODEL]), codes, poses, code, pose, grid, str(item.get(REFINEMENT, "")))
    except (KeyError, TypeError, ValueError):
        return None


def packed(refinement: np.ndarray | None) -> str:
    """Corrections, (m, 2), as the text that an object remembers."""
    return "" if refinement is None else b64encode(zlib.compress(refinement.astype("<f4").tobytes())).decode()


def unpacked(refinement: str) -> np.ndarray | None:
    """The inverse of `packed`; None also for a text that somebody has spoilt."""
    try:
        return np.frombuffer(zlib.decompress(b64decode(refinement)), "<f4").reshape(-1, 2) if refinement else None
    except (ValueError, zlib.error):
        return None


def title(item: bpy.types.Object) -> str:
    """What results of an object are named after: a shape's source, or else the object."""
    return str(item.get(SOURCE) or item.name)


def world_pose(item: bpy.types.Object, pose: np.ndarray) -> np.ndarray:
    """A pose, (4, 4), from the object's coordinates to the world's; one scale for all axes, and no shear."""
    return similar(np.array(item.matrix_world, dtype=np.float64)) @ pose


def similar(matrix: np.ndarray) -> np.ndarray:
    """The turn, shift and one scale of a (4, 4) matrix, which may shear, mirror, and scale its axes differently."""
    _, rotation, scale = Matrix(matrix.tolist()).decompose()
    one = abs(scale[0] * scale[1] * scale[2]) ** (1 / 3) or 1.0
    found = np.array(matrix, dtype=np.float64)
    found[:3, :3] = one * np.array(rotation.to_matrix(), dtype=np.float64)
    return found


def upright(front: str) -> np.ndarray:
    """The pose, (4, 4), of a shape that stands in Blender as its users have it: z up, looking along -y.

    Canonical frames are y up and look along `front`.
    """
    ahead = np.zeros(3)
    ahead["xyz".index(front[-1])] = -1.0 if front[0] == "-" else 1.0
    canonical = np.stack([[0, 1, 0], ahead, np.cross([0, 1, 0], ahead)])
    blender = np.stack([[0, 0, 1], [0, -1, 0], np.cross([0, 0, 1], [0, -1, 0])])
    pose = np.eye(4)
    pose[:3, :3] = blender.T @ canonical
    return pose


def present_scene() -> int:
    """Blender's own number for the scene of now; results come into the one from which they were asked for."""
    scene = bpy.context.scene
    return scene.session_uid if scene else 0


def add_object(name: str, mesh: bpy.types.Mesh, matrix: np.ndarray, scene: int) -> bpy.types.Object:
    """A new object in a scene's collection of results that stands at `matrix`, (4, 4)."""
    item = bpy.data.objects.new(name, mesh)
    _collection(scene).objects.link(item)
    item.matrix_world = Matrix(matrix.tolist())
    return item


def find_object(uid: int) -> bpy.types.Object | None:
    """An object by Blender's own number for it, which outlives renaming and undo; 0 is none."""
    return next((item for item in bpy.data.objects if item.session_uid == uid), None) if uid else None


def replace_mesh(item: bpy.types.Object, mesh: bpy.types.Mesh) -> None:
    """Give an object another mesh, with the materials of the one that it had."""
    before = item.data
    if isinstance(before, bpy.types.Mesh):
        for material in before.materials:
            mesh.materials.append(material)
    item.data = mesh
    _remove_mesh(before)


def remove_object(item: bpy.types.Object | None) -> None:
    """Remove an object and its mesh."""
    if item is not None:
        mesh = item.data
        bpy.data.objects.remove(item)
        _remove_mesh(mesh)


def remove_previews(running: Collection[str] = ()) -> None:
    """Remove coarse meshes whose jobs do not run: undo, redo and files bring them back."""
    for item in list(bpy.data.objects):
        if PREVIEW in item and item[PREVIEW] not in running:
            remove_object(item)


def extent(item: bpy.types.Object) -> tuple[np.ndarray, np.ndarray]:
    """The lowest corner, (3,), of an object's bounding box in the world, and its size, (3,)."""
    corners = np.array([item.matrix_world @ Vector(corner) for corner in item.bound_box])
    return corners.min(axis=0), np.ptp(corners, axis=0)


def select(uids: Sequence[int]) -> None:
    """Select these objects and nothing else; the first becomes the active one."""
    layer = bpy.context.view_layer
    if layer is None:
        return
    layer.update()  # it does not know of new objects yet
    items = [item for item in map(find_object, uids) if item]
    seen = [item for item in items if item.name in layer.objects]  # others are hidden from this view
    if not seen:
        return
    for other in layer.objects.selected:
        other.select_set(False)
    for item in seen:
        item.select_set(True)
    layer.objects.active = seen[0]


def _remove_mesh(mesh: bpy.types.ID | None) -> None:
    if isinstance(mesh, bpy.types.Mesh) and not mesh.users:
        bpy.data.meshes.remove(mesh)


def _collection(uid: int) -> bpy.types.Collection:
    """That of a scene, which may have been renamed; of the present one where that scene is gone."""
    scene = next((scene for scene in bpy.data.scenes if scene.session_uid == uid), bpy.context.scene)
    assert scene and scene.collection
    known = (one for one in scene.collection.children_recursive if RESULTS in one and one.library is None)
    found = next(known, None)
    if found is None:
        found = bpy.data.collections.new(COLLECTION)
        found[RESULTS] = True
        scene.collection.children.link(found)
    return cast(bpy.types.Collection, found)
