"""Atomic writes: a reader sees the complete new file or the old one, even if the writer is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdf_backend.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The temporary path keeps the suffix, because many writers choose their format by it.
    Raises `InputError` for a folder that cannot be made or written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(0o644)  # some writers make files with mode 0600
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):  # if the folder is a file, there is nothing to remove
            temporary.unlink()


def check_folder(folder: Path) -> None:
    """Raise `InputError` if `folder` or one of its parents is a file, before anything is computed."""
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise InputError(f"cannot write into {folder}: {part} is a file; choose another folder")
