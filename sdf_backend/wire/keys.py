"""The key file that an operator hands to a client: `python -m sdf_backend keygen` writes it.

It is pyzmq's certificate format: the client's own pair, and in its metadata the public key of the server.

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
    """CURVE keys as 40 characters of Z85 each."""

    public: bytes
    secret: bytes
    server: bytes


def read_client_keys(path: Path | str) -> ClientKeys:
    """The keys of a client's key file; raises `ValueError` with one sentence where it cannot be used."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            lines = file.read(LARGEST_KEY_FILE).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text file"
        raise ValueError(f"the key file {path} cannot be read: {reason}") from error
    # Z85 uses "=" and "#" too: split at the first "=" only, and take a line for a comment by its beginning only.
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    values = {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}
    return ClientKeys(*(_key(path, values, name) for name in ("public-key", "secret-key", SERVER_KEY)))


def _key(path: Path, values: dict[str, str], name: str) -> bytes:
    """One checked key; its value is not repeated in the error, it may be the secret."""
    key = values.get(name, "").encode()
    try:
        if len(key) == 40 and len(z85.decode(key)) == 32:
            return key
    except (KeyError, ValueError, struct.error):
        pass
    state = "is not a key of 40 characters" if key else "is missing"
    remedy = "ask the server's operator for the file NAME.key_secret that keygen made"
    raise ValueError(f"in the key file {path} the {name} {state}; {remedy}")
