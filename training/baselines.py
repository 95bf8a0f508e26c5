"""What results are compared with: the released DeepSDF reconstruction, and the nearest training shape.

The reference is faithful where it counts: the same decoder, the paper's 800 Adam steps of 8,000 samples, and for
completion its observations: normals estimated on the points, distances beside them, and free space along the lines of
sight from the sensor, which our own completion is not told. Its surface is extracted from coarse to fine, which gives
the mesh of the dense grid (`benchmarks.extract`). The nearest training shape says whether a model completes or copies.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.adam import AdamSettings, fit_codes_with_adam
from sdf_backend.engine import Engine, TaskSettings
from sdf_backend.errors import InputError
from sdf_backend.observations import Observations, observe_points
from training.dataset import Dataset
from training.metrics import CHAMFER_POINTS, Mesh, chamfer, exact_chamfer, sample_surface

# Points of a scan's neighbourhood that say which way its normal points.
NEIGHBOURS = 12
# Points of each training shape that are searched through.
COMPARED_POINTS = 500


@dataclass(frozen=True)
class Baseline:
    """How near something else comes to the truth.

    chamfer : squared canonical units; seconds : all it took; name : of the shape that was taken
    exact : the same to surfaces instead of to samples of them, see `metrics.exact_chamfer`; None for bare points
    """

    chamfer: float
    seconds: float = 0.0
    name: str = ""
    exact: float | None = None


def reference(
    engine: Engine,
    model: str,
    observed: Observations,
    truth: Mesh,
    true_points: np.ndarray,
    settings: TaskSettings,
    rng: np.random.Generator,
) -> Baseline:
    """The released reconstruction's result against the truth and points, (n, 3), on its surface; canonical."""
    start = time.perf_counter()
    [fit] = fit_codes_with_adam(engine.model(model), [observed], AdamSettings(seed=settings.seed))
    shape = engine.shape_of(model, fit.code.float().cpu().numpy(), fit.pose, settings)
    seconds = time.perf_counter() - start
    points, _ = sample_surface(shape.vertices, shape.faces, CHAMFER_POINTS, rng)
    exact = exact_chamfer(points, shape, true_points, truth)
    return Baseline(chamfer(points, true_points), seconds, exact=exact)


def reference_observations(points: np.ndarray, sensor: np.ndarray, seed: int) -> Observations:
    """What the paper's completion makes of a scan, (n, 3), seen from `sensor`, (3,); Park et al., section 6.3."""
    _, nearest = KDTree(points).query(points, k=min(NEIGHBOURS, len(points)))
    around = points[nearest] - points[nearest].mean(axis=1, keepdims=True)
    # The normal is the direction in which the neighbourhood extends least.
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))[1][:, :, 0]
    normals *= np.sign(np.einsum("ij,ij->i", normals, sensor - points))[:, None]
    return observe_points(points, normals, sensor, seed=seed)


@dataclass
class NearestShapes:
    """The training shapes of a dataset, deformed copies too, to be searched through."""

    dataset: Dataset

    @cached_property
    def _surfaces(self) -> dict[str, np.ndarray]:
        """Points on each, (n, 3); none of a dataset that was made for tests alone."""
        try:
            records = self.dataset.split("train")
        except InputError:
            return {}
        return {record.name: self.dataset.load(record.name).surface[:CHAMFER_POINTS] for record in records}

    def find(self, points: np.ndarray, truth: np.ndarray, whole: bool) -> Baseline | None:
        """The training shape nearest to an input, (n, 3), measured against the truth, (m, 3), as it is.

        None where there are no training shapes.
        whole : the input is all of a surface, so that what of the shape lies away from it counts too
        """
        sparse = points[:: max(1, len(points) // COMPARED_POINTS)]
        tree = KDTree(sparse)

        def away(surface: np.ndarray) -> float:
            some = surface[:COMPARED_POINTS]
            there = KDTree(some).query(sparse)[0].mean()
            return float(there + (tree.query(some)[0].mean() if whole else 0.0))

        if not self._surfaces:
            return None
        name = min(self._surfaces, key=lambda name: away(self._surfaces[name]))
        return Baseline(chamfer(self._surfaces[name].astype(np.float64), truth), name=name)
