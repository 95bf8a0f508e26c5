"""The losses against exact distances, their bounds, and their gradients against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from training.evaluation.metrics import chamfer_distance, earth_movers_distance
from training.losses import chamfer_loss, earth_mover_loss, soft_chamfer_loss

relaxed = settings(max_examples=25)


def point_sets(batch: int, count: int, seed: int) -> torch.Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@relaxed
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_chamfer_is_the_metric(n: int, m: int, seed: int) -> None:
    a, b = point_sets(3, n, seed), point_sets(3, m, seed + 1)
    expected = [chamfer_distance(one, other) for one, other in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(chamfer_loss(a, b).numpy(), expected, rtol=1e-9, atol=1e-12)


@relaxed
@given(st.integers(1, 12), st.integers(1, 12), st.floats(1e-6, 10), st.integers(0, 2**31))
def test_the_soft_minimum_lies_above_the_minimum_by_at_most_its_bound(
    n: int, m: int, temperature: float, seed: int
) -> None:
    a, b = point_sets(2, n, seed), point_sets(2, m, seed + 1)
    exact, soft = chamfer_loss(a, b), soft_chamfer_loss(a, b, temperature)
    bound = temperature * (math.log(n) + math.log(m))
    assert (soft >= exact - 1e-9).all()
    assert (soft <= exact + bound + 1e-9).all()


@relaxed
@given(st.integers(1, 16), st.integers(0, 2**31))
def test_the_exact_assignment_lies_within_the_error_bound(count: int, seed: int) -> None:
    a, b = point_sets(2, count, seed), point_sets(2, count, seed + 1)
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    exact = torch.tensor([earth_movers_distance(one, other) for one, other in pairs], dtype=torch.float64)
    found = earth_mover_loss(a, b, epsilon=0.02, iterations=300)
    assert (exact <= found.value + found.slack + 1e-9).all()
    assert (exact >= found.value - found.error_bound - 1e-9).all()


def test_a_small_epsilon_comes_to_the_exact_assignment() -> None:
    a, b = point_sets(1, 64, 0), point_sets(1, 64, 1)
    exact = earth_movers_distance(a[0].numpy(), b[0].numpy())
    found = earth_mover_loss(a, b, epsilon=2e-4, iterations=2_000)
    assert float(found.value) == pytest.approx(exact, rel=0.005)
    assert float(found.error_bound) < 0.01 * exact


def test_a_shift_costs_its_length() -> None:
    a, shift = point_sets(1, 40, 0) * 0.1, torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64)
    found = earth_mover_loss(a, a + shift, epsilon=0.01, iterations=300)
    assert float(found.value - found.error_bound) <= 1.3 <= float(found.value + found.slack) + 1e-6


def test_sets_of_unequal_counts_are_transported_in_shares() -> None:
    a = torch.zeros(1, 2, 3, dtype=torch.float64)
    b = torch.tensor([[[1.0, 0, 0], [1, 0, 0], [3, 0, 0]]], dtype=torch.float64)
    found = earth_mover_loss(a, b, epsilon=1e-3)
    assert float(found.value) == pytest.approx(5 / 3, abs=float(found.error_bound))


@pytest.mark.parametrize(
    "loss",
    [
        chamfer_loss,
        lambda a, b: soft_chamfer_loss(a, b, 0.05),
        lambda a, b: earth_mover_loss(a, b, epsilon=0.1, iterations=400).value,
    ],
    ids=["chamfer", "soft chamfer", "earth mover"],
)
def test_gradients_are_those_of_finite_differences(loss) -> None:
    a, b = point_sets(2, 5, 3).requires_grad_(), point_sets(2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b), eps=1e-6, atol=1e-5)


def test_coincident_points_have_finite_gradients() -> None:
    a = point_sets(1, 6, 0).float().requires_grad_()
    (chamfer_loss(a, a.detach()) + earth_mover_loss(a, a.detach()).value).sum().backward()
    assert a.grad is not None and torch.isfinite(a.grad).all()


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (torch.zeros(4, 3), torch.zeros(1, 4, 3), r"a has the shape \(4, 3\)"),
        (torch.zeros(1, 4, 3), torch.zeros(1, 0, 3), r"b has the shape \(1, 0, 3\)"),
        (torch.zeros(2, 4, 3), torch.zeros(1, 4, 3), "a has 2 point sets and b has 1"),
    ],
)
def test_sets_of_other_shapes_are_refused(a: torch.Tensor, b: torch.Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        chamfer_loss(a, b)


def test_numbers_that_must_be_positive_are_refused() -> None:
    a = torch.zeros(1, 4, 3)
    with pytest.raises(InputError, match="temperature is 0"):
        soft_chamfer_loss(a, a, 0.0)
    with pytest.raises(InputError, match="epsilon is nan"):
        earth_mover_loss(a, a, math.nan)
    with pytest.raises(InputError, match="iterations is 0"):
        earth_mover_loss(a, a, iterations=0)
