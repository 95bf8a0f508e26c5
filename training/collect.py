"""Collects the starter data: converts meshes in Debian packages, listed in a catalogue, to OBJ files with credits."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import trimesh

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from training.generators.credits import add_credits
from training.licences import check_licence, check_together
from training.packages import Packages
from training.pieces import read_piece, split_pose

COLUMNS = ("category", "split", "package", "archive", "member", "rotation", "family", "licence", "creator")
# What only some pieces need: further members that belong to the piece (`;` between them), an animation and its frame
# that pose it (MEMBER#FRAME), axles that the source lacks (see `wheels`), words in the names of parts to leave out.
OPTIONAL_COLUMNS = ("parts", "pose", "wheels", "drop")
SPLITS = ("train", "test")


def collect(
    catalog: Path, packages: Path, output: Path, category: str | None = None, report: Callable[[str], None] = print
) -> int:
    """Write OUTPUT/CATEGORY/NAME.obj for every row, and `sources.json` beside them; returns how many were written.

    `packages` is a folder into which the packages were unpacked (`dpkg -x`). A member that cannot be found or read is
    passed to `report` and left out. Raises `InputError` where the catalogue is unreadable, a whole package is missing,
    or nothing was found.
    """
    rows = [row for row in read_catalog(catalog) if category in (None, row["category"])]
    sources: dict[str, list[dict]] = {}
    with Packages(packages) as unpacked:
        _check_packages(rows, unpacked)
        for row in rows:
            name = piece_name(row)
            try:
                vertices, faces = read_piece(row, unpacked)
            except InputError as error:
                report(f"left out {name}: {error}")
                continue
            text = str(trimesh.Trimesh(vertices, faces, process=False).export(file_type="obj"))
            _write_changed(output / row["category"] / f"{name}.obj", text)
            credit = {key: row[key] for key in ("split", "licence", "creator", "family", "package", "member")}
            sources.setdefault(row["category"], []).append({"name": name, **credit})
    if not sources:
        raise InputError(f"none of the {len(rows)} members of {catalog} was found under {packages}; unpack them there")
    for kind, credits in sources.items():
        add_credits(output / kind, credits)
    return sum(map(len, sources.values()))


def read_catalog(path: Path) -> list[dict[str, str]]:
    """Read the rows of a catalogue.

    Raises `InputError` for a missing file, column or name, a split that is neither train nor test, a licence that is
    not on the list, licences that no one model could be shipped under, and two pieces of one name.
    """
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
        where = f"row {number} of {path}"
        if not (row["category"] and Path(row["member"]).name):
            raise InputError(f"{where} lacks a category or a member")
        if row["split"] not in SPLITS:
            raise InputError(f"{where} has the split {row['split']!r}; it should be {' or '.join(SPLITS)}")
        check_licence(row["licence"], row["split"], where)
    for category in {row["category"] for row in rows}:
        training = [row for row in rows if row["category"] == category and row["split"] == "train"]
        check_together({row["licence"] for row in training}, category)
    names = Counter((row["category"], piece_name(row)) for row in rows)
    for (category, name), times in names.items():
        if times > 1:
            raise InputError(f"{path} lists {times} pieces of {category} named {name}; keep one row of them")
    return rows


def piece_name(row: dict[str, str]) -> str:
    """Name the file of a piece after where it is from: the member's folders and stem, without the usual `Models`.

    A posed piece has its animation and frame too. Raises `InputError` where a pose is not an animation and a frame.
    """
    parts = [part for part in Path(row["member"]).with_suffix("").parts if part.lower() != "models"]
    if row.get("pose"):
        animation, frame = split_pose(row["pose"])
        parts += [_stem(animation), str(frame)]
    # 0 A.D. names what it made of a COLLADA file mesh.dae.cached.pmd.
    return "_".join(dict.fromkeys(parts)).replace(" ", "-").replace(".dae.cached", "")


def _write_changed(path: Path, text: str) -> None:
    """Write a file unless it holds this text: `prepare` samples a mesh again that is newer than its samples."""
    if not (path.exists() and path.read_text() == text):
        with atomic_write(path) as temporary:
            temporary.write_text(text)


def _stem(member: str) -> str:
    return Path(member).name.partition(".")[0]


def _check_packages(rows: list[dict[str, str]], packages: Packages) -> None:
    """Raise `InputError` where nothing of a package is there: one line instead of one for each of its pieces."""
    for package in sorted({row["package"] for row in rows} - {""}):
        files = {row["archive"] or row["member"] for row in rows if row["package"] == package}
        if not any(packages.find(name) for name in files):
            raise InputError(
                f"the package {package}, which holds {len(files)} of the files, is not under {packages.folder}; run "
                f"apt-get download {package} and dpkg -x {package}_*.deb {packages.folder}, or choose another category"
            )
