"""Errors that users can cause and correct.

Everything that a wrong file, option or folder can cause derives from `InputError`; the command lines print its one
sentence and exit with 1. Any other exception is a defect of this program and keeps its traceback.
"""

from sdf_backend.wire.errors import InputError

__all__ = ["Cancelled", "InputError"]


class Cancelled(Exception):
    """A running task was cancelled; raised inside the task at its next step."""
