"""Atomic writes: a reader sees the complete new file or the old one, even if the writer is killed."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdf_backend.errors import InputError


@contextmanager
def atomic_write(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The temporary path keeps the suffix, because many writers choose their format by it. `mode` says who may read it.
    Raises `InputError` for a folder that cannot be made or written.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(mode)  # some writers make files with mode 0600
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):  # if the folder is a file, there is nothing to remove
            temporary.unlink()


def check_folder(folder: Path) -> None:
    """Raise `InputError` unless files can be written into `folder`, before anything is computed."""
    _try_to_write(folder / "file", f"into {folder}")


def check_writable(path: Path) -> None:
    """Raise `InputError` unless a file can be written at `path`, before anything is computed."""
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    _try_to_write(path, f"{path}")


def _try_to_write(path: Path, what: str) -> None:
    """Write a file beside `path` as `atomic_write` does, in a folder that is made for it, and remove both."""
    folders, temporary = (path.parent, *path.parent.parents), _temporary(path)
    missing: list[Path] = []
    try:
        for folder in folders:
            if folder.exists() and not folder.is_dir():
                raise InputError(f"cannot write {what}: {folder} is a file; choose another folder")
        missing = [folder for folder in folders if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(bytes(4096))  # a full disk still makes empty files
    except OSError as error:
        raise InputError(f"cannot write {what}: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _temporary(path: Path) -> Path:
    """Where this process writes a file before it is renamed to `path`."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


def check_file(path: Path, advice: str, largest: int | None = None) -> os.stat_result:
    """The status of a regular file of at most `largest` bytes; for anything else `InputError`, ending in `advice`.

    Nothing is opened: a pipe would never answer, and a device never end.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError for a name with a NUL
        shown = path if len(str(path)) < 200 else f"{str(path)[:80]}..."  # a name may be too long to be one
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(f"{shown} {reason}; {advice}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder; {advice}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe, a socket or a device; {advice}")
    if largest is not None and status.st_size > largest:
        raise InputError(f"{path} has {status.st_size} bytes; at most {largest} are read; {advice}")
    return status
