"""The observations of the reference, and the nearest training shape."""

import numpy as np

from training.evaluation.baselines import NearestTrainingShapes, reference_observations
from training.evaluation.metrics import chamfer_distance


def test_estimated_normals_point_outwards_and_towards_the_sensor() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(20_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    sensor = np.array([0.0, 0.0, 3.0])
    points = 0.5 * normal[normal[:, 2] > 0.3]
    observed = reference_observations(points, sensor, seed=0)
    count = len(observed.surface)
    outside, inside = observed.points[count : 2 * count], observed.points[2 * count : 3 * count]
    step = observed.low[count]
    assert step > 0 and (observed.low[2 * count : 3 * count] == -step).all()
    np.testing.assert_allclose(np.linalg.norm(outside, axis=1), 0.5 + step, atol=0.2 * step)
    np.testing.assert_allclose(np.linalg.norm(inside, axis=1), 0.5 - step, atol=0.2 * step)
    free = observed.points[3 * count :]
    assert len(free) and np.isinf(observed.high[3 * count :]).all() and (observed.low[3 * count :] == 0).all()


def test_the_nearest_training_shape_is_that_of_the_smallest_chamfer_distance() -> None:
    """A training shape that contains the whole ground truth, and much more, is not the nearest."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.5, 0.5, size=(3_000, 3))
    more = np.concatenate([rng.uniform(-0.5, 0.5, size=(3_000, 3)), rng.uniform(2, 3, size=(3_000, 3))])[
        rng.permutation(6_000)
    ]
    shapes = {"more": more, "moved": truth[::-1] + [0.1, 0, 0], "far": truth + 1}
    found = NearestTrainingShapes(shapes).find("truth", truth)
    assert found and found.name == "moved" and found.chamfer == chamfer_distance(shapes["moved"], truth)
    assert NearestTrainingShapes({}).find("truth", truth) is None
