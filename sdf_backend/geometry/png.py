"""Writes images as PNG, several as one animated PNG, with the standard library alone."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdf_backend.files import atomic_write

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DEPTH = 8
# PNG's numbers of colour types, by the number of channels.
COLOR_TYPES = {3: 2, 4: 6}


def write_png(path: Path, images: Sequence[np.ndarray], frames_a_second: int = 12) -> None:
    """Write one image, or an animation that repeats for ever.

    images : (height, width, 3) uint8 each, of one size; with a fourth channel, they are as opaque as it says

    Raises `InputError` where the file cannot be written.
    """
    height, width, channels = images[0].shape
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, DEPTH, COLOR_TYPES[channels], 0, 0, 0))]
    if len(images) > 1:
        chunks.append(_chunk(b"acTL", struct.pack(">II", len(images), 0)))
    sequence = 0
    for number, image in enumerate(images):
        pixels = zlib.compress(_filtered(image), 6)
        if len(images) > 1:
            control = struct.pack(">IIIIIHHBB", sequence, width, height, 0, 0, 1, frames_a_second, 0, 0)
            chunks.append(_chunk(b"fcTL", control))
            sequence += 1
        if number == 0:
            chunks.append(_chunk(b"IDAT", pixels))
        else:
            chunks.append(_chunk(b"fdAT", struct.pack(">I", sequence) + pixels))
            sequence += 1
    chunks.append(_chunk(b"IEND", b""))
    with atomic_write(path) as temporary:
        temporary.write_bytes(SIGNATURE + b"".join(chunks))


def _filtered(image: np.ndarray) -> bytes:
    """The rows, each after the number of its filter, 0 for none."""
    rows = np.ascontiguousarray(image, np.uint8).reshape(len(image), -1)
    return np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], 1).tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
