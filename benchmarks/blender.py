"""Time that the add-on takes on Blender's main thread, measured with Blender as a Python module.

    .venv-bpy-4.5.15/bin/python -m benchmarks.blender

A wavy square of a million triangles is imported as an object and exported again; numpy's copy of the same arrays is the
reference for the speed of the machine. An idle tick is one call of the timer without jobs.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import bpy
import zmq

from benchmarks.square import wavy_square
from blender_addon import timer
from blender_addon.geometry import new_mesh, read_objects
from blender_addon.session import session
from blender_addon.wire.client import State
from blender_addon.wire.codec import encode
from blender_addon.wire.messages import Welcome

SIDE, TIMES = 708, 5


def main() -> None:
    """Print the measurements."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    vertices, faces = wavy_square(SIDE)
    print(f"bpy {bpy.app.version_string}, {len(faces):,} triangles; median of {TIMES}")
    print(f"numpy copies the arrays in {1000 * median(lambda: (vertices.copy(), faces.copy())):.1f} ms")
    print(f"import: {1000 * median(lambda: bpy.data.meshes.remove(new_mesh('it', vertices, faces))):.0f} ms")
    item = bpy.data.objects.new("it", new_mesh("it", vertices, faces))
    bpy.context.scene.collection.objects.link(item)
    graph = bpy.context.evaluated_depsgraph_get()
    print(f"export: {1000 * median(lambda: read_objects([item], graph)):.0f} ms")
    with connected():
        print(f"idle tick, connected: {1000 * median(timer.work, 1000):.4f} ms")


@contextmanager
def connected() -> Iterator[None]:
    """Connect the session to a server that sends a greeting and nothing else."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        port = server.bind_to_random_port("tcp://127.0.0.1")
        session.connect(f"tcp://127.0.0.1:{port}", None, "benchmark")
        while session.state is not State.CONNECTED:
            timer.work()
            if server.poll(1):
                server.send_multipart([server.recv_multipart()[0], *encode(Welcome("benchmark"))])
        yield
        session.close()


def median(action: Callable[[], object], times: int = TIMES) -> float:
    """Median of seconds, without the first run."""
    action()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
