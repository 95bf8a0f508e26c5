"""How well sampled shapes represent a category: JSD, MMD, COV and 1-NNA between two collections of point sets.

    scores = generative_scores(sampled, reference, rng)       # point sets, (n, 3) each, in the canonical frame

The first three are of Achlioptas et al., "Learning Representations and Generative Models for 3D Point Clouds", ICML
2018; 1-NNA is of Yang et al., "PointFlow", ICCV 2019 (after Lopez-Paz and Oquab, ICLR 2017). Against the test split
they say how well samples cover unknown shapes; against the training split, whether a model copies: it then has a small
MMD, and a 1-NNA below one half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon

from sdf_backend.errors import InputError
from training.evaluation.metrics import METRICS, chamfer_distance, earth_movers_distance
from training.triangle_mesh import checked_points

Distance = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class GenerativeSettings:
    """How collections are compared."""

    points: int = 2_048
    """points of each set for the Chamfer distance, as in PointFlow"""
    emd_points: int = METRICS.emd_points
    """points of each set for the exact earth mover's distance, whose time grows with their cube"""
    voxels: int = 28
    """voxels an axis of the cube [-1, 1]^3 over which occupancies are compared; Achlioptas et al.'s"""


@dataclass(frozen=True)
class SetScores:
    """The three measures that rest on one distance between point sets.

    mmd : minimum matching distance, the mean over the references of the distance to the nearest sample; lower is better
    coverage : share of the references that are some sample's nearest; higher is better
    one_nna : accuracy of a leave-one-out nearest-neighbour classifier that tells samples from references: 0.5 where
        the two cannot be told apart, towards 1 where they differ, towards 0 where samples copy the references
    """

    mmd: float
    coverage: float
    one_nna: float


@dataclass(frozen=True)
class GenerativeScores:
    """A collection of samples against a collection of references.

    jsd : Jensen-Shannon divergence, base 2, of the points' occupancies of voxels; 0 to 1, lower is better
    chamfer, emd : the other measures by the Chamfer distance (squared canonical units) and by the earth mover's
    """

    jsd: float
    chamfer: SetScores
    emd: SetScores


def generative_scores(
    samples: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    rng: np.random.Generator,
    settings: GenerativeSettings = GenerativeSettings(),
) -> GenerativeScores:
    """Compare sampled shapes with reference shapes.

    Parameters
    ----------
    samples, references : surface points of each shape, (n, 3), canonical units; at least `settings.points` each, and at
        least two shapes a side. As many samples as references is the literature's choice: COV and 1-NNA depend on it.
    rng : draws the points that are compared.

    Raises
    ------
    InputError : fewer than two shapes on a side, or malformed points.
    """
    if min(len(samples), len(references)) < 2:
        raise InputError(f"{len(samples)} samples and {len(references)} references; at least two of each are needed")
    drawn, known = ([_subset(points, settings.points, rng) for points in side] for side in (samples, references))
    few, few_known = ([points[: settings.emd_points] for points in side] for side in (drawn, known))
    return GenerativeScores(
        jensen_shannon(drawn, known, settings.voxels),
        set_scores(drawn, known, chamfer_distance),
        set_scores(few, few_known, earth_movers_distance),
    )


def jensen_shannon(samples: Sequence[np.ndarray], references: Sequence[np.ndarray], voxels: int) -> float:
    """Jensen-Shannon divergence, base 2, between the occupancies of two collections of points in [-1, 1]^3."""
    edges = [np.linspace(-1, 1, voxels + 1)] * 3
    occupancies = [np.histogramdd(np.concatenate(side).clip(-1, 1), edges)[0].ravel() for side in (samples, references)]
    # scipy gives the distance, which is the square root of the divergence.
    return float(jensenshannon(*occupancies, base=2) ** 2)


def set_scores(samples: Sequence[np.ndarray], references: Sequence[np.ndarray], distance: Distance) -> SetScores:
    """MMD, COV and 1-NNA of two collections under a symmetric distance between point sets."""
    across = np.array([[distance(sample, reference) for reference in references] for sample in samples])  # (s, r)
    nearest_reference = across.argmin(axis=1)
    return SetScores(
        mmd=float(across.min(axis=0).mean()),
        coverage=len(set(nearest_reference.tolist())) / len(references),
        one_nna=_nearest_neighbour_accuracy(
            _pairwise_distances(samples, distance), across, _pairwise_distances(references, distance)
        ),
    )


def _pairwise_distances(side: Sequence[np.ndarray], distance: Distance) -> np.ndarray:
    """Distances within a collection, (n, n), with an infinite diagonal: no set is its own neighbour."""
    matrix = np.full((len(side), len(side)), np.inf)
    for row in range(len(side)):
        for column in range(row):
            matrix[row, column] = matrix[column, row] = distance(side[row], side[column])
    return matrix


def _nearest_neighbour_accuracy(samples: np.ndarray, across: np.ndarray, references: np.ndarray) -> float:
    """Share of all sets whose nearest other set is of their own collection.

    samples : (s, s), across : (s, r), references : (r, r) distances
    """
    right = (samples.min(axis=1) < across.min(axis=1)).sum() + (references.min(axis=1) < across.min(axis=0)).sum()
    return float(right / sum(across.shape))


def _subset(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    points = checked_points(points, "points of a shape")
    if len(points) < count:
        raise InputError(f"a shape has {len(points)} points; at least {count} are needed")
    return points[rng.choice(len(points), count, replace=False)]
