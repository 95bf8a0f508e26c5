"""Which of several models explains an input best, and whether any does.

Each model is fitted for a few steps from what its encoder proposes, or, without one, from all starts of a pose search.
The models that come near are fitted as far as a pose search goes. What counts is `pose_score`, and how likely
the model's code is: the share of the input that a fit explains says little, since a sofa may explain nearly all of a
table, but much of the sofa is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.fitting.fit import FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import FitSettings
from sdf_backend.fitting.pose_ranking import pose_score
from sdf_backend.fitting.pose_search import PoseSearchSettings, first_fit, search_poses
from sdf_backend.geometry.similarity import Similarity, axis_rotation, front_beside
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations
from sdf_backend.progress import PhaseProgress
from sdf_backend.settings import Pose, TaskSettings
from sdf_backend.wire.messages import AMBIGUOUS_CONFIDENCE


@dataclass(frozen=True)
class ModelChoiceSettings:
    """Which models are fitted, and when a choice is doubted; chosen on drawn pieces, see docs/experiments.md."""

    near: float = 1.6
    """models are fitted further whose first fit is at most so many times as far from the input as the best one"""
    fitted: int = 3
    """at most so many of these"""
    prior: float = 1e-4
    """weight of a code's squared Mahalanobis distance from the mean of its model's training codes, as in a fit: what a
    model stretches to explain is likely of another category"""
    explained: float = 0.9
    """share of the surface points below which no model is said to know the input"""
    unlikely: float = 55.0
    """squared Mahalanobis distance of a code above which no model is said to know the input: of 32 drawn pieces that
    the models know none is above, of twelve that they do not know four"""
    poor: float = 0.0185
    """score, of one input, above which no model is said to know it: of the 32 drawn pieces none is above"""
    search: PoseSearchSettings = field(default=PoseSearchSettings(proposals_explained=0.0))
    """without the search that an encoder saves: of a model of another category it would find nothing either"""


@dataclass(frozen=True)
class ModelChoice:
    """The model that explains an input best.

    name : of the model
    confidence : 1 where no other model comes near, to 0 where one explains the input as well
    note : a sentence for the user where the choice is in doubt; empty otherwise
    """

    name: str
    confidence: float
    note: str


@dataclass(frozen=True)
class _Judged:
    """A model's fits: `pose_score` relative to the inputs' size, with the prior, and the worst of what is doubted."""

    name: str
    score: float
    explained: float
    unlikely: float


# A fit of a model to an input: its code, (code_length,), and pose.
Fitting = Callable[[Model, Observations, TaskSettings, ModelChoiceSettings], tuple[Tensor, Similarity]]


def choose_model(
    models: Mapping[str, Model],
    inputs: Sequence[Observations],
    settings: TaskSettings,
    progress: PhaseProgress,
    choice: ModelChoiceSettings = ModelChoiceSettings(),
) -> ModelChoice:
    """The one of several models that explains all inputs best.

    Parameters
    ----------
    models : at least one, by name
    inputs : at least one, each in its own frame

    Raises
    ------
    InputError : nearly all points of an input coincide
    """
    if len(models) == 1:
        return ModelChoice(next(iter(models)), 1.0, "")
    first, judged = [], []
    for number, (name, model) in enumerate(models.items()):
        progress(number / len(models) / 2)
        first.append(_judge(name, model, inputs, settings, choice, _first_fit))
    near = _near(first, choice)
    for number, name in enumerate(near):
        progress((1 + number / len(near)) / 2)
        judged.append(_judge(name, models[name], inputs, settings, choice, _coarse_fit))
    best, *others = sorted(judged, key=lambda one: one.score)
    confidence = 1 - best.score / others[0].score if others else 1.0
    note = _note(best, others[0].name if others else "", confidence, len(inputs), settings.pose, choice)
    return ModelChoice(best.name, confidence, note)


def _note(best: _Judged, second: str, confidence: float, inputs: int, pose: Pose, choice: ModelChoiceSettings) -> str:
    doubts = []
    if best.explained < choice.explained or best.score > choice.poor * inputs:
        turned = "its up axis may be another, or " if pose in (Pose.UPRIGHT, Pose.ALIGNED) else ""
        doubts.append(
            f"No model knows this well, though {best.name} comes nearest: {turned}it may be of a category that there "
            "is no model for."
        )
    elif best.unlikely > choice.unlikely:
        doubts.append(
            f"{best.name} explains this best, but as a shape unlike those that it was learned from. It may be of a "
            "category that there is no model for."
        )
    if confidence < AMBIGUOUS_CONFIDENCE:
        doubts.append(f"{second} explains this nearly as well as {best.name}; choose that model to compare.")
    return " ".join(doubts)


def _near(first: Sequence[_Judged], choice: ModelChoiceSettings) -> list[str]:
    """Names of the models whose first fits come near the inputs, the nearest first."""
    order = sorted(first, key=lambda one: one.score)
    return [one.name for one in order if one.score <= choice.near * order[0].score][: choice.fitted]


def _judge(
    name: str,
    model: Model,
    inputs: Sequence[Observations],
    settings: TaskSettings,
    choice: ModelChoiceSettings,
    fit: Fitting,
) -> _Judged:
    """How well fits of a model explain all inputs."""
    scores, explained, unlikely = [], [], []
    for observed in inputs:
        code, pose = fit(model, observed, settings, choice)
        unlikely.append(model.unlikeliness(code))
        scores.append(pose_score(model, code, pose, observed, unit=_size(observed)) + choice.prior * unlikely[-1])
        explained.append(assess_surface(model, code, observed.surface, pose, torch.bfloat16)[1])
    return _Judged(name, sum(scores), min(explained), max(unlikely))


def _first_fit(
    model: Model, observed: Observations, settings: TaskSettings, choice: ModelChoiceSettings
) -> tuple[Tensor, Similarity]:
    """A code, (code_length,), and a pose after a few steps."""
    return first_fit(model, observed, settings.pose, _axes(model, settings), choice.search)


def _coarse_fit(
    model: Model, observed: Observations, settings: TaskSettings, choice: ModelChoiceSettings
) -> tuple[Tensor, Similarity]:
    """A code, (code_length,), and a pose that a pose search finds."""
    if settings.pose is not Pose.KNOWN:
        best = search_poses(model, observed, settings.pose, _axes(model, settings), choice.search)[0]
        return best.code, best.pose
    code, pose = _first_fit(model, observed, settings, choice)
    request = FitRequest(observed, pose, pose, codes=code[None])
    [fit] = fit_codes(model, [request], FitSettings((choice.search.coarse,), assessed=False), Pose.KNOWN)
    return fit.code, pose


def _size(observed: Observations) -> float:
    """Largest side of an input's bounding box."""
    return float(np.ptp(observed.surface, axis=0).max())


def _axes(model: Model, settings: TaskSettings) -> np.ndarray:
    """Rotates the input's axes to the model's, (3, 3)."""
    if settings.pose is Pose.KNOWN:
        return np.eye(3)
    return axis_rotation(settings.up, front_beside(settings.up, settings.front), model.card.front)
