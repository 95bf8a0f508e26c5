"""End to end in background mode: start a real backend, complete a partial aeroplane, interpolate between two.

`tests/gui` does the same in a window. The backend's Python is SDF_BACKEND_PYTHON, or else the project's own.
"""

import os
from pathlib import Path
from typing import Any

import bmesh
import bpy
import numpy as np
import pytest
from mathutils import Matrix
from mathutils.bvhtree import BVHTree

from blender_addon.launcher import Stage
from blender_addon.session import session

ROOT = Path(__file__).parents[2]
PLACE = Matrix.LocRotScale((2, 1, 1), Matrix.Rotation(np.pi / 2, 3, "X").to_quaternion(), (3, 3, 3))


@pytest.fixture
def backend_python(addon: Any) -> str:
    addon.python = os.environ.get("SDF_BACKEND_PYTHON") or str(ROOT / ".venv/bin/python")
    return addon.python


def scan(name: str) -> bpy.types.Object:
    bpy.ops.wm.ply_import(filepath=str(ROOT / "demo" / name))
    item = bpy.context.object
    item.matrix_world = PLACE
    bpy.context.view_layer.update()
    return item


def is_closed(item: bpy.types.Object) -> bool:
    mesh = bmesh.new()
    mesh.from_mesh(item.data)
    closed = all(len(edge.link_faces) == 2 for edge in mesh.edges)
    mesh.free()
    return closed


def distances(points: bpy.types.Object, surface: bpy.types.Object) -> np.ndarray:
    """From every vertex of one object to the surface of the other, in the world's units."""
    tree = BVHTree.FromObject(surface, bpy.context.evaluated_depsgraph_get())
    inward = surface.matrix_world.inverted() @ points.matrix_world
    found = (tree.find_nearest(inward @ vertex.co)[3] for vertex in list(points.data.vertices)[::20])
    return np.array(list(found)) * surface.matrix_world.median_scale


def test_a_scan_is_completed_varied_and_interpolated(backend_python: str) -> None:
    assert bpy.ops.sdf.start_backend(options="--device cpu --cache-mib 0") == {"FINISHED"}
    source = scan("scan.ply")
    assert bpy.ops.sdf.complete(model="airplanes", pose="aligned", front="-x", resolution=96) == {"FINISHED"}
    whole = bpy.context.object
    assert is_closed(whole)
    assert len(whole.data.vertices) > 1000
    # The aeroplane is 6 m long; the observed surface is to lie on the result.
    assert np.median(distances(source, whole)) < 0.05
    assert np.ptp(np.array(whole["sdf_code"])) > 0

    assert bpy.ops.sdf.vary(count=1, spread=0.5, resolution=64) == {"FINISHED"}
    whole.select_set(True)
    assert bpy.ops.sdf.interpolate(steps=3, resolution=64) == {"FINISHED"}
    steps = bpy.context.selected_objects
    assert len(steps) == 3
    assert all(map(is_closed, steps))
    process = session.launcher.process
    assert bpy.ops.sdf.stop_backend() == {"FINISHED"}
    session.launcher.close()
    assert process.poll() is not None
    assert session.launcher.stage is Stage.STOPPED
