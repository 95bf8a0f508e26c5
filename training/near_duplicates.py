"""Finds test pieces that a training set nearly contains, by shape: names, families and file sizes say nothing about it.

Two pieces are compared by the Chamfer distance between points on their visible surfaces, each piece in the unit sphere,
over the eight copies of one of them that quarter turns about the up axis and a mirror make.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.geometry.signed_distance import (
    SignClassifier,
    clean_mesh,
    normalisation,
    sample_surface_points,
    unit_normals,
)
from training.catalog import CatalogEntry, read_mesh


@dataclass(frozen=True)
class DuplicateSettings:
    """When two pieces count as one."""

    threshold: float = 2.0
    """Chamfer distance, times 1000, below which a pair is listed; chosen on the nearest pairs of 12 categories of the
    starter catalogue, looked at: those up to 1.8 were one design (a bed and its longer twin 1.6, sofas of two makers
    1.4, bottles 1.3, a horse and a pony 1.7), those from 2.1 were two (bunk beds 2.2, sofas 2.4); between cars of one
    class it is 1.4 to 2.2, and between most airliners below 1.9, so there it also lists other makes"""
    points: int = 10_000
    """on each surface; two samples of one surface are 0.2 to 0.3 apart with these"""
    queries: int = 2_000
    """of them, which look for their nearest neighbours among all of the other surface's"""
    coarse_queries: int = 200
    """as many in a first pass over all pairs"""
    coarse_allowance: float = 2.5
    """times the threshold; pairs that are farther apart in the first pass are not looked at again"""
    seed: int = 0
    """of the points on the surfaces"""


@dataclass(frozen=True)
class NearDuplicate:
    """A test piece and a training piece that are nearly the same shape."""

    test: CatalogEntry
    train: CatalogEntry
    distance: float
    """Chamfer distance in the unit sphere, times 1000, of the copy that is nearest"""


@dataclass(frozen=True)
class _Surface:
    points: np.ndarray  # (n, 3)
    tree: KDTree


def near_duplicates(
    entries: Sequence[CatalogEntry],
    settings: DuplicateSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[NearDuplicate]:
    """Compare every test piece with every real training piece.

    Procedural pieces were drawn without knowledge of the test pieces: one that resembles a test piece is no leak.

    Parameters
    ----------
    entries : pieces of one category, in canonical axes (y up)
    settings : None for the default
    progress : called with how many surfaces and pairs are done, and how many there are

    Returns
    -------
    pairs : nearest first

    Raises
    ------
    InputError : a mesh cannot be read
    """
    settings = settings or DuplicateSettings()
    test, train = ([one for one in entries if one.split == split and not one.procedural] for split in ("test", "train"))
    total, done = len(test) + len(train) + len(test) * len(train), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    surfaces = {}
    for entry in (*test, *train):
        surfaces[entry.name] = _visible(entry, settings)
        advance()
    found = []
    for one in test:
        for other in train:
            distance = _distance(surfaces[one.name], surfaces[other.name], settings)
            if distance < settings.threshold:
                found.append(NearDuplicate(one, other, distance))
            advance()
    return sorted(found, key=lambda pair: pair.distance)


def turned_copies() -> np.ndarray:
    """Return the quarter turns about y, each as it is and mirrored in x: (8, 3, 3) orthogonal matrices."""
    turn, mirror = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), np.diag([-1.0, 1, 1])
    turns = [np.linalg.matrix_power(turn, quarters) for quarters in range(4)]
    return np.array([*turns, *(one @ mirror for one in turns)])


def _visible(entry: CatalogEntry, settings: DuplicateSettings) -> _Surface:
    """Points on what can be seen of a mesh, in the unit sphere; what is inside a body is no part of its shape."""
    vertices, faces = clean_mesh(*read_mesh(entry.path))
    scale, offset = normalisation(vertices)
    vertices = (vertices + offset) * scale
    rng = np.random.default_rng([settings.seed, zlib.crc32(entry.name.encode())])
    # Some meshes hide most of their surface; where even four times as many points leave too few, fewer will do.
    triangles = vertices[faces]
    points, which = sample_surface_points(triangles, 4 * settings.points, rng)
    normals, signs = unit_normals(triangles)[which], SignClassifier(vertices, faces)
    kept = np.zeros((0, 3))
    for start in range(0, len(points), settings.points):
        part = slice(start, start + settings.points)
        sides = [signs.classify(points[part] + side * signs.settings.probe_offset * normals[part]) for side in (1, -1)]
        kept = np.concatenate([kept, points[part][(sides[0] >= 0) | (sides[1] >= 0)]])
        if len(kept) >= settings.points:
            break
    kept = kept[: settings.points] if len(kept) else points[: settings.points]
    return _Surface(kept, KDTree(kept))


def _distance(one: _Surface, other: _Surface, settings: DuplicateSettings) -> float:
    """Chamfer distance of the nearest copy, times 1000; infinite where the first pass rules the pair out."""
    coarse = min(_chamfer(one, other, copy, settings.coarse_queries) for copy in turned_copies())
    if coarse > settings.coarse_allowance * settings.threshold:
        return np.inf
    return min(_chamfer(one, other, copy, settings.queries) for copy in turned_copies())


def _chamfer(one: _Surface, other: _Surface, copy: np.ndarray, queries: int) -> float:
    there, _ = other.tree.query(one.points[:queries] @ copy.T)
    back, _ = one.tree.query(other.points[:queries] @ copy)
    return 1000 * float(np.mean(there**2) + np.mean(back**2))
