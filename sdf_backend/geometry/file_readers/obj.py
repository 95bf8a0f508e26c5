"""Reads and writes Wavefront OBJ: vertices, with colours, and faces of any number of corners; materials are not read.

Vertices stay as the file has them: they are not split where texture coordinates or normals differ.
"""

import re
from collections.abc import Iterator

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Polygons, Sibling, colors_of
from sdf_backend.geometry.file_readers.text import is_unfinished, text_lines

# Rows that are converted at once: lists of words take thirty times the memory of an array.
BLOCK = 100_000


def read_obj(data: bytes, sibling: Sibling) -> list[Part]:
    """Read an OBJ file; raises `ValueError` for a malformed line and for a file that was cut off before its faces."""
    rows: list[list[str]] = []
    blocks: list[np.ndarray] = []
    faces: list[list[int]] = []
    count, others, last = 0, {"vt": 0, "vn": 0}, ""
    for number, line in enumerate(_whole_lines(data), 1):
        last, _, rest = line.replace("\t", " ").partition(" ")
        if last == "v":
            rows.append(rest.split())
            count += 1
            if len(rows) == BLOCK:
                blocks.append(_coordinates(rows))
                rows = []
        elif last == "f":
            faces.append(_corners(rest, count, number))
        elif last in others:
            others[last] += 1
    blocks += [_coordinates(rows)] if rows else []
    unfinished = is_unfinished(data)
    if not faces and (others["vt"] or others["vn"] not in (0, count) or (unfinished and last == "v")):
        raise ValueError("it ends before its first face; it was cut off")
    if faces and unfinished and last != "f":
        raise ValueError("it ends within a line; it was cut off")
    vertices, colors = _joined(blocks)
    polygons = Polygons.of_lists(faces)
    return [Part(vertices, polygons, colors=colors, notes=_loose(polygons, count), unfinished=unfinished)]


def _whole_lines(data: bytes) -> Iterator[str]:
    """The lines of the file, each with those that continue it behind a backslash."""
    return text_lines(re.sub(rb"\\\r?\n", b" ", data) if b"\\" in data else data)


def _coordinates(rows: list[list[str]]) -> np.ndarray:
    """Rows `x y z`, `x y z w` or `x y z r g b` as (n, 6), NaN where there is no colour."""
    sizes = {len(row) for row in rows}
    if min(sizes) < 3:
        raise ValueError("it has a vertex of less than three coordinates")
    if sizes == {6}:
        return np.array(rows, dtype=np.float64)
    values = np.full((len(rows), 6), np.nan)
    values[:, :3] = np.array([row[:3] for row in rows], dtype=np.float64)
    return values


def _joined(blocks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    values = np.concatenate([np.zeros((0, 6)), *blocks])
    colors = values[:, 3:]
    return values[:, :3], colors_of(colors) if len(colors) and np.isfinite(colors).all() else None


def _corners(text: str, count: int, number: int) -> list[int]:
    """Vertex indices, from 0, of a face `v/vt/vn ...`; negative ones count back from the last vertex so far."""
    corners = [int(word.partition("/")[0]) for word in text.split()]
    if 0 in corners:
        raise ValueError(f"line {number} has a face with vertex 0, and they are counted from 1")
    return [corner - 1 if corner > 0 else count + corner for corner in corners]


def _loose(polygons: Polygons, count: int) -> tuple[str, ...]:
    """What to say of vertices that belong to no face: OBJ does not tell how many faces it should have."""
    used = np.unique(polygons.corners)
    loose = count - int(np.count_nonzero((used >= 0) & (used < count)))
    if not len(polygons) or not loose:
        return ()
    return (f"{loose:,} of {count:,} vertices belong to no face, as in a file that was cut off.",)


def write_obj(
    vertices: np.ndarray,
    polygons: Polygons,
    colors: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    places: np.ndarray | None = None,
    place_corners: np.ndarray | None = None,
) -> bytes:
    """The bytes of an OBJ file.

    Parameters
    ----------
    vertices : (n, 3); colors : (n, 3), 0 to 1, or None; normals : (n, 3) or None
    places : (k, 2), texture coordinates, or None; place_corners : (c,), the place of each corner of the polygons
    """
    rows = vertices if colors is None else np.hstack([vertices, colors])
    lines = [_lines("v", rows)]
    lines += [] if places is None else [_lines("vt", places)]
    lines += [] if normals is None else [_lines("vn", normals)]
    corners = [f"{corner}" for corner in (polygons.corners + 1).tolist()]
    if place_corners is not None:
        corners = [f"{corner}/{place}" for corner, place in zip(corners, (place_corners + 1).tolist(), strict=True)]
    if normals is not None:
        slash = "//" if place_corners is None else "/"
        numbers = (polygons.corners + 1).tolist()
        corners = [f"{corner}{slash}{number}" for corner, number in zip(corners, numbers, strict=True)]
    ends = np.cumsum(polygons.sizes).tolist()
    faces = [
        f"f {' '.join(corners[end - size : end])}\n" for size, end in zip(polygons.sizes.tolist(), ends, strict=True)
    ]
    return "".join([*lines, *faces]).encode()


def _lines(keyword: str, rows: np.ndarray) -> str:
    """One line a row, (n, k), with fifteen digits, which are right in double precision wherever on a map it is."""
    return "".join(f"{keyword} {' '.join(f'{value:.15g}' for value in row)}\n" for row in rows.tolist())
