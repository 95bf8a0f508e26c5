"""Where an input stands: many starts in one batch, fitted coarsely with their codes, ranked from both sides.

What makes it work (measured): residuals in the input's units, so that a small model cannot buy a small residual; a
first estimate of the scale from how far what was seen reaches, and a real prior about it; starts that face front and
back both. The few best answers that differ are fitted once more and ranked by how well they explain the input, and by
how much surface they show where the input has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.extract import EmptySurfaceError, ExtractSettings, extract_surface
from sdf_backend.fit import FitSettings, Stage, assess_surface, fit_codes
from sdf_backend.model_store import Model
from sdf_backend.observations import Observations
from sdf_backend.pose import Freedom, Similarity, axis_vector
from sdf_backend.viewpoint import hidden

GLANCE, COARSE, CLOSER = Stage(6, 400, 1e-4), Stage(14, 1_000, 1e-4), Stage(6, 3_000, 1e-4)


@dataclass(frozen=True)
class PoseSearchSettings:
    """How a pose is searched for; chosen on the 16 tuning families, see training/tuning_families.txt."""

    turns: int = 12
    """starts about the up axis, where the turn about it is not known"""
    tilts: int = 120
    """starts over all rotations, where nothing is known"""
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
    seed: int = 0
    """which observations are drawn"""


@dataclass(frozen=True)
class Placement:
    """An answer: where the model would stand, canonical -> observed frame, and how much speaks against it.

    score : canonical units, smaller is better: the mean distance of the input from the model, and a share of that of
    the model from the input
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


# The radius of the whole, of that of what was seen; measured on scans from one side.
UNSEEN_SHARE = 1.02
# Left out at either end where an extent is measured, percent: a few points that do not belong to the object.
STRAY_PERCENT = 0.05
# Training shapes that say how far a model's shapes reach, and cells an axis of their meshes.
MEASURED, MEASURED_CELLS = 4, 48
_RADII: WeakKeyDictionary[Model, float] = WeakKeyDictionary()
# Cells an axis of the meshes that are compared; how far apart two answers are that differ, canonical units.
CELLS, APART = 24, 0.04
# How much the model's surface where nothing was seen counts, next to the input's distance; and up to which distance.
UNSEEN_WEIGHT, FARTHEST = 0.02, 0.2


def search_poses(
    model: Model,
    observed: Observations,
    freedom: Freedom,
    axes: np.ndarray,
    settings: PoseSearchSettings = PoseSearchSettings(),
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Placement]:
    """Placements that differ, best first, at most `settings.rivals`.

    `axes`, (3, 3), turns the input's up (and front, where that is given) to the canonical ones. Raises `InputError`
    where the pose is known, since then there is nothing to search.
    """
    if freedom is Freedom.NONE:
        raise InputError("the pose is known; there is nothing to search for")
    radius = model_radius(model)
    estimates = [_first_estimate(observed, (turn @ axes).T, radius) for turn in _turns(freedom, settings)]
    starts = [_Start(estimate, estimate, model.mean) for estimate in estimates]

    def fitted(starts: list[_Start], stage: Stage, done: float, share: float) -> list[_Start]:
        fits = fit_codes(
            model,
            [observed] * len(starts),
            FitSettings((stage,), seed=settings.seed, deviations=False),
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
    return sorted(found, key=lambda one: one.score)


def model_radius(model: Model) -> float:
    """How far a model's shapes reach from the middles of their boxes, canonical: the farthest of a few training shapes.

    About 0.97 where they were normalised to the unit sphere, as prepared ones are. Not the mean: coarse surfaces lack
    thin tips, of wings say, and seem to reach less far. Found once a model.
    """
    if model not in _RADII:
        rows = np.linspace(0, len(model.codes) - 1, min(len(model.codes), MEASURED)).round().astype(int)
        surfaces = [_coarse_surface(model, code, MEASURED_CELLS) for code in model.codes[rows]]
        _RADII[model] = max(_extent(surface)[1] for surface in surfaces) or 1.0
    return _RADII[model]


def _extent(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The middle of the box about points, (n, 3), and the farthest one's distance from it; strays left out."""
    centre = np.percentile(points, [STRAY_PERCENT, 100 - STRAY_PERCENT], axis=0).mean(axis=0)
    return centre, float(np.percentile(np.linalg.norm(points - centre, axis=1), 100 - STRAY_PERCENT))


def _first_estimate(observed: Observations, turn: np.ndarray, radius: float) -> Similarity:
    """The pose, with `turn` canonical -> observed, in which a model of that radius reaches as far as what was seen.

    Canonical shapes have the middle of their box at the origin.
    """
    centre, seen = _extent(observed.surface @ turn)
    return Similarity(seen / radius * UNSEEN_SHARE, turn, turn @ centre)


def _turns(freedom: Freedom, settings: PoseSearchSettings) -> list[np.ndarray]:
    """Rotations, (3, 3) each, of the input's axes to start from."""
    if freedom is Freedom.ALIGNED:
        return [np.eye(3)]
    if freedom is Freedom.UPRIGHT:
        up = axis_vector("+y")
        angles = np.arange(settings.turns) * 2 * np.pi / settings.turns
        return [Rotation.from_rotvec(angle * up).as_matrix() for angle in angles]
    rotations = Rotation.random(settings.tilts, rng=np.random.default_rng(settings.seed))
    return list(rotations.as_matrix())


def different(model: Model, answers: Sequence[tuple[torch.Tensor, Similarity]], most: int) -> list[int]:
    """Numbers of the first of the answers, code and pose each, and of those whose shape lies apart from all before.

    At most `most`. Turning a round table gives another pose and the same answer.
    """
    chosen, trees = [], []
    for number, (code, pose) in enumerate(answers):
        surface = pose.apply(_coarse_surface(model, code))
        if len(chosen) < most and all(_distance(surface, tree) > APART * pose.scale for tree in trees):
            chosen.append(number)
            trees.append(KDTree(surface))
    return chosen


def _coarse_surface(model: Model, code: torch.Tensor, cells: int = CELLS) -> np.ndarray:
    """Points on a code's surface, (n, 3), canonical; the origin alone where it has none."""
    decoder = model.folded(torch.bfloat16)
    try:
        mesh = extract_surface(
            lambda points: decoder.distances(code[None], points[None])[0],
            ExtractSettings(resolution=cells, clamp=model.card.clamp),
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
    seen = pose.inverse().apply(observed.surface)
    shown = _coarse_surface(model, code)
    if observed.sensor is not None:
        # What lies behind could not be seen.
        shown = shown[~hidden(shown, seen, pose.inverse().apply(observed.sensor[None])[0])]
    axis = model.decoder.settings.mirror_axis
    if axis is not None:
        seen = np.concatenate([seen, seen * np.where(np.arange(3) == axis, -1, 1)])
    unseen = float(np.minimum(KDTree(seen).query(shown)[0], FARTHEST).mean()) if len(shown) else 0.0
    return (unexplained + UNSEEN_WEIGHT * unseen) * pose.scale / unit
