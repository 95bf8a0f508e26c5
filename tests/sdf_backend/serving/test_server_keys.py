"""Key files: their owners and modes, and the errors for files that cannot be used."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from sdf_backend.errors import InputError
from sdf_backend.serving.authenticator import AuthorisedClients
from sdf_backend.serving.server_keys import load_keys, make_keys
from sdf_backend.wire.keys import read_client_keys


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_for_a_server_and_its_clients(tmp_path: Path) -> None:
    keys = tmp_path / "new" / "keys"
    make_keys(keys)
    make_keys(keys, "bob")
    assert sorted(path.relative_to(keys).as_posix() for path in keys.rglob("*") if path.is_file()) == [
        "artist.key_secret",
        "bob.key_secret",
        "clients/artist.key",
        "clients/bob.key",
        "server.key",
        "server.key_secret",
    ]
    server = load_keys(keys)
    artist, bob = (read_client_keys(keys / f"{name}.key_secret") for name in ("artist", "bob"))
    assert artist.server == bob.server == server.public
    authorised = AuthorisedClients(server.clients)
    assert [authorised.user_of(key.decode()) for key in (artist.public, bob.public, server.public)] == [
        "artist",
        "bob",
        None,
    ]


def test_secret_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    secrets = list((tmp_path / "keys").glob("*.key_secret"))
    assert [mode(path) for path in secrets] == [0o600, 0o600]
    for path in (tmp_path / "keys").rglob("*.key"):
        assert "secret-key" not in path.read_text()


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="--client"):
        make_keys(tmp_path)
    (tmp_path / "artist.key_secret").unlink()
    with pytest.raises(InputError, match="already exists"):  # still authorised
        make_keys(tmp_path)
    assert all(path.read_text() == text for path, text in before.items() if path.exists())


@pytest.mark.parametrize("name", ["server", "", "../bob", "a b", "x" * 65, "bob.key"])
def test_an_invalid_client_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a client"):
        make_keys(tmp_path, name)


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write keys"):
        make_keys(tmp_path / "file")


def test_unusable_server_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keygen"):
        load_keys(tmp_path / "nowhere")
    make_keys(tmp_path)
    secret = tmp_path / "server.key_secret"
    secret.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        load_keys(tmp_path)
    secret.chmod(0o600)
    text = secret.read_text()
    for damaged in ("", text.replace("secret-key", "other"), text.replace('key = "', 'key = "~'), text[:-9], "\x00"):
        secret.write_text(damaged)
        with pytest.raises(InputError) as refusal:
            load_keys(tmp_path)
        assert not any(piece in str(refusal.value) for piece in text.split('"')[1::2])
    secret.write_text(text)
    shutil.rmtree(tmp_path / "clients")
    with pytest.raises(InputError, match="clients"):
        load_keys(tmp_path)


@pytest.mark.parametrize("folder", [".", "clients", "machines"])
@pytest.mark.parametrize("writers", [0o020, 0o002])
def test_folders_that_others_can_write_are_refused_with_the_remedy(tmp_path: Path, folder: str, writers: int) -> None:
    keys = tmp_path / "keys"
    make_keys(keys)
    (keys / folder).chmod(0o755 | writers)
    with pytest.raises(InputError, match=f"can be written by other users; run: chmod go-w {keys / folder}"):
        load_keys(keys)
    (keys / folder).chmod(0o755)
    assert load_keys(keys).clients == keys / "clients"


def test_new_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    assert [mode(tmp_path / "keys"), mode(tmp_path / "keys" / "clients")] == [0o700, 0o700]


def test_a_secret_of_a_client_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    make_keys(tmp_path, "alice")
    (tmp_path / "alice.key_secret").chmod(0o640)
    with pytest.raises(InputError, match=f"run: chmod 600 {tmp_path / 'alice.key_secret'}"):
        load_keys(tmp_path)


def test_a_secret_is_not_part_of_the_representation(tmp_path: Path) -> None:
    make_keys(tmp_path)
    keys = load_keys(tmp_path)
    assert keys.secret.decode() not in repr(keys)
