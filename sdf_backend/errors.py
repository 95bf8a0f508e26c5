"""The errors that a user can cause and mend.

Everything that a wrong file, option or folder can trigger derives from `InputError`; the command lines print
its one sentence and exit 1. Any other exception is a defect of ours and keeps its traceback.
"""

from sdf_backend.wire.errors import InputError

__all__ = ["Cancelled", "InputError"]


class Cancelled(Exception):
    """The caller asked a running task to stop; raised from inside the task at its next step."""
