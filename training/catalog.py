"""Finds the meshes of a category: ShapeNet v1 and v2 trees, plain folders, samples of the released DeepSDF code, and
split files; and reads meshes."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import read_geometry
from sdf_backend.geometry.source_geometry import Geometry
from training.mesh_readers.ac3d import read_ac3d

MESH_SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".ac")
SOURCES_FILE = "sources.json"
SAMPLES_SUFFIX = ".npz"


class Layout(StrEnum):
    """Layout of a source folder."""

    SHAPENET1 = "shapenet1"
    SHAPENET2 = "shapenet2"
    FOLDER = "folder"
    DEEPSDF = "deepsdf"


@dataclass(frozen=True)
class CatalogEntry:
    """One mesh to prepare, with the credits that a model trained on it must carry."""

    name: str
    path: Path
    split: str = "train"
    licence: str = "unknown"
    creator: str = "unknown"
    family: str = ""
    procedural: bool = False
    """whether a generator drew it; one like it is drawn as easily, so it gets no deformed copies"""

    @property
    def has_mesh(self) -> bool:
        """Whether `path` is a mesh, and not samples of the released DeepSDF code."""
        return self.path.suffix != SAMPLES_SUFFIX


def list_meshes(source: Path, layout: Layout, category: str | None = None) -> list[CatalogEntry]:
    """List the meshes of one category, sorted by name.

    `category` is a ShapeNet synset or a sub-folder of `source`; it is optional for a plain folder.
    Raises `InputError` where the folder is missing or holds no mesh.
    """
    root = source / category if category and layout is not Layout.DEEPSDF else source
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; name the folder of meshes (ShapeNet: its root, and --category)")
    match layout:
        case Layout.SHAPENET1:
            entries = [CatalogEntry(path.parent.name, path) for path in root.glob("*/model.obj")]
        case Layout.SHAPENET2:
            pattern = "*/models/model_normalized.obj"
            entries = [CatalogEntry(path.parent.parent.name, path) for path in root.glob(pattern)]
        case Layout.DEEPSDF:
            entries = _deepsdf(root, category)
        case Layout.FOLDER:
            entries = _folder(root)
    if not entries:
        raise InputError(f"{root} contains no mesh in the layout {layout}; known layouts: {', '.join(Layout)}")
    return sorted(entries, key=lambda entry: entry.name)


def read_split(path: Path) -> list[str]:
    """Read the names in an official DeepSDF split file, {"data set": {"synset": ["id", ...]}}, or a plain list.

    Their order, which is that of the codes of an experiment, is kept.
    Raises `InputError` where the file cannot be read or lists no shape.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the split file {path}: {error}") from error
    names = list(_strings(content))
    if not names:
        raise InputError(f"{path} lists no shape; expected {{data set: {{category: [names]}}}} or a list of names")
    return names


def select_split(entries: Iterable[CatalogEntry], names: Collection[str], split: str) -> list[CatalogEntry]:
    """Select the entries that a split file names, and assign them to `split`. Raises `InputError` for none."""
    wanted = set(names)
    chosen = [replace(entry, split=split) for entry in entries if entry.name in wanted]
    if not chosen:
        raise InputError("the split file lists none of the meshes; use the split file of this category")
    return chosen


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one mesh of a catalogue as (n, 3) float vertices and (m, 3) int faces; raises as `read_noted_mesh`."""
    geometry = read_noted_mesh(path)
    return geometry.vertices, geometry.faces


def read_noted_mesh(path: Path) -> Geometry:
    """Read one mesh of a catalogue, with sentences about what was left out of it.

    Raises `InputError` where it cannot be read or has no faces.
    """
    geometry = Geometry(*read_ac3d(path)) if path.suffix.lower() == ".ac" else read_geometry(path)
    if len(geometry.faces) == 0:
        raise InputError(f"{path} has no faces; training needs surfaces, not points")
    return geometry


def _deepsdf(root: Path, category: str | None) -> list[CatalogEntry]:
    """The samples of one synset in all data sets of a data folder of the released DeepSDF code."""
    files = [path for path in root.glob(f"SdfSamples/*/{category or '*'}/*{SAMPLES_SUFFIX}") if path.stem[0] != "."]
    synsets = sorted({path.parent.name for path in files})
    if len(synsets) > 1:
        raise InputError(f"{root} has samples of several categories; name one by --category: {', '.join(synsets)}")
    return [CatalogEntry(path.stem, path) for path in files]


def _folder(root: Path) -> list[CatalogEntry]:
    """All mesh files below `root`, with splits and credits from its `sources.json`, if any."""
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in MESH_SUFFIXES and path.is_file()]
    # Hidden files are left over from killed writers, or written by macOS.
    files = [path for path in files if not path.name.startswith(".")]
    described = _read_sources(root / SOURCES_FILE)
    entries = []
    for path in files:
        name = _encodable(path.relative_to(root).with_suffix("").as_posix().replace("/", "_"))
        known = described.get(name, {})
        fields = {key: str(known[key]) for key in ("split", "licence", "creator", "family") if known.get(key)}
        entries.append(CatalogEntry(name, path, **fields, procedural=bool(known.get("procedural"))))
    names = [entry.name for entry in entries]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{root} contains several meshes named {sorted(twice)[0]}; rename all but one")
    return entries


def _encodable(name: str) -> str:
    """The name with what is no UTF-8 spelled out, since names of files become text in others."""
    return name.encode(errors="backslashreplace").decode().replace("\\", "_")


def _read_sources(path: Path) -> dict[str, dict]:
    if not path.exists():
        return {}
    try:
        return {row["name"]: row for row in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: {error}; it should be a list of objects with a name") from error


def _strings(content: object) -> Iterable[str]:
    match content:
        case str():
            yield content
        case list():
            for item in content:
                yield from _strings(item)
        case dict():
            for item in content.values():
                yield from _strings(item)
