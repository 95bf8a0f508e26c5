"""The error that a user can cause and mend."""


class InputError(ValueError):
    """What was given cannot be used; the message says what was wrong, with which value, and what to do."""
