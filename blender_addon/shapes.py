"""Objects that are shapes of a model: the stored shape, and adding, finding and removing objects.

A stored shape has k keyframe codes: one for a completed object, several for a blend. `code` is the code of the current
mesh. Poses map the model's canonical frame to the object's own coordinates, so that an object that has been moved,
rotated or scaled is remeshed in place.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

import bpy
import numpy as np
from mathutils import Matrix, Vector

COLLECTION = "SDF Shapes"
# Custom properties of an object. The settings of its task are stored too, as `sdf_` and the name of the setting.
MODEL, CODES, POSES, CODE, POSE, GRID, SOURCE = (
    f"sdf_{name}" for name in ("model", "codes", "matrices", "code", "matrix", "grid", "source")
)
# The names of the objects that a result was made of, one a line; and its state when it was displayed.
INPUTS, MADE = "sdf_inputs", "sdf_made"
# A custom property of a preview object: the id of its job. A custom property of the collection of results.
PREVIEW, RESULTS = "sdf_preview", "sdf_results"
# The residual field of a fitted shape, as text: Blender truncates bytes at a zero, and long lists take seconds.
REFINEMENT = "sdf_refinement"


@dataclass(frozen=True)
class StoredShape:
    """All that is needed to remesh, vary or interpolate a shape without fitting it again.

    codes : (k, code_length); poses : (k, 4, 4); code : (code_length,); pose : (4, 4)
    refinement : the residual field of the only code, see `pack_refinement`; empty without one
    """

    model: str
    codes: np.ndarray
    poses: np.ndarray
    code: np.ndarray
    pose: np.ndarray
    grid: bool = False
    """whether the codes are the corners of a square; otherwise they are keyframes of a path"""
    refinement: str = ""


def store_shape(item: bpy.types.Object, shape: StoredShape, settings: Mapping[str, Any] | None = None) -> None:
    """Store a shape, and the settings of its task, as custom properties of an object."""
    item[MODEL], item[GRID] = shape.model, shape.grid
    for name, values in ((CODES, shape.codes), (POSES, shape.poses), (CODE, shape.code), (POSE, shape.pose)):
        item[name] = np.asarray(values, dtype=np.float64).reshape(-1).tolist()
    if shape.refinement:
        item[REFINEMENT] = shape.refinement
    for name, value in (settings or {}).items():
        item[f"sdf_{name}"] = value.value if isinstance(value, Enum) else value


def stored_shape(item: bpy.types.Object | None) -> StoredShape | None:
    """The shape that is stored in an object; None for one without, or with custom properties that are not valid."""
    if item is None or MODEL not in item:
        return None
    try:
        codes, poses, code, pose = (np.array(list(item[name]), dtype=np.float64) for name in (CODES, POSES, CODE, POSE))
        poses, pose = poses.reshape(-1, 4, 4), pose.reshape(4, 4)
        codes = codes.reshape(len(poses), len(code))
        grid = bool(item[GRID]) and len(poses) == 4
        return StoredShape(str(item[MODEL]), codes, poses, code, pose, grid, str(item.get(REFINEMENT, "")))
    except (KeyError, TypeError, ValueError):
        return None


def pack_refinement(refinement: np.ndarray | None) -> str:
    """A residual field, (m, 2), as text; empty for None."""
    return "" if refinement is None else b64encode(zlib.compress(refinement.astype("<f4").tobytes())).decode()


def unpack_refinement(refinement: str) -> np.ndarray | None:
    """The inverse of `pack_refinement`; None for a text that is not valid."""
    try:
        return np.frombuffer(zlib.decompress(b64decode(refinement)), "<f4").reshape(-1, 2) if refinement else None
    except (ValueError, zlib.error):
        return None


def source_name(item: bpy.types.Object) -> str:
    """The name from which those of results are derived: the source of a shape, otherwise the object's name."""
    return str(item.get(SOURCE) or item.name)


def input_names(item: bpy.types.Object) -> list[str]:
    """The names of the objects that a completed or reconstructed object was made of."""
    return str(item.get(INPUTS, "")).splitlines()


def mark_as_made(item: bpy.types.Object) -> None:
    """Note the state of a result, so that what the user changes of it is noticed."""
    item[MADE] = _state(item)


def is_untouched(item: bpy.types.Object) -> bool:
    """Whether a result is where and what it was when it was displayed, and no asset."""
    made = item.get(MADE)
    return made is not None and item.asset_data is None and np.allclose(list(made), _state(item), rtol=1e-5, atol=1e-6)


def linked_reason(item: bpy.types.Object) -> str:
    """Why an object cannot be changed, as a sentence; empty if it can be."""
    data = item.data
    linked = next((one for one in (item, data) if one is not None and not one.is_editable), None)
    if linked is None:
        return ""
    return f"{item.name} is linked from another file; choose Object > Relations > Make Local first"


def _state(item: bpy.types.Object) -> list[float]:
    count = len(item.data.vertices) if isinstance(item.data, bpy.types.Mesh) else 0
    return [float(count), *(value for row in item.matrix_basis for value in row)]


def world_pose(item: bpy.types.Object, pose: np.ndarray) -> np.ndarray:
    """A pose, (4, 4), in the object's coordinates as one in the world's; uniform scale, no shear."""
    return nearest_similarity(np.array(item.matrix_world, dtype=np.float64)) @ pose


def nearest_similarity(matrix: np.ndarray) -> np.ndarray:
    """Translation, rotation and uniform scale of a (4, 4) matrix that may shear, mirror or scale non-uniformly.

    The scale is the geometric mean of the three.
    """
    _, rotation, scale = Matrix(matrix.tolist()).decompose()
    uniform = abs(scale[0] * scale[1] * scale[2]) ** (1 / 3) or 1.0
    similarity = np.array(matrix, dtype=np.float64)
    similarity[:3, :3] = uniform * np.array(rotation.to_matrix(), dtype=np.float64)
    return similarity


def upright_pose(front: str) -> np.ndarray:
    """The rotation, (4, 4), from a canonical frame to Blender's convention: z up, facing -y.

    Canonical frames are y up; `front` is the axis that they face.
    """
    ahead = np.zeros(3)
    ahead["xyz".index(front[-1])] = -1.0 if front[0] == "-" else 1.0
    canonical = np.stack([[0, 1, 0], ahead, np.cross([0, 1, 0], ahead)])
    blender = np.stack([[0, 0, 1], [0, -1, 0], np.cross([0, 0, 1], [0, -1, 0])])
    pose = np.eye(4)
    pose[:3, :3] = blender.T @ canonical
    return pose


@dataclass(eq=False)
class Asked:
    """Where the user asked for something, and what was selected then; the jobs of one request share it."""

    scene: int
    """session UID of the scene; 0 for none"""
    selection: tuple[int, set[int]]
    """session UIDs of the active object and of the selected ones"""
    shown: list[int] = field(default_factory=list)
    """session UIDs of the results so far"""

    @classmethod
    def now(cls) -> "Asked":
        """The current scene and selection."""
        scene = bpy.context.scene
        return cls(scene.session_uid if scene else 0, _selection())

    @property
    def is_current(self) -> bool:
        """Whether the user has selected nothing else since."""
        return self.selection == _selection()

    def select(self, uids: Sequence[int]) -> None:
        """Select these results and the earlier ones, the first of these active."""
        self.shown = [*uids, *self.shown]
        _select_objects(self.shown)
        self.selection = _selection()


def _selection() -> tuple[int, set[int]]:
    layer = bpy.context.view_layer
    if layer is None:
        return 0, set()
    active = layer.objects.active
    return active.session_uid if active else 0, {item.session_uid for item in layer.objects.selected}


def add_object(name: str, mesh: bpy.types.Mesh, matrix: np.ndarray, scene_uid: int) -> bpy.types.Object:
    """Add an object with this `matrix_world`, (4, 4), to the collection of results of a scene."""
    item = bpy.data.objects.new(name, mesh)
    _results_collection(scene_uid).objects.link(item)
    item.matrix_world = Matrix(matrix.tolist())
    return item


def find_object(uid: int) -> bpy.types.Object | None:
    """The object with a session UID, which does not change on renaming and undo; 0 is none."""
    return next((item for item in bpy.data.objects if item.session_uid == uid), None) if uid else None


def replace_mesh(item: bpy.types.Object, mesh: bpy.types.Mesh) -> None:
    """Replace the mesh of an object; its materials are kept."""
    before = item.data
    if isinstance(before, bpy.types.Mesh):
        for material in before.materials:
            mesh.materials.append(material)
    item.data = mesh
    _remove_unused_mesh(before)


def remove_object(item: bpy.types.Object | None) -> None:
    """Remove an object and its mesh."""
    if item is not None:
        mesh = item.data
        bpy.data.objects.remove(item)
        _remove_unused_mesh(mesh)


def remove_objects(uids: Sequence[int]) -> None:
    """Remove the objects with these session UIDs, and their meshes."""
    for uid in uids:
        remove_object(find_object(uid))


def remove_previews(running: Collection[str] = ()) -> None:
    """Remove previews of jobs that are not running: undo, redo and loading a file restore them."""
    for item in list(bpy.data.objects):
        if PREVIEW in item and item[PREVIEW] not in running:
            remove_object(item)


def bounding_box(item: bpy.types.Object) -> tuple[np.ndarray, np.ndarray]:
    """The lowest corner, (3,), of an object's bounding box in the world, and its size, (3,)."""
    corners = np.array([item.matrix_world @ Vector(corner) for corner in item.bound_box])
    return corners.min(axis=0), np.ptp(corners, axis=0)


def _select_objects(uids: Sequence[int]) -> None:
    """Select these objects only; the first becomes the active object."""
    layer = bpy.context.view_layer
    if layer is None:
        return
    layer.update()  # to include new objects
    items = [item for item in map(find_object, uids) if item]
    visible = [item for item in items if item.name in layer.objects]  # the view layer excludes the rest
    if not visible:
        return
    for other in layer.objects.selected:
        other.select_set(False)
    for item in visible:
        item.select_set(True)
    layer.objects.active = visible[0]


def result_boxes(scene_uid: int) -> list[np.ndarray]:
    """The bounding boxes of the results in a scene, seen from above: lowest and highest x and y, each (2, 2)."""
    if bpy.context.view_layer:
        bpy.context.view_layer.update()  # of new objects
    boxes = [bounding_box(item) for item in _results_collection(scene_uid).objects if item.type == "MESH"]
    return [np.stack([low, low + size])[:, :2] for low, size in boxes]


def hidden_notice(uids: Sequence[int]) -> str:
    """A sentence about new objects that the user cannot see; empty if one is visible."""
    layer, items = bpy.context.view_layer, [item for item in map(find_object, uids) if item]
    if layer is None or not items or any(item.visible_get() for item in items):
        return ""
    first = items[0]
    if first.name not in layer.objects and bpy.context.scene not in first.users_scene:
        return f"{first.name} is in the scene {first.users_scene[0].name}."
    collection = first.users_collection[0].name
    return f"{first.name} is not visible, because the collection {collection} is hidden or excluded; see the Outliner."


def _remove_unused_mesh(mesh: bpy.types.ID | None) -> None:
    if isinstance(mesh, bpy.types.Mesh) and not mesh.users:
        bpy.data.meshes.remove(mesh)


def _results_collection(scene_uid: int) -> bpy.types.Collection:
    """The collection of results of a scene, even if renamed; that of the current scene if the scene is gone."""
    scene = next((scene for scene in bpy.data.scenes if scene.session_uid == scene_uid), bpy.context.scene)
    assert scene and scene.collection
    existing = (item for item in scene.collection.children_recursive if RESULTS in item and item.library is None)
    collection = next(existing, None)
    if collection is None:
        collection = bpy.data.collections.new(COLLECTION)
        collection[RESULTS] = True
        scene.collection.children.link(collection)
    return cast(bpy.types.Collection, collection)
