"""Content that a joined machine keeps, so that the data of jobs travels to it once.

Server and machine hold the same list, since both use the same entries in the same order.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

import zmq

from sdf_backend.wire.codec import Frame

# Smaller frames are sent again: naming them would take about as long.
SMALLEST_BYTES = 4 << 10
# What one machine keeps, in bytes and entries; the names of all entries have to fit into one greeting.
KEPT_BYTES, KEPT_ENTRIES = 1 << 30, 4096
DIGEST_BYTES = 20
T = TypeVar("T")


def digest_of(frame: Frame) -> str:
    """Hash of the whole content of a frame, 40 hexadecimal digits; empty for one that is too small to be kept."""
    content = frame.buffer if isinstance(frame, zmq.Frame) else memoryview(frame)
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest() if content.nbytes >= SMALLEST_BYTES else ""


class KeptContent(Generic[T]):
    """Entries by digest; beyond the limits the least recently used are dropped."""

    def __init__(self, entries: Iterable[tuple[str, int, T]] = ()) -> None:
        """Begin with entries, the least recently used first: digest, bytes and value of each."""
        self._entries: OrderedDict[str, tuple[int, T]] = OrderedDict()
        self._bytes = 0
        for digest, size, value in entries:
            self.add(digest, size, value)

    def sizes(self) -> dict[str, int]:
        """Bytes of each entry by digest, the least recently used first."""
        return {digest: size for digest, (size, _) in self._entries.items()}

    def use(self, digest: str) -> T | None:
        """The value of an entry, which is now the most recently used; None if it is not kept."""
        if digest not in self._entries:
            return None
        self._entries.move_to_end(digest)
        return self._entries[digest][1]

    def add(self, digest: str, size: int, value: T) -> None:
        """Keep a new entry of so many bytes."""
        self._entries[digest] = size, value
        self._bytes += size
        while self._bytes > KEPT_BYTES or len(self._entries) > KEPT_ENTRIES:
            _, (dropped, _) = self._entries.popitem(last=False)
            self._bytes -= dropped
