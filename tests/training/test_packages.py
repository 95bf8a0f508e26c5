"""Members of unpacked packages: files by the end of their path, and what lies in archives."""

import zipfile
from pathlib import Path

import pytest

from sdf_backend.errors import InputError
from training.packages import Packages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one/usr/share/cars/audi/body.ac", "one/usr/share/cars/benz/body.ac"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    with zipfile.ZipFile(tmp_path / "one" / "data.zip", "w") as archive:
        archive.writestr("cars/citroen/body.obj", "citroen")
    return tmp_path


def test_a_file_is_found_by_the_end_of_its_path(folder: Path) -> None:
    with Packages(folder) as packages:
        assert packages.find("benz/body.ac") == folder / "one/usr/share/cars/benz/body.ac"
        assert packages.find("body.ac") == folder / "one/usr/share/cars/audi/body.ac"
        assert packages.find("z/body.ac") is None
        assert packages.find("nothing") is None


def test_members_are_given_as_paths_with_their_own_suffix(folder: Path) -> None:
    with Packages(folder) as packages:
        with packages.member("audi/body.ac") as path:
            assert path.read_text() == "one/usr/share/cars/audi/body.ac"
        for _ in range(2):
            with packages.member("cars/citroen/body.obj", "data.zip") as path:
                assert path.read_text() == "citroen"
                assert path.suffix == ".obj"
            assert not path.exists()


@pytest.mark.parametrize(
    ("name", "archive", "message"),
    [
        ("opel/body.ac", "", r"opel/body\.ac is not in the packages' folder"),
        ("cars/citroen/body.obj", "more.zip", r"more\.zip is not in the packages' folder"),
        ("cars/fiat/body.obj", "data.zip", r"cars/fiat/body\.obj is not in data\.zip"),
    ],
)
def test_a_member_that_is_not_there_is_refused_with_its_name(
    folder: Path, name: str, archive: str, message: str
) -> None:
    with Packages(folder) as packages, pytest.raises(InputError, match=message), packages.member(name, archive):
        pass


@pytest.mark.parametrize("damage", ["cut", "flipped", "method"])
def test_a_damaged_archive_is_refused_with_what_to_do(folder: Path, damage: str) -> None:
    path = folder / "one" / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("body.obj", "v 0 0 0\n" * 1000)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\1\2")
    if damage == "cut":
        content = content[:-10]
    elif damage == "flipped":
        content[50] ^= 0xFF
    else:
        content[8], content[central + 10] = 99, 99
    path.write_bytes(bytes(content))
    with (
        Packages(folder) as packages,
        pytest.raises(InputError, match=r"data\.zip cannot be unpacked: .*; unpack its package again"),
        packages.member("body.obj", "data.zip"),
    ):
        pass


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder; unpack the packages there"):
        Packages(tmp_path / "nowhere")
