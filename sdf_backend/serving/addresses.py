"""The addresses that a server may listen on: without keys only those of this computer."""

import errno
import ipaddress
import re
import socket

import zmq

from sdf_backend.errors import InputError

ADDRESS_PATTERN = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/\s]+):(\d{1,5}|\*)")


def check_address(address: str, keys: bool) -> str:
    """Return the address in the form of ZeroMQ.

    Raises `InputError` for an invalid address, and for one that other computers can reach if there are no `keys`.
    """
    match = ADDRESS_PATTERN.fullmatch(address)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise InputError(f"{address!r} is not an address to listen on; use for example tcp://127.0.0.1:5577")
    host = _numeric(match[1])
    if not keys and not is_loopback(host):
        raise InputError(
            f"{address} can be reached from other computers, which requires keys: make them with "
            "`python -m sdf_backend keygen KEYS`, then serve with --keys KEYS; or listen on tcp://127.0.0.1:5577"
        )
    return f"tcp://{host}:{match[2]}"


def bind(server: zmq.Socket, address: str, keys: bool) -> str:
    """Listen on an address; returns it with the port that was chosen for `*`.

    Raises `InputError` for what `check_address` refuses, and for an address that cannot be listened on.
    """
    address = check_address(address, keys)
    server.set(zmq.IPV6, 1 if "[" in address else 0)
    try:
        server.bind(address)
    except zmq.ZMQError as error:
        reason = {
            zmq.EADDRINUSE: "the port is in use, perhaps by another backend; stop it or choose another port",
            zmq.EADDRNOTAVAIL: "this computer has no such address",
            errno.ENODEV: "this computer has no such address",
        }.get(error.errno or 0, str(error))
        raise InputError(f"cannot listen on {address}: {reason}") from None
    return server.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def is_loopback(host: str) -> bool:
    """Whether a host, or an address in brackets, is this computer only; no host name but localhost is."""
    try:
        address = ipaddress.ip_address(_numeric(host).strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _numeric(host: str) -> str:
    """A host with `localhost` and short forms of IPv4, such as 127.1, written out."""
    if host.lower().rstrip(".") == "localhost":
        return "127.0.0.1"
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return host
