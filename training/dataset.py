"""A prepared dataset on disk: samples, and `dataset.json`, which describes them.

The samples of a shape are in a `.npz` file of their own once they are sampled, and later packed with those of others in
`store`.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.signed_distance import SignClassifier, clean_mesh, unit_normals
from sdf_backend.geometry.similarity import axis_rotation
from sdf_backend.geometry.visible_surface import visible_surface
from training.catalog import read_mesh
from training.sampling import BOUND, ShapeSamples, from_grid, inside_first, to_grid
from training.store import Store, StoredShape

DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True)
class ShapeRecord:
    """One shape of a dataset, with its credits. Field names are keys of `dataset.json`.

    family : shapes that resemble each other, which belong in one split
    copy_of : name of the original of a deformed copy; empty for an original
    mesh : the source mesh, which is the ground truth of evaluations
    """

    name: str
    split: str
    licence: str = "unknown"
    creator: str = "unknown"
    family: str = ""
    copy_of: str = ""
    mesh: str = ""


@dataclass(frozen=True)
class Dataset:
    """The prepared shapes of one category, in the canonical frame: y up, inside the unit sphere.

    front : the front axis of the canonical frame, such as "-z"
    settings : those of `prepare`, as JSON
    """

    folder: Path
    category: str
    front: str
    settings: dict
    records: list[ShapeRecord] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Read `dataset.json`. Raises `InputError` where `folder` is not a dataset."""
        path = Path(folder) / DESCRIPTION_FILE
        try:
            content = json.loads(path.read_text())
            records = [ShapeRecord(**row) for row in content.pop("shapes")]
            return cls(Path(folder), records=records, **content)
        except OSError as error:
            raise InputError(
                f"{folder} is not a dataset: {DESCRIPTION_FILE} cannot be read; run prepare first"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}); run prepare again") from error

    def save(self) -> None:
        """Write `dataset.json`, atomically."""
        content = {"category": self.category, "front": self.front, "settings": self.settings}
        content["shapes"] = [asdict(record) for record in self.records]
        with atomic_write(self.folder / DESCRIPTION_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    def split(self, name: str) -> list[ShapeRecord]:
        """The prepared shapes of a split, "train" or "test". Raises `InputError` where there is none."""
        prepared = self.prepared()
        chosen = [record for record in self.records if record.split == name and record.name in prepared]
        if not chosen:
            raise InputError(f"{self.folder} contains no prepared shape of the split {name!r}")
        return chosen

    def read_mesh(self, record: ShapeRecord, samples: ShapeSamples) -> tuple[np.ndarray, np.ndarray]:
        """Read the visible surface of a shape's source mesh, in the canonical frame.

        Parameters
        ----------
        samples : those of the same shape, for its scale and offset

        Returns
        -------
        vertices : (n, 3) float
        faces : (m, 3) int, oriented outwards

        Raises
        ------
        InputError : as `read_source`
        """
        vertices, faces = self.read_source(record, samples)
        triangles, normals = visible_surface(vertices, faces, SignClassifier(vertices, faces))
        vertices = triangles.reshape(-1, 3)
        faces = np.arange(len(vertices)).reshape(-1, 3)
        inward = np.einsum("ij,ij->i", unit_normals(triangles), normals) < 0
        faces[inward] = faces[inward, ::-1]
        return vertices, faces

    def read_source(self, record: ShapeRecord, samples: ShapeSamples) -> tuple[np.ndarray, np.ndarray]:
        """Read a shape's source mesh as its author made it, hidden faces too, in the canonical frame.

        Parameters
        ----------
        samples : those of the same shape, for its scale and offset

        Returns
        -------
        vertices : (n, 3) float; faces : (m, 3) int

        Raises
        ------
        InputError : the source mesh is missing, or the record is a deformed copy, which has no source mesh
        """
        if record.copy_of:
            raise InputError(f"{record.name} is a deformed copy, which has no source mesh")
        vertices, faces = clean_mesh(*read_mesh(Path(record.mesh)))
        rotation = axis_rotation(self.settings["up"], self.settings["front"], self.front)
        return (vertices @ rotation.T + samples.offset) * samples.scale, faces

    @cached_property
    def store(self) -> Store:
        """The packed shapes, as they were when they were first asked for. Raises `InputError` for a damaged part."""
        return Store(self.folder / "store")

    def prepared(self) -> set[str]:
        """The names of all shapes that have samples, packed or not."""
        rejected = {path.stem for path in (self.folder / "rejected").glob("*.json")}
        loose = {path.stem for path in self.path("").parent.glob("*.npz")}
        return loose | (self.store.shapes.keys() - rejected)

    def path(self, name: str) -> Path:
        """The file of a shape's samples, which is there until they are packed."""
        return samples_path(self.folder, name)

    def stored(self, name: str) -> tuple[Path, StoredShape] | None:
        """Part and place of a packed shape; None for one that is not packed, or was sampled again since."""
        return None if self.path(name).exists() else self.store.shapes.get(name)

    def load(self, name: str) -> ShapeSamples:
        """Read the samples of a shape, in the order of `inside_first`.

        Raises `InputError` where they are missing or damaged.
        """
        return self.store.load(name) if self.stored(name) else inside_first(load_samples(self.path(name)))


def samples_path(folder: Path, name: str) -> Path:
    """The file of a shape's samples in the folder of a dataset."""
    return folder / "shapes" / f"{name}.npz"


def save_samples(path: Path, samples: ShapeSamples) -> None:
    """Write the samples of a shape, atomically; points and normals as 16-bit integers, distances as float32."""
    with atomic_write(path) as temporary:
        np.savez(
            temporary,
            points=to_grid(samples.points, BOUND),
            distances=samples.distances,
            surface=samples.surface,
            normals=to_grid(samples.normals, 1.0),
            scale=samples.scale,
            offset=samples.offset,
            uncertain=samples.uncertain,
        )


def load_samples(path: Path) -> ShapeSamples:
    """Read the samples of a shape, without unpickling. Raises `InputError` for a missing or damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            samples = ShapeSamples(
                from_grid(file["points"], BOUND),
                file["distances"],
                file["surface"],
                from_grid(file["normals"], 1.0),
                float(file["scale"]),
                file["offset"],
                int(file["uncertain"]),
            )
        _check_shapes(samples)
        return samples
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run prepare") from error
    except Exception as error:  # zipfile and numpy raise many types for damaged archives
        raise InputError(f"{path} is damaged ({error}); delete it and run prepare again") from error


def _check_shapes(samples: ShapeSamples) -> None:
    """Raise `ValueError` where the shapes of the arrays do not match."""
    count, kept = len(samples.points), len(samples.surface)
    shapes = samples.points.shape, samples.distances.shape, samples.surface.shape, samples.normals.shape
    if shapes != ((count, 3), (count,), (kept, 3), (kept, 3)):
        raise ValueError(f"its arrays have mismatched shapes, {shapes}")
