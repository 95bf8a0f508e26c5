"""Collects the starter data: converts meshes in Debian packages, listed in a catalogue, to OBJ files with credits."""

import csv
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.mesh_files import read_geometry
from training.ac3d import read_ac3d
from training.generators.credits import add_credits

# Parts of FlightGear aircraft that are light, not matter, or do not belong to the aircraft.
AIRCRAFT_EFFECTS = (
    *("light", "flare", "shadow", "disc", "flash", "beacon", "strobe", "flame", "glow", "blur", "drogue"),
    *("refuel", "contrail", "smoke", "cone", "vapour", "banner"),
)
COLUMNS = ("category", "split", "package", "archive", "member", "rotation", "family", "licence", "creator")


def collect(
    catalog: Path, packages: Path, output: Path, category: str | None = None, report: Callable[[str], None] = print
) -> int:
    """Write OUTPUT/CATEGORY/NAME.obj for every row, and `sources.json` beside them; returns how many were written.

    `packages` is a folder into which the packages were unpacked (`dpkg -x`). A member that cannot be found or read is
    passed to `report` and left out. Raises `InputError` where the catalogue is unreadable or nothing was found.
    """
    rows = [row for row in read_catalog(catalog) if category in (None, row["category"])]
    files = _index(packages)
    sources: dict[str, list[dict]] = {}
    for row in rows:
        name = _name(row)
        try:
            vertices, faces = _read_member(row, files)
            vertices = _rotated(vertices, row["rotation"])
        except InputError as error:
            report(f"left out {name}: {error}")
            continue
        text = trimesh.Trimesh(vertices, faces, process=False).export(file_type="obj")
        with atomic_write(output / row["category"] / f"{name}.obj") as temporary:
            temporary.write_text(str(text))
        credit = {key: row[key] for key in ("split", "licence", "creator", "family", "package", "member")}
        sources.setdefault(row["category"], []).append({"name": name, **credit})
    if not sources:
        raise InputError(f"none of the {len(rows)} members of {catalog} was found under {packages}; unpack them there")
    for kind, credits in sources.items():
        add_credits(output / kind, credits)
    return sum(map(len, sources.values()))


def read_catalog(path: Path) -> list[dict[str, str]]:
    """Read the rows of a starter catalogue; raises `InputError` for a missing file, column or name."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the catalogue {path}: {error}") from error
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}")
    for number, row in enumerate(rows, start=1):
        if not (row["category"] and Path(row["member"]).name):
            raise InputError(f"row {number} of {path} lacks a category or a member")
    return rows


def _name(row: dict[str, str]) -> str:
    """A file name that says where the mesh is from: the member's folders and stem, without the usual `Models`."""
    parts = [part for part in Path(row["member"]).with_suffix("").parts if part.lower() != "models"]
    return "_".join(dict.fromkeys(parts)).replace(" ", "-")


def _index(packages: Path) -> dict[str, list[Path]]:
    if not packages.is_dir():
        raise InputError(f"{packages} is not a folder; unpack the packages there: dpkg -x PACKAGE.deb {packages}")
    files: dict[str, list[Path]] = {}
    for path in sorted(packages.rglob("*")):
        if path.is_file():
            files.setdefault(path.name, []).append(path)
    return files


def _find(name: str, files: dict[str, list[Path]]) -> Path:
    wanted = Path(name).parts
    for path in files.get(wanted[-1], []):
        if path.parts[-len(wanted) :] == wanted:
            return path
    raise InputError(f"{name} is not in the packages' folder")


def _read_member(row: dict[str, str], files: dict[str, list[Path]]) -> tuple[np.ndarray, np.ndarray]:
    if not row["archive"]:
        return read_ac3d(_find(row["member"], files), drop=AIRCRAFT_EFFECTS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(_find(row["archive"], files)) as archive:
                path = Path(archive.extract(row["member"], folder))
        except KeyError as error:
            raise InputError(f"{row['member']} is not in {row['archive']}") from error
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{row['archive']} cannot be unpacked: {error}") from error
        geometry = read_geometry(path)
        return geometry.vertices, geometry.faces


def _rotated(vertices: np.ndarray, rotation: str) -> np.ndarray:
    """Apply a row-major rotation, written as nine numbers, to vertices as column vectors."""
    if not rotation.strip():
        return vertices
    try:
        matrix = np.array(rotation.replace(",", " ").replace(";", " ").split(), dtype=float).reshape(3, 3)
    except ValueError as error:
        raise InputError(f"the rotation {rotation!r} must be nine numbers") from error
    return vertices @ matrix.T
