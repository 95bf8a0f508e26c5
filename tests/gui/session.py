"""An artist's session in a real Blender with a window, from installation to interpolation, with screenshots.

    blender --enable-event-simulate --python tests/gui/session.py -- --zip ZIP --backend PYTHON --pictures out/gui

ZIP is the extension for this Blender, from dist/; PYTHON is one that has the backend. A timer calls the panel's
operators step by step, and Blender's event loop runs in between. The first failed check ends the session. Blender
quits by itself, with exit code 0 on success. The profile must not have the add-on installed.
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
# Seconds between two checks of a condition, and until it must hold.
PAUSE, PATIENCE = 0.05, 120.0
# Blender compiles shaders when a material is first displayed, which is slow without a GPU.
SHADERS = 60.0
# Drawn from the model with it, the chair has four legs.
CHAIR_SEED = 23
# Cached results of an earlier session would be displayed before a screenshot of the running job.
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
    """The session; each `yield` lets Blender run, for some seconds or until a condition holds."""
    yield from begin()
    install()
    yield 0.5
    yield from show_sidebar()
    yield from picture("1-no-backend")

    chosen = preferences()
    chosen.python = "/nowhere/python"
    bpy.ops.sdf.start_backend()
    yield lambda: session().notice
    check("is not a file" in session().notice, session().notice)
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
    check(session().jobs, "a preview is displayed while the job runs")
    yield from picture("5-running", PAUSE)
    yield lambda: f"{source.name} completed" in bpy.data.objects and not session().jobs
    whole = bpy.context.object
    check(is_closed(whole), "the completed aeroplane is closed")
    check(overlap(source, whole) > 0.8, "it coincides with the scan")
    yield from picture("6-finished")
    with view3d():
        bpy.ops.sdf.show_observed()
    yield from picture("7-observed-and-completed", SHADERS)

    yield from undo_and_redo(whole.name)
    yield from keep_a_textured_chair()
    yield from interpolate(bpy.data.objects["scan completed"])
    yield from drag_a_slider()
    yield from lose_the_backend()
    check(logged("The backend has exited (signal 9"), "the error is in the Info log")


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


def keep_a_textured_chair() -> Iterator[Wait]:
    """A chair with a UV map and a texture loses a leg and gets it back, and stays itself."""
    bpy.ops.sdf.sample(model="chairs", count=1, seed=CHAIR_SEED, resolution=128, triangles=8000)
    yield lambda: len(shapes()) == 2 and not session().jobs
    chair = plain_copy(bpy.context.object)
    texture(chair)
    cut_leg_off(chair)
    select(chair)
    with view3d():
        bpy.context.space_data.shading.type = "MATERIAL"
        bpy.ops.view3d.view_selected()
    bpy.ops.ed.undo_push(message="a chair without a leg")
    yield from picture("7a-chair-without-a-leg", SHADERS)
    before, known = texture_coordinates(chair), len(chair.data.polygons)
    bpy.ops.sdf.complete(model="chairs", pose="upright", front="-y")
    yield lambda: "Chair completed" in bpy.data.objects and not session().jobs
    whole = bpy.data.objects["Chair completed"]
    check(len(whole.data.polygons) > known, "the chair has new faces")
    check(texture_coordinates(whole)[: len(before)] == before, "its UV map is as it was")
    check([slot.name for slot in whole.data.materials] == ["checked"], "so is its material")
    check("completed" in whole.vertex_groups and chair.hide_get(), "the new part is a group; the original is hidden")
    with view3d():
        bpy.ops.view3d.view_selected()
    yield from picture("7b-chair-kept", 5.0)
    bpy.ops.ed.undo()
    check("Chair completed" not in bpy.data.objects, "one undo removes it")
    check(not bpy.data.objects["Chair"].hide_get(), "and shows the original again")
    bpy.data.objects.remove(bpy.data.objects["Chair"])
    bpy.data.objects.remove(shapes()[-1])
    yield 0.5


def plain_copy(item: bpy.types.Object) -> bpy.types.Object:
    """An object of an artist's own with the mesh of a shape, which stays where it is and is hidden."""
    copy = bpy.data.objects.new("Chair", item.data.copy())
    copy.matrix_world = item.matrix_world
    bpy.context.scene.collection.objects.link(copy)
    item.hide_set(True)
    return copy


def texture(item: bpy.types.Object) -> None:
    select(item)
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.uv.smart_project()
    bpy.ops.object.mode_set(mode="OBJECT")
    image = bpy.data.images.new("checks", 512, 512)
    image.generated_type = "COLOR_GRID"
    material = bpy.data.materials.new("checked")
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    tree = material.node_tree
    picture_node = tree.nodes.new("ShaderNodeTexImage")
    picture_node.image = image
    surface = next(node for node in tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    tree.links.new(picture_node.outputs[0], surface.inputs[0])
    item.data.materials.append(material)


def cut_leg_off(item: bpy.types.Object) -> None:
    """Saw through a front leg at a quarter of the height and drop what is below."""
    mesh = bmesh.new()
    mesh.from_mesh(item.data)
    matrix = item.matrix_world
    points = [matrix @ vertex.co for vertex in mesh.verts]
    low, high = (Vector(map(limit, zip(*points, strict=True))) for limit in (min, max))
    middle, saw = (low + high) / 2, low.z + 0.25 * (high.z - low.z)
    inverse = matrix.inverted()
    bmesh.ops.bisect_plane(
        mesh,
        geom=[*mesh.verts, *mesh.edges, *mesh.faces],
        plane_co=inverse @ Vector((0, 0, saw)),
        plane_no=matrix.to_3x3().transposed() @ Vector((0, 0, 1)),
    )
    below = [face for face in mesh.faces if is_leg(matrix @ face.calc_center_median(), middle, saw)]
    bmesh.ops.delete(mesh, geom=below, context="FACES")
    mesh.to_mesh(item.data)
    mesh.free()


def is_leg(place: Vector, middle: Vector, saw: float) -> bool:
    return place.z < saw and place.x < middle.x and place.y < middle.y


def texture_coordinates(item: bpy.types.Object) -> list[tuple[float, ...]]:
    return [tuple(corner.uv) for corner in item.data.uv_layers.active.data]


def drag_a_slider() -> Iterator[Wait]:
    select(*shapes()[:2])  # neighbouring steps of a row may have the same code
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
    check(name in bpy.data.objects, "redo restores it")
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
    yield lambda: "has exited (signal 9" in session().notice
    check(not session().jobs, "the job has ended with its backend")
    yield from picture("11-backend-killed")
    bpy.ops.sdf.start_backend(options=NO_CACHE)
    yield lambda: session().models
    check(not session().notice, "the error is cleared")


# --- Blender ---------------------------------------------------------------------------------------------------------


def begin() -> Iterator[Wait]:
    window = bpy.context.window_manager.windows[0]
    for value in ("PRESS", "RELEASE"):  # to close the splash screen
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
    """Share of the source's extent that the whole object covers, along the worst axis."""
    (low, high), (below, above) = extent(source), extent(whole)
    return min(
        (min(high[axis], above[axis]) - max(low[axis], below[axis])) / (high[axis] - low[axis]) for axis in range(3)
    )


def extent(item: bpy.types.Object) -> tuple[list[float], list[float]]:
    corners = [item.matrix_world @ Vector(corner) for corner in item.bound_box]
    return [min(axis) for axis in zip(*corners, strict=True)], [max(axis) for axis in zip(*corners, strict=True)]


def logged(text: str) -> bool:
    """Whether a line of the Info log contains the text."""
    with view3d():
        area = bpy.context.area
        area.type = "INFO"
        bpy.ops.info.select_all(action="SELECT")
        bpy.ops.info.report_copy()
        area.type = "VIEW_3D"
    return text in bpy.context.window_manager.clipboard


def picture(name: str, pause: float = 0.8) -> Iterator[Wait]:
    """Take a screenshot after a pause for drawing, with ImageMagick if installed, since Blender's may be black."""
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
    """Runs the session step by step."""

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
                raise AssertionError("the condition did not come to hold")
            return False
        return time.monotonic() >= self.until


player = Player()
bpy.app.timers.register(player.step, first_interval=1.0, persistent=True)
