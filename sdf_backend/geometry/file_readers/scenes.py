"""Reads 3MF and COLLADA by trimesh."""

import logging
import zipfile
from io import BytesIO
from typing import Any, cast

import numpy as np
import trimesh
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without stubs

from sdf_backend.geometry.file_readers.archives import check_zip
from sdf_backend.geometry.file_readers.part import Part, Polygons, Sibling, check_placed
from sdf_backend.geometry.file_readers.scans import require

# What it would log is raised or told.
logging.getLogger("trimesh").setLevel(logging.CRITICAL)
# Groups of a 3MF file, each as often as it is placed.
MOST_GROUPS = 100_000
BUILD = "build"


def read_3mf(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a 3MF file; raises `ValueError` where its objects are placed more often than its reader follows."""
    placed = _count_placed(check_zip(data))
    parts = _read_scene(data, "3mf")
    if placed > len(parts):
        raise ValueError(
            f"it places {placed:,} meshes, groups within groups, of which {len(parts):,} can be read; export it as GLB"
        )
    return parts


def read_dae(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a COLLADA file; it needs an optional library."""
    require("collada", "COLLADA (.dae)")
    return _read_scene(data, "dae")


def _read_scene(data: bytes, suffix: str) -> list[Part]:
    """The meshes of a scene, each placed."""
    scene = trimesh.load_scene(BytesIO(data), file_type=suffix, process=False, skip_materials=True)
    meshes = cast(dict[Any, Any], scene.geometry)
    named = (scene.graph[node][1] for node in scene.graph.nodes_geometry)
    check_placed(sum(len(meshes[name].vertices) + 3 * len(meshes[name].faces) for name in named))
    parts = []
    for mesh in scene.dump():
        if isinstance(mesh, trimesh.Trimesh):
            parts.append(Part(np.asarray(mesh.vertices, dtype=np.float64), Polygons.of_triangles(mesh.faces)))
    return parts


def _count_placed(archive: zipfile.ZipFile) -> int:
    """How many meshes a 3MF file places: trimesh follows no more groups than objects times placements, silently.

    Raises `ValueError` where the paths to them are too long to be followed one by one. An object stands after those
    that it consists of (3MF core specification, 4.2).
    """
    model = next(name for name in archive.namelist() if "3d/3dmodel.model" in name.lower())
    meshes, groups = dict[str, int](), dict[str, int]()  # below each object; groups on all paths to them
    with archive.open(model) as file:
        tags = ("{*}object", "{*}build")
        for _, element in etree.iterparse(file, events=("end",), tag=tags, resolve_entities=False):
            name = element.attrib.get("id", BUILD)
            below = [row.attrib["objectid"] for row in element.iter("{*}component", "{*}item")]
            own = int(next(element.iter("{*}triangle"), None) is not None)
            meshes[name] = sum(meshes.get(one, 1) for one in below) or own
            groups[name] = sum(groups.get(one, 0) for one in below) + meshes[name]
            if groups[name] > MOST_GROUPS:
                raise ValueError(f"it places more than {MOST_GROUPS:,} groups within groups; export it as GLB")
            element.clear()
    return meshes.get(BUILD, 0)
