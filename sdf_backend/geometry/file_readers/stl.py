"""Reads and writes STL, text and binary.

STL has single precision alone. So what lies far from the origin is written moved to it, and the header says by how
much; the reader moves it back.
"""

import re

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Polygons, Sibling
from sdf_backend.geometry.file_readers.text import text_lines

ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
OFFSET = re.compile(rb"origin (\S+) (\S+) (\S+)")


def read_stl(data: bytes, sibling: Sibling) -> list[Part]:
    """Read an STL file; raises `ValueError` for one that is malformed or ends early."""
    count = int(np.frombuffer(data, "<u4", 1, 80)[0]) if len(data) >= 84 else -1
    size = 84 + count * ROW.itemsize
    if data.lstrip()[:5].lower() == b"solid" and size != len(data) and b"facet" in data[:LONGEST_NAME]:
        return [_of_corners(_text_corners(data))]
    if count < 0 or size > len(data):
        raise ValueError(f"it ends early: {max(count, 0):,} triangles are announced in {len(data):,} bytes")
    part = _of_corners(np.frombuffer(data, ROW, count, 84)["corners"].reshape(-1, 3).astype(np.float64))
    moved = OFFSET.search(data[:80])
    return [Part(part.vertices + [float(axis) for axis in moved.groups()], part.polygons) if moved else part]


# A text begins with the solid's name.
LONGEST_NAME = 10_000


def write_stl(vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray) -> bytes:
    """The bytes of a binary STL file, with vertices, (n, 3), relative to an origin, (3,), which the header names."""
    named = "origin " + " ".join(f"{axis:.15g}" for axis in origin) if origin.any() else "sdf-shapes"
    rows = np.zeros(len(faces), ROW)
    corners = (vertices - origin)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    rows["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-300)
    rows["corners"] = corners
    return named.encode().ljust(80) + len(faces).to_bytes(4, "little") + rows.tobytes()


def _text_corners(data: bytes) -> np.ndarray:
    """The corners of all facets, (3 m, 3), of a text of one or more solids."""
    rows, last = [], ""
    for line in text_lines(data):
        words = line.lower().split()
        last = words[0] if words else last
        if last == "vertex" and words:
            if len(words) != 4:
                raise ValueError("it has a vertex without three coordinates")
            rows.append(words[1:])
        elif last == "endloop" and words and len(rows) % 3:
            raise ValueError("it has a facet that is no triangle")
    if last != "endsolid" or len(rows) % 3:
        raise ValueError("it ends early: its solid has no end")
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _of_corners(corners: np.ndarray) -> Part:
    return Part(corners, Polygons.of_triangles(np.arange(len(corners)).reshape(-1, 3)))
