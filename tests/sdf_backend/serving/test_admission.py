"""Submissions are checked by their header alone: counts within the limits, and arrays that match each other."""

import numpy as np
import pytest

from sdf_backend.serving.admission import check_submission
from sdf_backend.serving.task_table import TASKS
from sdf_backend.settings import TaskSettings
from sdf_backend.wire.codec import WireError, decode, encode
from sdf_backend.wire.messages import REQUESTS, Limits, Source, Submit, Task

JOB = "0123456789"
CLOUD = Source(np.zeros((5, 3)))
NONE, SOME = np.zeros((0, 2), "<f4"), np.array([[7, 0.01]], "<f4")
LIMITS = Limits(sources=3, shapes=4)


def rows(count: int, columns: int = 3) -> np.ndarray:
    return np.zeros((count, columns), "<f4")


def poses(count: int) -> np.ndarray:
    return np.tile(np.eye(4), (count, 1, 1))


ACCEPTED = [
    ({"task": "encode", "sources": (CLOUD,) * 3}, 3),
    ({"task": "complete", "sources": (CLOUD,)}, 1),
    ({"task": "complete", "sources": (CLOUD, CLOUD), "settings": TaskSettings(candidates=2)}, 4),
    ({"task": "sample", "count": 4}, 4),
    ({"task": "sample", "count": 4, "poses": poses(1)}, 4),
    ({"task": "sample", "count": 4, "codes": rows(1), "spread": 0.5}, 4),
    ({"task": "sample", "count": 2, "codes": rows(1), "spread": 1.0, "poses": poses(1)}, 2),
    ({"task": "decode", "codes": rows(2)}, 2),
    ({"task": "decode", "weights": rows(3, 1)}, 3),
    ({"task": "decode", "weights": rows(3, 0), "poses": poses(3)}, 3),
    ({"task": "decode", "codes": rows(2), "weights": rows(2, 1), "poses": poses(2)}, 2),
    ({"task": "interpolate", "codes": rows(2), "poses": poses(2), "count": 3}, 3),
    ({"task": "interpolate", "codes": rows(2), "refinements": (NONE, SOME), "count": 3}, 3),
    ({"task": "decode", "codes": rows(1), "refinements": (SOME,)}, 1),
]


@pytest.mark.parametrize(("fields", "shapes"), ACCEPTED)
def test_a_valid_submission_is_accepted_and_keeps_its_arrays_on_the_wire(fields: dict, shapes: int) -> None:
    submit = Submit(JOB, model="spheres", **fields)
    check_submission(submit, LIMITS)
    assert TASKS[Task(submit.task)].shape_count(submit) == shapes
    back = decode(encode(submit), REQUESTS, Limits())
    assert back.spread == submit.spread
    for name in ("codes", "weights", "poses"):
        sent, came = getattr(submit, name), getattr(back, name)
        assert (sent is None) == (came is None)
        if sent is not None:
            np.testing.assert_array_equal(came, sent)
    for sent, came in zip(submit.refinements, back.refinements, strict=True):
        np.testing.assert_array_equal(came, sent)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"task": "encode"}, "bad_value", "at least one input"),
        ({"task": "encode", "sources": (CLOUD,) * 4}, "limit", "4 inputs"),
        ({"task": "complete", "sources": (CLOUD,), "settings": TaskSettings(candidates=5)}, "limit", "5 shapes"),
        ({"task": "decode"}, "bad_value", "at least one code, or one row of weights"),
        ({"task": "decode", "weights": rows(0)}, "bad_value", "at least one code, or one row of weights"),
        ({"task": "decode", "weights": rows(5)}, "limit", "5 shapes"),
        ({"task": "decode", "weights": rows(2), "codes": rows(3)}, "bad_value", "3 codes and 2 rows of weights"),
        ({"task": "decode", "weights": rows(2), "codes": rows(0)}, "bad_value", "0 codes and 2 rows of weights"),
        ({"task": "decode", "weights": rows(2), "poses": poses(1)}, "bad_value", "2 codes and 1 poses"),
        (
            {"task": "decode", "codes": rows(1), "spread": 0.5},
            "bad_value",
            "decode takes no spread; use it with sample",
        ),
        ({"task": "decode", "codes": rows(2), "refinements": (SOME,)}, "bad_value", "2 codes and 1 refinements"),
        (
            {"task": "decode", "weights": rows(1), "refinements": (SOME,)},
            "bad_value",
            "refinements belong to unmodified codes",
        ),
        (
            {"task": "sample", "refinements": (SOME,)},
            "bad_value",
            "sample takes no refinements; use it with interpolate and decode",
        ),
        ({"task": "sample", "spread": 0.5}, "bad_value", "both the code and a spread"),
        ({"task": "sample", "codes": rows(1)}, "bad_value", "both the code and a spread"),
        ({"task": "sample", "codes": rows(2), "spread": 0.5}, "bad_value", "one code, not 2"),
        ({"task": "sample", "codes": rows(0), "spread": 0.5}, "bad_value", "one code, not 0"),
        ({"task": "sample", "codes": rows(1), "spread": 0.5, "poses": poses(2)}, "bad_value", "1 codes and 2 poses"),
        ({"task": "sample", "poses": poses(2)}, "bad_value", "one pose for all samples, not 2"),
        ({"task": "sample", "codes": rows(1), "spread": 0.5, "count": 5}, "limit", "5 shapes"),
    ],
)
def test_an_invalid_submission_is_refused(fields: dict, code: str, words: str) -> None:
    with pytest.raises(WireError, match=words) as caught:
        check_submission(Submit(JOB, model="spheres", **fields), LIMITS)
    assert (caught.value.code, caught.value.job) == (code, JOB)


@pytest.mark.parametrize("task", [task for task in Task if task != "decode"])
def test_only_decode_takes_weights(task: str) -> None:
    submit = Submit(JOB, task, "spheres", sources=(CLOUD, CLOUD), weights=rows(1), count=2)
    with pytest.raises(WireError, match=f"{task} takes no weights; use it with decode"):
        check_submission(submit, LIMITS)


@pytest.mark.parametrize("spread", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_spread_out_of_range_is_refused(spread: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        Submit(JOB, "sample", "spheres", codes=rows(1), spread=spread)
