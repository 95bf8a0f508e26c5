"""What a fit found of a source, and how it is kept by the content of all that it depends on."""

from dataclasses import dataclass

import numpy as np

from sdf_backend.content_cache import ContentCache
from sdf_backend.fit import Fit
from sdf_backend.observations import Observations
from sdf_backend.pose import Similarity


@dataclass(frozen=True)
class Encoded:
    """What a fit found of one source: all that is needed to make its shape at any resolution.

    code : (code_length,) float32; pose : canonical frame -> the source's frame
    deviations : (code_length, code_length) float32, how codes about as likely deviate; see `fit.Fit`
    surface : (m, 3) float64, the points of the source that were observed
    refinement : (k, 2) float32, what is left over of the observations; see `refine.refine`
    """

    code: np.ndarray
    deviations: np.ndarray
    pose: Similarity
    residual: float
    explained: float
    steps: int
    surface: np.ndarray
    refinement: np.ndarray

    @classmethod
    def of(cls, fit: Fit, seen: Observations, refinement: np.ndarray) -> "Encoded":
        """What a fit to `seen` found, and what it left over."""
        assert fit.deviations is not None
        code, deviations = (tensor.detach().float().cpu().numpy() for tensor in (fit.code, fit.deviations))
        return cls(code, deviations, fit.pose, fit.residual, fit.explained, fit.steps, seen.surface, refinement)


def recall(cache: ContentCache | None, key: str) -> Encoded | None:
    """What is kept under `key`, if there is something."""
    arrays = cache.get(key) if cache else None
    if arrays is None:
        return None
    scale, residual, explained, steps = arrays["numbers"].tolist()
    pose = Similarity(scale, arrays["rotation"], arrays["translation"])
    code, deviations, surface, refinement = (arrays[name] for name in ("code", "deviations", "surface", "refinement"))
    return Encoded(code, deviations, pose, residual, explained, int(steps), surface, refinement)


def remember(cache: ContentCache | None, key: str, encoded: Encoded) -> None:
    """Keep it under `key`, where there is a cache."""
    if cache is None:
        return
    numbers = [encoded.pose.scale, encoded.residual, encoded.explained, encoded.steps]
    arrays = {
        "code": encoded.code,
        "deviations": encoded.deviations,
        "rotation": encoded.pose.rotation,
        "translation": encoded.pose.translation,
        "numbers": np.array(numbers, dtype=np.float64),
        "surface": encoded.surface,
        "refinement": encoded.refinement,
    }
    cache.put(key, arrays)
