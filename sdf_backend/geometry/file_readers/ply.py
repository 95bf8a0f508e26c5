"""Reads and writes PLY: text and binary, polygons of any make, triangle strips, coordinates of either precision.

A reader of our own, since lists of mixed length are common (Blender writes them) and are read by trimesh not at all,
and by plyfile at ten microseconds a row.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Polygons, Sibling, colors_of
from sdf_backend.geometry.file_readers.text import LONGEST_LINE, is_unfinished, text_lines

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
STRUCT_CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I"}
INDEX_LISTS = ("vertex_indices", "vertex_index")


@dataclass(frozen=True)
class _Property:
    """One column: `length` is the type of the number of values of a list, empty for a single value."""

    name: str
    kind: str
    length: str = ""


@dataclass
class _Element:
    """A kind of row, and how many there are."""

    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def index_list(self) -> str:
        """The name of the list that holds vertex indices; empty where there is none."""
        lists = [one.name for one in self.properties if one.length]
        named = [name for name in lists if name in INDEX_LISTS]
        return named[0] if named else lists[0] if len(lists) == 1 else ""

    def ends_early(self, row: int) -> ValueError:
        """The error for a file that ends within this row."""
        return ValueError(f"it ends early: {self.count:,} rows of {self.name} are announced, {row:,} are there")


# The columns of an element by name, (count,) each, and the faces of its index list.
_Table = tuple[dict[str, np.ndarray], Polygons]


def read_ply(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a PLY file; raises `ValueError` for one that is malformed or ends early."""
    elements, order, body = _header(data)
    unfinished = order == "" and is_unfinished(data)
    rows = text_lines(body) if order == "" else None
    tables: dict[str, _Table] = {}
    position = 0
    for element in elements:
        if rows is not None:
            tables[element.name] = _text_table(element, rows)
        else:
            tables[element.name], position = _binary_table(element, order, body, position)
    columns, none = tables.get("vertex", ({}, Polygons()))[0], ({}, Polygons())
    vertices = _columns(columns, ("x", "y", "z"))
    if vertices is None:
        raise ValueError("it has no vertices with x, y and z")
    polygons = tables.get("face", none)[1]
    strips = tables.get("tristrips", none)[1]
    if len(strips):
        polygons = _joined(polygons, _of_strips(strips))
    normals, colors = _columns(columns, ("nx", "ny", "nz")), _columns(columns, ("red", "green", "blue"))
    if normals is not None and (len(polygons) or not np.isfinite(normals).all()):
        normals = None
    colors = colors_of(colors) if colors is not None and len(colors) else None
    return [Part(vertices.astype(np.float64), polygons, normals, colors, unfinished=unfinished)]


def write_ply(vertices: np.ndarray, polygons: Polygons, columns: dict[str, np.ndarray], double: bool) -> bytes:
    """The bytes of a binary PLY file.

    Parameters
    ----------
    vertices : (n, 3); polygons : of at most 255 corners
    columns : further vertex properties by name, (n,) each, float32 or uint8
    double : whether coordinates are written in double precision
    """
    names = {"f4": "float", "f8": "double", "u1": "uchar"}
    stored = {axis: vertices[:, i].astype("<f8" if double else "<f4") for i, axis in enumerate("xyz")} | columns
    table = np.empty(len(vertices), dtype=[(name, values.dtype.newbyteorder("<")) for name, values in stored.items()])
    for name, values in stored.items():
        table[name] = values
    properties = [f"property {names[values.dtype.str[1:]]} {name}" for name, values in stored.items()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *properties,
        f"element face {len(polygons)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode() + table.tobytes() + _face_rows(polygons)


def _face_rows(polygons: Polygons) -> bytes:
    """The rows of the faces: runs of faces with equally many corners at once."""
    rows, first = [], 0
    for run in np.split(polygons.sizes, np.flatnonzero(np.diff(polygons.sizes)) + 1):
        size, last = int(run[0]) if len(run) else 3, first + int(run.sum())
        table = np.empty(len(run), dtype=[("size", "u1"), ("corners", "<i4", size)])
        table["size"], table["corners"] = size, polygons.corners[first:last].reshape(-1, size)
        rows.append(table.tobytes())
        first = last
    return b"".join(rows)


def _header(data: bytes) -> tuple[list[_Element], str, bytes]:
    """The elements, the byte order (empty for text), and the data behind the header."""
    end = data.find(b"end_header", 0, LONGEST_LINE)
    if end < 0 or not data.startswith(b"ply"):
        raise ValueError("it has no PLY header")
    start = data.find(b"\n", end) + 1
    elements: list[_Element] = []
    order = None
    for line in text_lines(data[:end].replace(b"\r", b"\n")):
        match line.split():
            case ["format", name, *_] if name in FORMATS:
                order = FORMATS[name]
            case ["element", name, count]:
                elements.append(_Element(name, int(count)))
            case ["property", "list", length, kind, name] if elements:
                elements[-1].properties.append(_Property(name, TYPES[kind], TYPES[length]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append(_Property(name, TYPES[kind]))
            case [] | ["ply" | "comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"its header has the line {line[:60]!r}, which is not PLY")
    if order is None or any(element.count < 0 for element in elements):
        raise ValueError("its header names no format, or a negative count")
    return elements, order, data[start:] if start else b""


def _text_table(element: _Element, lines: Iterator[str]) -> _Table:
    wanted, faces = element.index_list, []
    rows: list[list[str]] = []
    single = [one.name for one in element.properties if not one.length]
    for number in range(element.count):
        words = next((words for line in lines if (words := line.split())), None)
        if words is None:
            raise element.ends_early(number)
        row, place = [], 0
        for one in element.properties:
            size = _text_size(words, place) if one.length else 1
            place += bool(one.length)
            values = words[place : place + size]
            if len(values) < size:
                raise ValueError(f"row {number + 1:,} of {element.name} ends early")
            place += size
            if not one.length:
                row += values
            elif one.name == wanted:
                faces.append([int(value) for value in values])
        rows.append(row)
    table = np.array(rows, dtype=np.float64).reshape(element.count, len(single))
    return dict(zip(single, table.T, strict=True)), Polygons.of_lists(faces)


def _text_size(words: list[str], place: int) -> int:
    size = int(words[place]) if place < len(words) else -1
    if size < 0:
        raise ValueError(f"the row {' '.join(words)[:60]!r} has no list where one is announced")
    return size


def _binary_table(element: _Element, order: str, data: bytes, position: int) -> tuple[_Table, int]:
    """The table of an element whose rows begin at a position of the data, and the position behind them."""
    if element.count == 0:
        return ({one.name: np.zeros(0) for one in element.properties}, Polygons()), position
    sizes = _first_sizes(element, order, data, position)
    dtype = np.dtype([column for one in element.properties for column in _fields(one, order, sizes)])
    if not dtype.itemsize:
        return ({}, Polygons()), position
    end = position + element.count * dtype.itemsize
    if end <= len(data):
        table = np.frombuffer(data, dtype, element.count, position)
        if all((table[f"{name}\n"] == size).all() for name, size in sizes.items()):
            columns = {one.name: table[one.name] for one in element.properties if not one.length}
            wanted = element.index_list
            corners = table[wanted].astype(np.int64) if wanted else np.zeros((0, 0), dtype=np.int64)
            return (columns, Polygons(corners.reshape(-1), np.full(len(corners), sizes.get(wanted, 0)))), end
    if not sizes:
        raise element.ends_early((len(data) - position) // dtype.itemsize)
    return _mixed_table(element, order, data, position)


def _fields(one: _Property, order: str, sizes: dict[str, int]) -> list[tuple]:
    """Fields of a structured dtype for a column; the number of values of a list is called like it and a line end."""
    if not one.length:
        return [(one.name, order + one.kind)]
    return [(f"{one.name}\n", order + one.length), (one.name, order + one.kind, (sizes[one.name],))]


def _first_sizes(element: _Element, order: str, data: bytes, position: int) -> dict[str, int]:
    """How many values the lists of the first row have."""
    sizes = {}
    for one in element.properties:
        if one.length:
            position, size = _list_size(element, one, order, data, position, 0)
            sizes[one.name] = size
            position += size * np.dtype(one.kind).itemsize
        else:
            position += np.dtype(one.kind).itemsize
    return sizes


def _list_size(element: _Element, one: _Property, order: str, data: bytes, position: int, row: int) -> tuple[int, int]:
    """The position behind the number of values of a list, and that number, of values that are there."""
    code = struct.Struct(order + STRUCT_CODES.get(one.length, "i"))
    if position + code.size > len(data):
        raise element.ends_early(row)
    (size,) = code.unpack_from(data, position)
    position += code.size
    if not 0 <= size * np.dtype(one.kind).itemsize <= len(data) - position:
        raise element.ends_early(row)
    return position, size


def _mixed_table(element: _Element, order: str, data: bytes, position: int) -> tuple[_Table, int]:
    """The faces of an element whose lists have different lengths, row by row; its other columns are not read."""
    wanted, starts, sizes = element.index_list, [], []
    widths = {one.name: np.dtype(one.kind).itemsize for one in element.properties}
    for row in range(element.count):
        for one in element.properties:
            size = 1
            if one.length:
                position, size = _list_size(element, one, order, data, position, row)
                if one.name == wanted:
                    starts.append(position)
                    sizes.append(size)
            position += size * widths[one.name]
    if position > len(data):
        raise element.ends_early(element.count - 1)
    if not wanted:
        return ({}, Polygons()), position
    kind = next(one.kind for one in element.properties if one.name == wanted)
    size = np.array(sizes, dtype=np.int64)
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    places = np.repeat(np.array(starts, dtype=np.int64), size) + within * widths[wanted]  # of each index
    stored = np.frombuffer(data, np.uint8)[places[:, None] + np.arange(widths[wanted])]
    return ({}, Polygons(stored.view(order + kind).reshape(-1).astype(np.int64), size)), position


def _columns(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    if not all(name in columns for name in names):
        return None
    return np.stack([columns[name] for name in names], axis=1)


def _joined(first: Polygons, second: Polygons) -> Polygons:
    return Polygons(np.concatenate([first.corners, second.corners]), np.concatenate([first.sizes, second.sizes]))


def _of_strips(strips: Polygons) -> Polygons:
    """The triangles of strips, each of which ends at an index of -1, too, and turns over with every triangle."""
    triangles = [np.zeros((0, 3), dtype=np.int64)]
    for whole in np.split(strips.corners, np.cumsum(strips.sizes)[:-1]):
        for strip in np.split(whole, np.flatnonzero(whole == -1)):
            strip = strip[strip != -1]
            found = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1) if len(strip) > 2 else triangles[0]
            found[1::2] = found[1::2, ::-1]
            # Triangles of no area only turn the strip.
            distinct = (found != np.roll(found, 1, axis=1)).all(axis=1)
            triangles.append(found[distinct])
    return Polygons.of_triangles(np.concatenate(triangles))
