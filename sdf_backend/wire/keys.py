"""The key file of a client, written by `python -m sdf_backend keygen`.

It is a pyzmq certificate: the key pair of the client, and in the metadata the public key of the server.

    metadata
        server-key = "<40 characters>"
    curve
        public-key = "<40 characters>"
        secret-key = "<40 characters>"
"""

import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from zmq.utils import z85

SERVER_KEY = "server-key"
LARGEST_KEY_FILE = 1 << 16


class ClientKeys(NamedTuple):
    """CURVE keys, each as 40 characters of Z85."""

    public: bytes
    secret: bytes
    server: bytes


def read_client_keys(path: Path | str) -> ClientKeys:
    """Read the keys of a client; raises `ValueError` for a file that is not a key file, or that others can read."""
    path = Path(path)
    values = read_values(path)
    keys = ClientKeys(*(_key(path, values, name) for name in ("public-key", "secret-key", SERVER_KEY)))
    check_private(path)
    return keys


def read_values(path: Path) -> dict[str, str]:
    """Read the values of a key file by name; raises `ValueError` for what is no small text file, without waiting."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_KEY_FILE:
            lines = path.read_text("utf-8").splitlines()
        else:  # opening a pipe would wait for its writer, and a device may have no end
            raise ValueError(f"the key file {path} cannot be read: no file of at most {LARGEST_KEY_FILE} bytes")
    except OSError as error:
        raise ValueError(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the key file {path} cannot be read: it is not a text file") from error
    # Z85 contains "=" and "#": split at the first "=" only, and recognise comments at the begin of a line only.
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def check_private(path: Path) -> None:
    """Raise `ValueError` for a secret file that other users can read."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError(f"{path} can be read by other users; run: chmod 600 {path}")


def is_key(text: bytes) -> bool:
    """Whether a text is a CURVE key, 40 characters of Z85."""
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, ValueError, struct.error):
        return False


def _key(path: Path, values: dict[str, str], name: str) -> bytes:
    """Check one key; errors do not quote it, since it may be the secret."""
    key = values.get(name, "").encode()
    if is_key(key):
        return key
    state = "is not a key of 40 characters" if key else "is missing"
    remedy = "ask the operator of the server for the file NAME.key_secret that keygen made"
    raise ValueError(f"key file {path}: the {name} {state}; {remedy}")
