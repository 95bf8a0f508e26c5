"""Files that are dropped into the 3D view, with a scripted backend."""

from pathlib import Path
from typing import Any

import bpy
import pytest
from conftest import Backend, cube, submissions

from blender_addon.importing import IMPORTERS, SDF_FH_import


def exported(folder: Path, suffix: str) -> Path:
    """A file with a cube."""
    path = folder / f"box{suffix}"
    item = cube()
    match suffix:
        case ".ply":
            bpy.ops.wm.ply_export(filepath=str(path))
        case ".obj":
            bpy.ops.wm.obj_export(filepath=str(path))
        case ".stl":
            bpy.ops.wm.stl_export(filepath=str(path))
        case _:
            kind = "GLB" if suffix == ".glb" else "GLTF_SEPARATE"
            bpy.ops.export_scene.gltf(filepath=str(path), export_format=kind)
    bpy.data.objects.remove(item)
    return path


def drop(*paths: Path) -> set[str]:
    files = [{"name": path.name} for path in paths]
    return bpy.ops.sdf.import_and_complete(directory=str(paths[0].parent), files=files)


@pytest.mark.parametrize("suffix", list(IMPORTERS))
def test_a_dropped_file_is_imported_and_completed(connected: Backend, tmp_path: Path, suffix: str) -> None:
    if suffix.startswith(".gl"):
        pytest.importorskip("io_scene_gltf2")
        bpy.ops.preferences.addon_enable(module="io_scene_gltf2")
    path = exported(tmp_path, suffix)
    assert suffix in SDF_FH_import.bl_file_extensions.split(";")
    assert drop(path) == {"FINISHED"}
    [submit] = submissions(connected)
    extent = submit.sources[0].vertices.max(axis=0) - submit.sources[0].vertices.min(axis=0)
    assert extent == pytest.approx([2, 2, 2], abs=1e-5)
    assert bpy.context.active_object.name.endswith(" completed")


def test_each_of_several_files_is_an_input(connected: Backend, tmp_path: Path) -> None:
    paths = [exported(tmp_path, ".ply"), exported(tmp_path, ".obj")]
    assert drop(*paths) == {"FINISHED"}
    assert len(submissions(connected)) == 2
    assert len(bpy.context.selected_objects) == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt", "hello", "notes.txt is not a PLY, OBJ, STL or glTF file; choose one"),
        ("empty.obj", "# nothing", "empty.obj contains no mesh and no points; choose another file"),
        ("broken.ply", "ply nonsense", "broken.ply"),
    ],
)
def test_a_file_without_a_surface_is_refused_with_a_sentence(
    connected: Backend, tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    path: Any = tmp_path / name
    path.write_text(content)
    with pytest.raises(RuntimeError, match=sentence):
        drop(path)
    assert not submissions(connected)
