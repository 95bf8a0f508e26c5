"""Key files are read as `keygen` and pyzmq write them; errors never quote a secret."""

import os
from pathlib import Path

import pytest
import zmq
import zmq.auth

from sdf_backend.wire.keys import read_client_keys

SERVER, _ = zmq.curve_keypair()


def test_the_format_is_that_of_pyzmq(tmp_path: Path) -> None:
    metadata = {"server-key": SERVER.decode(), "name": "artist"}
    _, path = zmq.auth.create_certificates(tmp_path, "artist", metadata)
    Path(path).chmod(0o600)
    keys = read_client_keys(path)
    assert (keys.public, keys.secret) == zmq.auth.load_certificate(path)
    assert keys.server == SERVER


def test_keys_may_contain_syntax_characters(tmp_path: Path) -> None:
    """Z85 uses "=", "#" and brackets."""
    path = tmp_path / "artist.key_secret"
    key = "0#=[]1<>#{" * 4
    path.write_text(f"# a comment = nothing\nserver-key='{key}'\n  public-key = \"{key}\"\n secret-key ={key}\n")
    path.chmod(0o600)
    assert set(read_client_keys(path)) == {key.encode()}


@pytest.mark.parametrize("missing", ["server-key", "public-key", "secret-key"])
@pytest.mark.parametrize("value", [None, "short", "x" * 41, "~" * 40, "é" * 20, "#" * 40])
def test_an_invalid_key_is_named_and_not_quoted(tmp_path: Path, missing: str, value: str | None) -> None:
    path = tmp_path / "artist.key_secret"
    keys: dict[str, str | None] = dict.fromkeys(("server-key", "public-key", "secret-key"), SERVER.decode())
    keys[missing] = value
    path.write_text("".join(f'{name} = "{key}"\n' for name, key in keys.items() if key is not None), encoding="utf-8")
    with pytest.raises(ValueError, match=missing) as caught:
        read_client_keys(path)
    assert "keygen" in str(caught.value) and str(path) in str(caught.value)
    assert value is None or value not in str(caught.value)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")  # nobody ever writes into it
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("binary", "absent", ".", "endless", "pipe", "huge"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_client_keys(tmp_path / name)


def test_a_secret_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    _, secret = zmq.auth.create_certificates(tmp_path, "artist", {"server-key": SERVER.decode()})
    path = Path(secret)
    for mode in (0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(ValueError, match=f"can be read by other users; run: chmod 600 {path}"):
            read_client_keys(path)
    path.chmod(0o600)
    assert read_client_keys(path).server == SERVER
