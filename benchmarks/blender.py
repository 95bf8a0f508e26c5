"""What the add-on costs Blender's main thread, on a bpy wheel.

    .venv-bpy-4.5.15/bin/python -m benchmarks.blender

A wavy square of a million triangles becomes an object and is read again; beside it, numpy's copy of the same arrays, so
that a slow machine is seen as one. An idle tick is what the timer does where there is no job.
"""

import statistics
import time
from collections.abc import Callable

import bpy
import numpy as np

from blender_addon import ticking
from blender_addon.geometry import new_mesh, read_objects

GRID, TIMES = 708, 5


def main() -> None:
    """Print the lines."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    vertices, faces = square()
    print(f"bpy {bpy.app.version_string}, {len(faces):,} triangles; median of {TIMES}")
    print(f"numpy copies the arrays in {1000 * median(lambda: (vertices.copy(), faces.copy())):.1f} ms")
    print(f"import: {1000 * median(lambda: bpy.data.meshes.remove(new_mesh('it', vertices, faces))):.0f} ms")
    item = bpy.data.objects.new("it", new_mesh("it", vertices, faces))
    bpy.context.scene.collection.objects.link(item)
    graph = bpy.context.evaluated_depsgraph_get()
    print(f"export: {1000 * median(lambda: read_objects([item], graph)):.0f} ms")
    print(f"idle tick: {1000 * median(ticking._work, 1000):.4f} ms")


def square() -> tuple[np.ndarray, np.ndarray]:
    """Vertices, (n, 3) float32, and about a million faces, (m, 3) int32."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, GRID, dtype=np.float32),) * 2)
    vertices = np.stack([x, y, 0.1 * np.sin(5 * x * y)], axis=-1).reshape(-1, 3)
    corner = (np.arange(GRID - 1)[:, None] * GRID + np.arange(GRID - 1)).reshape(-1, 1)
    faces = np.concatenate([corner + [0, 1, GRID], corner + [1, GRID + 1, GRID]])
    return np.ascontiguousarray(vertices), faces.astype(np.int32)


def median(action: Callable[[], object], times: int = TIMES) -> float:
    """Seconds, the first run not counted."""
    action()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
