"""Reads glTF 2.0, text and binary: triangles and points of all placed meshes, quantised and Draco-compressed ones too.

A reader of our own: trimesh's takes no account of normalised integers and of sparse accessors, leaves zeros where it
cannot decompress, and places 30,000 instances one by one. Materials, skins and morph targets are not read.
"""

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
from scipy.spatial.transform import Rotation

from sdf_backend.geometry.file_readers.part import MOST_PLACED, Part, Polygons, Sibling, check_placed, colors_of
from sdf_backend.geometry.file_readers.scans import require

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
DRACO = "KHR_draco_mesh_compression"
# What changes the geometry, and what to do about it.
UNREAD = {
    "EXT_meshopt_compression": "it is compressed by meshopt (EXT_meshopt_compression); export it without compression",
    "KHR_meshopt_compression": "it is compressed by meshopt (KHR_meshopt_compression); export it without compression",
    "EXT_mesh_gpu_instancing": "its instances are stored by EXT_mesh_gpu_instancing; export it without",
}

_Json = dict[str, Any]


def read_gltf(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a `.gltf` or `.glb` file; raises `ValueError` for one that is damaged or compressed in a way not known."""
    text, binary = _container(data)
    tree: _Json = json.loads(text)
    for name in tree.get("extensionsUsed", []):
        if name in UNREAD:
            raise ValueError(UNREAD[name])
    asset = _Asset(tree, [_buffer(row, binary, sibling) for row in tree.get("buffers", [])])
    placed = _placements(tree)
    meshes = {number: [_part(asset, row) for row in tree["meshes"][number]["primitives"]] for number in placed}
    check_placed(
        sum(
            len(placed[number]) * (len(part.vertices) + len(part.polygons.corners))
            for number, parts in meshes.items()
            for part in parts
        )
    )
    return [_place(part, placed[number]) for number, parts in meshes.items() for part in parts]


def _container(data: bytes) -> tuple[bytes, bytes]:
    """The JSON text and the binary buffer of either form of the file."""
    if not data.startswith(b"glTF"):
        return data, b""
    chunks, place = {}, 12
    (length,) = struct.unpack_from("<I", data, 8)
    if length > len(data):
        raise ValueError(f"it ends early: {length:,} bytes are announced, {len(data):,} are there")
    while place + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, place)
        if place + 8 + size > len(data):
            raise ValueError("it ends early")
        chunks.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 8 + size
    if b"JSON" not in chunks:
        raise ValueError("it has no JSON part")
    return chunks[b"JSON"], chunks.get(b"BIN\0", b"")


def _buffer(row: _Json, binary: bytes, sibling: Sibling) -> bytes:
    uri = row.get("uri")
    if uri is None:
        content = binary
    elif uri.startswith("data:"):
        content = base64.b64decode(uri.partition(",")[2])
    else:
        content = sibling(unquote(uri))
    if len(content) < row["byteLength"]:
        raise ValueError(
            f"a buffer of it ends early: {row['byteLength']:,} bytes are announced, {len(content):,} follow"
        )
    return content


@dataclass(frozen=True)
class _Asset:
    """The JSON of a file with its buffers."""

    tree: _Json
    buffers: list[bytes]

    def view(self, number: int) -> bytes:
        """The bytes of a buffer view."""
        row = self.tree["bufferViews"][number]
        start, buffer = row.get("byteOffset", 0), self.buffers[row["buffer"]]
        if start < 0 or start + row["byteLength"] > len(buffer):
            raise ValueError("a buffer view of it reaches beyond its buffer")
        return buffer[start : start + row["byteLength"]]

    def accessor(self, number: int) -> np.ndarray:
        """The values of an accessor, (count, width); normalised integers as fractions."""
        row = self.tree["accessors"][number]
        dtype, width, count = np.dtype(COMPONENTS[row["componentType"]]), WIDTHS[row["type"]], row["count"]
        if not 0 < count * width <= MOST_PLACED:
            raise ValueError(f"an accessor of it has {count:,} values")
        if "bufferView" in row:
            stride = self.tree["bufferViews"][row["bufferView"]].get("byteStride", dtype.itemsize * width)
            values = _strided(self.view(row["bufferView"]), row.get("byteOffset", 0), stride, dtype, count, width)
        elif "sparse" in row:
            values = np.zeros((count, width), dtype)
        else:
            raise ValueError("an accessor of it has no data")
        if "sparse" in row:
            values, places = values.copy(), self._sparse(row["sparse"], "indices", 1)[:, 0]
            values[places] = self._sparse(row["sparse"], "values", width, dtype)
        if not row.get("normalized") or dtype.kind == "f":
            return values
        return np.maximum(values / np.iinfo(dtype).max, -1.0)

    def _sparse(self, row: _Json, part: str, width: int, dtype: np.dtype | None = None) -> np.ndarray:
        kind, where = dtype or np.dtype(COMPONENTS[row[part]["componentType"]]), row[part]
        stride = kind.itemsize * width
        return _strided(self.view(where["bufferView"]), where.get("byteOffset", 0), stride, kind, row["count"], width)


def _strided(data: bytes, start: int, stride: int, dtype: np.dtype, count: int, width: int) -> np.ndarray:
    row = dtype.itemsize * width
    if start < 0 or stride < row or start + (count - 1) * stride + row > len(data):
        raise ValueError("an accessor of it reaches beyond its buffer view")
    whole = np.frombuffer(data, np.uint8, (count - 1) * stride + row, start)
    rows = np.lib.stride_tricks.as_strided(whole, (count, row), (stride, 1))
    return np.ascontiguousarray(rows).view(dtype)


def _part(asset: _Asset, primitive: _Json) -> Part:
    mode = primitive.get("mode", TRIANGLES)
    if mode not in (POINTS, TRIANGLES, STRIP, FAN):  # lines
        return Part(np.zeros((0, 3)))
    packed = primitive.get("extensions", {}).get(DRACO)
    if packed:
        return _decompressed(asset.view(packed["bufferView"]))
    vertices = asset.accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
    colors = primitive["attributes"].get("COLOR_0")
    colors = None if colors is None else colors_of(asset.accessor(colors)[:, :3])
    if mode == POINTS:
        return Part(vertices, colors=colors)
    indices = primitive.get("indices")
    corners = np.arange(len(vertices)) if indices is None else asset.accessor(indices)[:, 0].astype(np.int64)
    return Part(vertices, Polygons.of_triangles(_triangles(corners, mode)), colors=colors)


def _decompressed(data: bytes) -> Part:
    try:
        found = require("DracoPy", f"Draco compression ({DRACO})").decode(data)
    except Exception as error:  # of several kinds of its own
        raise ValueError(f"its Draco compression ({DRACO}) cannot be undone: {error}") from error
    triangles = np.asarray(found.faces, dtype=np.int64).reshape(-1, 3)
    return Part(np.asarray(found.points, dtype=np.float64), Polygons.of_triangles(triangles))


def _triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    if mode == TRIANGLES:
        if len(corners) % 3:
            raise ValueError(f"a mesh of it has {len(corners):,} corners, which are no triangles")
        return corners.reshape(-1, 3)
    if mode == FAN:
        rim = np.stack([corners[1:-1], corners[2:]], axis=1)
        return np.insert(rim, 0, corners[:1], axis=1)
    found = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    found[1::2] = found[1::2, ::-1]
    return found[(found != np.roll(found, 1, axis=1)).all(axis=1)]


def _placements(tree: _Json) -> dict[int, np.ndarray]:
    """The matrices, (k, 4, 4), with which each mesh is placed, by its number; a file without nodes places all."""
    nodes = tree.get("nodes", [])
    if not nodes:
        return {number: np.eye(4)[None] for number in range(len(tree.get("meshes", [])))}
    scenes = tree.get("scenes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    roots = [number for number in range(len(nodes)) if number not in children]
    if scenes:
        roots = scenes[tree.get("scene", 0)].get("nodes", [])
    placed: dict[int, list[np.ndarray]] = {}
    open_nodes, seen = [(root, np.eye(4)) for root in roots], set()
    while open_nodes:
        number, parent = open_nodes.pop()
        if number in seen:
            raise ValueError("a node of it has two parents")
        seen.add(number)
        matrix = parent @ _matrix(nodes[number])
        if "mesh" in nodes[number]:
            placed.setdefault(nodes[number]["mesh"], []).append(matrix)
        open_nodes += [(child, matrix) for child in nodes[number].get("children", [])]
    return {number: np.array(matrices) for number, matrices in sorted(placed.items())}


def _matrix(node: _Json) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    turn = Rotation.from_quat(node["rotation"]).as_matrix() if "rotation" in node else np.eye(3)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _place(part: Part, matrices: np.ndarray) -> Part:
    """All instances of a part as one."""
    count, copies = len(part.vertices), len(matrices)
    vertices = np.einsum("kij,nj->kni", matrices[:, :3, :3], part.vertices) + matrices[:, None, :3, 3]
    corners = (part.polygons.corners + count * np.arange(copies)[:, None]).reshape(copies, -1, 3)
    mirrored = np.linalg.det(matrices[:, :3, :3]) < 0
    corners = corners.reshape(copies, -1, 3)
    corners[mirrored] = corners[mirrored][:, :, ::-1]
    colors = None if part.colors is None else np.tile(part.colors, (copies, 1))
    return Part(vertices.reshape(-1, 3), Polygons.of_triangles(corners.reshape(-1, 3)), colors=colors)
