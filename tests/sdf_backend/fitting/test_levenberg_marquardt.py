"""The linearisation of the solver's cost, against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from round_things import directions

from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.fitting.levenberg_marquardt import Solver
from sdf_backend.fitting.observation_batch import batch_observations
from sdf_backend.fitting.pose_prior import PosePrior
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_points
from sdf_backend.settings import Pose


def solver_at(spheres: Model, observed: Observations, settings: FitSettings, expected: list[Similarity]) -> Solver:
    poses = [Similarity.identity()]
    prior = PosePrior.from_expected(expected, poses, [observed], settings, spheres.device)
    return Solver(spheres, batch_observations([observed], poses, spheres.device), settings, Pose.FREE, prior)


def test_the_gradient_by_code_and_pose_is_that_of_the_cost(spheres: Model) -> None:
    observed = observe_points(directions(160) * 0.5)
    free = FitSettings((Stage(1, 1_000, 0.0),), residual_floor=1e9, pose_prior_weight=0.0, dtype=torch.float32)
    solver = solver_at(spheres, observed, free, [Similarity.identity()])
    solver.clamp = 9.0
    solver.begin_stage(free.stages[0], 0)
    u = torch.tensor([[0.3, -0.2, 0.5]])
    move = Similarity.from_parameters(np.full(7, 0.05))

    def cost(change: np.ndarray) -> float:
        turned = move.compose(Similarity.from_parameters(change[3:]))
        code = u + torch.from_numpy(change[None, :3]).float()
        points = torch.from_numpy(turned.inverse().apply(observed.points)).float()[None]
        value = solver.decoder.distances(code, points).double() * turned.scale
        return float(value.square().mean() / 2)

    gradient = solver._linearise(u, [move]).gradient
    # With so high a floor the cost is the mean square over the floor.
    for index in range(10):
        step = np.zeros(10)
        step[index] = 2e-2
        slope = (cost(step) - cost(-step)) / 4e-2
        assert float(gradient[0, index]) * 1e9 == pytest.approx(slope, rel=0.05, abs=2e-4)


@pytest.mark.parametrize("bound", [np.inf, -np.inf])
def test_the_gradient_of_observations_beyond_the_clamp_is_that_of_the_cost(spheres: Model, bound: float) -> None:
    """The clamp scales with the model; observed distances do not."""
    near = observe_points(directions(160) * 0.5)
    beyond = np.full(len(near.points), bound)
    settings = FitSettings((Stage(1, 1_000, 0.0),), pose_prior_weight=0.0, dtype=torch.float32)
    solver = solver_at(spheres, replace(near, low=beyond, high=beyond), settings, [Similarity.identity()])
    solver.begin_stage(settings.stages[0], 0)
    start = Similarity.from_parameters(np.array([0.03, 0.02, 0.01, -0.01, 0, 0, 0]))
    check_gradient(solver, torch.zeros(1, 3), start, range(7))


@pytest.mark.parametrize("turn", [0.0, 0.8])
def test_the_gradient_of_the_pose_prior_is_that_of_the_cost_at_any_rotation(spheres: Model, turn: float) -> None:
    observed = replace(observe_points(directions(160) * 0.5), sensor=np.array([0, 1.0, 2.0]))
    unbounded = replace(observed, low=np.full_like(observed.low, -np.inf), high=np.full_like(observed.high, np.inf))
    settings = FitSettings((Stage(1, 1_000, 1e-2),), pose_prior_weight=3e-2, dtype=torch.float32)
    solver = solver_at(spheres, unbounded, settings, [Similarity(0.9, np.eye(3), np.array([0.1, -0.2, 0.05]))])
    solver.begin_stage(settings.stages[0], 0)
    start = Similarity.from_parameters(np.array([0.2, 0.1, 0.05, -0.1, 0.3 * turn, turn, -0.2 * turn]))
    check_gradient(solver, torch.zeros(1, 3), start, range(4))


def check_gradient(solver: Solver, u: torch.Tensor, start: Similarity, unknowns: range) -> None:
    """Check the gradient by these pose parameters against the slope of the cost."""
    gradient = solver._linearise(u, [start]).gradient[0, u.shape[1] :].double().numpy()
    assert np.abs(gradient).max() > 1e-3

    def cost(index: int, change: float) -> float:
        small = np.zeros(7)
        small[index] = change
        return float(solver._linearise(u, [start.compose(Similarity.from_parameters(small))]).cost)

    for index in unknowns:
        slope = (cost(index, 2e-3) - cost(index, -2e-3)) / 4e-3
        assert gradient[index] == pytest.approx(slope, rel=0.03, abs=1e-3)


def test_the_gradient_and_hessian_of_the_priors_are_those_of_the_cost(spheres: Model) -> None:
    """No observation has a residual, so only the priors contribute; the pose is the expected one.

    At other poses the Gauss-Newton Hessian lacks the term of second derivatives.
    """
    observed = replace(observe_points(directions(160) * 0.5), sensor=np.array([0, 1.0, 2.0]))
    unbounded = replace(observed, low=np.full_like(observed.low, -np.inf), high=np.full_like(observed.high, np.inf))
    settings = FitSettings((Stage(1, 1_000, 1e-2),), pose_prior_weight=3e-2, dtype=torch.float32)
    solver = solver_at(spheres, unbounded, settings, [Similarity.identity()])
    solver.begin_stage(settings.stages[0], 0)
    u, place = np.array([0.3, -0.2, 0.5]), np.zeros(4)

    def at(unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        code = torch.from_numpy(unknowns[None, :3]).float()
        move = Similarity.from_parameters(np.concatenate([unknowns[3:], np.zeros(3)]))
        found = solver._linearise(code, [move])
        return found.gradient[0].double().numpy(), found.hessian[0].double().numpy(), float(found.cost[0])

    middle = np.concatenate([u, place])
    gradient, hessian, _ = at(middle)
    for index in range(7):
        step = np.zeros(7)
        step[index] = 1e-2
        (above, _, more), (below, _, less) = at(middle + step), at(middle - step)
        assert gradient[index] == pytest.approx((more - less) / 2e-2, rel=1e-2, abs=1e-4)
        np.testing.assert_allclose(hessian[index, :7], ((above - below) / 2e-2)[:7], rtol=1e-2, atol=1e-4)
    assert abs(hessian[5, 6]) > 0.1, "depth and height go together along the line of sight"
