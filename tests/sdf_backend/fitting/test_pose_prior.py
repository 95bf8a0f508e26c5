"""The prior of scale and position, against values computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.fitting.pose_prior import PosePrior
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.cuts import Cut
from sdf_backend.observation.observations import Observations, observe_points

SETTINGS = FitSettings((Stage(1, 1, 0.0),), scale_sigma=0.5, shift_sigma=0.1, depth_sigma=0.2)
TURN = Rotation.from_rotvec([0.3, -1.2, 0.4]).as_matrix()
PLACE = Similarity(40.0, TURN, np.array([5.0, -7, 9]))


def seen_from(sensor: np.ndarray | None) -> Observations:
    points = np.random.default_rng(0).normal(size=(300, 3))
    return replace(observe_points(points), sensor=sensor)


def prior(expected: Similarity, pose: Similarity, sensor: np.ndarray | None) -> PosePrior:
    return PosePrior.from_expected([expected], [pose], [seen_from(sensor)], SETTINGS, torch.device("cpu"))


def test_without_a_sensor_the_prior_is_isotropic_and_rotations_have_none() -> None:
    found = prior(PLACE, PLACE, None)
    np.testing.assert_allclose(found.precision[0], np.diag([4, 100, 100, 100, 0, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(found.initial_deviation, 0, atol=1e-6)


def test_the_prior_is_wider_along_the_line_of_sight() -> None:
    """The line of sight of the observed frame, in canonical axes."""
    sight = np.array([0.0, 0.6, 0.8])
    found = prior(PLACE, PLACE, PLACE.apply(3 * sight[None])[0]).precision[0].double().numpy()
    across = np.array([1.0, 0, 0])
    shift = found[1:4, 1:4]
    assert sight @ shift @ sight == pytest.approx(1 / 0.2**2, rel=1e-5)
    assert across @ shift @ across == pytest.approx(1 / 0.1**2, rel=1e-5)
    assert sight @ shift @ across == pytest.approx(0, abs=1e-4)
    assert found[0, 0] == pytest.approx(4)


def test_the_prior_is_wider_across_a_cut_and_about_the_scale_of_what_was_cut() -> None:
    normal = np.array([0.0, 0.6, 0.8])
    observed = replace(seen_from(None), cut=Cut(TURN @ normal, 0.0, np.zeros((0, 3))))
    found = PosePrior.from_expected([PLACE], [PLACE], [observed], SETTINGS, torch.device("cpu"))
    precision = found.precision[0].double().numpy()
    assert normal @ precision[1:4, 1:4] @ normal == pytest.approx(1 / SETTINGS.cut_shift_sigma**2, rel=1e-5)
    assert precision[1, 1] == pytest.approx(100) and precision[0, 0] == pytest.approx(SETTINGS.cut_scale_sigma**-2)


def test_a_sensor_at_the_centre_has_no_line_of_sight() -> None:
    found = prior(PLACE, PLACE, PLACE.translation)
    assert torch.isfinite(found.precision).all()


def test_the_deviation_of_a_moved_pose_is_measured_from_the_expected_one() -> None:
    """Translations in canonical units, and in the axes of the pose, not of the expected one."""
    further = Similarity(1.25, Rotation.from_rotvec([0, np.pi / 2, 0]).as_matrix(), np.array([0.5, 0, 0]))
    moved = prior(PLACE, PLACE.compose(further), None).initial_deviation[0]
    np.testing.assert_allclose(moved, [np.log(1.25), 0, 0, 0.4, 0, 0, 0], atol=1e-6)


def test_a_row_may_be_selected_several_times() -> None:
    both = PosePrior.from_expected([PLACE] * 2, [PLACE] * 2, [seen_from(None), seen_from(np.zeros(3))], SETTINGS,
                           torch.device("cpu"))  # fmt: skip
    some = both.select_rows([1, 1, 0])
    assert torch.equal(some.precision, both.precision[[1, 1, 0]]) and some.initial_deviation.shape == (3, 7)
