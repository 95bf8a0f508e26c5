"""The table of formats, and reading a file, packed or not, by it."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from sdf_backend.geometry.file_readers.archives import (
    MOST_BYTES,
    Members,
    member_beside,
    tar_members,
    unpack_single,
    zip_members,
)
from sdf_backend.geometry.file_readers.gltf import read_gltf
from sdf_backend.geometry.file_readers.obj import read_obj
from sdf_backend.geometry.file_readers.off import read_off
from sdf_backend.geometry.file_readers.part import Part, Sibling
from sdf_backend.geometry.file_readers.pcd import read_pcd
from sdf_backend.geometry.file_readers.ply import read_ply
from sdf_backend.geometry.file_readers.point_lists import read_point_list, read_ptx
from sdf_backend.geometry.file_readers.scans import read_e57, read_las, read_npy
from sdf_backend.geometry.file_readers.scenes import read_3mf, read_dae
from sdf_backend.geometry.file_readers.stl import read_stl

# Reads the bytes of a file; what lies beside it is read by name. Raises whatever its parser raises.
Reader = Callable[[bytes, Sibling], list[Part]]

POINT_LISTS = dict.fromkeys((".xyz", ".txt", ".asc", ".csv", ".pts"), read_point_list)
READERS: dict[str, Reader] = {
    ".ply": read_ply,
    ".obj": read_obj,
    ".gltf": read_gltf,
    ".glb": read_gltf,
    ".stl": read_stl,
    ".3mf": read_3mf,
    ".off": read_off,
    ".dae": read_dae,
    ".pcd": read_pcd,
    ".ptx": read_ptx,
    ".las": read_las,
    ".laz": read_las,
    ".e57": read_e57,
    ".npy": read_npy,
    **POINT_LISTS,
}
ARCHIVES: dict[str, Callable[[bytes], Members]] = {".zip": zip_members, ".tar": tar_members, ".tgz": tar_members}
PACKED = (".bz2", ".gz")
# glTF by its specification, OBJ by the habit of nearly all programs that write it; others say nothing about up.
Y_UP = (".obj", ".gltf", ".glb")


def read_file(path: Path) -> list[Part]:
    """All parts of a file, or of the files in an archive.

    Raises `ValueError` for a format that is not read, and whatever else a parser raises.
    """
    return _read(path.name, read_bounded(path), lambda name: _beside(path, name))


def read_bounded(path: Path) -> bytes:
    """The bytes of a regular file; raises `ValueError` for another kind, and for one that is too large."""
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"it has {size / 1e9:.1f} GB; at most {MOST_BYTES / 1e9:.1f} GB are read; reduce it first")
    return path.read_bytes()


def _beside(path: Path, name: str) -> bytes:
    """A file that lies in the folder of `path`, or below it."""
    folder = path.parent.resolve()
    beside = (folder / name).resolve()
    if os.path.commonpath((folder, beside)) != str(folder):
        raise ValueError(f"it needs the file {name}, which lies outside of its folder")
    if not beside.exists():
        raise ValueError(f"it needs the file {name}, which is missing")
    return read_bounded(beside)


def _read(name: str, data: bytes, sibling: Sibling) -> list[Part]:
    stem, suffix = _split(name)
    if suffix in PACKED and _split(stem)[1] != ".tar":
        return _read(stem, unpack_single(data, suffix), sibling)
    archive = ARCHIVES.get(".tar" if suffix in PACKED else suffix)
    if archive:
        return _read_members(archive(unpack_single(data, suffix) if suffix == ".bz2" else data))
    if suffix not in READERS:
        known = " ".join(sorted({*READERS, *ARCHIVES, *PACKED}))
        raise ValueError(f"{suffix or 'no suffix'} is not a format that is read; these are: {known}")
    return READERS[suffix](data, sibling)


def _read_members(members: Members) -> list[Part]:
    """The parts of all mesh and point files in an archive; texts count only where there is nothing else."""
    visible = {name: PurePosixPath(name) for name in members if not PurePosixPath(name).name.startswith(".")}
    known = [name for name, path in visible.items() if path.suffix.lower() in READERS]
    chosen = [name for name in known if visible[name].suffix.lower() not in POINT_LISTS] or known
    if not chosen:
        raise ValueError("there is no mesh or point file in it")
    parts: list[Part] = []
    for name in chosen:
        parts += _read(name, members[name](), lambda other, name=name: member_beside(members, name, other))
    return parts


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.stem, path.suffix.lower()
