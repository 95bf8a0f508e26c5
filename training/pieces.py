"""Makes the mesh of one catalogue row: members read by their formats, posed, joined, turned, and put on wheels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import read_geometry
from training.mesh_readers.ac3d import read_ac3d
from training.mesh_readers.md2 import read_md2
from training.mesh_readers.pmd import posed, read_pmd
from training.mesh_readers.psa import read_psa
from training.packages import Packages
from training.wheels import wheels

# Parts of FlightGear aircraft that are light, not matter, or do not belong to the aircraft.
AIRCRAFT_EFFECTS = (
    *("light", "flare", "shadow", "disc", "flash", "beacon", "strobe", "flame", "glow", "blur", "drogue"),
    *("refuel", "contrail", "smoke", "cone", "vapour", "banner"),
)
# Catalogues give rotations to four decimals.
ROUNDING = 1e-3
Mesh = tuple[np.ndarray, np.ndarray]


def read_piece(row: Mapping[str, str], packages: Packages) -> Mesh:
    """Read the mesh that a catalogue row describes.

    Parameters
    ----------
    row : its columns; `rotation` is nine numbers, row-major, applied to column vectors; `parts`, `pose`, `wheels` and
        `drop` may be missing or empty
    packages : where the members are

    Returns
    -------
    vertices : (n, 3) float64, in canonical axes and the source's units
    faces : (m, 3) int64

    Raises
    ------
    InputError : a member is missing or cannot be read, or a column is not what it should be
    """
    members = [row["member"], *_listed(row.get("parts", ""))]
    pose = row.get("pose", "")
    drop = AIRCRAFT_EFFECTS if row["category"] == "airplanes" else ()
    drop += tuple(_listed(row.get("drop", "")))
    meshes = []
    for member in members:
        with packages.member(member, row["archive"]) as path:
            if pose:
                meshes.append(_posed(path, pose, row["archive"], packages))
            else:
                meshes.append(read_member(path, drop))
    vertices, faces = _joined(meshes)
    vertices = _turned(vertices, row["rotation"])
    if row.get("wheels"):
        vertices, faces = _joined([(vertices, faces), wheels(row["wheels"])])
    return vertices, faces


def read_member(path: Path, drop: tuple[str, ...] = ()) -> Mesh:
    """Read one file by the format that its suffix names.

    Parameters
    ----------
    path : an AC3D, MD2 or PMD file (PMD in its rest pose), or any format of `read_geometry`
    drop : words in the names of parts that are left out; only AC3D files name their parts

    Returns
    -------
    vertices : (n, 3) float64; faces : (m, 3) int64
    """
    match path.suffix.lower():
        case ".ac" | ".acc":
            return read_ac3d(path, drop)
        case ".md2":
            return read_md2(path)
        case ".pmd":
            mesh = read_pmd(path)
            return mesh.vertices, mesh.faces
        case _:
            geometry = read_geometry(path)
            return geometry.vertices, geometry.faces


def split_pose(pose: str) -> tuple[str, int]:
    """Split `MEMBER#FRAME` into the animation's member and the number of the frame; raises `InputError`."""
    member, mark, frame = pose.rpartition("#")
    if not (mark and member and frame.isdecimal()):
        raise InputError(f"the pose {pose!r} is not an animation and a frame; write it as walk.psa#12")
    return member, int(frame)


def _posed(path: Path, pose: str, archive: str, packages: Packages) -> Mesh:
    if path.suffix.lower() != ".pmd":
        raise InputError(f"{path.name} cannot take the pose {pose}: only PMD meshes have bones")
    member, frame = split_pose(pose)
    mesh = read_pmd(path)
    with packages.member(member, archive) as animation:
        return posed(mesh, read_psa(animation, frame)), mesh.faces


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(";") if entry.strip()]


def _joined(meshes: list[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [faces + start for (_, faces), start in zip(meshes, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces)


def _turned(vertices: np.ndarray, rotation: str) -> np.ndarray:
    """Apply a row-major rotation, written as nine numbers, to vertices as column vectors."""
    if not rotation.strip():
        return vertices
    try:
        matrix = np.array(rotation.replace(",", " ").replace(";", " ").split(), dtype=float).reshape(3, 3)
    except ValueError as error:
        raise InputError(f"the rotation {rotation!r} is not nine numbers") from error
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=ROUNDING) or np.linalg.det(matrix) < 0:
        raise InputError(f"the rotation {rotation!r} scales, shears or mirrors; give a rotation matrix, row by row")
    return vertices @ matrix.T
