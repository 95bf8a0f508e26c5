"""Mesh and point files: reads all that trimesh reads, writes PLY, OBJ, GLB, STL and 3MF."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_file, check_writable

OUTPUT_FORMATS = (".ply", ".obj", ".glb", ".stl", ".3mf")
# What a 3D printer takes: only closed meshes have an inside to fill.
PRINT_FORMATS = (".stl", ".3mf")
# A shape cannot be fitted to fewer points.
MINIMUM_POINTS = 100
# Squares of larger coordinates exceed the range of single precision.
LARGEST_COORDINATE = 1e15
OBSERVED_COLOR, COMPLETED_COLOR = (70, 130, 200), (240, 140, 50)


@dataclass(frozen=True)
class Geometry:
    """A triangle mesh, or a point cloud where `faces` is empty.

    vertices : (n, 3) float64; faces : (m, 3) int64
    normals : (n, 3) float64, of a point file that has them
    colors : (n, 3) float64, sRGB from 0 to 1, of a file that has vertex colours
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    colors: np.ndarray | None = None


def read_geometry(path: Path) -> Geometry:
    """Read a mesh or point file; the parts of a scene are joined, each with its transform applied.

    Raises `InputError` for a missing, unreadable or empty file, for coordinates that are not finite, and for faces with
    indices of missing vertices.
    """
    path = Path(path)
    check_file(path, "give a mesh or point file")
    try:
        loaded = trimesh.load(path, process=False)
        parts = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    except Exception as error:  # trimesh's readers raise whatever their parsers raise
        raise InputError(f"{path} cannot be read as a mesh or point file: {_first_line(error)}") from error
    geometry = _join([part for part in np.ravel(np.asarray(parts, dtype=object)) if hasattr(part, "vertices")])
    check_vertices(geometry.vertices, str(path))
    if geometry.faces.size and not 0 <= geometry.faces.min() <= geometry.faces.max() < len(geometry.vertices):
        raise InputError(f"{path} has faces with vertex indices out of range; it has {len(geometry.vertices)} vertices")
    return geometry


def check_vertices(vertices: np.ndarray, name: str) -> None:
    """Raise `InputError` unless (n, 3) vertices are at least one, all finite, and small enough for single precision."""
    if len(vertices) == 0:
        raise InputError(f"{name} has no vertices; give a mesh or a point cloud")
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        raise InputError(f"{name} has {bad.sum()} vertices with NaN or infinite coordinates; remove them")
    largest = np.abs(vertices).max()
    if largest > LARGEST_COORDINATE:
        raise InputError(f"{name} has coordinates up to {largest:.2g}; scale it down to at most {LARGEST_COORDINATE:g}")


def write_mesh(
    path: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    observed: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> None:
    """Write a triangle mesh, whole or not at all.

    Parameters
    ----------
    path : its suffix names the format, one of `OUTPUT_FORMATS`
    vertices : (n, 3); faces : (m, 3)
    observed : (n,) in 0..1, 1 for observed and 0 for completed vertices; a vertex property of PLY, and without colours
        vertex colours, blue to orange, of PLY, OBJ and GLB
    deviation : (n,), standard deviation of the vertices along their normals; a vertex property of PLY
    colors : (n, 3), sRGB from 0 to 1; vertex colours of PLY, OBJ and GLB

    Raises `InputError` for another format or a folder that cannot be written.
    """
    path = Path(path)
    check_output(path)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if colors is None and observed is not None:
        colors = observed_colors(observed)
    if colors is not None:
        opaque = np.pad(np.round(255 * np.clip(colors, 0, 1)), ((0, 0), (0, 1)), constant_values=255)
        mesh.visual = ColorVisuals(mesh, vertex_colors=opaque.astype(np.uint8))
    if observed is not None:
        mesh.vertex_attributes["observed"] = observed.astype(np.float32)
    if deviation is not None:
        mesh.vertex_attributes["deviation"] = deviation.astype(np.float32)
    options = {"include_attributes": True} if path.suffix.lower() == ".ply" else {}
    with atomic_write(path) as temporary:
        mesh.export(temporary, file_type=path.suffix.lower()[1:], **options)


def check_output(path: Path) -> None:
    """Raise `InputError` if the format of `path` cannot be written, or no file can be created there."""
    if path.suffix.lower() not in OUTPUT_FORMATS:
        known = ", ".join(OUTPUT_FORMATS)
        raise InputError(f"cannot write {path}: {path.suffix or 'no suffix'} is not a mesh format; use one of {known}")
    check_writable(path)


def observed_colors(observed: np.ndarray) -> np.ndarray:
    """Vertex colours, (n, 3) in 0..1, of weights, (n,) in 0..1: from orange, completed, to blue, observed."""
    completed, blue = np.array(COMPLETED_COLOR), np.array(OBSERVED_COLOR)
    weight = np.clip(observed, 0, 1)[:, None]
    return (completed + (blue - completed) * weight) / 255


def _join(parts: list) -> Geometry:
    """One geometry of the parts of a scene, which trimesh gives as meshes and point clouds."""
    vertices = [np.asarray(part.vertices, dtype=np.float64).reshape(-1, 3) for part in parts]
    starts = np.cumsum([0, *map(len, vertices)])
    faces = [
        np.asarray(part.faces, dtype=np.int64).reshape(-1, 3) + start
        for part, start in zip(parts, starts, strict=False)
        if hasattr(part, "faces")
    ]
    return Geometry(
        np.concatenate([*vertices, np.zeros((0, 3))]),
        np.concatenate([*faces, np.zeros((0, 3), dtype=np.int64)]),
        _cloud_normals(parts),
        _vertex_colors(parts),
    )


def _cloud_normals(parts: list) -> np.ndarray | None:
    """Normals of a single point cloud, (n, 3), which trimesh keeps only in the raw columns of the file."""
    if len(parts) != 1 or not isinstance(parts[0], trimesh.PointCloud):
        return None
    columns = parts[0].metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    # A structured array of a binary file, a dictionary of a text file.
    names = columns.dtype.names if isinstance(columns, np.ndarray) else columns
    if not all(name in names for name in ("nx", "ny", "nz")):
        return None
    normals = np.stack([columns[name].reshape(-1) for name in ("nx", "ny", "nz")], axis=1).astype(np.float64)
    return normals if np.isfinite(normals).all() else None


def _vertex_colors(parts: list) -> np.ndarray | None:
    """Vertex colours, (n, 3) in 0..1, where each part has some; textures are not read."""
    colors = []
    for part in parts:
        visual = part.visual
        if visual.kind != "vertex" or len(visual.vertex_colors) != len(part.vertices):
            return None
        colors.append(np.asarray(visual.vertex_colors, dtype=np.float64)[:, :3] / 255)
    return np.concatenate(colors) if colors else None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
