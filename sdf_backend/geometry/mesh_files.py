"""Mesh and point files: reads the formats of `file_readers/formats.py`, writes PLY, OBJ, GLB, STL and 3MF."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals, TextureVisuals

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_file, check_writable
from sdf_backend.geometry.file_readers.formats import PACKED, Y_UP, read_file
from sdf_backend.geometry.file_readers.obj import write_obj
from sdf_backend.geometry.file_readers.part import Part, Polygons
from sdf_backend.geometry.file_readers.ply import write_ply
from sdf_backend.geometry.file_readers.stl import write_stl
from sdf_backend.geometry.source_geometry import Geometry, check_geometry
from sdf_backend.geometry.triangulation import triangulate
from sdf_backend.geometry.unwrapping import load_xatlas, unwrap_mesh
from sdf_backend.geometry.vertex_normals import vertex_normals

OUTPUT_FORMATS = (".ply", ".obj", ".glb", ".stl", ".3mf")
# What a 3D printer takes: only closed meshes have an inside to fill.
PRINT_FORMATS = (".stl", ".3mf")
# Single precision is enough where it moves no vertex by more than this share of the mesh's size.
ROUNDING_SHARE = 1e-6
# What else the formats hold.
QUAD_FORMATS, NORMAL_FORMATS, UV_FORMATS = (".ply", ".obj"), (".ply", ".obj", ".glb"), (".obj", ".glb")


def read_geometry(path: Path) -> Geometry:
    """Read a mesh or point file; the parts of a scene are joined, each with its transform applied.

    What is left out, such as missing pixels of a depth camera, is counted in the notes; see `check_geometry`.
    Raises `InputError` for a missing, unreadable, cut off or empty file, and for faces with indices out of range.
    """
    path = Path(path)
    check_file(path, "give a mesh or point file")
    try:
        parts = read_file(path)
        geometries = [_geometry(part, str(path)) for part in parts]
    except InputError:
        raise
    except Exception as error:  # readers raise whatever their parsers raise
        raise InputError(f"{path} cannot be read as a mesh or point file: {_reason(error)}") from error
    return check_geometry(_join(geometries), str(path))


def is_y_up(path: Path) -> bool:
    """Whether +y is up in files of a format, packed or not."""
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    return bool(names) and names[-1] in Y_UP


@dataclass(frozen=True)
class WriteSettings:
    """What a file holds beside vertices and faces, where its format can hold it."""

    normals: bool = False
    """of the vertices"""
    uv: bool = False
    """texture coordinates, made anew"""

    def __post_init__(self) -> None:
        """Raise `InputError` for what the software here cannot make, before anything is computed."""
        if self.uv:
            load_xatlas()


def write_mesh(
    path: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    observed: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    quads: int = 0,
    settings: WriteSettings = WriteSettings(),
) -> str:
    """Write a mesh, whole or not at all.

    Where single precision would move vertices, far from the origin, PLY has double precision, GLB places the mesh by a
    node, and STL, which can do neither, is written moved to the origin.

    Parameters
    ----------
    path : its suffix names the format, one of `OUTPUT_FORMATS`
    vertices : (n, 3); faces : (m, 3)
    observed : (n,) in 0..1, 1 for observed and 0 for completed vertices; a vertex property of PLY
    deviation : (n,), standard deviation of the vertices along their normals; a vertex property of PLY
    colors : (n, 3), sRGB from 0 to 1; vertex colours of PLY, OBJ and GLB
    quads : how many quads the faces begin with, as two triangles each; whole ones in PLY and OBJ

    Returns
    -------
    sentences about what the format cannot hold, and by how much the mesh was moved; empty where all is as it was

    Raises `InputError` for another format or a folder that cannot be written.
    """
    path = Path(path)
    check_output(path)
    suffix = path.suffix.lower()
    levels = None if colors is None else np.round(255 * np.clip(colors, 0, 1)).astype(np.uint8)
    normals = vertex_normals(vertices, faces) if settings.normals else None
    origin, notes = _origin_for_single_precision(vertices), _unheld(suffix, quads, settings)
    with atomic_write(path) as temporary:
        match suffix:
            case ".ply":
                columns = _columns(observed, deviation, levels, normals)
                polygons = Polygons.of_halves(faces, quads)
                temporary.write_bytes(write_ply(vertices, polygons, columns, bool(origin.any())))
            case ".obj":
                data, note = _obj(vertices, faces, quads, levels, normals, settings.uv)
                temporary.write_bytes(data)
                notes.append(note)
            case ".stl":
                temporary.write_bytes(write_stl(vertices, faces, origin))
                if origin.any():
                    notes.append(f"STL has single precision, so the mesh was moved by {_in_words(-origin)}.")
            case ".glb":
                scene = trimesh.Scene()
                place = trimesh.transformations.translation_matrix(origin)
                scene.add_geometry(_mesh(vertices - origin, faces, levels, normals, settings.uv), transform=place)
                scene.export(temporary, file_type="glb")
            case _:
                _mesh(vertices, faces, levels).export(temporary, file_type=suffix[1:])
    return " ".join(filter(None, notes))


def _unheld(suffix: str, quads: int, settings: WriteSettings) -> list[str]:
    """A sentence for each thing that was asked for and that a format cannot hold."""
    name, notes = suffix[1:].upper(), []
    if quads and suffix not in QUAD_FORMATS:
        notes.append(f"{name} holds only triangles, so each quad was cut in two; PLY and OBJ hold quads.")
    if settings.normals and suffix not in NORMAL_FORMATS:
        notes.append(f"{name} holds no normals of vertices; PLY, OBJ and GLB do.")
    if settings.uv and suffix not in UV_FORMATS:
        notes.append(f"{name} was written without texture coordinates; OBJ and GLB hold them.")
    return notes


def _obj(
    vertices: np.ndarray,
    faces: np.ndarray,
    quads: int,
    levels: np.ndarray | None,
    normals: np.ndarray | None,
    uv: bool,
) -> tuple[bytes, str]:
    """The bytes of an OBJ file, and a sentence about quads that its texture coordinates had to cut."""
    colors = None if levels is None else levels / 255
    if not uv:
        return write_obj(vertices, Polygons.of_halves(faces, quads), colors, normals), ""
    places, corners, _ = unwrap_mesh(vertices, faces)
    # A seam may run along the cut of a quad, whose corners have two places then.
    halves = corners[: 2 * quads].reshape(-1, 6)
    whole = np.repeat((halves[:, 0] == halves[:, 3]) & (halves[:, 2] == halves[:, 4]), 2)
    order = np.argsort(~np.concatenate([whole, np.zeros(len(faces) - 2 * quads, dtype=bool)]), kind="stable")
    kept, cut = int(whole.sum()) // 2, quads - int(whole.sum()) // 2
    polygons, texture = (Polygons.of_halves(each[order], kept) for each in (faces, corners))
    note = f"{cut} of {quads} quads, across which a seam of the texture runs, were cut in two." if cut else ""
    return write_obj(vertices, polygons, colors, normals, places, texture.corners), note


def _origin_for_single_precision(vertices: np.ndarray) -> np.ndarray:
    """Zero, or where single precision would move vertices, whole numbers near their middle, (3,)."""
    if len(vertices) == 0:
        return np.zeros(3)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    moved = np.abs(vertices - vertices.astype(np.float32)).max()
    return np.round((low + high) / 2) if moved > ROUNDING_SHARE * np.linalg.norm(high - low) else np.zeros(3)


def _in_words(offset: np.ndarray) -> str:
    return ", ".join(f"{axis:.0f}" for axis in offset)


def _columns(
    observed: np.ndarray | None,
    deviation: np.ndarray | None,
    levels: np.ndarray | None,
    normals: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Vertex properties of a PLY file; levels : (n, 3) uint8, of the colours."""
    channels = [] if levels is None else [*levels.T, np.full(len(levels), 255, dtype=np.uint8)]
    directions = [] if normals is None else normals.T.astype(np.float32)
    columns: dict[str, np.ndarray] = dict(zip(["nx", "ny", "nz"], directions, strict=False))
    columns |= dict(zip(["red", "green", "blue", "alpha"], channels, strict=False))
    for name, values in (("observed", observed), ("deviation", deviation)):
        if values is not None:
            columns[name] = values.astype(np.float32)
    return columns


def _mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    levels: np.ndarray | None,
    normals: np.ndarray | None = None,
    uv: bool = False,
) -> trimesh.Trimesh:
    """A mesh as trimesh writes it; with texture coordinates, which its vertices on seams are repeated for."""
    places, owners = None, np.arange(len(vertices))
    if uv:
        places, faces, owners = unwrap_mesh(vertices, faces)
    mesh = trimesh.Trimesh(vertices[owners], faces, process=False, vertex_normals=_of(normals, owners))
    colors = None if levels is None else np.pad(levels[owners], ((0, 0), (0, 1)), constant_values=255)
    if places is not None:
        mesh.visual = TextureVisuals(uv=places)
        if colors is not None:
            mesh.visual.vertex_attributes["color"] = colors
    elif colors is not None:
        mesh.visual = ColorVisuals(mesh, vertex_colors=colors)
    return mesh


def _of(values: np.ndarray | None, owners: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[owners]


def check_output(path: Path) -> None:
    """Raise `InputError` if the format of `path` cannot be written, or no file can be created there."""
    if path.suffix.lower() not in OUTPUT_FORMATS:
        known = ", ".join(OUTPUT_FORMATS)
        raise InputError(f"cannot write {path}: {path.suffix or 'no suffix'} is not a mesh format; use one of {known}")
    check_writable(path)


def _geometry(part: Part, name: str) -> Geometry:
    """A part in triangles. Raises `InputError` for faces with indices of missing vertices."""
    polygons, notes, vertices = part.polygons, part.notes, part.vertices
    count, corners = len(vertices), polygons.corners
    if len(corners) and not 0 <= corners.min() <= corners.max() < count:
        raise InputError(f"{name} has faces with vertex indices out of range; it has {count} vertices")
    geometry = Geometry(vertices, triangulate(polygons, np.nan_to_num(vertices)), part.normals, part.colors, notes)
    if not part.unfinished or not count or (len(polygons) and _is_closed(geometry.faces)):
        return geometry
    # The last number of the file may lack digits.
    note = "The file ends within a line, of which the {} was left out; the file may have been cut off."
    if len(polygons):
        faces = triangulate(polygons.without_last(), np.nan_to_num(vertices))
        return replace(geometry, faces=faces).with_note(note.format("face"))
    return geometry.at(np.arange(count) < count - 1).with_note(note.format("point"))


def _is_closed(faces: np.ndarray) -> bool:
    """Whether every edge belongs to two faces that run along it in opposite directions."""
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)
    keys, reverse = (np.sort(edges[:, i].astype(np.int64) << 32 | edges[:, 1 - i]) for i in (0, 1))
    return bool((keys == reverse).all())


def _join(parts: list[Geometry]) -> Geometry:
    """One geometry of all parts; with normals and colours where each part has some."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False)]
    filled = [part for part in parts if len(part.vertices)]
    return Geometry(
        np.concatenate([*(part.vertices for part in parts), np.zeros((0, 3))]),
        np.concatenate([*faces, np.zeros((0, 3), dtype=np.int64)]),
        _all_or_none([part.normals for part in filled]),
        _all_or_none([part.colors for part in filled]),
        tuple(note for part in parts for note in part.notes),
    )


def _all_or_none(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    known = [array.astype(np.float64) for array in arrays if array is not None]
    return np.concatenate(known) if known and len(known) == len(arrays) else None


def _reason(error: Exception) -> str:
    """One line of what was wrong; what a parser trips over by itself says little to a user."""
    text = str(error).strip()
    if isinstance(error, (ValueError, OSError)) and text:
        return "".join(letter if letter.isprintable() else "?" for letter in text.splitlines()[0][:300])
    return f"it is damaged ({type(error).__name__})"
