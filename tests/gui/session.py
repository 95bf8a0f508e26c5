"""An artist's session in a real Blender with a window, from the built zip to shapes between shapes, with screenshots.

    blender --enable-event-simulate --python tests/gui/session.py -- --zip ZIP --backend PYTHON --pictures out/gui

ZIP is the one for this Blender, from dist/, PYTHON one that has the backend. It works through the panel's operators, a
step at a time from a timer, as Blender's own event loop goes on in between; whatever is not as it should be ends it.
Blender quits by itself, with 0 where all is well. Begin with a profile without the add-on.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import bmesh
import bpy
from mathutils import Matrix, Vector

ROOT = Path(__file__).parents[2]
PLACE = Matrix.LocRotScale((2, 1, 1), Matrix.Rotation(1.5708, 3, "X").to_quaternion(), (3, 3, 3))
# Seconds between two looks, and until something that is waited for must have come.
PAUSE, PATIENCE = 0.05, 120.0
# Blender compiles its shaders when a material is seen for the first time; without a graphics card, for long.
SHADERS = 60.0
# What an earlier session has kept would be done before it can be seen.
NO_CACHE = "--cache-mib 0"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="session.py")
    parser.add_argument("--zip", type=Path, required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--pictures", type=Path, default=Path("out/gui"))
    return parser.parse_args(sys.argv[sys.argv.index("--") + 1 :])


given = arguments()
Wait = float | Callable[[], object]


def story() -> Iterator[Wait]:
    """What happens; each `yield` lets Blender go on, for so many seconds or until something is so."""
    yield from begin()
    install()
    yield 0.5
    yield from show_sidebar()
    yield from picture("1-no-backend")

    chosen = preferences()
    chosen.python = "/nowhere/python"
    bpy.ops.sdf.start_backend()
    yield lambda: session().notice
    check("is no file" in session().notice, session().notice)
    yield from picture("2-cannot-start")

    chosen.python = given.backend
    bpy.ops.sdf.start_backend(options=NO_CACHE)
    yield from picture("3-starting", 0.3)
    yield lambda: session().models
    yield from picture("4-connected")

    source = scan()
    settings = bpy.context.scene.sdf
    settings.pose, settings.model = "upright", "airplanes"
    bpy.ops.sdf.complete()
    yield lambda: f"{source.name} preview" in bpy.data.objects
    check(session().jobs, "a preview is seen while the job runs")
    yield from picture("5-running", PAUSE)
    yield lambda: f"{source.name} completed" in bpy.data.objects and not session().jobs
    whole = bpy.context.object
    check(is_closed(whole), "the completed aeroplane is closed")
    check(overlap(source, whole) > 0.8, "it stands where the scan does")
    yield from picture("6-finished")
    with view3d():
        bpy.ops.sdf.show_observed()
    yield from picture("7-seen-and-filled-in", SHADERS)

    yield from undo_and_redo(whole.name)
    yield from interpolate(bpy.data.objects["scan completed"])
    yield from drag_a_slider()
    yield from lose_the_backend()
    check(logged("the backend has ended (signal 9"), "the Info log has what went wrong")


def interpolate(whole: bpy.types.Object) -> Iterator[Wait]:
    select(whole)
    bpy.ops.sdf.vary(count=1, spread=1.0, resolution=128)
    yield lambda: len(shapes()) == 2 and not session().jobs
    select(*shapes())
    bpy.ops.sdf.interpolate(steps=5, resolution=128)
    yield lambda: len(shapes()) == 7 and not session().jobs
    check(all(map(is_closed, shapes())), "all steps are closed")
    yield 0.5
    with view3d():
        bpy.ops.view3d.view_all()
    yield from picture("8-interpolated", 1.5)


def drag_a_slider() -> Iterator[Wait]:
    select(*shapes()[:2])  # two steps of a row may have one code, and differ by what recedes
    bpy.ops.sdf.interpolate(arrangement="blend", resolution=128)
    yield lambda: len(shapes()) == 8 and not session().jobs
    item, counts = bpy.context.object, set()
    for step in range(20):
        item.sdf.blend = 0.5 + 0.02 * step
        counts.add(len(item.data.vertices))
        yield 0.1
    check(len(counts) > 2, f"the mesh follows the slider: {counts}")
    last = len(item.data.vertices)
    yield lambda: not session().jobs and len(item.data.vertices) > 2 * last
    yield from picture("9-blend")


def undo_and_redo(name: str) -> Iterator[Wait]:
    bpy.ops.ed.undo()
    check(not shapes() and "scan" in bpy.data.objects, "one undo removes one result")
    bpy.ops.ed.redo()
    check(name in bpy.data.objects, "and redo brings it again")
    with view3d():
        bpy.context.space_data.shading.type = "SOLID"
    yield 0.2


def lose_the_backend() -> Iterator[Wait]:
    select()
    with suppress(RuntimeError):
        bpy.ops.sdf.complete()
    check("Nothing is selected" in session().notice, session().notice)
    yield from picture("10-error")
    select(bpy.data.objects["scan"])
    bpy.ops.sdf.complete(seed=2)
    yield lambda: any(job.phase == "fitting" for job in session().jobs.values())
    session().launcher.process.kill()
    yield lambda: "has ended (signal 9" in session().notice
    check(not session().jobs, "the job has ended with its backend")
    yield from picture("11-backend-killed")
    bpy.ops.sdf.start_backend(options=NO_CACHE)
    yield lambda: session().models
    check(not session().notice, "nothing is left of it")


# --- Blender ---------------------------------------------------------------------------------------------------------


def begin() -> Iterator[Wait]:
    window = bpy.context.window_manager.windows[0]
    for value in ("PRESS", "RELEASE"):  # the splash goes
        window.event_simulate(type="ESC", value=value, x=window.width // 2, y=window.height // 2)
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    yield 1.0


def install() -> None:
    bpy.ops.extensions.package_install_files(
        repo="user_default", filepath=str(given.zip.absolute()), enable_on_install=True
    )
    check(addon() is not None, "the add-on is installed and enabled")


def addon() -> str | None:
    return next((one.module for one in bpy.context.preferences.addons if one.module.endswith("sdf_shapes")), None)


def preferences():
    return bpy.context.preferences.addons[addon()].preferences


def session():
    return sys.modules[f"{addon()}.session"].session


def view3d():
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    region = next(region for region in area.regions if region.type == "WINDOW")
    return bpy.context.temp_override(window=window, area=area, region=region)


def show_sidebar() -> Iterator[Wait]:
    with view3d():
        area = bpy.context.area
        area.spaces[0].show_region_ui = True
        yield 1.0
        sidebar = next(region for region in area.regions if region.type == "UI")
        sidebar.active_panel_category = "DeepSDF"
        area.tag_redraw()
    yield 0.5


def scan() -> bpy.types.Object:
    bpy.ops.wm.ply_import(filepath=str(ROOT / "demo/scan.ply"))
    item = bpy.context.object
    item.matrix_world = PLACE
    with view3d():
        bpy.ops.view3d.view_selected()
    bpy.ops.ed.undo_push(message="a scan")
    return item


def select(*items: bpy.types.Object) -> None:
    for item in bpy.context.view_layer.objects:
        item.select_set(item in items)
    bpy.context.view_layer.objects.active = items[0] if items else None


def shapes() -> list[bpy.types.Object]:
    collection = bpy.data.collections.get("SDF Shapes")
    return list(collection.objects) if collection else []


def is_closed(item: bpy.types.Object) -> bool:
    mesh = bmesh.new()
    mesh.from_mesh(item.data)
    closed = len(mesh.edges) > 0 and all(len(edge.link_faces) == 2 for edge in mesh.edges)
    mesh.free()
    return closed


def overlap(source: bpy.types.Object, whole: bpy.types.Object) -> float:
    """Share of the source's extent along its worst axis that the whole one's covers."""
    (low, high), (below, above) = extent(source), extent(whole)
    return min(
        (min(high[axis], above[axis]) - max(low[axis], below[axis])) / (high[axis] - low[axis]) for axis in range(3)
    )


def extent(item: bpy.types.Object) -> tuple[list[float], list[float]]:
    corners = [item.matrix_world @ Vector(corner) for corner in item.bound_box]
    return [min(axis) for axis in zip(*corners, strict=True)], [max(axis) for axis in zip(*corners, strict=True)]


def logged(text: str) -> bool:
    """Whether the Info log has a line with it."""
    with view3d():
        area = bpy.context.area
        area.type = "INFO"
        bpy.ops.info.select_all(action="SELECT")
        bpy.ops.info.report_copy()
        area.type = "VIEW_3D"
    return text in bpy.context.window_manager.clipboard


def picture(name: str, pause: float = 0.8) -> Iterator[Wait]:
    """A screenshot, after time to draw; by X's own tool where there is one, since Blender's may be black there."""
    yield pause
    given.pictures.mkdir(parents=True, exist_ok=True)
    path = str(given.pictures / f"{bpy.app.version[0]}.{bpy.app.version[1]}-{name}.png")
    if tool := shutil.which("import"):
        subprocess.run([tool, "-window", "root", path], check=True)
    else:
        with view3d():
            bpy.ops.screen.screenshot(filepath=path)
    print("picture", path, flush=True)


# --- the timer -------------------------------------------------------------------------------------------------------


def check(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)
    print("ok:", what, flush=True)


class Player:
    """Plays the story, a step at a time."""

    def __init__(self) -> None:
        self.story, self.wait, self.until = story(), None, 0.0

    def step(self) -> float | None:
        try:
            if self._ready():
                self.wait = next(self.story)
                self.until = time.monotonic() + (PATIENCE if callable(self.wait) else self.wait)
            return PAUSE
        except StopIteration:
            print("GUI SESSION PASSED in Blender", bpy.app.version_string, flush=True)
            bpy.ops.wm.quit_blender()
        except BaseException:
            traceback.print_exc()
            print("GUI SESSION FAILED", session().notice if addon() else "", flush=True)
            sys.stdout.flush()
            os._exit(1)
        return None

    def _ready(self) -> bool:
        if self.wait is None:
            return True
        if callable(self.wait):
            if self.wait():
                return True
            if time.monotonic() > self.until:
                raise AssertionError("what was waited for has not come")
            return False
        return time.monotonic() >= self.until


player = Player()
bpy.app.timers.register(player.step, first_interval=1.0, persistent=True)
