"""Checks a submission against the limits of the server, from its header alone, before it is queued."""

from sdf_backend.serving.task_table import TASKS, check_task
from sdf_backend.wire.codec import WireError
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import Limits, Submit, Task


def check_submission(submit: Submit, limits: Limits) -> None:
    """Raise `WireError` for a submission that exceeds the limits, or that its task cannot do.

    Shapes of arrays are checked but not their values, so the time does not depend on their size.
    """
    shapes = TASKS[Task(submit.task)].shape_count(submit)
    _check_limit(submit, "inputs", len(submit.sources), limits.sources)
    _check_limit(submit, "cells per axis", submit.settings.resolution, limits.resolution)
    _check_limit(submit, "shapes", shapes, limits.shapes)
    for source in submit.sources:
        faces = 0 if source.faces is None else len(source.faces)
        _check_limit(submit, "vertices in one input", len(source.vertices), limits.points)
        _check_limit(submit, "faces in one input", faces, limits.faces)
    check_task(submit)


def _check_limit(submit: Submit, name: str, value: int, limit: int) -> None:
    if value > limit:
        raise WireError(ErrorCode.LIMIT, f"{value} {name}; this server accepts at most {limit}", submit.job)
