"""Baselines of an evaluation: the released DeepSDF reconstruction, and two that copy a training shape.

The reference uses the same decoder, the paper's 800 Adam steps of 8,000 samples, and for completion the observations of
the paper: estimated normals, samples at a distance on both sides of the points, and free space along the lines of sight
from the true sensor position, which our own completion is not given. Its surface is extracted coarse to fine, with the
mesh of a dense grid as the result (`benchmarks.extract`). The training shape nearest to the truth shows whether a model
completes or copies; the one nearest to the scan, snapped to it, is what a user without a model could do.
"""

import time
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.engine import Engine
from sdf_backend.errors import InputError
from sdf_backend.fitting.adam_reference import AdamSettings, fit_codes_with_adam
from sdf_backend.observation.observations import Observations, observe_points
from sdf_backend.settings import TaskSettings
from training.dataset import Dataset
from training.evaluation.metrics import METRICS, chamfer_distance, point_to_surface_chamfer, sample_surface
from training.evaluation.scan_baseline import snapped_nearest_shape
from training.triangle_mesh import Mesh


@dataclass(frozen=True)
class BaselineSettings:
    """How the baselines are computed. The search settings trade time for exactness; none was tuned."""

    normal_neighbours: int = 12
    """nearest neighbours from which the normal of a scan point is estimated"""
    coarse_points: int = 1_500
    """samples of each training shape in the coarse search for the nearest"""
    candidates: int = 5
    """shapes that the coarse search passes on to the comparison of all samples"""


BASELINES = BaselineSettings()


@dataclass(frozen=True)
class Baseline:
    """Scores of a baseline. Field names are keys of the JSON report.

    chamfer : Chamfer distance to the ground truth, squared canonical units
    seconds : of its computation
    name : of the training shape
    exact : point-to-surface Chamfer distance; None for a training shape, of which only points are stored
    """

    chamfer: float
    seconds: float = 0.0
    name: str = ""
    exact: float | None = None


def run_reference(
    engine: Engine,
    model: str,
    observations: Observations,
    truth: Mesh,
    true_points: np.ndarray,
    settings: TaskSettings,
    rng: np.random.Generator,
) -> Baseline:
    """Run the released DeepSDF reconstruction on canonical observations and score its mesh.

    Parameters
    ----------
    true_points : (n, 3), samples of the surface of `truth`
    rng : for the surface samples of the result

    Raises
    ------
    InputError : the fitted code has no surface
    """
    start = time.perf_counter()
    [fit] = fit_codes_with_adam(engine.model(model), [observations], AdamSettings(seed=settings.seed))
    shape = engine.shape_of(model, fit.code.float().cpu().numpy(), fit.pose, settings)
    seconds = time.perf_counter() - start
    points, _ = sample_surface(shape.vertices, shape.faces, METRICS.chamfer_points, rng)
    exact = point_to_surface_chamfer(points, shape, true_points, truth)
    return Baseline(chamfer_distance(points, true_points), seconds, exact=exact)


def reference_observations(points: np.ndarray, sensor: np.ndarray, seed: int) -> Observations:
    """Observations of a depth scan as in the paper (Park et al., section 6.3).

    Normals are estimated by principal component analysis of each neighbourhood and oriented towards the sensor.

    points : (n, 3); sensor : (3,), its position; seed : of the free-space samples.
    """
    _, neighbours = KDTree(points).query(points, k=min(BASELINES.normal_neighbours, len(points)))  # (n, k)
    centred = points[neighbours] - points[neighbours].mean(axis=1, keepdims=True)  # (n, k, 3)
    covariance = np.einsum("nki,nkj->nij", centred, centred)  # (n, 3, 3)
    # The normal is the eigenvector of the smallest eigenvalue.
    normals = np.linalg.eigh(covariance)[1][:, :, 0]  # (n, 3)
    normals *= np.sign(np.einsum("ij,ij->i", normals, sensor - points))[:, None]
    return observe_points(points, normals, sensor, seed=seed)


@dataclass
class NearestTrainingShapes:
    """Search for the training shape, deformed copies included, that is nearest to a ground truth.

    surfaces : surface samples of each training shape, (n, 3); empty for a dataset without training shapes
    found : results so far, by name of the test shape
    """

    surfaces: dict[str, np.ndarray]
    found: dict[str, Baseline | None] = field(default_factory=dict)

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "NearestTrainingShapes":
        """Load the training shapes of a dataset. Raises `InputError` where one of its files cannot be read."""
        try:
            records = dataset.split("train")
        except InputError:
            records = []
        return cls({record.name: dataset.load(record.name).surface[: METRICS.chamfer_points] for record in records})

    def find(self, name: str, truth: np.ndarray) -> Baseline | None:
        """Find the training shape nearest to the ground truth of the test shape `name`; None without training shapes.

        The search uses the complete ground truth, so it is a bound on what copying a training shape can achieve.
        Candidates from few samples are compared again with all samples.

        truth : (m, 3), surface samples.
        """
        if name not in self.found and self.surfaces:
            coarse = sorted(self.surfaces, key=lambda shape: self._distance(shape, truth, BASELINES.coarse_points))
            candidates = coarse[: BASELINES.candidates]
            best = min((self._distance(shape, truth, METRICS.chamfer_points), shape) for shape in candidates)
            self.found[name] = Baseline(best[0], name=best[1])
        return self.found.get(name)

    def snap(self, scan: np.ndarray, truth: np.ndarray) -> Baseline | None:
        """Score the training shape nearest to a scan, scaled and snapped to it; None without training shapes.

        scan : (n, 3), canonical; truth : (m, 3), surface samples.
        """
        if not self.surfaces:
            return None
        start = time.perf_counter()
        snapped = snapped_nearest_shape(scan, self.surfaces)
        seconds = time.perf_counter() - start
        return Baseline(chamfer_distance(snapped.points, truth), seconds, name=snapped.name)

    def _distance(self, shape: str, truth: np.ndarray, count: int) -> float:
        """Chamfer distance of a training shape, from at most `count` samples of each side."""
        return chamfer_distance(self.surfaces[shape][:count].astype(np.float64), truth[:count])
