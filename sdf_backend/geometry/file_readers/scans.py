"""Reads the clouds of surveyors' and scanners' programs: LAS, LAZ and E57, by optional libraries, and NPY."""

import struct
import tempfile
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Sibling, colors_of

# Points of a file; a file may announce more than it holds.
MOST_POINTS = 200_000_000


def require(module: str, kind: str) -> ModuleType:
    """Import an optional library; raises `ValueError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{kind} needs more software; install it with: pip install 'sdf-shapes[formats]'") from error


def read_las(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a LAS or LAZ file."""
    laspy = require("laspy", "LAS and LAZ")
    _check_records(data)
    with laspy.open(BytesIO(data)) as reader:
        check_count(reader.header.point_count)
        found = reader.read()
    if len(found.x) < reader.header.point_count:
        raise ValueError(f"it ends early: {reader.header.point_count:,} points are announced, {len(found.x):,} follow")
    colors = None
    if "red" in found.point_format.dimension_names:
        colors = colors_of(np.stack([np.asarray(found[name]) for name in ("red", "green", "blue")], axis=1))
    return [Part(np.stack([np.asarray(found[axis], dtype=np.float64) for axis in "xyz"], axis=1), colors=colors)]


def _check_records(data: bytes) -> None:
    """Raise `ValueError` for a header that announces more records than the file has room for: laspy would read on."""
    if len(data) < 227 or data[:4] != b"LASF":
        raise ValueError("it has no LAS header")
    size, start, records = struct.unpack_from("<HII", data, 94)
    further = struct.unpack_from("<I", data, 243)[0] if data[25] >= 4 and len(data) >= 375 else 0
    if size + 54 * records > start or start > len(data) or 60 * further > len(data):
        raise ValueError(f"it ends early, or its header is damaged: it announces {records + further:,} records")


def read_e57(data: bytes, sibling: Sibling) -> list[Part]:
    """Read the scans of an E57 file, each placed as the file says."""
    pye57, parts = require("pye57", "E57"), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.e57"
        path.write_bytes(data)
        scans = pye57.E57(str(path))
        for number in range(scans.scan_count):
            check_count(scans.get_header(number).point_count)
            has_colors = "colorRed" in scans.get_header(number).point_fields
            found = scans.read_scan(number, colors=has_colors, ignore_missing_fields=True)
            vertices = np.stack([found[f"cartesian{axis}"] for axis in "XYZ"], axis=1)
            colors = None
            if has_colors:
                colors = colors_of(np.stack([found[f"color{name}"] for name in ("Red", "Green", "Blue")], axis=1))
            parts.append(Part(vertices.astype(np.float64), colors=colors))
        scans.close()
    return parts


def read_npy(data: bytes, sibling: Sibling) -> list[Part]:
    """Read an array of numpy, (n, 3) or with more columns: x y z."""
    values = np.load(BytesIO(data), allow_pickle=False)
    if values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind not in "fiu":
        raise ValueError(f"its array has the shape {values.shape} and the type {values.dtype}, and not x y z a row")
    return [Part(values[:, :3].astype(np.float64))]


def check_count(count: int) -> None:
    """Raise `ValueError` for more points than any computer here could take."""
    if not 0 <= count <= MOST_POINTS:
        raise ValueError(f"it announces {count:,} points; at most {MOST_POINTS:,} are read")
