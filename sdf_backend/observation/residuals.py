"""The residual of an interval observation: how far a decoded distance lies outside of its interval."""

from torch import Tensor

# An observation counts as explained where its residual is below this, canonical units. This defines the share
# "explained" that results report; it is no tuned value.
EXPLAINED_DISTANCE = 0.02


def interval_residuals(distance: Tensor, low: Tensor, high: Tensor, clamp: float) -> Tensor:
    """Signed distance of clamped values from their observed intervals; zero inside.

    Parameters
    ----------
    distance : decoded signed distances, any shape, canonical units
    low, high : bounds of the intervals, of the same shape; infinite where open
    clamp : distances beyond it were not learnt, so a bound beyond it asks only that the distance be beyond it too

    Returns
    -------
    Tensor of the shape of `distance`, canonical units; positive where the distance is too large.
    """
    clamped = distance.clamp(-clamp, clamp)
    return clamped - clamped.clamp(low.clamp(-clamp, clamp), high.clamp(-clamp, clamp))
