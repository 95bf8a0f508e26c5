"""Vanishing and appearance times of chains and balls with known answers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sdf_backend.geometry.isosurface import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.shapes.interpolation_settings import InterpolationSettings
from sdf_backend.shapes.part_transitions import Keyframe, Transition, TransitionSchedule, _propagate_times

SETTINGS = InterpolationSettings()
STEP, SPEED = SETTINGS.keyframe_cell, SETTINGS.transition_speed
LINK = 0.1


def chain(count: int) -> sparse.csr_array:
    """The edges, (n, n), of vertices in a row."""
    one = np.arange(count - 1)
    ends = np.concatenate([one, one + 1]), np.concatenate([one + 1, one])
    return sparse.coo_array((np.full(2 * count - 2, LINK), ends), shape=(count, count)).tocsr()


def ball(centre: tuple[float, float, float], radius: float) -> Field:
    middle = torch.tensor(centre)
    return lambda points: (points - middle).norm(dim=1) - radius


def mesh_of(parts: list[Field], pits: list[Field]) -> Extraction:
    """The union of the parts without the pits."""

    def distances(points: torch.Tensor) -> torch.Tensor:
        inside = torch.stack([part(points) for part in parts]).amin(dim=0)
        return torch.stack([inside, *(-pit(points) for pit in pits)]).amax(dim=0)

    return extract_surface(
        distances, ExtractSettings(SETTINGS.keyframe_resolution, clamp=float("inf"))
    ).remove_cavities()


def schedule_of(*shapes: list[Field], pits: list[list[Field]] | None = None) -> TransitionSchedule:
    """The schedule of evenly spaced keyframes, shapes of several parts each with pits in them."""
    times, none = np.linspace(0, 1, len(shapes)), [[] for _ in shapes]
    each = zip(times, shapes, pits or none, strict=True)
    keyframes = [Keyframe.from_mesh(float(time), mesh_of(parts, carved), SETTINGS) for time, parts, carved in each]
    return TransitionSchedule.from_keyframes(keyframes, SETTINGS)


def are_all(transitions: list[Transition], time: float) -> bool:
    """Whether all vertices have that time."""
    return all((transition.times == time).all() for transition in transitions)


def test_a_part_recedes_along_itself_at_the_given_speed() -> None:
    lasting = np.arange(8) == 0
    times = _propagate_times(chain(8), np.where(lasting, np.inf, 0.5), lasting, SPEED)
    np.testing.assert_allclose(times[1:], 0.5 - np.arange(7) * LINK / SPEED)


def test_an_early_vertex_takes_those_behind_it_along() -> None:
    latest = np.array([np.inf, 0.9, 0.2, 0.9, 0.9])
    times = _propagate_times(chain(5), latest, np.isinf(latest), SPEED)
    np.testing.assert_allclose(times[1:], [0.9, 0.2, 0.2 - LINK / SPEED, 0.2 - 2 * LINK / SPEED])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.data())
def test_every_vertex_has_a_neighbour_that_vanishes_later(latest: list[float], data: st.DataObject) -> None:
    lasting = np.array([data.draw(st.booleans()) for _ in latest])
    times = _propagate_times(chain(len(latest)), np.array(latest), lasting, SPEED)
    assert (times <= latest).all() and (times[lasting] == np.array(latest)[lasting]).all()
    beside = np.concatenate([[-np.inf], times, [-np.inf]])
    reached = np.maximum(beside[:-2], beside[2:]) - LINK / SPEED
    assert (times[~lasting] <= reached[~lasting] + 1e-12).all()
    if lasting.any():
        assert np.isfinite(times).all()


def test_a_lasting_shape_is_never_carved() -> None:
    schedule = schedule_of(*[[ball((0, 0, 0), 0.5)]] * 4)
    assert are_all(schedule.appearing, -np.inf) and are_all(schedule.vanishing, np.inf)


def test_a_vanishing_part_is_gone_in_time_and_its_last_vertices_are_next_to_what_stays() -> None:
    """A ball with a smaller one on it, which the third keyframe lacks."""
    both, one = [ball((0, 0, 0), 0.5), ball((0, 0, 0.65), 0.17)], [ball((0, 0, 0), 0.5)]
    schedule = schedule_of(both, both, one, one, one)
    for keyframe, vanishing in zip(schedule.keyframes[:2], schedule.vanishing, strict=False):
        height, goes = keyframe.vertices[:, 2], np.isfinite(vanishing.times)
        assert goes[height > 0.6].all() and not goes[height < 0.4].any()
        assert (vanishing.times[goes] <= 0.25).all() and (vanishing.cause[goes] == 2).all()
        # The farther from what stays along the surface, the earlier.
        assert vanishing.times[height > 0.8].max() < vanishing.times[goes & (height < 0.55)].max() - 0.2 / SPEED
        # The centre of the smaller ball vanishes with its surface.
        assert vanishing.depth[goes].max() == pytest.approx(0.17, abs=2 * STEP)
        assert not vanishing.carving_excess(0.25)[~goes].max() > 0


def test_a_pit_is_carved_in_time_from_the_surface_down() -> None:
    body, pit = [ball((0, 0, 0), 0.5)], [ball((0, 0, 0.5), 0.2)]
    schedule = schedule_of(body, body, body, body, pits=[[], [], pit, pit])
    keyframe, vanishing = schedule.keyframes[1], schedule.vanishing[1]
    lid = np.linalg.norm(keyframe.vertices - [0, 0, 0.5], axis=1) < 0.1
    assert (vanishing.times[lid] <= 1 / 3).all() and (vanishing.cause[lid] == 2).all()
    assert vanishing.depth[lid].max() == pytest.approx(0.2, abs=2 * STEP)
    # All of it is carved by then except next to the rim, where the surface has moved, and nothing of what stays.
    solid = schedule.grid.inside(2)
    assert not (solid & ~vanishing.remaining).any()
    assert schedule.grid.nearest(2)[1][vanishing.remaining & ~solid].max() < SETTINGS.correspondence_distance + STEP
    assert (schedule.vanishing[3].remaining == schedule.grid.inside(3)).all() and are_all(schedule.appearing, -np.inf)


def test_filling_a_pit_is_carving_it_in_reverse_time() -> None:
    body, pit = [ball((0, 0, 0), 0.5)], [ball((0, 0, 0.5), 0.2)]
    opens = schedule_of(body, body, body, body, pits=[[], [], pit, pit])
    closes = schedule_of(body, body, body, body, pits=[pit, pit, [], []])
    for vanishing, appearing in zip(opens.vanishing, reversed(closes.appearing), strict=True):
        np.testing.assert_allclose(appearing.times, 1 - vanishing.times)
        np.testing.assert_array_equal(appearing.depth, vanishing.depth)
        np.testing.assert_array_equal(appearing.remaining, vanishing.remaining)


def test_a_core_that_vanishes_later_vanishes_with_the_part_around_it() -> None:
    """A core that is to vanish is inside a part that vanishes first: by then it is gone too."""
    thick, core, last = (
        [ball((0, 0, 0), 0.3), ball((0, 0, 0.5), 0.3)],
        [ball((0, 0, 0), 0.3), ball((0, 0, 0.4), 0.15)],
        [ball((0, 0, 0), 0.3)],
    )
    schedule = schedule_of(thick, thick, core, last, last)
    for number in (0, 1, 2):
        vanishing = schedule.vanishing[number]
        assert vanishing.remaining.sum() >= schedule.grid.inside(4).sum()
    top = schedule.grid.positions(schedule.vanishing[2].remaining)[:, 2].max()
    assert top < 0.55 and schedule.grid.positions(schedule.vanishing[1].remaining)[:, 2].max() < 0.62


def test_floaters_exist_at_the_ends_only() -> None:
    shape, lone = ball((0, 0, 0), 0.4), ball((0, 0, 0.8), 0.15)
    schedule = schedule_of(*[[shape, lone]] * 4)
    for keyframe, vanishing in zip(schedule.keyframes[1:-1], schedule.vanishing[1:-1], strict=True):
        np.testing.assert_array_equal(vanishing.times == -np.inf, keyframe.vertices[:, 2] > 0.5)
    assert np.isfinite(schedule.vanishing[0].times[schedule.keyframes[0].vertices[:, 2] > 0.5]).all()


def test_the_tracked_group_is_the_lasting_one_and_not_the_largest_at_one_keyframe() -> None:
    shape, guest = ball((-0.4, 0, 0), 0.3), ball((0.4, 0, 0), 0.4)
    schedule = schedule_of([shape], [shape], [shape, guest], [shape], [shape])
    vanishing = schedule.vanishing[2].times
    assert (vanishing[schedule.keyframes[2].vertices[:, 0] < -0.05] == np.inf).all()
    assert (vanishing[schedule.keyframes[2].vertices[:, 0] > 0.05] == -np.inf).all()


def test_shapes_without_overlap_have_an_arc_length_nevertheless() -> None:
    schedule = schedule_of([ball((-0.5, 0, 0), 0.3)], [ball((0.5, 0, 0), 0.3)])
    times, lengths = schedule.arc_length
    assert all(one < other for one, other in pairwise(times)) and lengths[-1] > 0


def test_the_arc_length_is_the_distance_that_a_surface_moves() -> None:
    schedule = schedule_of(*[[ball((0, 0, float(height)), 0.4)] for height in np.arange(5) * 0.03])
    assert schedule.arc_length[1][-1] == pytest.approx(4 * 0.03, rel=0.05)


def test_a_surface_that_moves_outwards_fast_is_not_carved() -> None:
    schedule = schedule_of(
        [ball((0, 0, 0), 0.3)], [ball((0, 0, 0), 0.3)], [ball((0, 0, 0), 0.5)], [ball((0, 0, 0), 0.5)]
    )
    assert all((vanishing.times == np.inf).all() for vanishing in schedule.vanishing)
