"""Reads PSA, the skeletal animations of 0 A.D.: for each frame, where each bone of a PMD mesh is.

Described on the page "PSA_File_Format" of the wiki of 0 A.D., https://gitea.wildfiregames.com/0ad/0ad/wiki. No Python
library reads it. Bones have no names: an animation fits the meshes that have as many bones in the same order.
"""

from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from training.mesh_readers.binary import BinaryReader
from training.mesh_readers.rigid import BONE, bone_matrices

MAGIC, VERSION = b"PSSA", 1


def read_psa(path: Path, frame: int) -> np.ndarray:
    """Read where the bones are in one frame of an animation.

    Parameters
    ----------
    path : the file
    frame : number of the frame, from 0

    Returns
    -------
    bones : (b, 4, 4) float64, from each bone's frame to that of the object, for column vectors

    Raises
    ------
    InputError : missing, not a PSA file of version 1, damaged, cut short, or without that frame
    """
    reader = BinaryReader(path)
    reader.header(MAGIC, VERSION, "PSA")
    reader.integer("the size")
    reader.skip(reader.integer("the length of the name"), "bytes of the name")
    reader.skip(4, "bytes of the frame's duration")
    bone_count, frame_count = reader.integer("the number of bones"), reader.integer("the number of frames")
    if not 0 <= frame < frame_count:
        raise InputError(f"{path} has {frame_count} frames, numbered from 0; there is no frame {frame}")
    states = reader.array(BONE, bone_count * frame_count, "bone states")
    return bone_matrices(states[frame * bone_count : (frame + 1) * bone_count], path)
