"""A prepared dataset on disk: one `.npz` a shape, one `dataset.json` that says what they are."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.signed_distance import Signs, clean_mesh, unit_normals, visible_surface
from sdf_backend.geometry.similarity import axis_rotation
from training.catalog import read_mesh
from training.sampling import BOUND, ShapeSamples

DESCRIPTION_FILE = "dataset.json"
STEPS = 32767


@dataclass(frozen=True)
class ShapeRecord:
    """One shape of a dataset and its credits; `copy_of` names the original of a deformed copy.

    `mesh` is the file that it was prepared from, which evaluation scans and measures against.
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
    """The shapes of one category; `frame` names the axes that point up and ahead."""

    folder: Path
    category: str
    front: str
    settings: dict
    records: list[ShapeRecord] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Read the description; raises `InputError` where `folder` is not a dataset."""
        path = Path(folder) / DESCRIPTION_FILE
        try:
            content = json.loads(path.read_text())
            records = [ShapeRecord(**row) for row in content.pop("shapes")]
            return cls(Path(folder), records=records, **content)
        except OSError as error:
            raise InputError(f"{folder} is no dataset: {DESCRIPTION_FILE} cannot be read; run prepare first") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}); run prepare again") from error

    def save(self) -> None:
        """Write the description, whole or not at all."""
        content = {"category": self.category, "front": self.front, "settings": self.settings}
        content["shapes"] = [asdict(record) for record in self.records]
        with atomic_write(self.folder / DESCRIPTION_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    def split(self, name: str) -> list[ShapeRecord]:
        """The shapes of one split that were prepared; raises `InputError` where there is none."""
        chosen = [record for record in self.records if record.split == name and self.path(record.name).exists()]
        if not chosen:
            raise InputError(f"{self.folder} holds no prepared shape in the split {name!r}")
        return chosen

    def read_mesh(self, record: ShapeRecord, samples: ShapeSamples) -> tuple[np.ndarray, np.ndarray]:
        """The visible surface of a shape's source mesh in the canonical frame: (n, 3) vertices, (m, 3) faces.

        Raises `InputError` where the source mesh is gone or the record is a deformed copy, which has none.
        """
        if record.copy_of:
            raise InputError(f"{record.name} is a deformed copy; there is no mesh of it")
        vertices, faces = clean_mesh(*read_mesh(Path(record.mesh)))
        turn = axis_rotation(self.settings["up"], self.settings["front"], self.front)
        vertices = (vertices @ turn.T + samples.offset) * samples.scale
        triangles, normals = visible_surface(vertices, faces, Signs(vertices, faces))
        flat = triangles.reshape(-1, 3)
        faces = np.arange(len(flat)).reshape(-1, 3)
        inward = np.einsum("ij,ij->i", unit_normals(triangles), normals) < 0
        faces[inward] = faces[inward, ::-1]
        return flat, faces

    def path(self, name: str) -> Path:
        """Where the samples of a shape are."""
        return samples_path(self.folder, name)

    def load(self, name: str) -> ShapeSamples:
        """Read one shape; raises `InputError` where its file is missing or damaged."""
        return load_samples(self.path(name))


def samples_path(folder: Path, name: str) -> Path:
    """Where in a dataset's folder the samples of a shape are."""
    return folder / "shapes" / f"{name}.npz"


def save_samples(path: Path, samples: ShapeSamples) -> None:
    """Write one shape, whole or not at all; points and normals as 16-bit integers, distances as float32."""
    with atomic_write(path) as temporary:
        np.savez(
            temporary,
            points=_packed(samples.points, BOUND),
            distances=samples.distances,
            surface=samples.surface,
            normals=_packed(samples.normals, 1.0),
            scale=samples.scale,
            offset=samples.offset,
            uncertain=samples.uncertain,
        )


def load_samples(path: Path) -> ShapeSamples:
    """Read one shape; raises `InputError` where the file is missing or damaged. Nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            samples = ShapeSamples(
                _unpacked(file["points"], BOUND),
                file["distances"],
                file["surface"],
                _unpacked(file["normals"], 1.0),
                float(file["scale"]),
                file["offset"],
                int(file["uncertain"]),
            )
        _check_shapes(samples)
        return samples
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run prepare") from error
    except Exception as error:  # a damaged archive makes zipfile and numpy raise almost anything
        raise InputError(f"{path} is damaged ({error}); delete it and run prepare again") from error


def _check_shapes(samples: ShapeSamples) -> None:
    """Raise `ValueError` where the arrays do not belong together."""
    count, kept = len(samples.points), len(samples.surface)
    shapes = samples.points.shape, samples.distances.shape, samples.surface.shape, samples.normals.shape
    if shapes != ((count, 3), (count,), (kept, 3), (kept, 3)):
        raise ValueError(f"its arrays have the shapes {shapes}")


def _packed(values: np.ndarray, bound: float) -> np.ndarray:
    return np.round(values / bound * STEPS).astype(np.int16)


def _unpacked(values: np.ndarray, bound: float) -> np.ndarray:
    return (values * (bound / STEPS)).astype(np.float32)
