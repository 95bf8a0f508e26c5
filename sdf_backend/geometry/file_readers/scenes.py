"""Reads 3MF and COLLADA by trimesh."""

import logging
from io import BytesIO

import numpy as np
import trimesh

from sdf_backend.geometry.file_readers.archives import check_zip
from sdf_backend.geometry.file_readers.part import Part, Polygons, Sibling
from sdf_backend.geometry.file_readers.scans import require

# What it would log is raised or told.
logging.getLogger("trimesh").setLevel(logging.CRITICAL)


def read_3mf(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a 3MF file."""
    check_zip(data)
    return _read_scene(data, "3mf")


def read_dae(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a COLLADA file; it needs an optional library."""
    require("collada", "COLLADA (.dae)")
    return _read_scene(data, "dae")


def _read_scene(data: bytes, suffix: str) -> list[Part]:
    """The meshes of a scene, each placed."""
    scene = trimesh.load_scene(BytesIO(data), file_type=suffix, process=False, skip_materials=True)
    parts = []
    for mesh in scene.dump():
        if isinstance(mesh, trimesh.Trimesh):
            parts.append(Part(np.asarray(mesh.vertices, dtype=np.float64), Polygons.of_triangles(mesh.faces)))
    return parts
