"""Finds the members of packages: files of unpacked Debian packages, and what lies in archives among them."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from sdf_backend.errors import InputError


class Packages:
    """A folder into which packages were unpacked (`dpkg -x`); a context manager, which closes the archives.

    Parameters
    ----------
    folder : the folder

    Raises
    ------
    InputError : there is no such folder
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; unpack the packages there: dpkg -x PACKAGE.deb {folder}")
        self.folder = folder
        self._files: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._files.setdefault(path.name, []).append(path)
        # Archives stay open: reading the directory of one with 36,000 members takes half a second.
        self._archives: dict[Path, zipfile.ZipFile] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Packages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def find(self, name: str) -> Path | None:
        """Return the first file whose path ends in these parts; None where there is none."""
        wanted = Path(name).parts
        for path in self._files.get(wanted[-1], []):
            if path.parts[-len(wanted) :] == wanted:
                return path
        return None

    @contextmanager
    def member(self, name: str, archive: str = "") -> Iterator[Path]:
        """Give the path of a member for as long as the block lasts.

        Parameters
        ----------
        name : the last parts of its path, or its whole name in the archive
        archive : the zip file that holds it; empty where the package holds it as a file

        Raises
        ------
        InputError : it is not there, or the archive is damaged
        """
        found = self.find(archive or name)
        if found is None:
            raise InputError(f"{archive or name} is not in the packages' folder {self.folder}")
        if not archive:
            yield found
            return
        with tempfile.TemporaryDirectory() as folder:
            yield self._extracted(found, name, Path(folder))

    def _extracted(self, archive: Path, name: str, folder: Path) -> Path:
        try:
            if archive not in self._archives:
                self._archives[archive] = self._stack.enter_context(zipfile.ZipFile(archive))
            return Path(self._archives[archive].extract(name, folder))
        except KeyError as error:
            raise InputError(f"{name} is not in {archive.name}") from error
        # NotImplementedError, RuntimeError: a compression or an encryption that a damaged header claims.
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise InputError(f"{archive.name} cannot be unpacked: {error}; unpack its package again") from error
