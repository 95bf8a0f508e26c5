"""Times by which parts must be gone and from which they may be there: chains and balls whose answers are known."""

from itertools import pairwise

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sdf_backend.extract import Extraction
from sdf_backend.receding import SPEED, Look, Times, _receded

LINK = 0.1


def chain(count: int) -> sparse.csr_array:
    """The edges, (n, n), of vertices in a row."""
    one = np.arange(count - 1)
    ends = np.concatenate([one, one + 1]), np.concatenate([one + 1, one])
    return sparse.coo_array((np.full(2 * count - 2, LINK), ends), shape=(count, count)).tocsr()


def ball(place: tuple[float, float, float], radius: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    mesh.apply_translation(place)
    return mesh


def looks(*shapes: list[trimesh.Trimesh]) -> list[Look]:
    """Looks, evenly spaced, at shapes of several balls each."""
    meshes = [trimesh.util.concatenate(parts) for parts in shapes]
    times = np.linspace(0, 1, len(meshes))
    return [
        Look.of(float(time), Extraction(np.array(mesh.vertices), np.array(mesh.faces), 0))
        for time, mesh in zip(times, meshes, strict=True)
    ]


def test_a_part_recedes_along_itself_at_the_given_speed() -> None:
    lasting = np.arange(8) == 0
    moments = _receded(chain(8), np.where(lasting, np.inf, 0.5), lasting)
    np.testing.assert_allclose(moments[1:], 0.5 - np.arange(7) * LINK / SPEED)


def test_what_goes_early_takes_with_it_what_is_behind_it() -> None:
    latest = np.array([np.inf, 0.9, 0.2, 0.9, 0.9])
    moments = _receded(chain(5), latest, np.isinf(latest))
    np.testing.assert_allclose(moments[1:], [0.9, 0.2, 0.2 - LINK / SPEED, 0.2 - 2 * LINK / SPEED])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.data())
def test_nothing_goes_without_a_neighbour_that_goes_later(latest: list[float], data: st.DataObject) -> None:
    lasting = np.array([data.draw(st.booleans()) for _ in latest])
    moments = _receded(chain(len(latest)), np.array(latest), lasting)
    assert (moments <= latest).all() and (moments[lasting] == np.array(latest)[lasting]).all()
    beside = np.concatenate([[-np.inf], moments, [-np.inf]])
    reached = np.maximum(beside[:-2], beside[2:]) - LINK / SPEED
    assert (moments[~lasting] <= reached[~lasting] + 1e-12).all()
    if lasting.any():
        assert np.isfinite(moments).all()


def test_what_is_there_all_the_time_is_never_cut() -> None:
    times = Times.of(looks(*[[ball((0, 0, 0), 0.5)]] * 4))
    assert all((there == -np.inf).all() for there in times.there) and all((gone == np.inf).all() for gone in times.gone)


def test_what_vanishes_is_gone_before_and_the_last_of_it_is_next_to_what_stays() -> None:
    """A ball with a smaller one on it, which the third look has not."""
    both, one = [ball((0, 0, 0), 0.5), ball((0, 0, 0.65), 0.17)], [ball((0, 0, 0), 0.5)]
    times = Times.of(looks(both, both, one, one, one))
    for look, gone in zip(times.looks[:2], times.gone, strict=False):
        goes = np.isfinite(gone)
        assert goes[look.vertices[:, 2] > 0.6].all() and not goes[look.vertices[:, 2] < 0.4].any()
        assert (gone[goes] <= 0.25).all()
        # The farther from what stays, the earlier, by the way along the surface.
        far, near = look.vertices[:, 2] > 0.8, goes & (look.vertices[:, 2] < 0.55)
        assert gone[far].max() < gone[near].max() - 0.2 / SPEED


def test_what_hangs_in_the_air_is_not_there_but_at_the_ends() -> None:
    shape, lone = ball((0, 0, 0), 0.4), ball((0, 0, 0.8), 0.15)
    times = Times.of(looks(*[[shape, lone]] * 4))
    for look, gone in zip(times.looks[1:-1], times.gone[1:-1], strict=True):
        np.testing.assert_array_equal(gone == -np.inf, look.vertices[:, 2] > 0.5)
    assert np.isfinite(times.gone[0][times.looks[0].vertices[:, 2] > 0.5]).all()


def test_the_shape_is_what_goes_on_and_not_what_is_largest_for_a_moment() -> None:
    shape, guest = ball((-0.4, 0, 0), 0.3), ball((0.4, 0, 0), 0.4)
    times = Times.of(looks([shape], [shape], [shape, guest], [shape], [shape]))
    gone = times.gone[2]
    assert (gone[times.looks[2].vertices[:, 0] < 0] == np.inf).all()
    assert (gone[times.looks[2].vertices[:, 0] > 0] == -np.inf).all()


def test_a_shape_that_becomes_another_elsewhere_has_a_clock_all_the_same() -> None:
    times = Times.of(looks([ball((-0.5, 0, 0), 0.3)], [ball((0.5, 0, 0), 0.3)]))
    moments, lengths = times.clock
    assert all(one < other for one, other in pairwise(moments)) and lengths[-1] > 0


def test_the_clock_counts_how_far_a_surface_moves() -> None:
    times = Times.of(looks(*[[ball((0, 0, place), 0.4)] for place in np.arange(5) * 0.03]))
    assert times.clock[1][-1] == pytest.approx(4 * 0.03, rel=0.05)


def test_a_hollow_that_closes_takes_nothing_with_it() -> None:
    def shell(hollow: float) -> list[trimesh.Trimesh]:
        inner = ball((0, 0, 0), hollow)
        inner.invert()
        return [ball((0, 0, 0), 0.6), inner]

    times = Times.of(looks(shell(0.4), shell(0.3), shell(0.2), shell(0.02), [ball((0, 0, 0), 0.6)]))
    for there, gone in zip(times.there[1:-1], times.gone[1:-1], strict=True):
        assert (there == -np.inf).all() and (gone == np.inf).all()


def test_a_surface_that_moves_out_fast_is_not_cut() -> None:
    times = Times.of(
        looks([ball((0, 0, 0), 0.3)], [ball((0, 0, 0), 0.3)], [ball((0, 0, 0), 0.5)], [ball((0, 0, 0), 0.5)])
    )
    assert all((gone == np.inf).all() for gone in times.gone)
