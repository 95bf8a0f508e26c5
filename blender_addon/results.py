"""What a backend has made becomes objects: in the source's place, named after it, in a collection of their own."""

import bpy
import numpy as np
from mathutils import Matrix

from .geometry import new_mesh
from .session import Arrived, Job
from .wire.messages import Preview, Result

COLLECTION = "SDF Shapes"
SUFFIXES = {"complete": "completed", "reconstruct": "reconstructed"}


def place(arrived: Arrived) -> bpy.types.Object | None:
    """Show a preview, or a result in its stead, or take the preview of a job away that came to nothing."""
    job, content = arrived.job, arrived.content
    match content:
        case Preview(vertices=vertices, faces=faces):
            return _shown(job, new_mesh(job.source, job.seen.local(vertices), faces))
        case Result(shapes=shapes):
            shape = shapes[0]
            mesh = new_mesh(job.source, job.seen.local(shape.vertices), shape.faces, shape.observed)
            item = _shown(job, mesh)
            _remember(item, job, shape.code[0], shape.pose[0])
            _select(item)
            return item
        case None:
            _remove(bpy.data.objects.get(job.placed))


def _shown(job: Job, mesh: bpy.types.Mesh) -> bpy.types.Object:
    """The job's object with this mesh; made where there is none, or where somebody has deleted it."""
    item = bpy.data.objects.get(job.placed)
    if item is None:
        item = bpy.data.objects.new(f"{job.source} {SUFFIXES.get(job.task, job.task)}", mesh)
        _collection().objects.link(item)
        item.matrix_world = Matrix(job.seen.placement.tolist())
        job.placed = item.name
    else:
        coarse, item.data = item.data, mesh
        _remove_mesh(coarse)
    return item


def _remove(item: bpy.types.Object | None) -> None:
    if item is not None:
        coarse = item.data
        bpy.data.objects.remove(item)
        _remove_mesh(coarse)


def _remove_mesh(mesh: bpy.types.ID | None) -> None:
    if isinstance(mesh, bpy.types.Mesh) and not mesh.users:
        bpy.data.meshes.remove(mesh)


def _remember(item: bpy.types.Object, job: Job, code: np.ndarray, pose: np.ndarray) -> None:
    """All that another resolution, a variation or an interpolation needs, without a new fit."""
    item["sdf_model"], item["sdf_task"] = job.model, job.task
    item["sdf_code"], item["sdf_pose"] = code.astype(float).tolist(), pose.astype(float).reshape(-1).tolist()
    item["sdf_centre"] = job.seen.centre.tolist()
    for name, value in job.settings.items():
        item[f"sdf_{name}"] = value


def _select(item: bpy.types.Object) -> None:
    layer = bpy.context.view_layer
    if layer is None:
        return
    layer.update()  # it does not know of the new object yet
    if item.name not in layer.objects:  # its collection is hidden from this view
        return
    for other in layer.objects.selected:
        other.select_set(False)
    item.select_set(True)
    layer.objects.active = item


def _collection() -> bpy.types.Collection:
    scene = bpy.context.scene
    assert scene and scene.collection
    found = bpy.data.collections.get(COLLECTION) or bpy.data.collections.new(COLLECTION)
    if found.name not in scene.collection.children:
        scene.collection.children.link(found)
    return found
