"""Summary statistics of an evaluation: means, medians and bootstrap confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.outcomes import ShapeOutcome
from training.evaluation.tasks import VariantKind


@dataclass(frozen=True)
class Summary:
    """Statistics over all outcomes. Field names are keys of the JSON report and of the model card.

    count, failed : number of outcomes, and how many of them failed; no mean and no median includes these
    nearer_than_scan : number of completions that are nearer to the ground truth than their scans; None without scans
    mean, median : of each measure
    interval : bootstrap confidence interval of each mean, 95 %; shapes are resampled, each with all of its variants
    variants : means of each variant, where there are several
    seed_deviation : standard deviation of the Chamfer distance over the seeds of one view, as a share of its mean,
        averaged over views
    """

    count: int
    failed: int
    nearer_than_scan: int | None
    mean: dict[str, float]
    median: dict[str, float]
    interval: dict[str, tuple[float, float]]
    variants: dict[str, dict[str, float]]
    seed_deviation: float | None


def summarise(outcomes: Sequence[ShapeOutcome]) -> Summary:
    """Compute the statistics of every measure, each over the shapes that have it."""
    measured = [outcome for outcome in outcomes if not outcome.failed]
    columns = _columns(measured)
    has_scans = any(outcome.scan is not None for outcome in measured)
    seeded = bool(measured) and measured[0].variant.kind is VariantKind.SEED
    labels = list(dict.fromkeys(outcome.variant.label for outcome in measured))
    return Summary(
        count=len(outcomes),
        failed=len(outcomes) - len(measured),
        nearer_than_scan=sum(outcome.beats_scan for outcome in measured) if has_scans else None,
        mean={name: float(np.mean(values)) for name, values in columns.items()},
        median={name: float(np.median(values)) for name, values in columns.items()},
        interval={name: bootstrap_interval(_shape_means(measured, name)) for name in columns},
        variants={label: _variant_means(measured, label) for label in labels} if len(labels) > 1 and not seeded else {},
        seed_deviation=_seed_deviation(measured) if seeded else None,
    )


def bootstrap_interval(values: Sequence[float], resamples: int = 2_000) -> tuple[float, float]:
    """Bootstrap confidence interval of a mean, 95 %, by the percentile method (Efron, 1979)."""
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(len(array), size=(resamples, len(array)))  # (resamples, n)
    low, high = np.percentile(array[chosen].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _shape_means(measured: Sequence[ShapeOutcome], measure: str) -> list[float]:
    """The mean of a measure for each shape: the variants of one shape are not independent samples."""
    values: dict[str, list[float]] = {}
    for outcome in measured:
        if measure in outcome.measures():
            values.setdefault(outcome.name, []).append(outcome.measures()[measure])
    return [float(np.mean(rows)) for rows in values.values()]


def _variant_means(measured: Sequence[ShapeOutcome], label: str) -> dict[str, float]:
    rows = [outcome for outcome in measured if outcome.variant.label == label]
    means = {name: float(np.mean(values)) for name, values in _columns(rows).items()}
    return means | {"nearer": float(np.mean([row.beats_scan for row in rows]))}


def _columns(measured: Sequence[ShapeOutcome]) -> dict[str, list[float]]:
    """All values of each measure, over the outcomes that have it."""
    columns: dict[str, list[float]] = {}
    for outcome in measured:
        for name, value in outcome.measures().items():
            columns.setdefault(name, []).append(value)
    return columns


def _seed_deviation(measured: Sequence[ShapeOutcome]) -> float | None:
    by_view: dict[tuple[str, int], list[float]] = {}
    for outcome in measured:
        assert outcome.scores
        by_view.setdefault((outcome.name, outcome.variant.view), []).append(outcome.scores.chamfer)
    several = [values for values in by_view.values() if len(values) > 1]
    return float(np.mean([np.std(values, ddof=1) / np.mean(values) for values in several])) if several else None
