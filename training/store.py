"""The samples of many shapes in a few large files, of which training reads windows.

    DATASET/store/0000/points.npy     int16 (n, 3), on the grid of `training.sampling`
                      distances.npy   float32 (n,)
                      surface.npy     float32 (m, 3)
                      normals.npy     int16 (m, 3)
                      index.json      which rows are whose

The folders are parts, which are written once and never changed: a shape that is prepared again lies in a later part as
well, and the last one counts. A part is made under a temporary name and renamed when it is complete, so that of two
writers one fails and neither does harm.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from training.sampling import BOUND, ShapeSamples, from_grid, to_grid

INDEX_FILE = "index.json"
# Type and columns of each array, by the name of its file.
ARRAYS = {"points": ("<i2", (3,)), "distances": ("<f4", ()), "surface": ("<f4", (3,)), "normals": ("<i2", (3,))}


@dataclass(frozen=True)
class StoredShape:
    """Where a shape lies in its part, and what is known of it. Field names are keys of `index.json`.

    start, inside, count : its first row of `points` and `distances`; rows inside, which come first; all rows
    surface_start, surface_count : its rows of `surface` and `normals`
    scale, offset, uncertain : as in `ShapeSamples`
    prepared : when it was sampled, in nanoseconds since 1970
    """

    start: int
    inside: int
    count: int
    surface_start: int
    surface_count: int
    scale: float
    offset: list[float]
    uncertain: int
    prepared: int


class Store:
    """The parts of a dataset.

    shapes : part and place of each shape, by its name

    Raises
    ------
    InputError : a part is damaged
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[Path, StoredShape]] = {}
        for part in list_parts(folder):
            self.shapes |= {name: (part, shape) for name, shape in _read_index(part).items()}

    def load(self, name: str) -> ShapeSamples:
        """Read the samples of one shape. Raises `KeyError` for one that is not in the store."""
        part, shape = self.shapes[name]
        rows = slice(shape.start, shape.start + shape.count)
        kept = slice(shape.surface_start, shape.surface_start + shape.surface_count)
        return ShapeSamples(
            from_grid(map_array(part, "points")[rows], BOUND),
            np.array(map_array(part, "distances")[rows]),
            np.array(map_array(part, "surface")[kept]),
            from_grid(map_array(part, "normals")[kept], 1.0),
            shape.scale,
            np.array(shape.offset),
            shape.uncertain,
        )


def list_parts(store: Path) -> list[Path]:
    """The folders of the parts of a store, in their order; none where there is no store."""
    return sorted(path for path in store.glob("[0-9]*") if path.is_dir())


def map_array(part: Path, name: str) -> np.ndarray:
    """Map one array of a part into memory. Raises `InputError` where its file is missing or damaged."""
    path = part / f"{name}.npy"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); delete {part} and run prepare again") from error
    dtype, columns = ARRAYS[name]
    if array.dtype != dtype or array.shape[1:] != columns:
        raise InputError(f"{path} is damaged (rows of {array.dtype}); delete {part} and run prepare again")
    # A slice of a `memmap` costs ten times that of an array.
    return array.view(np.ndarray)


class PartWriter:
    """Writes the shapes of a new part, one after the other; `new_part` makes one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, StoredShape] = {}
        self.arrays = {name: _GrowingArray(folder / f"{name}.npy", *kind) for name, kind in ARRAYS.items()}

    def add(self, name: str, samples: ShapeSamples, prepared: int) -> None:
        """Append the samples of a shape, which are in the order of `inside_first`; `prepared` as in `StoredShape`."""
        self.shapes[name] = StoredShape(
            self.arrays["distances"].rows,
            int((samples.distances < 0).sum()),
            len(samples.distances),
            self.arrays["surface"].rows,
            len(samples.surface),
            samples.scale,
            [float(value) for value in samples.offset],
            samples.uncertain,
            prepared,
        )
        self.arrays["points"].append(to_grid(samples.points, BOUND))
        self.arrays["distances"].append(samples.distances)
        self.arrays["surface"].append(samples.surface)
        self.arrays["normals"].append(to_grid(samples.normals, 1.0))

    def finish(self) -> None:
        """Complete the files."""
        for array in self.arrays.values():
            array.finish()
        _write_index(self.folder, self.shapes)

    def close(self) -> None:
        """Close the files, complete or not."""
        for array in self.arrays.values():
            array.file.close()


@contextmanager
def new_part(store: Path) -> Iterator[PartWriter]:
    """Write the next part of a store; it is there when the block has succeeded, and not before.

    Raises `InputError` where the store cannot be written, and where another process has written the same part.
    """
    number = len(list_parts(store))
    part, temporary = store / f"{number:04d}", store / f".{number:04d}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        writer = PartWriter(temporary)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
        temporary.rename(part)
    except OSError as error:
        raise InputError(
            f"cannot write {part}: {error.strerror or error}; free disk space, and run one prepare at a time"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(store: Path) -> None:
    """Remove the unfinished parts of killed writers."""
    for path in store.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def link_parts(store: Path, target: Path, names: set[str]) -> None:
    """Make a store of the same files, in which only the shapes `names` are listed; parts without any are left out."""
    for part in list_parts(store):
        listed = {name: shape for name, shape in _read_index(part).items() if name in names}
        if listed:
            copy = target / part.name
            copy.mkdir(parents=True)
            for name in ARRAYS:
                link(part / f"{name}.npy", copy / f"{name}.npy")
            _write_index(copy, listed)


def link(source: Path, target: Path) -> None:
    """Make a hard link where the file system allows, and a copy otherwise."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class _GrowingArray:
    """A `.npy` file that rows are appended to. numpy pads headers, so that the final one fits over the first."""

    def __init__(self, path: Path, dtype: str, columns: tuple[int, ...]) -> None:
        self.file = path.open("wb")
        self.dtype, self.columns = np.dtype(dtype), columns
        self.rows = 0
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values, self.dtype).data)
        self.rows += len(values)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        os.fsync(self.file.fileno())  # what the rows were read from is deleted next

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.columns)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _write_index(part: Path, shapes: dict[str, StoredShape]) -> None:
    content = {name: asdict(shape) for name, shape in shapes.items()}
    (part / INDEX_FILE).write_text(json.dumps(content, indent=0))


def _read_index(part: Path) -> dict[str, StoredShape]:
    """The shapes of a part, all of whose rows exist."""
    path = part / INDEX_FILE
    try:
        shapes = {name: StoredShape(**row) for name, row in json.loads(path.read_text()).items()}
        needed = max((shape.start + shape.count for shape in shapes.values()), default=0)
        surface = max((shape.surface_start + shape.surface_count for shape in shapes.values()), default=0)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete {part} and run prepare again") from error
    for name, rows in {"points": needed, "distances": needed, "surface": surface, "normals": surface}.items():
        if len(map_array(part, name)) < rows:
            raise InputError(f"{part / name}.npy is damaged (too short); delete {part} and run prepare again")
    return shapes
