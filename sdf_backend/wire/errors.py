"""What can go wrong: errors that a user can correct, and the codes of errors on the wire."""

from enum import StrEnum


class InputError(ValueError):
    """The input cannot be used; the message says what was wrong, with which value, and what to do."""


class ErrorCode(StrEnum):
    """The `code` of an `error` message; PROTOCOL.md has the meaning of each and what to do about it."""

    VERSION = "version"
    BAD_MAGIC = "bad_magic"
    BAD_HEADER = "bad_header"
    BAD_KIND = "bad_kind"
    BAD_VALUE = "bad_value"
    BAD_ARRAY = "bad_array"
    NOT_FINITE = "not_finite"
    TOO_LARGE = "too_large"
    NOT_AUTHORISED = "not_authorised"
    UNKNOWN_JOB = "unknown_job"
    TAKEN_OVER = "taken_over"
    UNKNOWN_MODEL = "unknown_model"
    BAD_INPUT = "bad_input"
    LIMIT = "limit"
    STOPPING = "stopping"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    FAILED = "failed"


# Codes of messages that are themselves defective, as opposed to errors of a job or of the server.
MALFORMED = frozenset(
    {
        ErrorCode.VERSION,
        ErrorCode.BAD_MAGIC,
        ErrorCode.BAD_HEADER,
        ErrorCode.BAD_KIND,
        ErrorCode.BAD_VALUE,
        ErrorCode.BAD_ARRAY,
        ErrorCode.NOT_FINITE,
        ErrorCode.TOO_LARGE,
    }
)
