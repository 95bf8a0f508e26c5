"""Reads OFF with faces of any number of corners, and with normals and colours (NOFF, COFF)."""

import re

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Polygons, Sibling, colors_of
from sdf_backend.geometry.file_readers.text import is_unfinished, text_lines

# Some writers put the counts behind the word, even without a space.
HEADING = re.compile(r"(ST)?(C)?(N)?OFF\s*(.*)", re.IGNORECASE)


def read_off(data: bytes, sibling: Sibling) -> list[Part]:
    """Read an OFF file; raises `ValueError` for one that is malformed or ends early."""
    lines = (line for raw in text_lines(data) if (line := raw.partition("#")[0].strip()))
    heading = HEADING.fullmatch(next(lines, ""))
    if not heading:
        raise ValueError("its first line is not OFF")
    counts = (heading[4] or next(lines, "")).split()
    vertex_count, face_count = int(counts[0]), int(counts[1])
    rows = [line.split() for line in lines]
    if len(rows) < vertex_count + face_count:
        raise ValueError(
            f"it ends early: {vertex_count} vertices and {face_count} faces are announced, {len(rows)} lines follow"
        )
    points, faces = rows[:vertex_count], rows[vertex_count : vertex_count + face_count]
    if any(len(row) < 3 for row in points):
        raise ValueError("it has a vertex of less than three coordinates")
    vertices = np.array([row[:3] for row in points], dtype=np.float64).reshape(-1, 3)
    first = 6 if heading[3] else 3
    normals = _columns(points, 3) if heading[3] and not faces else None
    colors = _columns(points, first) if heading[2] else None
    return [
        Part(
            vertices,
            Polygons.of_lists([_corners(row) for row in faces]),
            normals,
            None if colors is None else colors_of(colors),
            unfinished=is_unfinished(data),
        )
    ]


def _corners(row: list[str]) -> list[int]:
    """Vertex indices of a face `n i ...`, behind which a colour may stand."""
    size = int(row[0])
    if not 0 <= size < len(row):
        raise ValueError(f"a face announces {size} corners and has {len(row) - 1}")
    return [int(word) for word in row[1 : size + 1]]


def _columns(rows: list[list[str]], first: int) -> np.ndarray | None:
    """Three columns, (n, 3), where every row has them."""
    if any(len(row) < first + 3 for row in rows):
        return None
    return np.array([row[first : first + 3] for row in rows], dtype=np.float64).reshape(-1, 3)
