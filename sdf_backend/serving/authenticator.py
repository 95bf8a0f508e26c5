"""Decides who may connect: the authorised clients, and the authenticator of ZeroMQ (ZAP, RFC 27)."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from sdf_backend.errors import InputError
from sdf_backend.log import Throttle, line, logger
from sdf_backend.serving.server_keys import PUBLIC, read_key

ZAP_ADDRESS = "inproc://zeromq.zap.01"
# A change of the folder of clients takes effect within this many seconds.
RELOAD_SECONDS = 1.0
# Bound of one call: strangers may connect faster than requests can be answered.
REQUESTS_A_CALL = 256


class Peers(NamedTuple):
    """What connects to a socket, and how the log tells that one of them was not admitted or cost too much."""

    name: str
    refused: str
    cut_off: str


CLIENTS = Peers("client", "client refused", "client cut off")
MACHINES = Peers("machine", "machine refused", "machine cut off")
WORKERS = Peers("worker", "worker refused", "worker cut off")


class AuthorisedClients:
    """The public keys in a folder, reloaded regularly. Who is authorised is the key; its name is for people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users: dict[str, str] = {}
        self._revoked: set[str] = set()
        self._logged: set[str] = set()
        self._loaded_at = float("-inf")

    def user_of(self, key: str) -> str | None:
        """The name of the user with this public key, Z85; None for an unknown key."""
        self._reload()
        return self._users.get(key)

    def take_revoked(self) -> set[str]:
        """The keys that have been removed since the last call."""
        self._reload()
        revoked, self._revoked = self._revoked, set()
        return revoked

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._loaded_at < RELOAD_SECONDS:
            return
        self._loaded_at, users = now, {}
        try:
            paths = sorted(self.folder.iterdir())
        except FileNotFoundError:
            paths = []
        except OSError as error:  # for instance no free descriptor; that revokes no key
            self._log_once("clients folder unreadable", error)
            return
        for path in paths:
            if path.suffix == PUBLIC:
                try:
                    users[read_key(path)[0].decode()] = path.stem
                except InputError as error:
                    self._log_once("key file skipped", error)
                    users |= {key: user for key, user in self._users.items() if user == path.stem}
        self._revoked |= self._users.keys() - users.keys()
        self._users = users

    def _log_once(self, event: str, error: Exception) -> None:
        if str(error) not in self._logged:
            self._logged.add(str(error))
            logger.warning(line(event, reason=error))


class Authenticator:
    """Answers the authentication requests of ZeroMQ (ZAP), and logs refusals. Never blocks.

    It must exist before any socket that it protects.
    """

    def __init__(self, context: zmq.Context) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)
        self._protected: dict[str, tuple[Peers, Callable[[str], bool]]] = {}
        self._log = Throttle()

    def protect(self, socket: zmq.Socket, peers: Peers, secret: bytes, admits: Callable[[str], bool]) -> None:
        """Admit only peers to a socket whose public key, Z85, `admits` knows; it becomes their user id."""
        self._protected[peers.name] = peers, admits
        socket.set(zmq.ZAP_DOMAIN, peers.name.encode())
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, secret)

    def process(self) -> None:
        """Answer all pending requests."""
        with suppress(zmq.Again):
            for _ in range(REQUESTS_A_CALL):
                self.socket.send_multipart(self._answer(self.socket.recv_multipart(zmq.NOBLOCK)))

    def close(self) -> None:
        """Close the socket; no client is admitted any more."""
        self.socket.close()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        _, number, domain, address, _, mechanism, *credentials = [*request, b"", b"", b"", b"", b"", b""]
        key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and len(credentials[0]) == 32 else ""
        peers, admits = self._protected[domain.decode()]
        if key and admits(key):
            return [b"1.0", number, b"200", b"OK", key.encode(), b""]
        host = address.decode(errors="replace")
        reason = f"its key is not among the authorised {peers.name}s"
        self._log.warning((host, key), peers.refused, address=host, reason=reason, key=key)
        return [b"1.0", number, b"400", b"unknown key", b"", b""]
