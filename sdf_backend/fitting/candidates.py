"""Candidates: other encodings that explain a source about as well as the best one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sdf_backend.fitting.assessment import assess_surface
from sdf_backend.fitting.encoding import Encoding
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import observe_surface_points
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.residual_field import fit_residual_field


@dataclass(frozen=True)
class BacktrackingSettings:
    """What is tried where a candidate has no surface."""

    shares: tuple[float, ...] = (1.0, 0.5, 0.25)
    """shares of the move from the best code to the candidate's, tried in turn until there is a surface; halved, as line
    searches do"""


def draw_candidates(model: Model, best: Encoding, settings: TaskSettings) -> Iterator[Encoding]:
    """The best encoding, then its alternatives, then codes drawn from the posterior about it: `settings.candidates`.

    Lazily, since each draw takes as long as a refinement, and a task may be cancelled between two.
    """
    found = [best, *best.alternatives][: settings.candidates]
    yield from found
    generator = torch.Generator().manual_seed(settings.seed)
    noise = torch.randn(settings.candidates - len(found), len(best.code), generator=generator).numpy()
    for code in best.code + noise @ best.covariance_root.T:
        yield encoding_of_code(model, best, code, settings)


def backtrack(
    model: Model,
    best: Encoding,
    candidate: Encoding,
    settings: TaskSettings,
    backtracking: BacktrackingSettings = BacktrackingSettings(),
) -> Iterator[Encoding]:
    """The candidate, then encodings ever nearer to the best one; nothing where the candidate is the best one."""
    for share in backtracking.shares if candidate is not best else ():
        code = best.code + share * (candidate.code - best.code)
        yield candidate if share == 1 else encoding_of_code(model, best, code, settings)


def encoding_of_code(model: Model, best: Encoding, code: np.ndarray, settings: TaskSettings) -> Encoding:
    """An encoding with another code, (code_length,), at the pose of `best`: assessed, and refined if asked."""
    latent = torch.as_tensor(code, dtype=torch.float32, device=model.device)
    residual, explained = assess_surface(model, latent, best.surface, best.pose, torch.float32)
    observed = replace(observe_surface_points(best.surface), solid=best.solid, noise=best.noise)
    refinement = fit_residual_field(model, latent, observed, best.pose) if settings.refine else best.refinement[:0]
    return replace(best, code=code, residual=residual, explained=explained, refinement=refinement)
