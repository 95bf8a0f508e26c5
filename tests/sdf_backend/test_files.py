"""Atomic writes: files are replaced completely or not at all, even if the writer is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_folder

ROOT = Path(__file__).parents[2]


def test_the_file_is_written_and_no_temporary_remains(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "mesh.ply"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".ply"
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_readable_by_other_users(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt(), InputError("no")])
def test_an_error_in_the_block_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "mesh.ply"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    path.write_text("old")
    program = (
        "import os, signal, sys; from pathlib import Path; from sdf_backend.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half of the n'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    finished = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=120)
    assert finished.returncode == -9
    assert path.read_text() == "old"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_reader_sees_the_complete_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    path.write_text("old")
    with path.open() as reader:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_file_at_the_path_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "mesh.ply", tmp_path / "file" / "deeper" / "mesh.ply"):
        with (
            pytest.raises(InputError, match="cannot write .*mesh.ply: .*choose another folder"),
            atomic_write(path) as new,
        ):
            new.write_text("content")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_at_the_path_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mesh.ply").mkdir()
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path / "mesh.ply") as temporary:
        temporary.write_text("content")
    assert list(tmp_path.iterdir()) == [tmp_path / "mesh.ply"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"), atomic_write(tmp_path / "mesh.ply") as temporary:
        temporary.write_text("content")


def test_a_block_that_writes_nothing_is_one_clear_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    path.write_text("old")
    with pytest.raises(InputError, match="cannot write"), atomic_write(path):
        pass
    assert path.read_text() == "old"


def test_a_folder_that_exists_or_can_be_created_is_accepted(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "folder", "folder/deeper"])
def test_a_folder_below_a_file_is_refused_with_the_name_of_the_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"{tmp_path}/file is a file; choose another folder"):
        check_folder(tmp_path / "file" / below)
