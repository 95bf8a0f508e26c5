"""Reads the samples of the released DeepSDF code's preprocessing, for which no mesh is needed.

    DATA/SdfSamples/DATASET/SYNSET/ID.npz               pos, neg: (n, 4) float, normalised points and their distances
    DATA/SurfaceSamples/DATASET/SYNSET/ID.ply           points on the surface, in the frame of the mesh
    DATA/NormalizationParameters/DATASET/SYNSET/ID.npz  offset, scale: normalised = (original + offset) * scale

The last two are optional. Where there are no surface samples, samples next to the surface are moved onto it.
"""

from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import read_geometry
from training.sampling import BOUND, SampleSettings, ShapeSamples, quantise

SAMPLES, SURFACE, NORMALISATION = "SdfSamples", "SurfaceSamples", "NormalizationParameters"
# Signed samples from which the slope of the distance is estimated at a place.
NEIGHBOURS = 12


def read_deepsdf_samples(path: Path, settings: SampleSettings, rng: np.random.Generator) -> ShapeSamples:
    """Read the samples of one shape.

    Samples that are not numbers are dropped, as the released code does, and those outside the stored cube. More than
    `settings.count` are thinned at random, and so are surface points.

    Parameters
    ----------
    path : of its file in SdfSamples

    Raises
    ------
    InputError : a file is damaged, or all samples are on one side
    """
    arrays = _read(path, ("pos", "neg"), 4)
    rows = np.concatenate([arrays["pos"], arrays["neg"]]).astype(np.float64)
    rows = rows[np.isfinite(rows).all(1) & (np.abs(rows[:, :3]) <= BOUND).all(1)]
    rows = rows[rng.permutation(len(rows))[: settings.count]]
    inside = int((rows[:, 3] < 0).sum())
    if not 0 < inside < len(rows):
        raise InputError(f"{inside} of its {len(rows)} samples are inside; training needs both sides")
    scale, offset = _normalisation(_beside(path, NORMALISATION, ".npz"))
    surface_file = _beside(path, SURFACE, ".ply")
    if surface_file.is_file():
        surface = (read_geometry(surface_file).vertices + offset) * scale
        surface = surface[rng.permutation(len(surface))[: settings.surface_count]]
        _, normals = _distance_and_slope(rows, surface)
    else:
        nearest = rows[np.argsort(np.abs(rows[:, 3]))[: settings.surface_count]]
        distance, normals = _distance_and_slope(rows, nearest[:, :3])
        surface = nearest[:, :3] - distance[:, None] * normals
    return ShapeSamples(
        quantise(rows[:, :3]).astype(np.float32),
        rows[:, 3].astype(np.float32),
        surface.astype(np.float32),
        normals.astype(np.float32),
        scale,
        offset,
        0,
    )


def rotated(samples: ShapeSamples, rotation: np.ndarray) -> ShapeSamples:
    """The samples of a shape that is rotated, (3, 3), by a multiple of a quarter turn."""
    return ShapeSamples(
        (samples.points @ rotation.T).astype(np.float32),
        samples.distances,
        (samples.surface @ rotation.T).astype(np.float32),
        (samples.normals @ rotation.T).astype(np.float32),
        samples.scale,
        rotation @ samples.offset,
        samples.uncertain,
    )


def _distance_and_slope(rows: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance, (m,), and its unit slope, (m, 3), at places, (m, 3): an affine fit to the samples around each."""
    _, near = KDTree(rows[:, :3]).query(places, min(NEIGHBOURS, len(rows)))
    around = rows[near]  # (m, k, 4)
    relative = around[:, :, :3] - places[:, None]
    matrix = np.concatenate([relative, np.ones((*relative.shape[:2], 1))], 2)  # (m, k, 4)
    normal = matrix.transpose(0, 2, 1) @ matrix + 1e-12 * np.eye(4)
    solved = np.linalg.solve(normal, matrix.transpose(0, 2, 1) @ around[:, :, 3:])[:, :, 0]  # slope, then distance
    return solved[:, 3], solved[:, :3] / np.maximum(np.linalg.norm(solved[:, :3], axis=1, keepdims=True), 1e-12)


def _beside(path: Path, kind: str, suffix: str) -> Path:
    """The file of another kind of the same shape; `path` is DATA/SdfSamples/DATASET/SYNSET/ID.npz."""
    dataset, synset = path.parts[-3:-1]
    return path.parents[3] / kind / dataset / synset / f"{path.stem}{suffix}"


def _normalisation(path: Path) -> tuple[float, np.ndarray]:
    if not path.is_file():
        return 1.0, np.zeros(3)
    arrays = _read(path, ("scale", "offset"), None)
    try:
        return float(arrays["scale"].item()), arrays["offset"].astype(np.float64).reshape(3)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); run the released preprocessing again") from error


def _read(path: Path, names: tuple[str, ...], columns: int | None) -> dict[str, np.ndarray]:
    """Arrays of an archive, without unpickling, of that many columns where `columns` is given."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except Exception as error:  # zipfile and numpy raise many types for damaged archives
        raise InputError(f"{path} is damaged ({error}); run the released preprocessing again") from error
    for name, array in arrays.items():
        if columns and (array.ndim != 2 or array.shape[1] != columns):
            raise InputError(f"{path}: {name} has the shape {array.shape}; it must be (n, {columns})")
    return arrays
