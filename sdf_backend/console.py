"""What both command lines share: one clear line on stderr for an error of the user's, exit 1; JSON or a table."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from sdf_backend.errors import Cancelled, InputError

# Names of files and of meshes may hold brackets; they are no markup.
stdout = Console(markup=False, highlight=False)
stderr = Console(markup=False, highlight=False, stderr=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an `InputError` into one line on stderr and exit 1, Ctrl-C into exit 130; defects keep their traceback."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, Cancelled):
        print("stopped", file=sys.stderr)
        raise typer.Exit(130) from None


def print_json(content: object) -> None:
    """Print for a script to read: JSON alone on stdout."""
    print(json.dumps(content, indent=1))
