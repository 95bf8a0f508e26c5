"""Reads AC3D (`.ac`), the plain-text mesh format of FlightGear's aircraft.

A file is a header, materials, and nested OBJECT blocks: name, loc, rot, numvert, SURF/refs, kids. The format is
described at https://www.inivis.com/ac3d/man/ac3dfileformat.html; trimesh has no reader for it. The cars of TORCS
(`.acc`) add normals behind the coordinates and surfaces that are triangle strips.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError

# Surface type, the low nibble of SURF's flags: 0 is a polygon; 1 and 2 are closed and open lines; 4, a triangle strip,
# is an extension of TORCS.
POLYGON, STRIP = 0, 4


def read_ac3d(path: Path, drop: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Read all polygons of a file as triangles.

    Parameters
    ----------
    path : the file
    drop : parts whose name contains one of these words (any case) are left out, their children included

    Returns
    -------
    vertices : (n, 3) float, in the file's units and axes (AC3D is y up)
    faces : (m, 3) int; polygons are fanned from their first corner, every other triangle of a strip is turned over

    Raises
    ------
    InputError : missing, not an AC3D file, or cut short
    """
    # Files written on Windows end lines with \r\n, some exporters' with \r\r\n; str.splitlines would see empty lines.
    try:
        text = path.read_bytes().decode("utf-8", errors="replace").replace("\r", "")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    lines = iter(text.split("\n"))
    if not next(lines, "").startswith("AC3D"):
        raise InputError(f"{path} is not an AC3D file: its first line does not begin with AC3D")
    reader = _Reader(lines, tuple(word.lower() for word in drop))
    try:
        for line in lines:
            if line.startswith("OBJECT"):
                reader.read_object(np.eye(3), np.zeros(3), dropped=False)
    except (StopIteration, IndexError, ValueError) as error:
        raise InputError(f"{path} is damaged or cut short: {str(error) or 'unexpected end of file'}") from error
    return reader.mesh()


class _Reader:
    """Walks the object tree; collects the vertices and triangles of everything that is kept."""

    def __init__(self, lines: Iterator[str], drop: tuple[str, ...]) -> None:
        self.lines = lines
        self.drop = drop
        self.vertices: list[np.ndarray] = []
        self.faces: list[tuple[int, int, int]] = []
        self.count = 0

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        vertices = np.concatenate(self.vertices) if self.vertices else np.zeros((0, 3))
        return vertices, np.array(self.faces, dtype=np.int64).reshape(-1, 3)

    def read_object(self, rotation: np.ndarray, origin: np.ndarray, dropped: bool) -> None:
        """Read one OBJECT block and its kids; `rotation` and `origin` place the parent (row vectors)."""
        local, shift = np.eye(3), np.zeros(3)
        first = self.count
        while True:
            word, _, rest = next(self.lines).strip().partition(" ")
            match word:
                case "name":
                    dropped = dropped or any(part in rest.lower() for part in self.drop)
                case "loc":
                    shift = np.array(rest.split(), dtype=float)
                case "rot":
                    local = np.array(rest.split(), dtype=float).reshape(3, 3)
                case "data":
                    self._skip_text(int(rest))
                case "numvert":
                    world = local @ rotation
                    self._read_vertices(int(rest), world, shift @ rotation + origin)
                case "numsurf":
                    for _ in range(int(rest)):
                        self._read_surface(first, dropped)
                case "kids":
                    for _ in range(int(rest)):
                        if not self._find_object():
                            return
                        self.read_object(local @ rotation, shift @ rotation + origin, dropped)
                    return

    def _find_object(self) -> bool:
        """Go to the next OBJECT; False at the end of the file, since hand-edited files promise kids they lost."""
        return any(line.startswith("OBJECT") for line in self.lines)

    def _skip_text(self, length: int) -> None:
        """Pass over `length` characters of free text, which may span lines."""
        seen = len(next(self.lines))
        while seen < length:
            seen += 1 + len(next(self.lines))

    def _row(self) -> list[str]:
        """The next line's numbers; some exporters leave empty lines between rows."""
        return next(row for line in self.lines if (row := line.split()))

    def _read_vertices(self, count: int, rotation: np.ndarray, origin: np.ndarray) -> None:
        rows = [self._row()[:3] for _ in range(count)]
        self.vertices.append(np.array(rows, dtype=float).reshape(-1, 3) @ rotation + origin)
        self.count += count

    def _read_surface(self, first: int, dropped: bool) -> None:
        flags = POLYGON
        while True:
            word, _, rest = next(self.lines).strip().partition(" ")
            if word == "SURF":
                flags = int(rest, 16)
            elif word == "refs":
                corners = [first + int(self._row()[0]) for _ in range(int(rest))]
                sound = all(first <= corner < self.count for corner in corners)
                if sound and not dropped:
                    self.faces += _triangles(flags & 0xF, corners)
                return


def _triangles(kind: int, corners: list[int]) -> list[tuple[int, int, int]]:
    """Split a surface of one type into triangles; lines have none."""
    if kind == POLYGON:
        return [(corners[0], *edge) for edge in pairwise(corners[1:])]
    if kind == STRIP:
        strip = zip(corners, corners[1:], corners[2:], strict=False)
        return [(b, a, c) if number % 2 else (a, b, c) for number, (a, b, c) in enumerate(strip)]
    return []
