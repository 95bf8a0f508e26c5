"""Writes small MD2, PMD and PSA files field by field, in the order of their public descriptions."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# A tetrahedron; its triangles are counter-clockwise seen from outside.
CORNERS = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
TRIANGLES = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
Bone = tuple[Sequence[float], Sequence[float]]  # translation x, y, z; quaternion x, y, z, w
RESTING: Bone = ((0, 0, 0), (0, 0, 0, 1))


def write_md2(
    path: Path, frames: Sequence[tuple], triangles: Sequence[tuple[int, int, int]], lies: dict | None = None
) -> Path:
    """Write frames of (scale, offset, [(x, y, z) bytes]); `lies` overrides fields of the header."""
    count = len(frames[0][2])
    size = 40 + 4 * count
    fields = {
        "version": 8,
        "skin_width": 64,
        "skin_height": 64,
        "frame_size": size,
        "skins": 0,
        "vertices": count,
        "texture_coordinates": 1,
        "triangles": len(triangles),
        "commands": 0,
        "frames": len(frames),
        "skins_at": 68,
        "texture_coordinates_at": 68,
        "triangles_at": 72,
        "frames_at": 72 + 12 * len(triangles),
        "commands_at": 72 + 12 * len(triangles) + size * len(frames),
        "end": 72 + 12 * len(triangles) + size * len(frames),
    } | (lies or {})
    content = b"IDP2" + struct.pack("<16i", *fields.values()) + struct.pack("<2h", 0, 0)
    for triangle in triangles:
        content += struct.pack("<6H", *triangle, 0, 0, 0)
    for scale, offset, vertices in frames:
        content += struct.pack("<6f16s", *scale, *offset, b"stand")
        for vertex in vertices:
            content += struct.pack("<4B", *vertex, 0)
    path.write_bytes(content)
    return path


@dataclass
class Pmd:
    """The content of a PMD file; by default a tetrahedron that one bone moves."""

    vertices: Sequence[tuple] = tuple(CORNERS)
    faces: Sequence[tuple[int, int, int]] = tuple(TRIANGLES)
    bones: Sequence[Bone] = (RESTING,)
    blends: Sequence[tuple[Sequence[int], Sequence[float]]] = field(default_factory=list)
    texture_sets: int = 1
    version: int = 4
    magic: bytes = b"PSMD"

    def write(self, path: Path) -> Path:
        blends = self.blends or [((0, 255, 255, 255), (1, 0, 0, 0))] * len(self.vertices)
        body = struct.pack("<2I", len(self.vertices), self.texture_sets)
        for vertex, (bones, weights) in zip(self.vertices, blends, strict=True):
            body += struct.pack("<6f", *vertex, 0, 1, 0) + struct.pack("<2f", 0.5, 0.5) * self.texture_sets
            body += struct.pack("<4B4f", *bones, *weights)
        body += struct.pack("<I", len(self.faces)) + b"".join(struct.pack("<3H", *face) for face in self.faces)
        body += struct.pack("<I", len(self.bones)) + b"".join(packed_bone(bone) for bone in self.bones)
        body += struct.pack("<II", 1, 4) + b"root" + packed_bone(RESTING) + struct.pack("<B", 0)
        path.write_bytes(self.magic + struct.pack("<2I", self.version, len(body)) + body)
        return path


def write_psa(path: Path, frames: Sequence[Sequence[Bone]], version: int = 1, bones: int | None = None) -> Path:
    """Write frames of bone states; `bones` overrides their number, which then lies."""
    body = struct.pack("<I", 4) + b"walk" + struct.pack("<f", 1000 / 30)
    body += struct.pack("<2I", len(frames[0]) if bones is None else bones, len(frames))
    body += b"".join(packed_bone(bone) for frame in frames for bone in frame)
    path.write_bytes(b"PSSA" + struct.pack("<2I", version, len(body)) + body)
    return path


def packed_bone(bone: Bone) -> bytes:
    return struct.pack("<7f", *bone[0], *bone[1])


def turned(axis: Sequence[float], degrees: float) -> tuple[float, float, float, float]:
    """The quaternion x, y, z, w of a turn about a unit axis."""
    half = np.radians(degrees) / 2
    x, y, z = np.sin(half) * np.asarray(axis, dtype=float)
    return float(x), float(y), float(z), float(np.cos(half))
