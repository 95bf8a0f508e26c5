"""Draws of observations: the requested number, half of them inside, even in space."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from round_things import directions
from scipy.spatial import KDTree

from sdf_backend.fitting.observation_batch import ObservationBatch


@settings(max_examples=30)
@given(inside=st.integers(0, 400), outside=st.integers(0, 400), count=st.integers(1, 500), shift=st.floats(0, 0.99))
def test_a_draw_holds_distinct_observations_half_of_them_inside(
    inside: int, outside: int, count: int, shift: float
) -> None:
    size, length = inside + outside, 1024
    high = torch.full((1, length), torch.inf)
    high[0, :size] = torch.cat([torch.full((inside,), -1.0), torch.full((outside,), 1.0)])
    numbers = torch.arange(length)[None, :, None].expand(1, length, 3).float()
    drawn = ObservationBatch(numbers, high, high, torch.tensor([size])).draw(count, shift)
    chosen = drawn.points[0, :, 0].long()
    assert len(chosen) == count == len(set(chosen.tolist()))
    real = chosen[chosen < size]
    assert len(real) == min(count, size) == int(drawn.sizes[0])
    assert torch.equal(real, chosen[: len(real)])  # padding last
    share = int((real < inside).sum())
    assert share == min(inside, max(len(real) // 2, len(real) - outside))


def test_a_draw_is_even_in_space() -> None:
    """No point of the surface is far from the draw, as some points are from a random draw."""
    surface = directions(20_000) * 0.8
    batch = ObservationBatch(
        torch.from_numpy(surface).float()[None], *torch.zeros(2, 1, 20_000), torch.tensor([20_000])
    )
    curve = batch.sorted_along_curve()
    even = [curve.draw(1_000, shift).points[0].numpy() for shift in np.linspace(0, 0.9, 5)]
    random = [surface[np.random.default_rng(seed).permutation(20_000)[:1_000]] for seed in range(5)]
    farthest = [np.mean([KDTree(draw).query(surface)[0].max() for draw in draws]) for draws in (even, random)]
    assert farthest[0] < 0.8 * farthest[1]


def test_a_draw_of_a_dense_cloud_does_not_depend_on_the_order_of_the_input() -> None:
    dense = torch.from_numpy(0.3 + directions(3_000) * 0.01).float()
    shuffled = dense[torch.randperm(3_000, generator=torch.Generator().manual_seed(0))]
    drawn = [
        ObservationBatch(points[None], *torch.zeros(2, 1, 3_000), torch.tensor([3_000]))
        .sorted_along_curve()
        .draw(500, 0.3)
        .points
        for points in (dense, shuffled)
    ]
    assert torch.equal(*drawn)
