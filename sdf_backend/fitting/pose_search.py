"""Where an input stands: many starts in one batch, fitted coarsely with their codes, ranked from both sides.

What makes it work (measured): residuals in the input's units, so that a small model cannot buy a small residual; a
first estimate of the scale from how far what was seen reaches, and a real prior about it; starts that face front and
back both, and at two distances, since of one view the middle of what is seen is nearer than the object's. The few best
answers that differ are fitted once more and ranked by how well they explain the input, and by how much surface they
show where the input has none and should have: of one view, all that the camera would have seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.fitting.fit import fit_codes
from sdf_backend.fitting.fit_settings import FitSettings, Stage
from sdf_backend.geometry.isosurface import EmptySurfaceError, ExtractSettings, extract_surface
from sdf_backend.geometry.similarity import Similarity, axis_vector
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.sensor_position import is_occluded
from sdf_backend.settings import Pose

GLANCE, COARSE, CLOSER = Stage(6, 400, 1e-4), Stage(14, 1_000, 1e-4), Stage(6, 3_000, 1e-4)


@dataclass(frozen=True)
class PoseSearchSettings:
    """How a pose is searched for; chosen on the 16 tuning families, see training/tuning_families.txt."""

    turns: int = 12
    """starts about the up axis, where the turn about it is not known"""
    tilts: int = 120
    """starts over all rotations, where nothing is known"""
    depths: tuple[float, ...] = (0.0, 0.25)
    """how much farther than what is seen all these are tried, along the line of sight where that is known, canonical
    units: seen from the side, an aircraft's middle lies a quarter behind that of what is seen, seen from above it does
    not"""
    glance: Stage = GLANCE
    """what each start gets, where there are more than `promising`"""
    promising: int = 8
    """how many go on after that"""
    coarse: Stage = COARSE
    """what these get"""
    closer: Stage = CLOSER
    """what the best few that differ get"""
    rivals: int = 3
    """the best few"""
    looked_at: int = 6
    """of how many of the best it is looked whether they differ"""


@dataclass(frozen=True)
class Placement:
    """An answer: where the model would stand, canonical -> observed frame, and how much speaks against it.

    score : canonical units, smaller is better: the mean distance of the input from the model, and a share of that of
    the model, as far as it could be seen, from the input
    """

    pose: Similarity
    score: float
    expected: Similarity
    """what the scale and the middle of the input had led to expect, about which a fit has its prior"""


@dataclass(frozen=True)
class _Start:
    """A pose on its way, what it was expected to be, and the code that goes with it."""

    pose: Similarity
    expected: Similarity
    code: torch.Tensor


# How far what is seen from one side reaches, of the whole: 0.96 to 0.99 on scans of training shapes, by category.
SEEN_SHARE = 0.98
# Left out at either end where an extent is measured, percent: a few points that do not belong to the object.
STRAY_PERCENT = 0.05
# Cells an axis of the meshes that are compared; how far apart two answers are that differ, canonical units.
CELLS, APART = 24, 0.04
# Poses are alike that are this near: degrees, share of the size, and canonical units.
ALIKE_TURN, ALIKE_SIZE, ALIKE_PLACE = 10.0, 0.1, 0.1
# How much the model's surface where nothing was seen counts, next to the input's distance, and up to which distance.
# From an unknown place much may be hidden.
UNSEEN_WEIGHT, UNSEEN_WEIGHT_BLIND, FARTHEST = 0.15, 0.02, 0.2


def search_poses(
    model: Model,
    observed: Observations,
    freedom: Pose,
    axes: np.ndarray,
    settings: PoseSearchSettings = PoseSearchSettings(),
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Placement]:
    """Placements that differ, best first, at most `settings.rivals`.

    `axes`, (3, 3), turns the input's up (and front, where that is given) to the canonical ones. Raises `InputError`
    where the pose is known, since then there is nothing to search.
    """
    if freedom is Pose.KNOWN:
        raise InputError("the pose is known; there is nothing to search for")
    turns = [(turn @ axes).T for turn in _turns(freedom, settings)]
    estimates = [_first_estimate(observed, turn, model.card.reach * SEEN_SHARE) for turn in turns]
    if observed.sensor is not None:
        estimates = [_behind(estimate, observed.sensor, depth) for depth in settings.depths for estimate in estimates]
    starts = [_Start(estimate, estimate, model.mean) for estimate in estimates]

    def fitted(starts: list[_Start], stage: Stage, done: float, share: float) -> list[_Start]:
        fits = fit_codes(
            model,
            [observed] * len(starts),
            FitSettings((stage,), described=False),
            [start.pose for start in starts],
            freedom,
            lambda part: progress(done + share * part),
            expected=[start.expected for start in starts],
        )
        # Costs are in units of each start's own scale; all starts of a search see the same object.
        order = np.argsort(
            [fit.cost * start.pose.scale for fit, start in zip(fits, starts, strict=True)], kind="stable"
        )
        return [_Start(fits[index].pose, starts[index].expected, fits[index].code) for index in order]

    if len(starts) > settings.promising:
        starts = fitted(starts, settings.glance, 0.0, 0.3)[: settings.promising]
    coarse = fitted(starts, settings.coarse, 0.3, 0.5)
    likely = coarse[: settings.looked_at]
    apart = different(model, [(start.code, start.pose) for start in likely], settings.rivals)
    closer = fitted([likely[number] for number in apart], settings.closer, 0.8, 0.2)
    unit = closer[0].expected.scale
    found = [
        Placement(start.pose, score(model, start.code, start.pose, observed, unit), start.expected) for start in closer
    ]
    found = sorted(found, key=lambda one: one.score)
    return [found[number] for number in elsewhere([one.pose for one in found])]


def _extent(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The middle of the box about points, (n, 3), and the farthest one's distance from it; strays left out."""
    centre = np.percentile(points, [STRAY_PERCENT, 100 - STRAY_PERCENT], axis=0).mean(axis=0)
    return centre, float(np.percentile(np.linalg.norm(points - centre, axis=1), 100 - STRAY_PERCENT))


def _first_estimate(observed: Observations, turn: np.ndarray, reach: float) -> Similarity:
    """The pose, with `turn` canonical -> observed, in which what was seen reaches that far, canonical units.

    Canonical shapes have the middle of their box at the origin. Raises `InputError` where it reaches nowhere.
    """
    centre, seen = _extent(observed.surface @ turn)
    if seen == 0:
        raise InputError("nearly all points of the input are in one place")
    return Similarity(seen / reach, turn, turn @ centre)


def _behind(pose: Similarity, sensor: np.ndarray, depth: float) -> Similarity:
    """A pose so much farther from the sensor, (3,), canonical units."""
    sight = pose.translation - sensor
    return replace(pose, translation=pose.translation + depth * pose.scale * sight / max(np.linalg.norm(sight), 1e-12))


def _turns(freedom: Pose, settings: PoseSearchSettings) -> list[np.ndarray]:
    """Rotations, (3, 3) each, of the input's axes to start from."""
    if freedom is Pose.ALIGNED:
        return [np.eye(3)]
    if freedom is Pose.UPRIGHT:
        up = axis_vector("+y")
        angles = np.arange(settings.turns) * 2 * np.pi / settings.turns
        return [Rotation.from_rotvec(angle * up).as_matrix() for angle in angles]
    rotations = Rotation.random(settings.tilts, rng=np.random.default_rng(0))
    return list(rotations.as_matrix())


def different(model: Model, answers: Sequence[tuple[torch.Tensor, Similarity]], most: int) -> list[int]:
    """Numbers of the first of the answers, code and pose each, and of those whose shape lies apart from all before.

    At most `most`. Turning a round table gives another pose and the same answer.
    """
    chosen: list[int] = []
    trees: list[KDTree] = []
    for number, (code, pose) in enumerate(answers):
        if len(chosen) == most:
            break
        surface = pose.apply(_coarse_surface(model, code))
        if all(_distance(surface, tree) > APART * pose.scale for tree in trees):
            chosen.append(number)
            trees.append(KDTree(surface))
    return chosen


def elsewhere(poses: Sequence[Similarity]) -> list[int]:
    """Numbers of the first of the poses and of those that are not alike to any before."""
    chosen: list[int] = []
    for number, pose in enumerate(poses):
        if not any(_alike(pose, poses[other]) for other in chosen):
            chosen.append(number)
    return chosen


def _alike(pose: Similarity, other: Similarity) -> bool:
    """Whether a fit would come to the same from either of two poses."""
    size, *rest = pose.inverse().compose(other).parameters()
    shift, turn = np.linalg.norm(rest[:3]), np.degrees(np.linalg.norm(rest[3:]))
    return bool(abs(size) < ALIKE_SIZE and shift < ALIKE_PLACE and turn < ALIKE_TURN)


def _coarse_surface(model: Model, code: torch.Tensor) -> np.ndarray:
    """Points on a code's surface, (n, 3), canonical; the origin alone where it has none."""
    decoder = model.folded(torch.bfloat16)
    try:
        mesh = extract_surface(
            lambda points: decoder.distances(code[None], points[None])[0],
            ExtractSettings(resolution=CELLS, clamp=model.card.clamp),
            model.device,
        )
    except EmptySurfaceError:
        return np.zeros((1, 3))
    return mesh.vertices


def _distance(points: np.ndarray, tree: KDTree) -> float:
    return float(np.mean(tree.query(points)[0]))


def score(model: Model, code: torch.Tensor, pose: Similarity, observed: Observations, unit: float) -> float:
    """How much speaks against a fit, from the input's side and from the model's; see `Placement`.

    unit : the scale that counts as one, the same for all fits that are compared
    """
    unexplained, _ = assess_surface(model, code, observed.surface, pose, torch.bfloat16)
    seen, shown = pose.inverse().apply(observed.surface), _coarse_surface(model, code)
    axis, weight = model.decoder.settings.mirror_axis, UNSEEN_WEIGHT_BLIND
    if observed.sensor is not None:
        # What lies behind could not be seen; all the rest was.
        shown = shown[~is_occluded(shown, seen, pose.inverse().apply(observed.sensor[None])[0])]
        weight = UNSEEN_WEIGHT
    elif axis is not None:
        seen = np.concatenate([seen, seen * np.where(np.arange(3) == axis, -1, 1)])
    unseen = float(np.minimum(KDTree(seen).query(shown)[0], FARTHEST).mean()) if len(shown) else 0.0
    return (unexplained + weight * unseen) * pose.scale / unit
