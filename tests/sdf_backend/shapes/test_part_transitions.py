"""Times by which parts must be gone and from which they may be there: chains and balls whose answers are known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sdf_backend.geometry.isosurface import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.shapes.nearest_vertex_grid import COARSE, STEP
from sdf_backend.shapes.part_transitions import GAP, SPEED, Leaving, Look, Times, _receded

LINK = 0.1


def chain(count: int) -> sparse.csr_array:
    """The edges, (n, n), of vertices in a row."""
    one = np.arange(count - 1)
    ends = np.concatenate([one, one + 1]), np.concatenate([one + 1, one])
    return sparse.coo_array((np.full(2 * count - 2, LINK), ends), shape=(count, count)).tocsr()


def ball(place: tuple[float, float, float], radius: float) -> Field:
    centre = torch.tensor(place)
    return lambda points: (points - centre).norm(dim=1) - radius


def mesh_of(parts: list[Field], pits: list[Field]) -> Extraction:
    """What is in one of the parts and in none of the pits."""

    def distances(points: torch.Tensor) -> torch.Tensor:
        inside = torch.stack([part(points) for part in parts]).amin(dim=0)
        return torch.stack([inside, *(-pit(points) for pit in pits)]).amax(dim=0)

    return extract_surface(distances, ExtractSettings(COARSE, clamp=float("inf"))).remove_cavities()


def looks(*shapes: list[Field], pits: list[list[Field]] | None = None) -> list[Look]:
    """Looks, evenly spaced, at shapes of several parts each, with pits in them."""
    times, none = np.linspace(0, 1, len(shapes)), [[] for _ in shapes]
    each = zip(times, shapes, pits or none, strict=True)
    return [Look.of(float(time), mesh_of(parts, dug)) for time, parts, dug in each]


def stays(leaving: list[Leaving], moment: float) -> bool:
    """Whether nothing leaves."""
    return all((one.moments == moment).all() for one in leaving)


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
    assert stays(times.there, -np.inf) and stays(times.gone, np.inf)


def test_what_vanishes_is_gone_before_and_the_last_of_it_is_next_to_what_stays() -> None:
    """A ball with a smaller one on it, which the third look has not."""
    both, one = [ball((0, 0, 0), 0.5), ball((0, 0, 0.65), 0.17)], [ball((0, 0, 0), 0.5)]
    times = Times.of(looks(both, both, one, one, one))
    for look, gone in zip(times.looks[:2], times.gone, strict=False):
        height, goes = look.vertices[:, 2], np.isfinite(gone.moments)
        assert goes[height > 0.6].all() and not goes[height < 0.4].any()
        assert (gone.moments[goes] <= 0.25).all() and (gone.why[goes] == 2).all()
        # The farther from what stays, the earlier, by the way along the surface.
        assert gone.moments[height > 0.8].max() < gone.moments[goes & (height < 0.55)].max() - 0.2 / SPEED
        # The middle of the smaller ball goes with its surface.
        assert gone.depth[goes].max() == pytest.approx(0.17, abs=2 * STEP)
        assert not gone.past(0.25)[~goes].max() > 0


def test_what_is_dug_out_goes_before_from_its_surface_down() -> None:
    body, pit = [ball((0, 0, 0), 0.5)], [ball((0, 0, 0.5), 0.2)]
    times = Times.of(looks(body, body, body, body, pits=[[], [], pit, pit]))
    look, gone = times.looks[1], times.gone[1]
    lid = np.linalg.norm(look.vertices - [0, 0, 0.5], axis=1) < 0.1
    assert (gone.moments[lid] <= 1 / 3).all() and (gone.why[lid] == 2).all()
    assert gone.depth[lid].max() == pytest.approx(0.2, abs=2 * STEP)
    # All of it has gone by its time but next to the rim, where the surface has moved, and none of what stays.
    solid = times.nodes.solid(2)
    assert not (solid & ~gone.left).any()
    assert times.nodes.nearest(2)[1][gone.left & ~solid].max() < GAP + STEP
    assert (times.gone[3].left == times.nodes.solid(3)).all() and stays(times.there, -np.inf)


def test_what_is_filled_is_dug_out_backwards() -> None:
    body, pit = [ball((0, 0, 0), 0.5)], [ball((0, 0, 0.5), 0.2)]
    opens = Times.of(looks(body, body, body, body, pits=[[], [], pit, pit]))
    closes = Times.of(looks(body, body, body, body, pits=[pit, pit, [], []]))
    for gone, there in zip(opens.gone, reversed(closes.there), strict=True):
        np.testing.assert_allclose(there.moments, 1 - gone.moments)
        np.testing.assert_array_equal(there.depth, gone.depth)
        np.testing.assert_array_equal(there.left, gone.left)


def test_what_will_be_gone_later_goes_early_where_it_is_not_seen_yet() -> None:
    """A core that is to go is in what goes first: by then it is gone too."""
    thick, core, last = (
        [ball((0, 0, 0), 0.3), ball((0, 0, 0.5), 0.3)],
        [ball((0, 0, 0), 0.3), ball((0, 0, 0.4), 0.15)],
        [ball((0, 0, 0), 0.3)],
    )
    times = Times.of(looks(thick, thick, core, last, last))
    for number in (0, 1, 2):
        gone = times.gone[number]
        assert gone.left.sum() >= times.nodes.solid(4).sum()
    top = times.nodes.points(times.gone[2].left)[:, 2].max()
    assert top < 0.55 and times.nodes.points(times.gone[1].left)[:, 2].max() < 0.62


def test_what_hangs_in_the_air_is_not_there_but_at_the_ends() -> None:
    shape, lone = ball((0, 0, 0), 0.4), ball((0, 0, 0.8), 0.15)
    times = Times.of(looks(*[[shape, lone]] * 4))
    for look, gone in zip(times.looks[1:-1], times.gone[1:-1], strict=True):
        np.testing.assert_array_equal(gone.moments == -np.inf, look.vertices[:, 2] > 0.5)
    assert np.isfinite(times.gone[0].moments[times.looks[0].vertices[:, 2] > 0.5]).all()


def test_the_shape_is_what_goes_on_and_not_what_is_largest_for_a_moment() -> None:
    shape, guest = ball((-0.4, 0, 0), 0.3), ball((0.4, 0, 0), 0.4)
    times = Times.of(looks([shape], [shape], [shape, guest], [shape], [shape]))
    gone = times.gone[2].moments
    assert (gone[times.looks[2].vertices[:, 0] < -0.05] == np.inf).all()
    assert (gone[times.looks[2].vertices[:, 0] > 0.05] == -np.inf).all()


def test_a_shape_that_becomes_another_elsewhere_has_a_clock_all_the_same() -> None:
    times = Times.of(looks([ball((-0.5, 0, 0), 0.3)], [ball((0.5, 0, 0), 0.3)]))
    moments, lengths = times.clock
    assert all(one < other for one, other in pairwise(moments)) and lengths[-1] > 0


def test_the_clock_counts_how_far_a_surface_moves() -> None:
    times = Times.of(looks(*[[ball((0, 0, float(place)), 0.4)] for place in np.arange(5) * 0.03]))
    assert times.clock[1][-1] == pytest.approx(4 * 0.03, rel=0.05)


def test_a_surface_that_moves_out_fast_is_not_cut() -> None:
    times = Times.of(
        looks([ball((0, 0, 0), 0.3)], [ball((0, 0, 0), 0.3)], [ball((0, 0, 0), 0.5)], [ball((0, 0, 0), 0.5)])
    )
    assert all((gone.moments == np.inf).all() for gone in times.gone)
