"""The command-line options of `TaskSettings`, derived from its fields by name."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from sdf_backend.console import report_errors
from sdf_backend.settings import TaskSettings
from sdf_backend.wire.settings import Choice


def with_task_options(*names: str, kind: type[TaskSettings] = TaskSettings) -> Callable[[Callable], Callable]:
    """Replace the parameter `settings` of a command by one option for each field of the settings.

    Parameters
    ----------
    names : the fields that the command uses; all of them if none are named
    kind : the dataclass

    Returns
    -------
    A decorator, to stand below that of typer.
    """

    def decorate(command: Callable) -> Callable:
        signature = inspect.signature(command)
        options = [_option(kind, name) for name in names or [field.name for field in fields(kind)]]
        parameters = [
            parameter
            for declared in signature.parameters.values()
            for parameter in (options if declared.name == "settings" else [declared])
        ]

        @wraps(command)
        def run(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in options}
            with report_errors():
                settings = kind(**values)
            command(**arguments, settings=settings)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _option(kind: type[TaskSettings], name: str) -> inspect.Parameter:
    """The option of one field. Typer checks its type, and the settings check its value."""
    [field] = [field for field in fields(kind) if field.name == name]
    annotation, help_text, metavar = get_type_hints(kind)[name], field.metadata["help"], None
    if issubclass(annotation, Choice) and annotation.has_aliases():
        annotation, metavar = str, annotation.__name__.upper()
    elif bounds := str(field.metadata["bounds"]):
        help_text = f"{help_text}; {bounds}"
    default = field.default.value if isinstance(field.default, Enum) else field.default
    option = typer.Option(help=help_text, metavar=metavar)
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=Annotated[annotation, option]
    )
