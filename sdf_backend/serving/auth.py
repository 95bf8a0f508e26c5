"""Keys: who may connect. CURVE keys in files of pyzmq's certificate format, and ZeroMQ's authentication (ZAP).

    KEYS/server.key, KEYS/server.key_secret    the server's pair
    KEYS/clients/NAME.key                      the public keys of those who may connect
    KEYS/NAME.key_secret                       the one file that NAME is given: their pair and the server's public key

A server that listens on another address than this computer's own must have keys. Secrets are never logged.
"""

import ipaddress
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from sdf_backend.errors import InputError
from sdf_backend.log import Throttle, line, logger

SERVER, CLIENTS, PUBLIC, SECRET = "server", "clients", ".key", ".key_secret"
DEFAULT_CLIENT = "artist"
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
ADDRESS_PATTERN = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/\s]+):(\d{1,5}|\*)")
ZAP_ADDRESS = "inproc://zeromq.zap.01"
# A changed folder of clients takes effect within this many seconds.
RELOAD_SECONDS = 1.0
# Strangers can knock faster than anybody can answer; the server has other things to do too.
EVENTS_A_CALL = 256


# --- key files ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerKeys:
    """A server's key pair, Z85 text, and the folder of those who may connect."""

    public: bytes
    secret: bytes = field(repr=False)
    clients: Path


def make_keys(folder: Path, client: str = DEFAULT_CLIENT) -> tuple[Path, Path]:
    """Make a client's keys, and the server's where there are none yet; the secret files of both.

    Raises `InputError` where the client has keys already, or the folder cannot be written.
    """
    if not NAME_PATTERN.fullmatch(client) or client == SERVER:
        raise InputError(f"{client!r} cannot be a client's name; use letters, digits, hyphens and underscores")
    secrets = folder / f"{SERVER}{SECRET}", folder / f"{client}{SECRET}"
    public = folder / CLIENTS / f"{client}{PUBLIC}"
    for path in (secrets[1], public):
        if path.exists():
            raise InputError(f"{path} exists already; name another client with --client, or remove it first")
    try:
        (folder / CLIENTS).mkdir(parents=True, exist_ok=True, mode=0o700)
        if not secrets[0].exists():
            pair = zmq.curve_keypair()
            _write_key(secrets[0], *pair)
            _write_key(folder / f"{SERVER}{PUBLIC}", pair[0])
        server_public, _ = _read_key(secrets[0])
        pair = zmq.curve_keypair()
        _write_key(secrets[1], *pair, server=server_public)
        _write_key(public, pair[0])
    except OSError as error:
        raise InputError(f"cannot write keys into {folder}: {error.strerror or error}") from error
    return secrets


def load_keys(folder: Path) -> ServerKeys:
    """A server's keys; raises `InputError` where they are missing, unusable or readable by others."""
    path = folder / f"{SERVER}{SECRET}"
    how = f"make them with: python -m sdf_backend keygen {folder}"
    if not path.is_file():
        raise InputError(f"there are no server keys in {folder}; {how}")
    if not (folder / CLIENTS).is_dir():
        raise InputError(f"there is no folder {folder / CLIENTS} of those who may connect; {how}")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path} can be read by others than its owner; run: chmod 600 {path}")
    public, secret = _read_key(path)
    if secret is None:
        raise InputError(f"{path} holds no secret key; {how}")
    return ServerKeys(public, secret, folder / CLIENTS)


def _read_key(path: Path) -> tuple[bytes, bytes | None]:
    """The public and, where there is one, the secret key of a file, checked to be keys."""
    try:
        public, secret = load_certificate(path)
        keys = [key for key in (public, secret) if key is not None]
        if any(len(key) != 40 or len(z85.decode(key)) != 32 for key in keys):
            raise ValueError
    except (OSError, ValueError, KeyError, struct.error) as error:
        # The other errors' text may hold a piece of the key.
        reason = error.strerror if isinstance(error, OSError) else "its keys are not 40 characters of Z85"
        raise InputError(f"{path} is no key file: {reason}") from None
    return public, secret


def _write_key(path: Path, public: bytes, secret: bytes | None = None, server: bytes | None = None) -> None:
    """Write a new key file; a secret is never readable by others, not even for a moment."""
    lines = [f"# ZeroMQ CURVE {'secret' if secret else 'public'} key of SDF Shapes", "metadata"]
    lines += [f'    server-key = "{server.decode()}"'] if server else []
    lines += ["curve", f'    public-key = "{public.decode()}"']
    lines += [f'    secret-key = "{secret.decode()}"'] if secret else []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))


# --- addresses ---------------------------------------------------------------------------------------------------


def check_address(address: str, keys: bool) -> str:
    """The address as ZeroMQ takes it; raises `InputError` for one that is not an address, or needs keys and has none."""
    match = ADDRESS_PATTERN.fullmatch(address)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise InputError(f"{address!r} is not an address to listen on; write tcp://127.0.0.1:5577")
    host = "127.0.0.1" if match[1] == "localhost" else match[1]
    if not keys and not is_loopback(host):
        raise InputError(
            f"{address} can be reached from other computers, which needs keys: make them with "
            "`python -m sdf_backend keygen KEYS`, then serve with --keys KEYS; or listen on tcp://127.0.0.1:5577"
        )
    return f"tcp://{host}:{match[2]}"


def is_loopback(host: str) -> bool:
    """Whether a host, or an address in brackets, is this computer only; names other than localhost are not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# --- who may connect ---------------------------------------------------------------------------------------------


class AuthorisedClients:
    """The public keys in a folder, read again when it may have changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users: dict[bytes, str] = {}
        self._complained: set[str] = set()
        self._read_at = float("-inf")

    def user(self, key: bytes) -> str | None:
        """The name of who has this public key, Z85; None for a stranger."""
        self._refresh()
        return self._users.get(key)

    def knows(self, user: str) -> bool:
        """Whether this user may still be here."""
        self._refresh()
        return user in self._users.values()

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at < RELOAD_SECONDS:
            return
        self._read_at, users = now, {}
        try:
            paths = sorted(self.folder.iterdir())
        except FileNotFoundError:
            paths = []
        except OSError as error:  # no descriptor left, for one: that takes nobody's key away
            self._complain("folder of clients unreadable", error)
            return
        for path in paths:
            if path.suffix == PUBLIC:
                try:
                    users[_read_key(path)[0]] = path.stem
                except InputError as error:
                    self._complain("key file skipped", error)
                    users |= {key: user for key, user in self._users.items() if user == path.stem}
        self._users = users

    def _complain(self, event: str, error: Exception) -> None:
        if str(error) not in self._complained:
            self._complained.add(str(error))
            logger.warning(line(event, reason=error))


class Gate:
    """Answers ZeroMQ's questions who may connect (ZAP, RFC 27), and logs who was refused. Never waits.

    Make it before any socket that is to be guarded.
    """

    def __init__(self, context: zmq.Context) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)
        self._users: dict[str, Callable[[bytes], str | None]] = {}
        self._lines = Throttle()

    def guard(self, guarded: zmq.Socket, domain: str, secret: bytes, user: Callable[[bytes], str | None]) -> None:
        """Let only those onto a socket for whose public key, Z85, `user` gives a name."""
        self._users[domain] = user
        guarded.set(zmq.ZAP_DOMAIN, domain.encode())
        guarded.set(zmq.CURVE_SERVER, 1)
        guarded.set(zmq.CURVE_SECRETKEY, secret)

    def answer(self) -> None:
        """Answer all questions that have come."""
        with suppress(zmq.Again):
            for _ in range(EVENTS_A_CALL):
                self.socket.send_multipart(self._answer(self.socket.recv_multipart(zmq.NOBLOCK)))

    def close(self) -> None:
        """Nobody is let in any more."""
        self.socket.close()

    def _answer(self, question: list[bytes]) -> list[bytes]:
        _, number, domain, address, _, mechanism, *credentials = [*question, b"", b"", b"", b"", b"", b""]
        user, key = None, b""
        if mechanism == b"CURVE" and len(credentials[0]) == 32:
            key = z85.encode(credentials[0])
            user = self._users.get(domain.decode(errors="replace"), lambda _: None)(key)
        if user is None:
            place = address.decode(errors="replace")
            reason, shown = "its key is not among the authorised clients", key.decode()
            self._lines.warning((place, shown), "client refused", address=place, reason=reason, key=shown)
            return [b"1.0", number, b"400", b"unknown key", b"", b""]
        return [b"1.0", number, b"200", b"OK", user.encode(), b""]


def _nothing(descriptor: int) -> None:
    """Of a connection that nobody wants to hear of."""


class Doorkeeper:
    """Watches connections come and go, and logs those that fail before ZAP is asked.

    Those are without encryption, or made for another server's key.
    """

    REASONS: ClassVar[dict[int, str]] = {
        int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "one side of the connection encrypts, the other does not",
        int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "it expects a server with another key",
    }
    # Which of the two sides hangs up first is chance; then the reason is lost.
    UNKNOWN = "the handshake broke off; perhaps only one side of the connection encrypts"
    EVENTS = (
        zmq.EVENT_ACCEPTED
        | zmq.EVENT_DISCONNECTED
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    )

    def __init__(
        self, guarded: zmq.Socket, opened: Callable[[int], None] = _nothing, closed: Callable[[int], None] = _nothing
    ) -> None:
        """`opened` and `closed` hear of each connection's descriptor."""
        self._guarded, self._opened, self._closed = guarded, opened, closed
        self.socket = guarded.get_monitor_socket(self.EVENTS)
        self._addresses: dict[int, str] = {}
        self._reason = ""
        self._lines = Throttle()

    def look(self) -> None:
        """Log what has happened since the last call."""
        with suppress(zmq.Again):
            for _ in range(EVENTS_A_CALL):
                event = recv_monitor_message(self.socket, zmq.NOBLOCK)
                self._note(int(event["event"]), int(event["value"]))

    def close(self) -> None:
        """Look no more."""
        self._guarded.disable_monitor()
        self.socket.close()

    def _note(self, event: int, value: int) -> None:
        """An event, and its value: the connection's descriptor, or why it failed."""
        if event == zmq.EVENT_ACCEPTED:
            self._addresses[value] = _peer_of(value)
            self._opened(value)
        elif event == zmq.EVENT_DISCONNECTED:
            address = self._addresses.pop(value, "")
            self._closed(value)
            if self._reason:  # libzmq says first why, then which
                self._lines.warning((address, self._reason), "client refused", address=address, reason=self._reason)
                self._reason = ""
        else:
            self._reason = self.REASONS.get(value, self.UNKNOWN)


def _peer_of(descriptor: int) -> str:
    """The host at the other end of a connection that libzmq owns; empty where it is closed already."""
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return ""
    with copy:
        try:
            return str(copy.getpeername()[0])
        except (OSError, IndexError):
            return ""
