"""Output of both command lines: errors of the user as one line on stderr, results as text or JSON on stdout."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from sdf_backend.errors import Cancelled, InputError

# Names of files and meshes may contain brackets, which are not markup.
stdout = Console(markup=False, highlight=False)
stderr = Console(markup=False, highlight=False, stderr=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an `InputError` as one line and exit with 1, on Ctrl-C with 130; other exceptions keep their traceback."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, Cancelled):
        print("stopped", file=sys.stderr)
        raise typer.Exit(130) from None


def print_json(content: object) -> None:
    """Print content as JSON, for scripts."""
    print(json.dumps(content, indent=1))
