"""Errors as they go out on the wire: on one line and short, whatever they quote."""

from sdf_backend.wire.codec import Frame, encode
from sdf_backend.wire.messages import JOB_PATTERN, Error

LONGEST_MESSAGE = 1000


def refusal(code: str, message: str, job: str | None = None) -> list[Frame]:
    """The frames of an `Error`; a job's name that could not be one is left out."""
    text = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 3] + "..."
    name = job if job is not None and JOB_PATTERN.fullmatch(job) else None
    return list(encode(Error(code, text, name)))
