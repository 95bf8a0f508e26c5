"""The key file of a client, written by `python -m sdf_backend keygen`.

It is a pyzmq certificate: the key pair of the client, and in the metadata the public key of the server.

    metadata
        server-key = "<40 characters>"
    curve
        public-key = "<40 characters>"
        secret-key = "<40 characters>"
"""

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
    """Read the keys of a client; raises `ValueError` for a file that is not a key file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            lines = file.read(LARGEST_KEY_FILE).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ValueError(f"the key file {path} cannot be read: {reason}") from error
    # Z85 contains "=" and "#": split at the first "=" only, and recognise comments at the begin of a line only.
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    values = {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
    return ClientKeys(*(_key(path, values, name) for name in ("public-key", "secret-key", SERVER_KEY)))


def _key(path: Path, values: dict[str, str], name: str) -> bytes:
    """Check one key; errors do not quote it, since it may be the secret."""
    key = values.get(name, "").encode()
    try:
        if len(key) == 40 and len(z85.decode(key)) == 32:
            return key
    except (KeyError, ValueError, struct.error):
        pass
    state = "is not a key of 40 characters" if key else "is missing"
    remedy = "ask the operator of the server for the file NAME.key_secret that keygen made"
    raise ValueError(f"key file {path}: the {name} {state}; {remedy}")
