"""The addresses that a server may listen on: without keys only those of this computer."""

import ipaddress
import re

from sdf_backend.errors import InputError

ADDRESS_PATTERN = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/\s]+):(\d{1,5}|\*)")


def check_address(address: str, keys: bool) -> str:
    """Return the address in the form of ZeroMQ.

    Raises `InputError` for an invalid address, and for one that other computers can reach if there are no `keys`.
    """
    match = ADDRESS_PATTERN.fullmatch(address)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise InputError(f"{address!r} is not an address to listen on; use for example tcp://127.0.0.1:5577")
    host = "127.0.0.1" if match[1] == "localhost" else match[1]
    if not keys and not is_loopback(host):
        raise InputError(
            f"{address} can be reached from other computers, which requires keys: make them with "
            "`python -m sdf_backend keygen KEYS`, then serve with --keys KEYS; or listen on tcp://127.0.0.1:5577"
        )
    return f"tcp://{host}:{match[2]}"


def is_loopback(host: str) -> bool:
    """Whether a host, or an address in brackets, is this computer only; no host name but localhost is."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
