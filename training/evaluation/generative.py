"""How well sampled shapes represent a category: JSD, MMD, COV and 1-NNA between two collections of point sets.

    scores = generative_scores(sampled, reference, rng)       # point sets, (n, 3) each, in the canonical frame

The first three are of Achlioptas et al., "Learning Representations and Generative Models for 3D Point Clouds", ICML
2018; 1-NNA is of Yang et al., "PointFlow", ICCV 2019 (after Lopez-Paz and Oquab, ICLR 2017). Against the test split
they say how well samples cover unknown shapes; against the training split, whether a model copies: it then has a small
MMD, and a 1-NNA below one half.

The points of the earth mover's distance are spread evenly by farthest point sampling. Points at random are themselves
far apart: on 53 chairs two random draws of 256 points of one surface had a median distance of 0.106, and another chair
was nearer than that for some; with evenly spread points it was 0.055, and nearest other chairs were 0.125 away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import jensenshannon

from sdf_backend.errors import InputError
from training.evaluation.metrics import earth_movers_distance
from training.triangle_mesh import checked_points

# A point set, or a search tree of one.
Member = TypeVar("Member")


@dataclass(frozen=True)
class GenerativeSettings:
    """How collections are compared."""

    points: int = 2_048
    """points of each set for the Chamfer distance, as in PointFlow"""
    emd_points: int = 256
    """of them, evenly spread, for the exact earth mover's distance, whose time grows with their cube: 4 ms a pair, as
    the Chamfer distance takes; 512 take 24 ms, and lower the distance of two draws of one surface from 0.055 to 0.041
    (training chairs and test chairs of the starter catalogue, no model involved)"""
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

    def measures(self) -> dict[str, float]:
        """All measures by name, such as `mmd_chamfer`; keys of the JSON report and of the model card."""
        by_distance = {"chamfer": self.chamfer, "emd": self.emd}
        scores = {f"{name}_{suffix}": value for suffix, one in by_distance.items() for name, value in vars(one).items()}
        return {"jsd": self.jsd} | scores


def generative_scores(
    samples: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    rng: np.random.Generator,
    settings: GenerativeSettings = GenerativeSettings(),
    progress: Callable[[int, int], None] | None = None,
) -> GenerativeScores:
    """Compare sampled shapes with reference shapes.

    Parameters
    ----------
    samples, references : surface points of each shape, (n, 3), canonical units; at least `settings.points` each, and at
        least two shapes a side. As many samples as references is the literature's choice: COV and 1-NNA depend on it.
    rng : draws the points that are compared.
    progress : called with how many distances are computed, and how many there are

    Raises
    ------
    InputError : fewer than two shapes on a side, or malformed points.
    """
    if min(len(samples), len(references)) < 2:
        raise InputError(f"{len(samples)} samples and {len(references)} references; at least two of each are needed")
    drawn, known = ([_subset(points, settings.points, rng) for points in side] for side in (samples, references))
    trees, known_trees = ([KDTree(points) for points in side] for side in (drawn, known))
    even, known_even = ([spread_evenly(points, settings.emd_points) for points in side] for side in (drawn, known))
    count, done = len(samples) + len(references), 0
    total = count * (count - 1)  # each of two distances for each pair

    def counted(distance: Callable[[Member, Member], float]) -> Callable[[Member, Member], float]:
        def count_one(a: Member, b: Member) -> float:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)
            return distance(a, b)

        return count_one

    return GenerativeScores(
        jensen_shannon(drawn, known, settings.voxels),
        set_scores(trees, known_trees, counted(_tree_chamfer)),
        set_scores(even, known_even, counted(earth_movers_distance)),
    )


def spread_evenly(points: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` points, each the farthest from those before, the first of them the first (Gonzalez, 1985).

    points : (n, 3), n at least `count`. Returns (count, 3).
    """
    chosen, distances = [0], np.full(len(points), np.inf)
    while len(chosen) < count:
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distances.argmax()))
    return points[chosen]


def jensen_shannon(samples: Sequence[np.ndarray], references: Sequence[np.ndarray], voxels: int) -> float:
    """Jensen-Shannon divergence, base 2, between the occupancies of two collections of points in [-1, 1]^3."""
    edges = [np.linspace(-1, 1, voxels + 1)] * 3
    occupancies = [np.histogramdd(np.concatenate(side).clip(-1, 1), edges)[0].ravel() for side in (samples, references)]
    # scipy gives the distance, which is the square root of the divergence.
    return float(jensenshannon(*occupancies, base=2) ** 2)


def set_scores(
    samples: Sequence[Member], references: Sequence[Member], distance: Callable[[Member, Member], float]
) -> SetScores:
    """MMD, COV and 1-NNA of two collections under a symmetric distance between their members."""
    across = np.array([[distance(sample, reference) for reference in references] for sample in samples])  # (s, r)
    nearest_reference = across.argmin(axis=1)
    return SetScores(
        mmd=float(across.min(axis=0).mean()),
        coverage=len(set(nearest_reference.tolist())) / len(references),
        one_nna=_nearest_neighbour_accuracy(
            _pairwise_distances(samples, distance), across, _pairwise_distances(references, distance)
        ),
    )


def _pairwise_distances(side: Sequence[Member], distance: Callable[[Member, Member], float]) -> np.ndarray:
    """Distances within a collection, (n, n), with an infinite diagonal: no member is its own neighbour."""
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


def _tree_chamfer(a: KDTree, b: KDTree) -> float:
    """`metrics.chamfer_distance` of the points of two trees, which are built once and not for every pair."""
    return float(np.mean(b.query(a.data)[0] ** 2) + np.mean(a.query(b.data)[0] ** 2))


def _subset(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    points = checked_points(points, "points of a shape")
    if len(points) < count:
        raise InputError(f"a shape has {len(points)} points; at least {count} are needed")
    return points[rng.choice(len(points), count, replace=False)]
