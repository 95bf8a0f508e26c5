"""Reads clouds that are text, one point a line: XYZ, TXT, ASC, CSV and PTS, and PTX, the grids of scanners.

Points are separated by spaces, tabs, commas or semicolons; decimals may have commas where something else separates.
Headings and comments are left out.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from sdf_backend.geometry.file_readers.part import Part, Sibling, colors_of
from sdf_backend.geometry.file_readers.text import is_unfinished, text_lines

COMMENTS = ("#", "//", "!", "%")
# Lines before the first point; more of them are no headings.
MOST_HEADINGS = 20
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
# Of a column's name its role; what stands for red may be called R, red, Rf, ...
COLOR_NAMES = (("r", "g", "b"), ("red", "green", "blue"))
NORMAL_NAMES = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))


def read_point_list(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a text with one point a line; raises `ValueError` where lines differ, or fewer follow than are announced."""
    lines = [line for line in text_lines(data) if line and not line.startswith(COMMENTS)]
    first = next((i for i, line in enumerate(lines[:MOST_HEADINGS]) if len(_numeric_fields(line)) >= 3), None)
    if first is None:
        raise ValueError("its lines do not begin with three numbers, x, y and z")
    headings, rows = lines[:first], lines[first:]
    counts = [int(line) for line in [*headings, *rows] if re.fullmatch(r"\d+", line)]
    rows = [line for line in rows if not re.fullmatch(r"\d+", line)]  # a list may hold several scans
    if counts and sum(counts) != len(rows):
        raise ValueError(f"it announces {sum(counts):,} points, and {len(rows):,} follow")
    notes: tuple[str, ...] = ()
    if is_unfinished(data) and not _looks_whole(rows):
        rows, notes = rows[:-1], ("Its last line is unfinished and was left out; the file may have been cut off.",)
    return [_part(rows, _names(headings), notes)]


def read_ptx(data: bytes, sibling: Sibling) -> list[Part]:
    """Read a PTX file: grids of points, each in its scanner's frame; raises `ValueError` where one ends early."""
    lines, parts = (line for line in text_lines(data) if line), []
    for columns in lines:
        count = int(columns) * int(next(lines, "0"))
        header = [next(lines, "").split() for _ in range(8)]  # position and axes of the scanner, then a matrix
        matrix = np.array(header[4:], dtype=np.float64)  # of row vectors
        if matrix.shape != (4, 4):
            raise ValueError("a grid of it has no matrix of four rows")
        rows = list(islice(lines, count))
        if len(rows) < count:
            raise ValueError(f"it ends early: a grid announces {count:,} points, and {len(rows):,} follow")
        part = _part(rows, [], ())
        seen = part.vertices.any(axis=1)  # 0 0 0 is a direction without an answer
        colors = None if part.colors is None else part.colors[seen]
        notes = _unseen(count - int(seen.sum()), count)
        parts.append(Part(part.vertices[seen] @ matrix[:3, :3] + matrix[3, :3], colors=colors, notes=notes))
    if is_unfinished(data):
        parts[-1] = replace(parts[-1], unfinished=True)
    return parts


def _unseen(missing: int, count: int) -> tuple[str, ...]:
    return (f"{missing:,} of {count:,} points of a scan are empty and were left out.",) if missing else ()


def _part(rows: list[str], names: list[str], notes: tuple[str, ...]) -> Part:
    if not rows:
        raise ValueError("it has no points")
    delimiter, decimal = _separators(rows)
    columns = _numeric_fields(rows[0])
    if len(columns) < 3:
        raise ValueError("its lines do not begin with three numbers, x, y and z")
    texts = [row.replace(",", ".") for row in rows] if decimal == "," else rows
    values = np.loadtxt(texts, delimiter=delimiter, usecols=columns, ndmin=2, comments=None)
    if any(len(row.split(delimiter)) != len(rows[0].split(delimiter)) for row in texts):
        raise ValueError("its lines have different numbers of columns")
    named = {name: values[:, columns.index(i)] for i, name in enumerate(names) if i in columns}
    vertices = _named(named, (("x", "y", "z"),))
    normals, colors = _named(named, NORMAL_NAMES), _named(named, COLOR_NAMES)
    if not named:
        normals, colors = _guess(values)
    return Part(
        values[:, :3] if vertices is None else vertices,
        normals=normals,
        colors=None if colors is None else colors_of(colors),
        notes=notes,
    )


def _separators(rows: Sequence[str]) -> tuple[str | None, str]:
    """What separates columns (None for spaces) and decimals.

    Raises `ValueError` where commas do both, so that no column is certain.
    """
    row = rows[0]
    if ";" in row:
        return ";", "," if "," in row else "."
    words = row.split()
    if len(words) >= 3 and any(map(DECIMAL_COMMA.fullmatch, words)) and not any("." in word for word in words):
        return None, ","
    if "," not in row:
        return None, "."
    whole = [word.strip() for line in rows[:100] for word in line.split(",")]
    if not any("." in word for word in whole) and any(re.fullmatch(r"-?0\d+", word) for word in whole):
        raise ValueError("commas separate both its columns and its decimals; write decimals with points")
    return ",", "."


def _fields(line: str) -> list[str]:
    delimiter, decimal = _separators([line])
    fields = [word.strip() for word in line.split(delimiter)]
    return [word.replace(",", ".") for word in fields] if decimal == "," else fields


def _numeric_fields(line: str) -> list[int]:
    """The columns of a line that are numbers; none where one of the first three is none."""
    numeric = [i for i, word in enumerate(_fields(line)) if _is_number(word)]
    return numeric if numeric[:3] == [0, 1, 2] else []


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word


def _names(headings: list[str]) -> list[str]:
    """Names of the columns, in lower case, where a heading names x, y and z."""
    for line in headings:
        words = [word.strip("\"'()[]") for word in re.split(r"[,;\s]+", line.lower().lstrip("#/ "))]
        if {"x", "y", "z"} <= set(words):
            return words
    return []


def _named(columns: dict[str, np.ndarray], choices: tuple[tuple[str, ...], ...]) -> np.ndarray | None:
    for names in choices:
        if all(name in columns for name in names):
            return np.stack([columns[name] for name in names], axis=1)
    return None


def _guess(values: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Normals and colours of columns without a name: x y z, perhaps an intensity, then r g b or nx ny nz."""
    for first in range(values.shape[1] - 3, 2, -1):
        triple = values[:, first : first + 3]
        if (triple == np.round(triple)).all() and triple.min() >= 0 and 1 < triple.max() <= 255:
            return None, triple.astype(np.int64)
    if values.shape[1] == 6 and np.allclose(np.linalg.norm(values[:, 3:], axis=1), 1, atol=0.01):
        return values[:, 3:], None
    return None, None


def _looks_whole(rows: Sequence[str]) -> bool:
    """Whether the last of the lines can be taken for whole although no line end follows.

    It can if it has as many columns as the others and its last number as many decimals as all of theirs.
    """
    *others, last = rows
    sizes = {(len(_fields(row)), len(_fields(row)[-1].partition(".")[2])) for row in others[-100:]}
    return sizes == {(len(_fields(last)), len(_fields(last)[-1].partition(".")[2]))}
