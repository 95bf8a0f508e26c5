"""The private folder of the socket over which a server talks to its workers; those of dead servers are removed."""

import os
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "sdf-shapes-"
SOCKET = "workers"
# A server listens this soon after it has made its folder.
LISTENS_WITHIN_SECONDS = 60.0


def make_socket_folder() -> Path:
    """A new private folder; those that servers of this user left when they were killed are removed first."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another server may be removing it
            if _is_abandoned(folder):
                (folder / SOCKET).unlink(missing_ok=True)
                folder.rmdir()
    return Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0700


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder is this user's and nobody listens in it, nor is about to."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(folder / SOCKET))
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:
            return time.time() - status.st_mtime > LISTENS_WITHIN_SECONDS
        except BlockingIOError:  # it has many connections
            return False
    return False
