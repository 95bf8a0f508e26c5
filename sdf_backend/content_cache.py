"""A cache on disk of computed arrays, addressed by a hash of everything that they were computed from.

It is on disk rather than in memory, so that all workers of a computer share it and it outlives a worker that dies.
A cache is never required: a full disk or a damaged file is logged, and the work is done again. Entries hold shapes of
users, so they are private to the user that runs this program, and nobody else's are believed: each holds a hash of its
arrays and its key.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.log import line, logger

SUFFIX = ".safetensors"
# The array of an entry that holds its hash.
SEAL = "seal"
# Eviction goes down to this share of the limit, so that it does not run at every new entry.
EVICTION_TARGET = 0.8

Arrays = Mapping[str, np.ndarray]


def content_key(*parts: object) -> str:
    """Hash of `parts`: arrays by dtype, shape and values, dataclasses by class and fields, the rest by its JSON.

    Hashing the dataclasses of settings gives every change of a setting a key of its own.

    Returns
    -------
    40 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=_to_json).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _seal(key: str, arrays: Arrays) -> np.ndarray:
    """Hash of an entry: its key, and the names and values of its arrays."""
    parts = [part for name in sorted(arrays) for part in (name, arrays[name])]
    return np.frombuffer(content_key(key, *parts).encode(), dtype=np.uint8)


def _to_json(part: object) -> object:
    if is_dataclass(part) and not isinstance(part, type):
        return {type(part).__name__: asdict(part)}
    return str(part)


class ContentCache:
    """Arrays by key, in a folder of at most `limit` bytes; the least recently used entries are evicted first."""

    def __init__(self, folder: Path, limit: int = 4 << 30) -> None:
        self.folder, self.limit = Path(folder), limit
        self._bytes = self._measured_bytes()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Arrays of a key; None where there is no entry, or none that can be read."""
        path = self._path(key)
        try:
            arrays = self._read(path, key)
            path.touch()
            return arrays
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError) as error:
            logger.warning(line("cache entry unreadable", file=path.name, reason=error))
            with suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, arrays: Arrays) -> None:
        """Store arrays; a failure is logged, and nothing is stored."""
        path = self._path(key)
        try:
            contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            with atomic_write(path, mode=0o600) as temporary:
                temporary.touch(0o600)  # before it has content
                save_file({**contiguous, SEAL: _seal(key, contiguous)}, temporary)
        except (InputError, SafetensorError) as error:
            logger.warning(line("cache write failed", file=path.name, reason=error))
            return
        self._bytes += sum(array.nbytes for array in arrays.values())
        if self._bytes > self.limit:
            self._evict()

    def _read(self, path: Path, key: str) -> dict[str, np.ndarray]:
        """The arrays of an entry; raises `OSError`, `SafetensorError` or `ValueError` for one that was not put here."""
        status = path.lstat()
        if reason := self._distrust(status):
            raise ValueError(reason)
        arrays = load(path.read_bytes())
        seal = arrays.pop(SEAL, None)
        if seal is None or not np.array_equal(seal, _seal(key, arrays)):
            raise ValueError("its content is not what was stored")
        return arrays

    def _distrust(self, status: os.stat_result) -> str:
        """Why a file is not opened; empty for one that may be an entry."""
        if not stat.S_ISREG(status.st_mode):
            return "it is a folder, a link, a pipe or a device"
        if os.name == "posix" and status.st_uid != os.getuid():
            return "it belongs to another user"
        return f"it has {status.st_size} bytes" if status.st_size > self.limit else ""

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every entry; other processes may remove entries meanwhile."""
        entries = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                status = path.lstat()
                if reason := self._distrust(status):
                    logger.warning(line("cache entry skipped", file=path.name, reason=reason))
                else:
                    entries.append((status.st_mtime, status.st_size, path))
        return entries

    def _measured_bytes(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def _evict(self) -> None:
        entries = sorted(self._entries())
        self._bytes = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._bytes <= EVICTION_TARGET * self.limit:
                return
            with suppress(OSError):
                path.unlink()
            self._bytes -= size
