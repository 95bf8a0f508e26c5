"""What results are compared with: the released DeepSDF reconstruction, and the nearest training shape.

The reference is faithful where it counts: the same decoder, the paper's 800 Adam steps of 8,000 samples, and for
completion its observations: normals estimated on the points, distances beside them, and free space along the lines of
sight from the sensor, which our own completion is not told. Its surface is extracted from coarse to fine, which gives
the mesh of the dense grid (`benchmarks.extract`). The training shape nearest to the truth says whether a model
completes or copies.
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
from training.evaluation.metrics import CHAMFER_POINTS, Mesh, chamfer, exact_chamfer, sample_surface

# Points of a scan's neighbourhood that say which way its normal points.
NEIGHBOURS = 12
# Points of each training shape that are searched through, and of how many all points are compared.
COMPARED_POINTS, NEAREST = 1_500, 5


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
    """The training shapes of a dataset, deformed copies too where it has them, to be searched through.

    surfaces : points on each, (n, 3); none of a dataset that was made for tests alone
    """

    surfaces: dict[str, np.ndarray]
    found: dict[str, Baseline | None] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> "NearestShapes":
        """Those of a dataset; raises `InputError` where one of its files cannot be read."""
        try:
            records = dataset.split("train")
        except InputError:
            records = []
        return cls({record.name: dataset.load(record.name).surface[:CHAMFER_POINTS] for record in records})

    def find(self, name: str, truth: np.ndarray) -> Baseline | None:
        """The training shape nearest to the truth called `name`, points (m, 3) on it; None where there are no shapes.

        Nobody who has but a scan could choose as well, so copying never does better than this. The few nearest by some
        points are compared by all.
        """
        if name not in self.found and self.surfaces:
            few = sorted(self.surfaces, key=lambda one: self._away(one, truth, COMPARED_POINTS))[:NEAREST]
            best = min((self._away(one, truth, CHAMFER_POINTS), one) for one in few)
            self.found[name] = Baseline(best[0], name=best[1])
        return self.found.get(name)

    def _away(self, name: str, truth: np.ndarray, count: int) -> float:
        """The Chamfer distance of a training shape from the truth, by so many points of each."""
        return chamfer(self.surfaces[name][:count].astype(np.float64), truth[:count])
