"""One mesh and its vertices as a cloud, in every format that is read, written here and by other libraries."""

import base64
import json
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import laspy
import numpy as np
import trimesh

from sdf_backend.geometry.mesh_files import write_mesh

SPHERE = trimesh.creation.icosphere(1)
VERTICES, FACES = np.round(np.array(SPHERE.vertices) * [1.0, 1.5, 2.0], 6), np.array(SPHERE.faces)


def rows(values: np.ndarray, separator: str = " ") -> str:
    return "".join(separator.join(f"{value:.6f}".rstrip("0") for value in row) + "\n" for row in values)


def index_rows(faces: np.ndarray, heading: str = "3 ") -> str:
    return "".join(f"{heading}{a} {b} {c}\n" for a, b, c in faces)


def text_files() -> dict[str, bytes]:
    """Every text format, by suffix."""
    ply = (
        f"ply\nformat ascii 1.0\nelement vertex {len(VERTICES)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(FACES)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    corners = VERTICES[FACES]
    facets = "".join(
        "facet normal 0 0 0\nouter loop\n" + "".join(f"vertex {x} {y} {z}\n" for x, y, z in one) + "endloop\nendfacet\n"
        for one in corners
    )
    pcd = (
        "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {len(VERTICES)}\nHEIGHT 1\nPOINTS {len(VERTICES)}\nDATA ascii\n"
    )
    grid = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    listed = {
        ".ply": ply + rows(VERTICES) + index_rows(FACES),
        ".obj": "".join(f"v {line}\n" for line in rows(VERTICES).splitlines()) + index_rows(FACES + 1, "f "),
        ".off": f"OFF\n{len(VERTICES)} {len(FACES)} 0\n" + rows(VERTICES) + index_rows(FACES),
        ".stl": f"solid one\n{facets}endsolid one\n",
        ".gltf": json.dumps(gltf()),
        ".dae": trimesh.exchange.dae.export_collada(trimesh.Trimesh(VERTICES, FACES, process=False)).decode(),
        ".xyz": rows(VERTICES),
        ".txt": "x y z\n" + rows(VERTICES),
        ".asc": "# points\n" + rows(VERTICES, "\t"),
        ".csv": "X,Y,Z\n" + rows(VERTICES, ","),
        ".pts": f"{len(VERTICES)}\n" + rows(VERTICES),
        ".ptx": f"{len(VERTICES)}\n1\n{grid}" + rows(np.column_stack([VERTICES, np.ones(len(VERTICES))])),
        ".pcd": pcd + rows(VERTICES),
    }
    return {suffix: text.encode() for suffix, text in listed.items()}


def binary_files(folder: Path) -> dict[str, bytes]:
    """Every binary format, by suffix; the folder is for files in the making."""
    files: dict[str, bytes] = {}
    for suffix in (".ply", ".glb", ".stl", ".3mf"):
        write_mesh(folder / f"mesh{suffix}", VERTICES, FACES)
        files[suffix] = (folder / f"mesh{suffix}").read_bytes()
    array, packed = BytesIO(), BytesIO()
    np.save(array, VERTICES)
    with ZipFile(packed, "w") as archive:
        archive.writestr("mesh.ply", files[".ply"])
    return files | {".npy": array.getvalue(), ".zip": packed.getvalue(), ".las": las(), ".pcd": binary_pcd()}


def gltf() -> dict:
    """A glTF tree with its buffer inside."""
    points, corners = VERTICES.astype("<f4").tobytes(), FACES.astype("<u2").tobytes()
    uri = "data:application/octet-stream;base64," + base64.b64encode(points + corners).decode()
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(VERTICES), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": FACES.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": len(points)},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(corners)},
        ],
        "buffers": [{"byteLength": len(points) + len(corners), "uri": uri}],
    }


def las() -> bytes:
    file, cloud = BytesIO(), laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    cloud.header.scales = np.full(3, 1e-6)
    cloud.x, cloud.y, cloud.z = VERTICES.T
    cloud.write(file)
    return file.getvalue()


def binary_pcd() -> bytes:
    header = f"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS {len(VERTICES)}\nDATA binary\n"
    return header.encode() + VERTICES.astype("<f4").tobytes()
