"""Vertex colours that show what was observed, and how certain a surface is; as the materials of the add-on do."""

import numpy as np

OBSERVED_COLOR, COMPLETED_COLOR = (70, 130, 200), (240, 140, 50)
# From certain to uncertain: blue, yellow, red.
HEAT = np.array([(50, 100, 200), (240, 220, 80), (200, 40, 30)]) / 255
# The deviation, canonical units, that is shown in the last colour.
LARGEST_DEVIATION = 0.05


def observed_colors(observed: np.ndarray) -> np.ndarray:
    """Vertex colours, (n, 3) in 0..1, of weights, (n,) in 0..1: from orange, completed, to blue, observed."""
    completed, blue = np.array(COMPLETED_COLOR), np.array(OBSERVED_COLOR)
    weight = np.clip(observed, 0, 1)[:, None]
    return (completed + (blue - completed) * weight) / 255


def deviation_colors(deviation: np.ndarray, unit: float) -> np.ndarray:
    """Vertex colours, (n, 3) in 0..1, of standard deviations, (n,): a heat map from blue over yellow to red.

    unit : the length of a canonical unit in those of the deviations
    """
    share = deviation / (LARGEST_DEVIATION * unit)
    return np.stack([np.interp(share, np.linspace(0, 1, len(HEAT)), channel) for channel in HEAT.T], axis=1)
