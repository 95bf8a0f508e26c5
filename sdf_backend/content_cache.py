"""What was computed before, on disk, by the content of what it was computed from.

Files, not memory: so all workers of a computer share it, and it outlives a worker that died. A cache is never needed:
whatever is wrong with it (a full disk, a damaged file) is logged, and the work is done again.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.log import line, logger

SUFFIX = ".safetensors"
# Making room throws away a little more than it must, so that it is not done at every entry.
ROOM = 0.8

Arrays = Mapping[str, np.ndarray]


def content_key(*parts: object) -> str:
    """A name for what `parts` are: arrays by dtype, shape and values, everything else by its JSON."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()


class ContentCache:
    """Arrays by key, in a folder that holds at most `limit` bytes; the least recently used go first."""

    def __init__(self, folder: Path, limit: int = 4 << 30) -> None:
        self.folder, self.limit = Path(folder), limit
        self._held = self._size()

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of a key; None where there are none, or none that can be read."""
        path = self._path(key)
        try:
            arrays = load_file(path)
            path.touch()
            return arrays
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            logger.warning(line("cache entry unreadable", file=path.name, reason=error))
            with suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays; where that fails nothing is kept."""
        path = self._path(key)
        try:
            with atomic_write(path) as temporary:
                save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
        except (InputError, SafetensorError) as error:
            logger.warning(line("cache entry not kept", file=path.name, reason=error))
            return
        self._held += sum(array.nbytes for array in arrays.values())
        if self._held > self.limit:
            self._make_room()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of every entry; others may remove entries meanwhile."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        return found

    def _size(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _make_room(self) -> None:
        files = sorted(self._files())
        self._held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._held <= ROOM * self.limit:
                return
            with suppress(OSError):
                path.unlink()
            self._held -= size
