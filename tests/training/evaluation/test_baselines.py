"""What results are compared with."""

import numpy as np

from training.evaluation.baselines import reference_observations


def test_estimated_normals_look_towards_the_sensor_and_out_of_the_surface() -> None:
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
