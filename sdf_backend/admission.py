"""What a server takes in: a submission is held against its limits by its header alone, before it may wait."""

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
            return 0 if submit.codes is None else len(submit.codes)
        case _:
            return len(submit.sources)


def _check_task(submit: Submit) -> None:
    sources, codes, poses = len(submit.sources), submit.codes, submit.poses
    if submit.settings.seed < 0:
        raise WireError("bad_value", f"the seed is {submit.settings.seed}; it must not be negative")
    if submit.task != "echo" and not submit.model:
        raise WireError("bad_value", f"{submit.task} needs the name of a model")
    if codes is not None and poses is not None and len(codes) != len(poses):
        raise WireError("bad_value", f"{len(codes)} codes and {len(poses)} poses; each code needs its pose")
    match submit.task:
        case "complete" | "reconstruct" if not sources:
            raise WireError("bad_value", f"{submit.task} needs at least one input")
        case "interpolate" if (sources < 2) == (codes is None or len(codes) < 2):
            raise WireError("bad_value", "interpolate needs two or more inputs, or two or more codes, and not both")
        case "interpolate" if submit.count < max(sources, 0 if codes is None else len(codes)):
            raise WireError("bad_value", f"{submit.count} shapes cannot hold all the ends; ask for more")
        case "decode" if codes is None or not len(codes):
            raise WireError("bad_value", "decode needs at least one code")


def _at_most(what: str, value: int, limit: int) -> None:
    if value > limit:
        raise WireError("limit", f"{value} {what}; this server takes at most {limit}")
