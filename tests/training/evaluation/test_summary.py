"""Means, medians and bootstrap confidence intervals of made-up outcomes."""

from dataclasses import replace

import numpy as np

from training.evaluation.baselines import Baseline
from training.evaluation.metrics import ShapeScores
from training.evaluation.outcomes import ShapeOutcome
from training.evaluation.summary import bootstrap_interval, summarise
from training.evaluation.tasks import Variant, VariantKind

QUIET = Variant(noise=0.0, kind=VariantKind.NOISE)


def scores(chamfer: float) -> ShapeScores:
    return ShapeScores(chamfer, 2 * chamfer, 0.1, 0.01, 0.9, 0.8, chamfer)


def test_means_and_medians_exclude_failed_shapes() -> None:
    rows = [
        ShapeOutcome(str(value), scores=scores(value), scan=2.5, seconds={"a": 1, "b": value}) for value in (1, 2, 6)
    ]
    summary = summarise([*rows, ShapeOutcome("broken", scan=9.0, reason="why")])
    assert (summary.count, summary.failed, summary.nearer_than_scan) == (4, 1, 2)
    assert (summary.mean["chamfer"], summary.median["chamfer"]) == (3, 2)
    assert (summary.mean["scan"], summary.median["seconds"]) == (2.5, 3)
    assert "residual" not in summary.mean
    assert summarise([ShapeOutcome("broken", reason="why")]).mean == {}


def test_the_bootstrap_interval_contains_the_mean_and_narrows_with_more_values() -> None:
    rng = np.random.default_rng(0)
    few, many = (bootstrap_interval(rng.normal(5, 1, size=count).tolist()) for count in (10, 1_000))
    for low, high in (few, many):
        assert low < 5 < high
    assert many[1] - many[0] < few[1] - few[0]
    assert bootstrap_interval([2.0]) == (2.0, 2.0)


def test_several_outcomes_of_one_shape_do_not_narrow_the_interval() -> None:
    rows = [ShapeOutcome(str(value), scores=scores(value)) for value in (1, 2, 6, 9)]
    assert summarise(rows * 5).interval["chamfer"] == summarise(rows).interval["chamfer"]


def test_an_outcome_without_reference_is_left_out_of_the_mean_of_its_variant() -> None:
    with_reference = ShapeOutcome("a", variant=QUIET, scores=scores(1.0), reference=Baseline(5.0))
    without = ShapeOutcome("b", variant=QUIET, scores=scores(3.0))
    found = summarise(
        [with_reference, without, replace(without, variant=Variant(noise=1.0, kind=VariantKind.NOISE))]
    ).variants
    assert found["noise 0"]["reference"] == 5.0 and found["noise 0"]["chamfer"] == 2.0
    assert "reference" not in found["noise 1"]
