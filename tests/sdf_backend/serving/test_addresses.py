"""Addresses to listen on: without keys only those of this computer."""

import pytest

from sdf_backend.errors import InputError
from sdf_backend.serving.addresses import check_address, is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "127.1", "0x7f.1", "localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_addresses_of_this_computer_need_no_keys(host: str) -> None:
    assert is_loopback(host)
    assert check_address(f"tcp://{host}:5577", keys=False).endswith(":5577")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "0", "*", "192.168.1.5", "[::]", "[fe80::1]", "eth0", "example.org", "127.0.0.1.1"]
)
def test_other_addresses_need_keys(host: str) -> None:
    with pytest.raises(InputError, match="keygen"):
        check_address(f"tcp://{host}:5577", keys=False)
    numeric = {"0": "0.0.0.0"}.get(host, host)
    assert check_address(f"tcp://{host}:5577", keys=True) == f"tcp://{numeric}:5577"


@pytest.mark.parametrize(
    "address", ["", "5577", "127.0.0.1:5577", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://a:99999", "ipc:///tmp/x"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is not an address to listen on"):
        check_address(address, keys=True)
