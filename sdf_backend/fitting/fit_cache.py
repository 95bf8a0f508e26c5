"""What a fit found of a source, and how it is kept by the content of all that it depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sdf_backend.content_cache import ContentCache
from sdf_backend.fitting.fit import Fit
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.observations import Observations


@dataclass(frozen=True)
class Encoded:
    """What a fit found of one source: all that is needed to make its shape at any resolution.

    code : (code_length,) float32; pose : canonical frame -> the source's frame
    deviations : (code_length, code_length) float32, how codes about as likely deviate; see `fit.Fit`
    surface : (m, 3) float64, the points of the source that were observed
    solid : they were observed with the distances about them
    refinement : (k, 2) float32, what is left over of the observations; see `refine.refine`
    confidence : 0 where another answer, of `rivals`, is as good, to 1 where there is no other
    rivals : what was found elsewhere that is nearly as good, best first
    """

    code: np.ndarray
    deviations: np.ndarray
    pose: Similarity
    residual: float
    explained: float
    steps: int
    surface: np.ndarray
    refinement: np.ndarray
    solid: bool = False
    confidence: float = 1.0
    rivals: tuple["Encoded", ...] = ()

    @classmethod
    def of(cls, fit: Fit, seen: Observations, refinement: np.ndarray) -> "Encoded":
        """What a fit to `seen` found, and what it left over."""
        assert fit.deviations is not None
        code, deviations = (tensor.detach().float().cpu().numpy() for tensor in (fit.code, fit.deviations))
        return cls(
            code, deviations, fit.pose, fit.residual, fit.explained, fit.steps, seen.surface, refinement, seen.solid
        )


def recall(cache: ContentCache | None, key: str) -> Encoded | None:
    """What is kept under `key`, if there is something."""
    arrays = cache.get(key) if cache else None
    if arrays is None:
        return None
    best, *rivals = (_restored(arrays, f"{number}.") for number in range(int(arrays["count"][0])))
    return replace(best, rivals=tuple(rivals))


def remember(cache: ContentCache | None, key: str, encoded: Encoded) -> None:
    """Keep it under `key`, where there is a cache."""
    if cache is None:
        return
    everything = [encoded, *encoded.rivals]
    arrays = {"count": np.array([len(everything)])}
    for number, one in enumerate(everything):
        arrays |= _arrays(one, f"{number}.")
    cache.put(key, arrays)


def _arrays(one: Encoded, prefix: str) -> dict[str, np.ndarray]:
    numbers = [one.pose.scale, one.residual, one.explained, one.steps, one.solid, one.confidence]
    arrays = {
        "code": one.code,
        "deviations": one.deviations,
        "rotation": one.pose.rotation,
        "translation": one.pose.translation,
        "numbers": np.array(numbers, dtype=np.float64),
        "surface": one.surface,
        "refinement": one.refinement,
    }
    return {prefix + name: array for name, array in arrays.items()}


def _restored(arrays: Mapping[str, np.ndarray], prefix: str) -> Encoded:
    scale, residual, explained, steps, solid, confidence = arrays[f"{prefix}numbers"].tolist()
    pose = Similarity(scale, arrays[f"{prefix}rotation"], arrays[f"{prefix}translation"])
    code, deviations, surface, refinement = (
        arrays[prefix + name] for name in ("code", "deviations", "surface", "refinement")
    )
    return Encoded(
        code, deviations, pose, residual, explained, int(steps), surface, refinement, bool(solid), confidence
    )
