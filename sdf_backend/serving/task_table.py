"""The one table of tasks: what each takes, how a job is checked, how it is run, and how many shapes it returns.

A new task is a member of `Task` and a row of `TASKS`. Importing this loads no torch: the server uses it too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdf_backend.wire.codec import WireError
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import AUTO_MODEL, Submit, Task

if TYPE_CHECKING:
    from sdf_backend.engine import Shape
    from sdf_backend.serving.engine_call import EngineCall


@dataclass(frozen=True)
class TaskDefinition:
    """How the backend checks and runs one task."""

    inputs: frozenset[str]
    """the fields of `Submit` that it uses, besides `model` and `settings`"""
    check: Callable[[Submit], str]
    """why a job cannot be done, from the sizes of its inputs alone; empty if it can"""
    shape_count: Callable[[Submit], int]
    """how many shapes the result has"""
    run: "Callable[[EngineCall], list[Shape]] | None" = None
    """calls the method of the engine; None for a task that returns its sources"""
    batched: bool = False
    """whether a worker may run several jobs together that have the same model and settings"""


# Fields that a task must use if they are given; others that it does not use are ignored.
STRICT_INPUTS = ("weights", "refinements", "spread")


def check_task(submit: Submit) -> None:
    """Raise `WireError` for a job that its task cannot do. Values of arrays are not read."""
    task = TASKS[Task(submit.task)]
    reason = (
        _check_inputs(submit, task)
        or ("" if submit.model or task.run is None else f"{submit.task} needs the name of a model")
        or _check_auto(submit)
        or _check_codes(submit)
        or task.check(submit)
    )
    if reason:
        raise WireError(ErrorCode.BAD_VALUE, reason, submit.job)


def _check_inputs(submit: Submit, task: TaskDefinition) -> str:
    for name in STRICT_INPUTS:
        value = getattr(submit, name)
        if (value is not None if isinstance(value, np.ndarray | None) else bool(value)) and name not in task.inputs:
            users = " and ".join(other for other, row in TASKS.items() if name in row.inputs)
            return f"{submit.task} takes no {name}; use it with {users}"
    return ""


def _check_auto(submit: Submit) -> str:
    if submit.model != AUTO_MODEL or submit.sources:
        return ""
    return f"without an input {AUTO_MODEL} has nothing to choose by; name a model"


def _check_codes(submit: Submit) -> str:
    """Compare the lengths of codes, weights, poses and refinements."""
    codes, weights, poses, refinements = submit.codes, submit.weights, submit.poses, len(submit.refinements)
    if refinements and weights is not None:
        return "refinements belong to unmodified codes; leave out the weights, or the refinements"
    if refinements and refinements != _rows(codes):
        return f"{_rows(codes)} codes and {refinements} refinements; give one refinement for each code"
    if codes is not None and weights is not None and len(codes) != len(weights):
        return f"{len(codes)} codes and {len(weights)} rows of weights; give one row for each code"
    given = weights if codes is None else codes
    if given is not None and poses is not None and len(given) != len(poses):
        return f"{len(given)} codes and {len(poses)} poses; give one pose for each code"
    return ""


def _rows(array: np.ndarray | None) -> int:
    return 0 if array is None else len(array)


# --- the checks of single tasks ----------------------------------------------------------------------------------


def _check_nothing(submit: Submit) -> str:
    return ""


def _check_fit(submit: Submit) -> str:
    return "" if submit.sources else f"{submit.task} needs at least one input"


def _check_interpolate(submit: Submit) -> str:
    sources, codes = len(submit.sources), _rows(submit.codes)
    if (sources < 2) == (codes < 2):
        return "interpolate needs two or more inputs, or two or more codes, but not both"
    if submit.count < max(sources, codes):
        return f"count is {submit.count}; use {max(sources, codes)} or more, since all keyframes are included"
    return ""


def _check_sample(submit: Submit) -> str:
    if submit.codes is not None and len(submit.codes) != 1:
        return f"sample takes one code, not {len(submit.codes)}"
    if submit.poses is not None and len(submit.poses) != 1:
        return f"sample takes one pose for all samples, not {len(submit.poses)}"
    if (submit.codes is None) == (submit.spread > 0):
        return "sample near a code needs both the code and a spread above 0"
    return ""


def _check_decode(submit: Submit) -> str:
    return "" if _decoded_count(submit) else "decode needs at least one code, or one row of weights"


# --- the number of shapes of single tasks ------------------------------------------------------------------------


def _requested_count(submit: Submit) -> int:
    return submit.count


def _source_count(submit: Submit) -> int:
    return len(submit.sources)


def _candidate_count(submit: Submit) -> int:
    return len(submit.sources) * submit.settings.candidates


def _decoded_count(submit: Submit) -> int:
    return max(_rows(submit.codes), _rows(submit.weights))


# --- the calls of the engine -------------------------------------------------------------------------------------


def _complete(call: "EngineCall") -> "list[Shape]":
    return call.engine.complete(call.model, call.sources(), call.settings, call.progress, call.preview)


def _reconstruct(call: "EngineCall") -> "list[Shape]":
    return call.engine.reconstruct(call.model, call.sources(), call.settings, call.progress, call.preview)


def _encode(call: "EngineCall") -> "list[Shape]":
    return call.engine.encode(call.model, call.sources(), call.settings, call.progress)


def _interpolate(call: "EngineCall") -> "list[Shape]":
    if not call.has_codes:
        return call.engine.interpolate(call.model, call.sources(), call.count, call.settings, call.progress)
    codes = call.codes()
    return call.engine.interpolate_codes(
        call.model, codes, call.poses(len(codes)), call.count, call.settings, call.progress, call.refinements()
    )


def _sample(call: "EngineCall") -> "list[Shape]":
    [pose] = call.poses(1)
    if not call.has_codes:
        return call.engine.sample(call.model, call.count, call.settings, call.progress, pose)
    [code] = call.codes()
    return call.engine.vary(call.model, code, pose, call.count, call.spread, call.settings, call.progress)


def _decode(call: "EngineCall") -> "list[Shape]":
    codes = call.move_codes()
    return call.engine.decode(
        call.model, codes, call.poses(len(codes)), call.settings, call.progress, call.refinements()
    )


# --- the table ---------------------------------------------------------------------------------------------------

TASKS: dict[Task, TaskDefinition] = {
    Task.COMPLETE: TaskDefinition(frozenset({"sources"}), _check_fit, _candidate_count, _complete, batched=True),
    Task.RECONSTRUCT: TaskDefinition(frozenset({"sources"}), _check_fit, _candidate_count, _reconstruct, batched=True),
    Task.ENCODE: TaskDefinition(frozenset({"sources"}), _check_fit, _source_count, _encode),
    Task.INTERPOLATE: TaskDefinition(
        frozenset({"sources", "codes", "poses", "refinements", "count"}),
        _check_interpolate,
        _requested_count,
        _interpolate,
    ),
    Task.SAMPLE: TaskDefinition(
        frozenset({"codes", "poses", "spread", "count"}), _check_sample, _requested_count, _sample
    ),
    Task.DECODE: TaskDefinition(
        frozenset({"codes", "poses", "weights", "refinements"}), _check_decode, _decoded_count, _decode
    ),
    Task.ECHO: TaskDefinition(frozenset({"sources"}), _check_nothing, _source_count),
}
