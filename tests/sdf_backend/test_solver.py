"""The gradient of the solver's cost, against finite differences."""

import numpy as np
import pytest
import torch
from round_things import directions

from sdf_backend.draws import batched
from sdf_backend.fit_settings import FitSettings, Stage
from sdf_backend.model_store import Model
from sdf_backend.observations import observe_points
from sdf_backend.pose import Freedom, Similarity
from sdf_backend.solver import Solver


def test_the_solver_gradient_is_that_of_its_cost(spheres: Model) -> None:
    observed = observe_points(directions(160) * 0.5)
    free = FitSettings((Stage(1, 1_000, 0.0),), floor=1e9, pose_prior=0.0, dtype=torch.float32)
    solver = Solver(spheres, batched([observed], [Similarity.identity()], spheres.device), free, Freedom.FREE)
    solver.clamp = 9.0
    solver.begin(free.stages[0], 0)
    u = torch.tensor([[0.3, -0.2, 0.5]])
    move = Similarity.from_parameters(np.full(7, 0.05))

    def cost(change: np.ndarray) -> float:
        turned = move.compose(Similarity.from_parameters(change[3:]))
        code = u + torch.from_numpy(change[None, :3]).float()
        points = torch.from_numpy(turned.inverse().apply(observed.points)).float()[None]
        value = solver.decoder.distances(code, points).double() * turned.scale
        return float(value.square().mean() / 2)

    gradient, _, _ = solver._linearise(u, [move])
    # A floor so high makes the cost the plain mean square, over the floor.
    for index in range(10):
        step = np.zeros(10)
        step[index] = 2e-2
        slope = (cost(step) - cost(-step)) / 4e-2
        assert float(gradient[0, index]) * 1e9 == pytest.approx(slope, rel=0.05, abs=2e-4)
