"""The result of fitting one source."""

from dataclasses import dataclass

import numpy as np

from sdf_backend.fitting.fit import Fit
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.observations import Observations


@dataclass(frozen=True)
class Encoding:
    """The result of fitting one source: all that is needed to make its mesh at any resolution.

    code : (code_length,) float32
    covariance_root : (code_length, code_length) float32, of the code's posterior; see `Fit`
    pose : canonical frame -> the source's frame
    residual, explained, steps : see `Fit`
    surface : (m, 3) float64, the observed surface points, in the source's frame
    refinement : (k, 2) float32, rows of the residual field; see `sdf_backend.shapes.residual_field`
    noise : of the observed points, see `Observations`
    solid : whether signed distances about the whole surface were observed
    confidence : 1 where no alternative comes near, to 0 where one explains the source as well
    notes : see `Observations`
    alternatives : other local optima, at other poses or with another shape, that are nearly as good; best first
    """

    code: np.ndarray
    covariance_root: np.ndarray
    pose: Similarity
    residual: float
    explained: float
    steps: int
    surface: np.ndarray
    refinement: np.ndarray
    noise: float | None = None
    solid: bool = False
    confidence: float = 1.0
    notes: tuple[str, ...] = ()
    alternatives: tuple["Encoding", ...] = ()

    @classmethod
    def from_fit(cls, fit: Fit, observed: Observations, refinement: np.ndarray) -> "Encoding":
        """The encoding of an assessed fit and its residual field."""
        assert fit.covariance_root is not None
        code, covariance_root = (tensor.detach().float().cpu().numpy() for tensor in (fit.code, fit.covariance_root))
        return cls(
            code,
            covariance_root,
            fit.pose,
            fit.residual,
            fit.explained,
            fit.steps,
            observed.surface,
            refinement,
            observed.noise,
            observed.solid,
            notes=observed.notes,
        )
