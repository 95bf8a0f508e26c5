"""Reads MD2, the mesh format of Quake II, of which UFO: Alien Invasion has its cars.

A header of 17 integers; triangles of 16-bit indices; frames of 8-bit vertices, each frame with a scale and an offset of
its own. Described by David Henry, "MD2 file format (Quake 2's models)", http://tfc.duke.free.fr/coding/md2-specs-en.html.
Neither trimesh nor meshio reads it; assimp (assimp-py 1.1) does, but refuses all 24 files of cars.
"""

from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from training.mesh_readers.binary import BinaryReader, check_indices

MAGIC, VERSION = b"IDP2", 8
TRIANGLE = np.dtype([("vertices", "<u2", 3), ("texture", "<u2", 3)])
FRAME = np.dtype([("scale", "<f4", 3), ("offset", "<f4", 3), ("name", "S16")])
# Three quantised coordinates and the index of a normal.
VERTEX = np.dtype([("position", "u1", 3), ("normal", "u1")])


def read_md2(path: Path, frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Read one frame of a file.

    Parameters
    ----------
    path : the file
    frame : number of the animation's frame; most objects have one

    Returns
    -------
    vertices : (n, 3) float64, in the file's units; MD2 is z up
    faces : (m, 3) int64, counter-clockwise seen from outside (the file's are clockwise)

    Raises
    ------
    InputError : missing, not an MD2 file of version 8, damaged, cut short, or without that frame
    """
    reader = BinaryReader(path)
    reader.header(MAGIC, VERSION, "MD2")
    header = reader.structure("<15i", "the header")
    frame_size, vertex_count, triangle_count, frame_count = header[2], header[4], header[6], header[8]
    triangle_offset, frame_offset = header[11], header[12]
    if not 0 <= frame < frame_count:
        raise InputError(f"{path} has {frame_count} frames, numbered from 0; there is no frame {frame}")
    if frame_size != FRAME.itemsize + VERTEX.itemsize * vertex_count:
        raise InputError(
            f"{path} is damaged: frames of {frame_size} bytes do not match {vertex_count} vertices; unpack it again"
        )
    reader.seek(triangle_offset)
    corners = reader.array(TRIANGLE, triangle_count, "triangles")["vertices"]
    check_indices(corners, vertex_count, "vertex", path)
    reader.seek(frame_offset + frame * frame_size)
    placement = reader.array(FRAME, 1, "frames")[0]
    if not (np.isfinite(placement["scale"]).all() and np.isfinite(placement["offset"]).all()):
        raise InputError(f"{path} is damaged: frame {frame} has a scale or an offset that is not finite")
    quantised = reader.array(VERTEX, vertex_count, "vertices")["position"]
    vertices = quantised * placement["scale"].astype(np.float64) + placement["offset"]
    return vertices, corners[:, ::-1].astype(np.int64)
