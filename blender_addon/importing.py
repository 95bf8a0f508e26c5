"""Import and Complete: files that are dropped into the 3D view, or chosen, are imported by Blender and completed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from .fit_operators import FitOperator
from .geometry import READABLE_TYPES, GeometryError
from .properties import CompletionProperties
from .shapes import Asked

# Blender's importer of each kind of file.
IMPORTERS: dict[str, Callable[[str], object]] = {
    ".ply": lambda path: bpy.ops.wm.ply_import(filepath=path),
    ".obj": lambda path: bpy.ops.wm.obj_import(filepath=path),
    ".stl": lambda path: bpy.ops.wm.stl_import(filepath=path),
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".gltf": lambda path: bpy.ops.import_scene.gltf(filepath=path),
}


class SDF_OT_import(FitOperator, CompletionProperties, bpy.types.Operator):
    """Import meshes or point clouds and complete each; the objects of one file are one input"""

    bl_idname = "sdf.import_and_complete"
    bl_label = "Import and Complete"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012
    task = "complete"

    directory: bpy.props.StringProperty(
        name="Folder", description="The folder of the files", subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"}
    )
    files: bpy.props.CollectionProperty(
        name="Files",
        description="The names of the files",
        type=bpy.types.OperatorFileListElement,
        options={"SKIP_SAVE", "HIDDEN"},
    )
    filter_glob: bpy.props.StringProperty(
        name="Filter",
        description="The kinds of files that are listed",
        default=";".join(f"*{suffix}" for suffix in IMPORTERS),
        options={"HIDDEN"},
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Import what was dropped, or ask for files."""
        if self.files:
            return self.execute(context)
        context.window_manager.fileselect_add(self)  # type: ignore[union-attr, arg-type]
        return {"RUNNING_MODAL"}

    def submit(self, context: bpy.types.Context) -> None:
        """Import each file, and submit a job for it."""
        paths = [Path(self.directory, one.name) for one in self.files]
        if not paths:
            raise GeometryError("No file is chosen; choose PLY, OBJ, STL or glTF files")
        imported = [(path, _import(path)) for path in paths]
        asked = Asked.now()
        for path, objects in imported:
            if not objects:
                raise GeometryError(f"{path.name} contains no mesh and no points; choose another file")
            self.submit_objects(context, objects, asked)


def _import(path: Path) -> list[bpy.types.Object]:
    """The objects with a surface that a file contains, in the scene. Raises `GeometryError` for an unreadable file."""
    importer = IMPORTERS.get(path.suffix.lower())
    if importer is None:
        raise GeometryError(f"{path.name} is not a PLY, OBJ, STL or glTF file; choose one")
    before = {item.session_uid for item in bpy.data.objects}
    try:
        importer(str(path))
    except RuntimeError as error:
        reason = str(error).strip().removeprefix("Error: ").splitlines()[0]
        raise GeometryError(f"Blender cannot import {path.name}: {reason}") from error
    new = [item for item in bpy.data.objects if item.session_uid not in before]
    return [item for item in new if item.type in READABLE_TYPES]


class SDF_FH_import(bpy.types.FileHandler):
    """Offers Import and Complete for files that are dropped into the 3D view"""

    bl_idname = "SDF_FH_import"
    bl_label = "SDF Shapes: Import and Complete"
    bl_import_operator = SDF_OT_import.bl_idname
    bl_file_extensions = ";".join(IMPORTERS)

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> Any:
        """In the 3D view, while objects can be completed."""
        return context.area and context.area.type == "VIEW_3D" and SDF_OT_import.poll(context)


CLASSES = (SDF_OT_import, SDF_FH_import)
