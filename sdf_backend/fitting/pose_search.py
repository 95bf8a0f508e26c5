"""Pose search: many pose hypotheses in one batch, fitted coarsely together with their codes, then ranked.

What makes it work (measured):

- residuals in the input's units, so that a model cannot shrink its residuals by shrinking itself;
- a first estimate of the scale from the extent of the observed points, and a prior about it;
- starts that face both ways and stand at two distances, since in a single view the centre of the observed points is
  nearer than the object's, and of what ends at a straight cut starts that are longer than what is left.

Where the model has an encoder, the few poses that it proposes are tried first, and all starts only where none of those
explains the input.

The best few hypotheses that differ are fitted further and ranked by `pose_score`: how well they explain the input, and
how much surface they show where the input has none although the camera would have seen it.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.fitting.fit import FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.fitting.pose_ranking import (
    RankingSettings,
    pose_score,
    suppress_similar_poses,
    suppress_similar_shapes,
)
from sdf_backend.fitting.proposals import Proposal, propose
from sdf_backend.geometry.similarity import Similarity, axis_vector
from sdf_backend.model.store import Model
from sdf_backend.observation.cuts import Cut
from sdf_backend.observation.observations import Observations
from sdf_backend.progress import PhaseProgress, silent
from sdf_backend.settings import Pose


@dataclass(frozen=True)
class PoseSearchSettings:
    """How a pose is searched for; chosen on the 16 tuning families, see training/tuning_families.txt."""

    turns: int = 12
    """rotations about the up axis to start from, where up is given"""
    rotations: int = 120
    """rotations to start from, for a free pose"""
    depths: tuple[float, ...] = (0.0, 0.25)
    """offsets of the starts along the line of sight, where that is known, canonical units: seen from the side, an
    aircraft's centre lies a quarter behind that of the observed points, seen from above it does not. Of the 23 of 184
    scans of training aircraft whose first estimate is most wrong, this and `depth_sigma` made 20 right instead of 8"""
    cut_lengths: tuple[float, ...] = (1.3, 2.0)
    """lengths of further starts across a straight cut, in multiples of what is left: of a half the whole is twice as
    long. Not tuned"""
    first: Stage = field(default=Stage(6, 400, 1e-4))
    """fit of each start, where there are more than `promising`"""
    proposal_rotations: int = 480
    """rotations that a model's encoder is shown, where it has one, for a free pose"""
    proposals_turned: int = 12
    """the best of these, turned as it says, are shown to it once more"""
    proposals: int = 6
    """the best of these are starts"""
    proposal_difference: float = 30.0
    """degrees by which these differ"""
    proposal_odds: float = 3.0
    """log odds by which they may be less likely to be right than the first; without a limit one of four tuning chairs
    was taken the wrong way round. Drawn chairs were used for this and for the numbers of rotations that are shown"""
    proposals_explained: float = 0.9
    """share of the surface points that the best of these must explain; otherwise all starts are tried"""
    promising: int = 8
    """starts that are kept after that stage"""
    coarse: Stage = field(default=Stage(14, 1_000, 1e-4))
    """fit of these"""
    compared: int = 6
    """the best of these that go through non-maximum suppression"""
    kept: int = 3
    """maximum number of hypotheses that are returned"""
    final: Stage = field(default=Stage(6, 3_000, 1e-4))
    """fit of these"""
    reach_share: float = 0.98
    """extent of the points of one view as a share of the whole object's; on scans of training shapes it is 0.96 to
    0.99, by category"""
    outlier_percent: float = 0.05
    """points left out at either end where an extent is measured, percent: a few points that are not the object's"""
    ranking: RankingSettings = field(default=RankingSettings())
    """how the results are compared"""


@dataclass(frozen=True)
class PoseHypothesis:
    """A candidate pose of the object, with its score.

    pose : canonical frame -> observed frame
    score : see `pose_score`; smaller is better
    expected : estimate from the extent and centre of the observed points, the mean of a fit's pose prior
    code : (code_length,), fitted with the pose
    """

    pose: Similarity
    score: float
    expected: Similarity
    code: torch.Tensor


@dataclass(frozen=True)
class _Start:
    """A pose in the course of the search, its first estimate, and the codes, (k, code_length), to begin at."""

    pose: Similarity
    expected: Similarity
    codes: torch.Tensor


def search_poses(
    model: Model,
    observed: Observations,
    freedom: Pose,
    axes: np.ndarray,
    settings: PoseSearchSettings = PoseSearchSettings(),
    progress: PhaseProgress = silent,
) -> list[PoseHypothesis]:
    """Search for the poses at which the model explains the observations.

    Parameters
    ----------
    axes : (3, 3), rotates the input's up (and front, where that is given) to the canonical axes

    Returns
    -------
    Hypotheses that differ, best first, at most `settings.kept`.

    Raises
    ------
    InputError : the pose is known, or nearly all points coincide
    """
    if freedom is Pose.KNOWN:
        raise InputError("the pose is known; there is nothing to search for")
    if _has_proposals(model, observed):
        proposed = _proposed_starts(model, observed, freedom, axes, settings)
        found = _refined(model, observed, freedom, proposed, settings, progress)
        if _explained(model, observed, found[0]) >= settings.proposals_explained:
            return _ranked(found, settings)
    starts = _starts(model, observed, freedom, axes, settings)
    if len(starts) > settings.promising:
        fitted = _fit_and_sort(model, observed, freedom, starts, settings.first, lambda share: progress(0.3 * share))
        starts = fitted[: settings.promising]
    found = _refined(model, observed, freedom, starts, settings, lambda share: progress(0.3 + 0.7 * share))
    return _ranked(found, settings)


def first_fit(
    model: Model,
    observed: Observations,
    freedom: Pose,
    axes: np.ndarray,
    settings: PoseSearchSettings = PoseSearchSettings(),
) -> tuple[torch.Tensor, Similarity]:
    """The best code, (code_length,), and pose after the first stage alone, of the encoder's proposals where it has any.

    See `search_poses`; the pose may also be known.
    """
    if freedom is not Pose.KNOWN:
        starts = _first_starts(model, observed, freedom, axes, settings)
    else:
        identity = Similarity.identity()
        proposed = [] if model.encoder is None else propose(model, observed.surface, [np.eye(3)], freedom)
        starts = [_Start(identity, identity, proposed[0].codes if proposed else model.mean[None])]
    best = _fit_and_sort(model, observed, freedom, starts, settings.first, silent)[0]
    return best.codes[0], best.pose


def _has_proposals(model: Model, observed: Observations) -> bool:
    """Whether an encoder is asked; across a cut there are starts of their own."""
    return model.encoder is not None and observed.cut is None


def _first_starts(
    model: Model, observed: Observations, freedom: Pose, axes: np.ndarray, settings: PoseSearchSettings
) -> list[_Start]:
    find = _proposed_starts if _has_proposals(model, observed) else _starts
    return find(model, observed, freedom, axes, settings)


def _refined(
    model: Model,
    observed: Observations,
    freedom: Pose,
    starts: list[_Start],
    settings: PoseSearchSettings,
    progress: PhaseProgress,
) -> list[PoseHypothesis]:
    """The best of the starts that differ, fitted further and scored."""
    coarse = _fit_and_sort(model, observed, freedom, starts, settings.coarse, lambda share: progress(0.7 * share))
    likely = coarse[: settings.compared]
    posed_codes = [(start.codes[0], start.pose) for start in likely]
    distinct = suppress_similar_shapes(model, posed_codes, settings.kept, settings.ranking)
    chosen = [likely[index] for index in distinct]
    final = _fit_and_sort(model, observed, freedom, chosen, settings.final, lambda share: progress(0.7 + 0.3 * share))
    unit = final[0].expected.scale
    return [
        PoseHypothesis(
            start.pose,
            pose_score(model, start.codes[0], start.pose, observed, unit, settings.ranking),
            start.expected,
            start.codes[0],
        )
        for start in final
    ]


def _ranked(found: list[PoseHypothesis], settings: PoseSearchSettings) -> list[PoseHypothesis]:
    """The hypotheses whose poses differ, best first."""
    found = sorted(found, key=lambda hypothesis: hypothesis.score)
    return [found[index] for index in suppress_similar_poses([one.pose for one in found], settings.ranking)]


def _explained(model: Model, observed: Observations, hypothesis: PoseHypothesis) -> float:
    """The share of the observed surface points that a hypothesis explains."""
    return assess_surface(model, hypothesis.code, observed.surface, hypothesis.pose, torch.bfloat16)[1]


def _proposed_starts(
    model: Model, observed: Observations, freedom: Pose, axes: np.ndarray, settings: PoseSearchSettings
) -> list[_Start]:
    """The starts that the model's encoder takes for the most likely, of orientations that differ."""
    rotations = [(rotation @ axes).T for rotation in _start_rotations(freedom, settings.proposal_rotations, settings)]
    # Once more from where the first proposals lead, since the encoder sees best what is nearly right.
    for count in (settings.proposals_turned, settings.proposals):
        proposals = propose(model, observed.surface, rotations, freedom)
        chosen = _distinct(sorted(proposals, key=lambda one: -one.right), count, settings)
        rotations = [one.pose.rotation for one in chosen]
    likely = [one for one in chosen if one.right > chosen[0].right - settings.proposal_odds]
    reach = model.card.reach * settings.reach_share
    # What is expected stays the estimate by the extent: sizes that the encoder proposes are some hundredths too large.
    return [
        _Start(one.pose, _first_estimate(observed, one.pose.rotation, reach, settings.outlier_percent), one.codes)
        for one in likely
    ]


def _distinct(proposals: list[Proposal], count: int, settings: PoseSearchSettings) -> list[Proposal]:
    """The first `count` proposals whose orientation differs from those of all before."""
    chosen: list[Proposal] = []
    for proposal in proposals:
        if len(chosen) == count:
            break
        turns = [Rotation.from_matrix(proposal.pose.rotation @ other.pose.rotation.T).magnitude() for other in chosen]
        if all(turn > np.radians(settings.proposal_difference) for turn in turns):
            chosen.append(proposal)
    return chosen


def _starts(
    model: Model, observed: Observations, freedom: Pose, axes: np.ndarray, settings: PoseSearchSettings
) -> list[_Start]:
    """First estimates of the pose, all with the mean code."""
    rotations = [(rotation @ axes).T for rotation in _start_rotations(freedom, settings.rotations, settings)]
    reach = model.card.reach * settings.reach_share
    estimates = [_first_estimate(observed, rotation, reach, settings.outlier_percent) for rotation in rotations]
    if observed.sensor is not None:
        estimates = [
            _offset_in_depth(estimate, observed.sensor, depth) for depth in settings.depths for estimate in estimates
        ]
    if observed.cut is not None:
        estimates += [
            _extended_across(observed.cut, estimate, observed.surface, length, reach)
            for length in settings.cut_lengths
            for estimate in estimates[: len(rotations)]
        ]
    return [_Start(estimate, estimate, model.mean[None]) for estimate in estimates]


def _fit_and_sort(
    model: Model,
    observed: Observations,
    freedom: Pose,
    starts: list[_Start],
    stage: Stage,
    progress: PhaseProgress,
) -> list[_Start]:
    """The starts after one stage of a fit, the lowest cost first."""
    requests = [FitRequest(observed, start.pose, start.expected, codes=start.codes) for start in starts]
    fits = fit_codes(model, requests, FitSettings((stage,), assessed=False), freedom, progress)
    # Costs are in units of each start's own scale; all starts of a search observe the same object.
    costs = [fit.cost * start.pose.scale for fit, start in zip(fits, starts, strict=True)]
    order = np.argsort(costs, kind="stable")
    return [_Start(fits[index].pose, starts[index].expected, fits[index].code[None]) for index in order]


def _first_estimate(observed: Observations, rotation: np.ndarray, reach: float, outlier_percent: float) -> Similarity:
    """The pose with this rotation, canonical -> observed, that gives the observed points the extent `reach`.

    Canonical shapes have the centre of their bounding box at the origin. Raises `InputError` for points without extent.
    """
    centre, extent = _centre_and_extent(observed.surface @ rotation, outlier_percent)
    if extent == 0:
        raise InputError("nearly all points of the input coincide; give points of a whole surface")
    return Similarity(extent / reach, rotation, rotation @ centre)


def _centre_and_extent(points: np.ndarray, outlier_percent: float) -> tuple[np.ndarray, float]:
    """Centre of the bounding box of points, (n, 3), and their largest distance from it, as percentiles."""
    centre = np.percentile(points, [outlier_percent, 100 - outlier_percent], axis=0).mean(axis=0)
    return centre, float(np.percentile(np.linalg.norm(points - centre, axis=1), 100 - outlier_percent))


def _offset_in_depth(pose: Similarity, sensor: np.ndarray, depth: float) -> Similarity:
    """The pose moved away from the sensor, (3,), by `depth` canonical units."""
    sight = pose.translation - sensor
    return replace(pose, translation=pose.translation + depth * pose.scale * sight / max(np.linalg.norm(sight), 1e-12))


def _extended_across(cut: Cut, pose: Similarity, surface: np.ndarray, length: float, reach: float) -> Similarity:
    """The pose of an object that is `length` times as long across a cut as what is left of it, (n, 3) points.

    What lies beyond the cut is taken to reach as far from the centre as what is left does.
    """
    left = cut.offset - float((surface @ cut.normal).min())
    centre = pose.translation + (length - 1) * left / 2 * cut.normal
    extent = float(np.linalg.norm(surface - centre, axis=1).max())
    return replace(pose, scale=extent / reach, translation=centre)


def _start_rotations(freedom: Pose, count: int, settings: PoseSearchSettings) -> list[np.ndarray]:
    """Rotations, (3, 3) each, of the input's axes to start from, `count` of them for a free pose."""
    if freedom is Pose.ALIGNED:
        return [np.eye(3)]
    if freedom is Pose.UPRIGHT:
        up = axis_vector("+y")
        angles = np.arange(settings.turns) * 2 * np.pi / settings.turns
        return [Rotation.from_rotvec(angle * up).as_matrix() for angle in angles]
    rotations = Rotation.random(count, rng=np.random.default_rng(0))
    return list(rotations.as_matrix())
