"""Atomic files: a reader sees the whole new file or the old one, whatever kills the writer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdf_backend.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well, rename what was written there to `path`.

    The temporary name keeps the suffix, because many writers choose their format by it.
    Raises `InputError` where the folder cannot be made or written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(0o644)  # some writers make files that only their owner can read
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):  # where the folder is a file there is nothing to remove
            temporary.unlink()


def check_folder(folder: Path) -> None:
    """Raise `InputError` where a file stands in the way of `folder`, before anything is computed for it."""
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise InputError(f"cannot write into {folder}: {part} is a file; choose another folder")
