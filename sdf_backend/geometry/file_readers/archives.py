"""Unpacks archives, within limits: a few kilobytes may unpack to gigabytes."""

import bz2
import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, cast

# Bytes of a file, and of all that an archive unpacks to.
MOST_BYTES = 4 << 30
MOST_UNPACKED = 1 << 30
MOST_MEMBERS = 10_000

# The members of an archive: how to read each by its path.
Members = dict[str, Callable[[], bytes]]


def unpack_single(data: bytes, suffix: str) -> bytes:
    """The content of a `.bz2` or `.gz` file; raises `ValueError` for one that is damaged or too large."""
    opened = bz2.open if suffix == ".bz2" else gzip.open
    try:
        return _bounded(cast(IO[bytes], opened(BytesIO(data))))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError("it is no archive, or was cut off") from error


def zip_members(data: bytes) -> Members:
    """The members of a zip archive; raises `ValueError` for one that is damaged or too large."""
    archive = check_zip(data)
    return {
        info.filename: lambda info=info: _bounded(archive.open(info))
        for info in archive.infolist()
        if not info.is_dir()
    }


def check_zip(data: bytes) -> zipfile.ZipFile:
    """Open a zip archive; raises `ValueError` for one that is damaged or too large."""
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ValueError("it is no zip archive, or was cut off") from error
    _check_members(len(archive.infolist()), sum(info.file_size for info in archive.infolist()))
    return archive


def tar_members(data: bytes) -> Members:
    """The members of a tar archive, packed or not; raises `ValueError` for one that is damaged or too large."""
    content = unpack_single(data, ".gz") if data[:2] == b"\x1f\x8b" else data
    try:
        archive, members = tarfile.TarFile(fileobj=BytesIO(content)), []
        for member in archive:
            members.append(member)
            _check_members(len(members), len(content))
    except tarfile.TarError as error:
        raise ValueError("it is no tar archive, or was cut off") from error

    def read(member: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(member)
        return b"" if stream is None else _bounded(stream)

    return {member.name: lambda member=member: read(member) for member in members if member.isreg()}


def member_beside(members: Members, path: str, name: str) -> bytes:
    """The member that a file in an archive calls `name`; raises `ValueError` where there is none."""
    for candidate in (str(PurePosixPath(path).parent / name), name):
        if candidate in members:
            return members[candidate]()
    raise ValueError(f"it needs the file {name}, which is not in the archive")


def _check_members(count: int, size: int) -> None:
    if count > MOST_MEMBERS:
        raise ValueError(f"it holds {count:,} files; at most {MOST_MEMBERS:,} are read")
    if size > MOST_UNPACKED:
        raise ValueError(f"it unpacks to {size / 1e9:.1f} GB; at most {MOST_UNPACKED / 1e9:.1f} GB are read")


def _bounded(stream: IO[bytes]) -> bytes:
    content = stream.read(MOST_UNPACKED + 1)
    _check_members(1, len(content))
    return content
