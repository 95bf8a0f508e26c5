"""How far a generated shape is from the truth: the five measures of the DeepSDF paper.

    truth = Mesh(vertices, faces)
    scores = compare(generated, truth, np.random.default_rng(0), truth_scale=0.42)

Park et al., "DeepSDF", CVPR 2019, section 6 and its supplement, name the measures; the released code fixes what the
text leaves open (Chamfer sums two means of SQUARED distances). Lengths are in the unit of the input, which for
`compare` is the canonical frame: inside the unit sphere. All functions are pure; chance enters by the Generator.
Data that cannot be measured raises `InputError`, which is a ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import igl
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from sdf_backend.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHAMFER_POINTS = 30_000  # a side, as in the released DeepSDF code
EMD_POINTS = 500  # a side, as in the paper: exact assignment grows with the cube of it
ACCURACY_SHARE = 0.9
COMPLETION_DISTANCE = 0.01


class MeshLike(Protocol):
    """Whatever carries vertices and faces: a `Mesh`, a `trimesh.Trimesh`."""

    @property
    def vertices(self) -> NDArray:
        """Corners, (n, 3) float."""
        ...

    @property
    def faces(self) -> NDArray:
        """Triangles by the indices of their corners, (m, 3) int."""
        ...


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: `vertices`, (n, 3) float, and `faces`, (m, 3) int."""

    vertices: NDArray
    faces: NDArray


@dataclass(frozen=True)
class ShapeScores:
    """One generated shape against the truth. Lower is better, but for `completion` and `cosine`."""

    chamfer: float  # canonical (unit sphere) units, squared
    chamfer_original: float  # the data set's own units, squared: what the papers print
    emd: float  # canonical units
    accuracy: float  # canonical units
    completion: float  # share, 0 to 1
    cosine: float  # 0 to 1
    chamfer_exact: float  # as `chamfer`, to surfaces instead of to samples of them


def compare(generated: MeshLike, truth: MeshLike, rng: np.random.Generator, truth_scale: float = 1.0) -> ShapeScores:
    """All measures of one generated mesh.

    Parameters
    ----------
    generated, truth : meshes in the canonical frame.
    rng : decides the surface samples; the same state gives the same scores.
    truth_scale : canonical = original * truth_scale (an offset aside), so a squared length in original units is the
        canonical one divided by truth_scale ** 2.

    Raises InputError for empty or malformed input and for a scale that is not positive.
    """
    if not (np.isfinite(truth_scale) and truth_scale > 0):
        raise InputError(f"truth_scale is {truth_scale}; it must be a positive number (canonical = original * scale).")
    points, normals = sample_surface(generated.vertices, generated.faces, CHAMFER_POINTS, rng)
    true_points, true_normals = sample_surface(truth.vertices, truth.faces, CHAMFER_POINTS, rng)
    distance = chamfer(points, true_points)
    return ShapeScores(
        chamfer=distance,
        chamfer_original=distance / truth_scale**2,
        emd=earth_mover(*_equal_subsets(points, true_points, EMD_POINTS, rng)),
        accuracy=mesh_accuracy(points, truth),
        completion=mesh_completion(true_points, generated),
        cosine=normal_cosine(points, normals, true_points, true_normals),
        chamfer_exact=exact_chamfer(points, generated, true_points, truth),
    )


def chamfer(a: ArrayLike, b: ArrayLike) -> float:
    """Chamfer distance: the sum of the two mean SQUARED distances to the nearest point of the other set.

        CD(A, B) = 1/|A| sum_a min_b |a - b|^2  +  1/|B| sum_b min_a |a - b|^2

    Fan et al., CVPR 2017, normalised by the counts as in DeepSDF's released `compute_trimesh_chamfer`.

    a, b : (n, 3) and (m, 3) points. Returns squared units of the input. Raises InputError for malformed points.
    """
    a, b = checked_points(a, "a"), checked_points(b, "b")
    to_b, _ = KDTree(b).query(a)
    to_a, _ = KDTree(a).query(b)
    return float(np.mean(to_b**2) + np.mean(to_a**2))


def exact_chamfer(a: ArrayLike, mesh_a: MeshLike, b: ArrayLike, mesh_b: MeshLike) -> float:
    """`chamfer` without the gaps between samples: squared distances from samples of one mesh to the other's triangles.

    Two samples of one surface are apart by what a sample is coarse: 30,000 points on a unit sphere by 2.7e-4, which is
    all that the usual measure says of a good result. Here they are not.

    a, b : (n, 3) and (m, 3) points on mesh_a and mesh_b. Returns squared units of the input. Raises InputError for
    malformed input.
    """
    to_b = surface_distance(a, mesh_b.vertices, mesh_b.faces)
    to_a = surface_distance(b, mesh_a.vertices, mesh_a.faces)
    return float(np.mean(to_b**2) + np.mean(to_a**2))


def earth_mover(a: ArrayLike, b: ArrayLike) -> float:
    """Earth mover's distance: the mean distance under the best one-to-one assignment of a to b.

        EMD(A, B) = min over bijections phi of 1/|A| sum_a |a - phi(a)|        (Fan et al., CVPR 2017)

    Solved exactly, in cubic time: 500 points take some 20 ms. Two random sets of one surface do not score zero; on a
    unit sphere 500 points score about 0.15.

    a, b : (n, 3) points each, the same n. Returns units of the input. Raises InputError when the counts differ.
    """
    a, b = checked_points(a, "a"), checked_points(b, "b")
    if len(a) != len(b):
        raise InputError(f"The earth mover's distance needs equal counts; a has {len(a)} points and b has {len(b)}.")
    cost = cdist(a, b)
    return float(cost[linear_sum_assignment(cost)].mean())


def mesh_accuracy(generated_points: ArrayLike, truth: MeshLike, share: float = ACCURACY_SHARE) -> float:
    """The smallest d such that `share` of the generated points lie within d of the true surface.

    Seitz et al., CVPR 2006, as used by DeepSDF with a share of 90 %.

    generated_points : (n, 3) samples of the generated surface.
    share : in (0, 1].
    Returns units of the input. Raises InputError for malformed input.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must lie in (0, 1].")
    distances = surface_distance(generated_points, truth.vertices, truth.faces)
    # The inverted CDF is the definition itself: interpolation would name a d that no point has.
    return float(np.quantile(distances, share, method="inverted_cdf"))


def mesh_completion(truth_points: ArrayLike, generated: MeshLike, distance: float = COMPLETION_DISTANCE) -> float:
    """The share of true surface points that lie within `distance` of the generated mesh.

    Seitz et al., CVPR 2006, as used by DeepSDF with a distance of 0.01. Distances are exact, point to triangle.

    truth_points : (n, 3). Returns a share from 0 to 1. Raises InputError for malformed input.
    """
    if not distance >= 0:
        raise ValueError(f"distance is {distance}; it must not be negative.")
    distances = surface_distance(truth_points, generated.vertices, generated.faces)
    return float(np.mean(distances <= distance))


def normal_cosine(points_a: ArrayLike, normals_a: ArrayLike, points_b: ArrayLike, normals_b: ArrayLike) -> float:
    """Mean |cos| between the normals of nearest points, the average of both directions (a to b and b to a).

    The absolute value, as in DeepSDF, forgives inverted faces, which raw data sets are full of.

    points_a, normals_a : (n, 3); points_b, normals_b : (m, 3); the normals need not have unit length.
    Returns 0 to 1. Raises InputError for malformed input and for normals of length zero.
    """
    points_a, normals_a = _oriented(points_a, normals_a, "a")
    points_b, normals_b = _oriented(points_b, normals_b, "b")
    _, nearest_b = KDTree(points_b).query(points_a)
    _, nearest_a = KDTree(points_a).query(points_b)
    a_to_b = np.abs(np.sum(normals_a * normals_b[nearest_b], axis=1))
    b_to_a = np.abs(np.sum(normals_b * normals_a[nearest_a], axis=1))
    return float((a_to_b.mean() + b_to_a.mean()) / 2)


def sample_surface(
    vertices: ArrayLike, faces: ArrayLike, count: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Independent points, uniform over the area of a mesh, with the unit normals of their faces.

    A face is drawn in proportion to its area, then a point in it: (1 - sqrt u) A + sqrt u (1 - v) B + sqrt u v C
    (Osada et al., "Shape Distributions", 2002, section 4.2).

    vertices : (n, 3); faces : (m, 3); count : at least 1.
    Returns points and normals, (count, 3) each; the same Generator state gives the same points.
    Raises InputError for malformed meshes and for one whose faces have no area.
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least one point must be asked for.")
    vertices, faces = checked_mesh(vertices, faces)
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_areas = np.linalg.norm(cross, axis=1)
    cumulative = np.cumsum(double_areas)
    if not cumulative[-1] > 0:
        raise InputError(f"None of the mesh's {len(faces)} faces has an area, so there is no surface to sample.")
    # side="right" passes over faces without an area, whose normal is undefined.
    chosen = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    # Rounding can bring the product up to the total itself: that draw belongs to the last face with an area.
    chosen = np.minimum(chosen, np.flatnonzero(double_areas)[-1])
    root, second = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - root, root * (1 - second), root * second], axis=1)
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    return points, cross[chosen] / double_areas[chosen, None]


def surface_distance(points: ArrayLike, vertices: ArrayLike, faces: ArrayLike) -> Floats:
    """Exact unsigned distance from each point to the nearest triangle (libigl's tree of boxes).

    points : (n, 3); vertices : (m, 3); faces : (k, 3). Returns (n,) in units of the input.
    Raises InputError for malformed input.
    """
    points = checked_points(points, "points")
    squared, _, _ = igl.point_mesh_squared_distance(points, *checked_mesh(vertices, faces))
    # A lone point comes back as a scalar.
    return np.sqrt(np.atleast_1d(squared))


def checked_points(values: ArrayLike, name: str) -> Floats:
    """Points as a contiguous (n, 3) float64 array. Raises InputError, naming them, unless there are any, all finite."""
    # Contiguous float64 is what libigl accepts without a copy of its own.
    points = np.ascontiguousarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"{name} has shape {points.shape}; it must be (n, 3).")
    if len(points) == 0:
        raise InputError(f"{name} is empty; at least one row is needed.")
    if not np.isfinite(points).all():
        bad = int(np.count_nonzero(~np.isfinite(points).all(axis=1)))
        raise InputError(f"{name} holds NaN or infinity in {bad} of its {len(points)} rows.")
    return points


def checked_mesh(vertices: ArrayLike, faces: ArrayLike) -> tuple[Floats, Ints]:
    """A mesh as (n, 3) float64 and (m, 3) int64. Raises InputError for no faces, or ones that name missing vertices."""
    vertices, faces = checked_points(vertices, "vertices"), np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise InputError(f"faces has shape {faces.shape}; it must be (m, 3).")
    if len(faces) == 0:
        raise InputError("faces is empty; the mesh has no surface.")
    if not np.issubdtype(faces.dtype, np.integer):
        raise InputError(f"faces is of type {faces.dtype}; it must hold integers.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(
            f"faces names vertices {faces.min()} to {faces.max()}; there are {len(vertices)}, counted from 0."
        )
    return vertices, np.ascontiguousarray(faces, dtype=np.int64)


def _equal_subsets(a: Floats, b: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    count = min(count, len(a), len(b))
    return a[rng.choice(len(a), count, replace=False)], b[rng.choice(len(b), count, replace=False)]


def _oriented(points: ArrayLike, normals: ArrayLike, name: str) -> tuple[Floats, Floats]:
    points, normals = checked_points(points, f"points of {name}"), checked_points(normals, f"normals of {name}")
    if points.shape != normals.shape:
        raise InputError(f"{name} has {len(points)} points but {len(normals)} normals.")
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    if not lengths.all():
        raise InputError(f"{np.count_nonzero(lengths == 0)} of the normals of {name} have length zero.")
    return points, normals / lengths
