"""The measures of generated collections against answers that can be written down."""

import numpy as np
import pytest

from sdf_backend.errors import InputError
from training.evaluation.generative import (
    GenerativeSettings,
    generative_scores,
    jensen_shannon,
    set_scores,
    spread_evenly,
)

FEW = GenerativeSettings(points=60, emd_points=30)


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """A distance that can be done in the head: between the first coordinates of the first points."""
    return abs(float(a[0, 0] - b[0, 0]))


def on_a_line(*places: float) -> list[np.ndarray]:
    return [np.array([[place, 0.0, 0.0]]) for place in places]


def clouds(count: int, seed: int, radius: float = 0.5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 80, 3))
    return list(radius * directions / np.linalg.norm(directions, axis=2, keepdims=True))


def test_matching_distance_and_coverage_by_hand() -> None:
    scores = set_scores(on_a_line(0.0, 0.1, 5.0), on_a_line(0.0, 1.0, 4.0), gap)
    # The references 0, 1 and 4 have their nearest samples at 0, 0.9 and 1; the samples' nearest are 0, 0 and 4.
    assert scores.mmd == pytest.approx((0 + 0.9 + 1) / 3)
    assert scores.coverage == pytest.approx(2 / 3)


def test_collections_far_apart_are_told_apart() -> None:
    assert set_scores(on_a_line(0, 0.1, 0.2), on_a_line(5, 5.1, 5.2), gap).one_nna == 1.0


def test_copies_of_the_references_are_never_their_own_neighbours() -> None:
    places = (0.0, 1.0, 3.0, 7.0)
    scores = set_scores(on_a_line(*places), on_a_line(*places), gap)
    assert (scores.one_nna, scores.mmd, scores.coverage) == (0.0, 0.0, 1.0)


def test_one_shape_over_and_over_covers_one_reference() -> None:
    assert set_scores(on_a_line(1.1, 1.2, 1.3), on_a_line(0, 1, 9), gap).coverage == pytest.approx(1 / 3)


def test_divergence_is_zero_of_the_same_and_one_of_disjoint_occupancies() -> None:
    left, right = [np.full((50, 3), -0.5)], [np.full((50, 3), 0.5)]
    assert jensen_shannon(left, left, 28) == 0
    assert jensen_shannon(left, right, 28) == pytest.approx(1)


def test_divergence_of_half_an_overlap_by_hand() -> None:
    left = [np.array([[-0.5] * 3, [0.5] * 3])]
    right = [np.array([[0.5] * 3, [0.5] * 3])]
    # P = (1/2, 1/2), Q = (0, 1), M = (1/4, 3/4).
    expected = 0.5 * (0.5 * np.log2(2) + 0.5 * np.log2(2 / 3)) + 0.5 * np.log2(4 / 3)
    assert jensen_shannon(left, right, 28) == pytest.approx(expected)


def test_samples_of_one_distribution_cannot_be_told_from_each_other_and_of_another_can() -> None:
    rng = np.random.default_rng(0)
    same = generative_scores(clouds(24, 1), clouds(24, 2), rng, FEW)
    other = generative_scores(clouds(24, 1, radius=0.8), clouds(24, 2), rng, FEW)
    assert 0.2 <= same.chamfer.one_nna <= 0.8 and 0.2 <= same.emd.one_nna <= 0.8
    assert other.chamfer.one_nna == other.emd.one_nna == 1.0
    assert other.jsd > same.jsd and other.chamfer.mmd > same.chamfer.mmd and other.emd.mmd > same.emd.mmd


def test_evenly_spread_points_fill_the_largest_gap_first() -> None:
    line = np.array([[place, 0.0, 0.0] for place in (0, 1, 2, 4.9, 5, 5.1, 9, 10)])
    assert spread_evenly(line, 4)[:, 0].tolist() == [0, 10, 5, 2]


def test_every_distance_is_reported_once() -> None:
    seen: list[tuple[int, int]] = []
    generative_scores(
        clouds(3, 1), clouds(4, 2), np.random.default_rng(5), FEW, lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 42) for done in range(1, 43)]  # 21 pairs, two distances


def test_the_same_generator_state_gives_the_same_scores() -> None:
    one, other = (generative_scores(clouds(3, 1), clouds(4, 2), np.random.default_rng(5), FEW) for _ in range(2))
    assert one == other


def test_too_little_to_compare_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="1 samples and 3 references"):
        generative_scores(clouds(1, 0), clouds(3, 1), rng, FEW)
    with pytest.raises(InputError, match="a shape has 80 points; at least 2048 are needed"):
        generative_scores(clouds(2, 0), clouds(2, 1), rng)
