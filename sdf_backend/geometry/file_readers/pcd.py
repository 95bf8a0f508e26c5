"""Reads PCD, the clouds of the Point Cloud Library: text, binary and compressed.

A reader of our own, since the library for it needs a compiler on some systems.
"""

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Sibling
from sdf_backend.geometry.file_readers.text import LONGEST_LINE, is_unfinished, text_lines

KINDS = {"F": "f", "I": "i", "U": "u"}


def read_pcd(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a PCD file; raises `ValueError` for one that is malformed or ends early."""
    header, encoding, body = _header(data)
    names, sizes, kinds = header.get("FIELDS", []), header.get("SIZE", []), header.get("TYPE", [])
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
    if not len(names) == len(sizes) == len(kinds) == len(counts):
        raise ValueError("its fields, sizes, types and counts are not equally many")
    points = int(header.get("POINTS", ["0"])[0])
    fields = [
        (f"{name} {place}", f"<{KINDS[kind]}{size}", (count,))  # fields that pad have one name
        for place, (name, size, kind, count) in enumerate(zip(names, sizes, kinds, counts, strict=True))
    ]
    table = _table(body, encoding, np.dtype(fields), points)
    columns = {name: table[f"{name} {place}"][:, 0] for place, name in enumerate(names) if counts[place]}
    if not {"x", "y", "z"} <= set(columns):
        raise ValueError("it has no fields x, y and z")
    normals = None
    if {"normal_x", "normal_y", "normal_z"} <= set(columns):
        normals = np.stack([columns[f"normal_{axis}"] for axis in "xyz"], axis=1).astype(np.float64)
    vertices = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(np.float64)
    unfinished = encoding == "ascii" and is_unfinished(body)
    return [Part(vertices, normals=normals, colors=_colors(columns), unfinished=unfinished)]


def _header(data: bytes) -> tuple[dict[str, list[str]], str, bytes]:
    """The header's words by their key, the encoding, and the data behind."""
    place = data.find(b"\nDATA ", 0, LONGEST_LINE)
    end = data.find(b"\n", place + 1)
    if place < 0 or end < 0:
        raise ValueError("it has no PCD header")
    rows = [line.split() for line in text_lines(data[:end]) if line and not line.startswith("#")]
    header = {row[0].upper(): row[1:] for row in rows}
    return header, header["DATA"][0].lower(), data[end + 1 :]


def _table(data: bytes, encoding: str, dtype: np.dtype, points: int) -> np.ndarray:
    if encoding == "ascii":
        return _text_table(data, dtype, points)
    if encoding == "binary_compressed":
        packed, size = (int(length) for length in np.frombuffer(data, "<u4", 2))
        if len(data) < 8 + packed or size < points * dtype.itemsize:
            raise ValueError("it ends early")
        return _columns(decompress_lzf(data[8 : 8 + packed], size), dtype, points)
    if encoding != "binary":
        raise ValueError(f"its data are {encoding!r}, which is not PCD")
    if len(data) < points * dtype.itemsize:
        raise ValueError(f"it ends early: {points:,} points are announced, {len(data) // dtype.itemsize:,} are there")
    return np.frombuffer(data, dtype, points)


def _text_table(data: bytes, dtype: np.dtype, points: int) -> np.ndarray:
    rows = [row for line in text_lines(data) if (row := line.split())]
    width = sum(dtype[name].shape[0] for name in dtype.names or ())
    if len(rows) < points or any(len(row) != width for row in rows[:points]):
        raise ValueError(
            f"it ends early: {points:,} points of {width} values are announced, {len(rows):,} lines follow"
        )
    # Text is read in double precision, whatever the fields are said to have.
    fields = [(name, dtype[name].base, dtype[name].shape) for name in dtype.names or ()]
    table = np.empty(points, [(name, "f8" if base.kind == "f" else base, shape) for name, base, shape in fields])
    values, place = np.array(rows[:points], dtype=np.float64).reshape(points, width), 0
    for name in dtype.names or ():
        size = dtype[name].shape[0]
        with np.errstate(invalid="ignore"):
            table[name] = values[:, place : place + size]
        place += size
    return table


def _columns(data: bytes, dtype: np.dtype, points: int) -> np.ndarray:
    """A table that is stored field after field."""
    table, position = np.empty(points, dtype), 0
    for name in dtype.names or ():
        field = dtype[name]
        table[name] = np.frombuffer(data, field.base, points * field.shape[0], position).reshape(points, -1)
        position += points * field.itemsize
    return table


def _colors(columns: dict[str, np.ndarray]) -> np.ndarray | None:
    """Colours that are packed into the bytes of one number, as `rgb` or `rgba`."""
    packed = next((columns[name] for name in ("rgb", "rgba") if name in columns), None)
    if packed is None or (packed.dtype.itemsize != 4 and packed.dtype.kind != "f"):
        return None
    if packed.dtype.kind == "f":
        packed = packed.astype(np.float32)
    blue_first = np.ascontiguousarray(packed).view(np.uint8).reshape(-1, 4)
    return blue_first[:, 2::-1] / 255.0


def decompress_lzf(data: bytes, size: int) -> bytes:
    """The LZF stream's content, of the size that is announced; raises `ValueError` for another."""
    out, place = bytearray(), 0
    while place < len(data) and len(out) <= size:
        control = data[place]
        place += 1
        if control < 32:  # so many bytes, plus one, as they are
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[place]
            place += 1
        start = len(out) - ((control & 31) << 8) - data[place] - 1
        place += 1
        if start < 0:
            raise ValueError("its compressed data are damaged")
        repeated = out[start : start + length + 2]
        # A reference may reach into what it writes, which then repeats.
        out += (repeated * (-(-(length + 2) // len(repeated))))[: length + 2]
    if len(out) != size:
        raise ValueError("its compressed data are damaged")
    return bytes(out)
