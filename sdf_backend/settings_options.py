"""Command-line options derived from a dataclass of settings: names, types, defaults, bounds and help.

@app.command()
@settings_options(TaskSettings, "resolution", "seed")
def sample(output: Path, settings: TaskSettings) -> None: ...
"""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from enum import Enum
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from sdf_backend.console import report_errors
from sdf_backend.wire.settings import Choice, Settings


def settings_options(kind: type[Settings], *names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the parameter `settings` of a command by one option for each field of its settings.

    An `InputError`, of the settings or of the command, becomes one line on stderr and exit code 1.

    Parameters
    ----------
    kind : the dataclass; its fields are declared with `option` of `sdf_backend.wire.settings`
    names : the fields that the command uses; all that have a help text if none are named. The others keep their
        defaults

    Returns
    -------
    A decorator, to stand below that of typer. It calls the command by keyword, with an instance as `settings`.
    """
    types = get_type_hints(kind)
    declared = {one.name: one for one in fields(kind) if "help" in one.metadata}
    options = [_option(declared[name], types[name]) for name in names or declared]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        # By keyword alone, so that options may stand before parameters without a default.
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for own in signature.parameters.values()
            for parameter in (options if own.name == "settings" else [own])
        ]

        @wraps(command)
        def run(**arguments: Any) -> None:
            with report_errors():
                settings = kind(**{option.name: arguments.pop(option.name) for option in options})
                command(**arguments, settings=settings)

        # What typer reads in place of the command's own parameters.
        run.__dict__["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _option(declared: Field[Any], annotation: Any) -> inspect.Parameter:
    """The option of one field. Typer checks its type, and the settings check its value."""
    help_text, metavar, flags = declared.metadata["help"], None, []
    if bounds := str(declared.metadata["bounds"]):
        help_text = f"{help_text}; {bounds}"
    if annotation is bool:  # without a declaration of its own a flag would get a `--no-` twin
        flags = [f"--{declared.name.replace('_', '-')}"]
    elif isinstance(declared.default, Choice) and annotation.has_aliases():
        annotation, metavar = str, annotation.__name__.upper()
    default = declared.default.value if isinstance(declared.default, Enum) else declared.default
    option = typer.Option(*flags, help=help_text, metavar=metavar)
    return inspect.Parameter(
        declared.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )
