"""CURVE key files of a server, its clients and the machines that work for it, in the certificate format of pyzmq.

    KEYS/server.key, KEYS/server.key_secret    the key pair of the server
    KEYS/clients/NAME.key                      the public key of each authorised client
    KEYS/machines/NAME.key                     the public key of each authorised machine
    KEYS/NAME.key_secret                       the one file for NAME: their key pair and the public key of the server

Secrets are never logged.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from sdf_backend.errors import InputError
from sdf_backend.wire.keys import check_private, is_key, read_values

SERVER, CLIENTS, MACHINES, PUBLIC, SECRET = "server", "clients", "machines", ".key", ".key_secret"
DEFAULT_CLIENT = "artist"
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class ServerKeys:
    """The key pair of a server, as Z85 text, and the folders of its authorised clients and machines."""

    public: bytes
    secret: bytes = field(repr=False)
    clients: Path
    machines: Path


def make_keys(folder: Path, name: str = DEFAULT_CLIENT, of: str = CLIENTS) -> tuple[Path, Path]:
    """Make the keys of a client or machine, and those of the server if there are none yet.

    Parameters
    ----------
    of : `CLIENTS` or `MACHINES`

    Returns
    -------
    The secret files of the server and of the client or machine.

    Raises
    ------
    InputError : for a name that has keys already, or a folder that cannot be written
    """
    kind = of.removesuffix("s")
    if not NAME_PATTERN.fullmatch(name) or name == SERVER:
        raise InputError(f"{name!r} cannot be the name of a {kind}; use letters, digits, hyphens and underscores")
    secrets = folder / f"{SERVER}{SECRET}", folder / f"{name}{SECRET}"
    public = folder / of / f"{name}{PUBLIC}"
    for path in (secrets[1], public):
        if path.exists():
            raise InputError(f"{path} already exists; choose another name with --{kind}, or remove it first")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for authorised in (CLIENTS, MACHINES):
            (folder / authorised).mkdir(exist_ok=True, mode=0o700)
        if not secrets[0].exists():
            pair = zmq.curve_keypair()
            _write_key(secrets[0], *pair)
            _write_key(folder / f"{SERVER}{PUBLIC}", pair[0])
        server_public, _ = read_key(secrets[0])
        pair = zmq.curve_keypair()
        _write_key(secrets[1], *pair, server=server_public)
        _write_key(public, pair[0])
    except OSError as error:
        raise InputError(f"cannot write keys into {folder}: {error.strerror or error}") from error
    return secrets


def load_keys(folder: Path) -> ServerKeys:
    """Load the keys of a server.

    Raises
    ------
    InputError : for keys that are missing or invalid, secrets that other users can read, and folders that they can
        write, where anyone could authorise himself
    """
    path = folder / f"{SERVER}{SECRET}"
    how = f"make them with: python -m sdf_backend keygen {folder}"
    if not path.is_file():
        raise InputError(f"there are no server keys in {folder}; {how}")
    if not (folder / CLIENTS).is_dir():
        raise InputError(f"there is no folder {folder / CLIENTS} of authorised clients; {how}")
    for writable in (folder, folder / CLIENTS, folder / MACHINES):
        if os.name == "posix" and writable.exists() and stat.S_IMODE(writable.stat().st_mode) & 0o022:
            raise InputError(f"{writable} can be written by other users; run: chmod go-w {writable}")
    try:
        for secret_file in folder.glob(f"*{SECRET}"):
            check_private(secret_file)
    except (OSError, ValueError) as error:
        raise InputError(f"{error}") from error
    public, secret = read_key(path)
    if secret is None:
        raise InputError(f"{path} contains no secret key; {how}")
    return ServerKeys(public, secret, folder / CLIENTS, folder / MACHINES)


def read_key(path: Path) -> tuple[bytes, bytes | None]:
    """Read the public key of a file, and its secret key if there is one; raises `InputError` for an invalid file."""
    try:
        values = read_values(path)
    except ValueError as error:
        raise InputError(str(error)) from error
    public, secret = (values.get(name, "").encode() for name in ("public-key", "secret-key"))
    if not is_key(public) or (secret and not is_key(secret)):
        raise InputError(f"{path} is not a key file: its keys are not 40 characters of Z85")
    return public, secret or None


def _write_key(path: Path, public: bytes, secret: bytes | None = None, server: bytes | None = None) -> None:
    """Write a new key file; secret files are created with their final mode."""
    lines = [f"# ZeroMQ CURVE {'secret' if secret else 'public'} key of SDF Shapes", "metadata"]
    lines += [f'    server-key = "{server.decode()}"'] if server else []
    lines += ["curve", f'    public-key = "{public.decode()}"']
    lines += [f'    secret-key = "{secret.decode()}"'] if secret else []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))
