"""Derives the options of a command from a dataclass: names, types, defaults, bounds and help."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from sdf_backend.console import report_errors


def settings_options(settings_type: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a typer command one option per field of a dataclass; the command receives an instance as `settings`.

    Fields are declared with `option(default, help, least, most)` of `sdf_backend.wire.settings`; those without help are
    not options and keep their defaults. An `InputError`, of the dataclass or of the command, becomes one line on stderr
    and exit code 1.
    """
    types = get_type_hints(settings_type)
    declared = [one for one in fields(settings_type) if "help" in one.metadata]
    options = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default if one.default is not MISSING else inspect.Parameter.empty,
            annotation=Annotated[types[one.name], _option(one.name, types[one.name], one.metadata)],
        )
        for one in declared
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def wrapper(**values: Any) -> None:
            with report_errors():
                settings = settings_type(**{one.name: values.pop(one.name) for one in declared})
                command(**values, settings=settings)

        signature = inspect.signature(command)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
            if parameter.name != "settings"
        ]
        # What typer reads in place of the command's own parameters.
        wrapper.__dict__["__signature__"] = signature.replace(parameters=[*own, *options])
        return wrapper

    return decorate


def _option(name: str, type_: Any, metadata: Any) -> Any:
    # Without a declaration of its own a flag would get a `--no-` twin.
    flags = [f"--{name.replace('_', '-')}"] if type_ is bool else []
    least, most = metadata["bounds"]
    return typer.Option(*flags, help=metadata["help"], min=least, max=most)
