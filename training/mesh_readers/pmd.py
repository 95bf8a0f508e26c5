"""Reads PMD ("PSMD"), the skinned meshes of 0 A.D., and poses them by linear blend skinning.

Vertices with up to four bones each, triangles of 16-bit indices, the bones' rest pose, and points where other models
are attached, which are not read. Described on the page "PMD_File_Format" of the wiki of 0 A.D.,
https://gitea.wildfiregames.com/0ad/0ad/wiki. No Python library reads it; it is not the PMD of MikuMikuDance.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from training.mesh_readers.binary import BinaryReader, check_indices
from training.mesh_readers.rigid import BONE, MIRROR, bone_matrices

MAGIC, VERSION = b"PSMD", 4
NO_BONE = 0xFF
# Position and normal, four indices of bones, four weights; two floats more for each set of texture coordinates.
VERTEX_SIZE, TEXTURE_SIZE = 24 + 4 + 16, 8


@dataclass(frozen=True)
class SkinnedMesh:
    """A triangle mesh whose vertices follow bones.

    vertices : (n, 3) float64, in rest pose; right-handed, y up
    faces : (m, 3) int64, counter-clockwise seen from outside
    bones : (n, 4) int64, index of each bone that moves a vertex, -1 for none
    weights : (n, 4) float64, 0 where there is no bone
    rest : (b, 4, 4) float64, from each bone's frame to that of the object, for column vectors
    """

    vertices: np.ndarray
    faces: np.ndarray
    bones: np.ndarray
    weights: np.ndarray
    rest: np.ndarray


def read_pmd(path: Path) -> SkinnedMesh:
    """Read a mesh in its rest pose.

    Raises `InputError` where the file is missing, not a PMD file of version 4, damaged or cut short.
    """
    reader = BinaryReader(path)
    reader.header(MAGIC, VERSION, "PMD")
    reader.integer("the size")
    vertex_count, texture_sets = reader.integer("the number of vertices"), reader.integer("the texture sets")
    if vertex_count == 0:
        raise InputError(f"{path} has no vertices; unpack it again")
    # Rows of bytes, because the width of a vertex is the file's own claim, which `array` has to check first.
    width = VERTEX_SIZE + TEXTURE_SIZE * texture_sets
    rows = reader.array("u1", vertex_count * width, "bytes of vertices").reshape(vertex_count, width)
    positions, weights = _columns(rows, 0, 12, "<f4"), _columns(rows, width - 16, width, "<f4")
    if not (np.isfinite(positions).all() and np.isfinite(weights).all()):
        raise InputError(f"{path} is damaged: a vertex has a number that is not finite; unpack it again")
    bones = _columns(rows, width - 20, width - 16, "u1").astype(np.int64)
    faces = reader.array("<u2", 3 * reader.integer("the number of faces"), "corners of faces").reshape(-1, 3)
    rest = bone_matrices(reader.array(BONE, reader.integer("the number of bones"), "bones"), path)
    check_indices(faces, vertex_count, "vertex", path)
    used = (bones != NO_BONE) & (weights != 0)
    check_indices(bones[used], len(rest), "bone", path)
    return SkinnedMesh(
        positions * MIRROR,
        faces.astype(np.int64),
        np.where(used, bones, -1),
        np.where(used, weights, 0).astype(np.float64),
        rest,
    )


def posed(mesh: SkinnedMesh, bones: np.ndarray) -> np.ndarray:
    """Move a mesh's vertices with its bones, by linear blend skinning.

    Parameters
    ----------
    mesh : the mesh in its rest pose
    bones : (b, 4, 4), the pose, such as `read_psa` gives it

    Returns
    -------
    vertices : (n, 3) float64; those without a bone stay where they are

    Raises
    ------
    InputError : the pose is of another number of bones
    """
    if len(bones) != len(mesh.rest):
        raise InputError(
            f"the animation moves {len(bones)} bones and the mesh has {len(mesh.rest)}; use another animation"
        )
    total = mesh.weights.sum(axis=1)
    weights = mesh.weights / np.where(total > 0, total, 1)[:, None]
    # From the rest pose to this one, (b + 1, 4, 4); the last, which index -1 takes, is that of no bone.
    moves = np.concatenate([bones @ np.linalg.inv(mesh.rest), np.eye(4)[None]])
    blended = np.einsum("nk,nkij->nij", weights, moves[mesh.bones])
    blended[total <= 0] = np.eye(4)
    return np.einsum("nij,nj->ni", blended[:, :3, :3], mesh.vertices) + blended[:, :3, 3]


def _columns(rows: np.ndarray, first: int, last: int, dtype: str) -> np.ndarray:
    """Read bytes `first` to `last` of each row as numbers."""
    return np.ascontiguousarray(rows[:, first:last]).view(dtype)
