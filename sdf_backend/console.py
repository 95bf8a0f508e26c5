"""Output of both command lines: errors of the user as one line on stderr, results as text or JSON on stdout."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from sdf_backend.errors import Cancelled, InputError


class PrintableConsole(Console):
    """A console whose text cannot control the terminal: names of files, cards of models and servers say anything."""

    def __init__(self, **options: Any) -> None:
        # Names may contain brackets, which are not markup.
        super().__init__(markup=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`; rich makes all text of it that is printed, in tables too."""
        return super().render_str(printable(text), **options)


stdout = PrintableConsole()
stderr = PrintableConsole(stderr=True)


def printable(text: str) -> str:
    """The same text with every character that is not printable, an escape code for one, written as a code."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an `InputError` as one line and exit with 1, on Ctrl-C with 130; other exceptions keep their traceback."""
    try:
        yield
    except InputError as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, Cancelled):
        print("stopped", file=sys.stderr)
        raise typer.Exit(130) from None


def print_json(content: object) -> None:
    """Print content as JSON, for scripts."""
    print(json.dumps(content, indent=1))
