"""`sources.json`: creator and licence of each mesh of a folder; new rows join those of the other meshes."""

import json
from pathlib import Path

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from training.catalog import SOURCES_FILE


def add_credits(folder: Path, rows: list[dict]) -> None:
    """Write credit rows into a folder's `sources.json`; a row of the same name is replaced, others stay.

    Raises `InputError` where the file that is there cannot be read, so that no credit is lost.
    """
    path = folder / SOURCES_FILE
    try:
        known = {row["name"]: row for row in json.loads(path.read_text())}
    except FileNotFoundError:
        known = {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: {error}; repair or delete it") from error
    known |= {row["name"]: row for row in rows}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(list(known.values()), indent=1))
