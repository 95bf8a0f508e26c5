"""Bounds-checked reading of little-endian binary files whose headers may lie."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from sdf_backend.errors import InputError


class BinaryReader:
    """A cursor over the bytes of one file.

    Every read is checked against the size of the file before anything is allocated, so a count of four billion costs
    nothing and raises `InputError`.

    Parameters
    ----------
    path : the file; it is read whole
    """

    def __init__(self, path: Path) -> None:
        try:
            self.content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        self.path = path
        self.offset = 0

    def header(self, magic: bytes, version: int, kind: str) -> None:
        """Read four magic bytes and a 32-bit version, and refuse any others; `kind` names the format."""
        found = self.content[:4]
        if found != magic:
            raise InputError(f"{self.path} is not {kind}: it begins with {found!r} instead of {magic!r}")
        self.offset = 4
        number = self.integer("the version")
        if number != version:
            raise InputError(f"{self.path} has version {number} of {kind}; only version {version} can be read")

    def seek(self, offset: int) -> None:
        """Go to an offset in bytes from the start of the file; `array` refuses one that lies outside."""
        self.offset = offset

    def array(self, dtype: DTypeLike, count: int, what: str) -> np.ndarray:
        """Read `count` items.

        Parameters
        ----------
        dtype : of one item, little-endian
        count : number of items, as the file's header claims it
        what : what the items are, for the message

        Returns
        -------
        items : (count,) read-only view of the file's bytes

        Raises
        ------
        InputError : the items do not lie within the file
        """
        size = np.dtype(dtype).itemsize * count
        if count < 0 or not 0 <= self.offset <= len(self.content) - size:
            raise InputError(
                f"{self.path} is damaged or cut short: {count} {what} at byte {self.offset} do not fit into its "
                f"{len(self.content)} bytes; unpack it again"
            )
        items = np.frombuffer(self.content, dtype, count, self.offset)
        self.offset += size
        return items

    def integer(self, what: str) -> int:
        """Read one unsigned 32-bit integer."""
        return int(self.array("<u4", 1, what)[0])

    def skip(self, count: int, what: str) -> None:
        """Pass over `count` bytes, which must be there."""
        self.array("u1", count, what)

    def structure(self, layout: str, what: str) -> tuple:
        """Read one record by its `struct` layout, such as "<17i"."""
        return struct.unpack(layout, self.array("u1", struct.calcsize(layout), f"bytes of {what}").tobytes())


def check_indices(indices: np.ndarray, count: int, what: str, path: Path) -> None:
    """Raise `InputError` where an index is not in 0..count-1."""
    if indices.size and int(indices.max()) >= count:
        raise InputError(f"{path} is damaged: {what} {int(indices.max())} is not among its {count}; unpack it again")
