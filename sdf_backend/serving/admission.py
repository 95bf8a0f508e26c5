"""What a server takes in: a submission is held against its limits by its header alone, before it may wait."""

import numpy as np

from sdf_backend.wire.codec import WireError
from sdf_backend.wire.messages import Limits, Submit


def check_submission(submit: Submit, limits: Limits) -> None:
    """Raise `WireError` where a submission asks for more than the limits, or for what no task can do.

    Arrays' shapes are looked at, never their values, so that it costs the same however large they are.
    """
    try:
        _check_sizes(submit, limits)
        _check_task(submit)
    except WireError as error:
        raise WireError(error.code, str(error), submit.job) from None


def _check_sizes(submit: Submit, limits: Limits) -> None:
    _at_most("inputs", len(submit.sources), limits.sources)
    _at_most("cells per axis", submit.settings.resolution, limits.resolution)
    _at_most("shapes", shape_count(submit), limits.shapes)
    for source in submit.sources:
        _at_most("vertices in one input", len(source.vertices), limits.points)
        _at_most("faces in one input", 0 if source.faces is None else len(source.faces), limits.faces)


def shape_count(submit: Submit) -> int:
    """How many shapes the result will hold."""
    match submit.task:
        case "interpolate" | "sample":
            return submit.count
        case "decode":
            return max(_rows(submit.codes), _rows(submit.weights))
        case "complete" | "reconstruct":
            return len(submit.sources) * submit.settings.candidates
        case _:
            return len(submit.sources)


def _check_task(submit: Submit) -> None:
    sources, codes = len(submit.sources), _rows(submit.codes)
    if submit.task != "echo" and not submit.model:
        raise WireError("bad_value", f"{submit.task} needs the name of a model")
    _check_codes(submit)
    match submit.task:
        case "complete" | "reconstruct" | "encode" if not sources:
            raise WireError("bad_value", f"{submit.task} needs at least one input")
        case "interpolate" if (sources < 2) == (codes < 2):
            raise WireError("bad_value", "interpolate needs two or more inputs, or two or more codes, and not both")
        case "interpolate" if submit.count < max(sources, codes):
            raise WireError("bad_value", f"{submit.count} shapes cannot hold all the ends; ask for more")
        case "decode" if not shape_count(submit):
            raise WireError("bad_value", "decode needs at least one code, or one row of weights")
        case "sample" if submit.codes is not None and codes != 1:
            raise WireError("bad_value", f"sample can be near one code; {codes} codes were given")
        case "sample" if submit.poses is not None and len(submit.poses) != 1:
            raise WireError("bad_value", f"all samples stand at one pose; {len(submit.poses)} were given")
        case "sample" if (submit.codes is None) == (submit.spread > 0):
            raise WireError("bad_value", "sample near a code needs both, the code and a spread above 0")


def _check_codes(submit: Submit) -> None:
    """Raise `WireError` where codes, weights and poses do not go together, or not with the task."""
    codes, weights, poses = submit.codes, submit.weights, submit.poses
    if weights is not None and submit.task != "decode":
        raise WireError("bad_value", f"weights are for decode; {submit.task} takes none")
    if submit.refinements and (submit.task not in ("decode", "interpolate") or weights is not None):
        raise WireError("bad_value", "refinements are for decode and interpolate of codes as they were fitted")
    refinements = len(submit.refinements)
    if refinements and refinements != _rows(codes):
        raise WireError("bad_value", f"{_rows(codes)} codes and {refinements} refinements; each code needs its own")
    if submit.spread and submit.task != "sample":
        raise WireError("bad_value", f"a spread is for sample; {submit.task} takes none")
    if codes is not None and weights is not None and len(codes) != len(weights):
        raise WireError("bad_value", f"{len(codes)} codes and {len(weights)} rows of weights; each code needs its row")
    given = weights if codes is None else codes
    if given is not None and poses is not None and len(given) != len(poses):
        raise WireError("bad_value", f"{len(given)} codes and {len(poses)} poses; each code needs its pose")


def _rows(array: np.ndarray | None) -> int:
    return 0 if array is None else len(array)


def _at_most(what: str, value: int, limit: int) -> None:
    if value > limit:
        raise WireError("limit", f"{value} {what}; this server takes at most {limit}")
