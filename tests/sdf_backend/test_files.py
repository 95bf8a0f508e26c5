"""Files that are replaced whole or not at all, by real processes that die on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdf_backend.errors import InputError
from sdf_backend.files import check_folder, atomic_write

ROOT = Path(__file__).parents[2]


def test_what_was_written_stands_at_the_path_and_nothing_else_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "mesh.ply"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".ply"
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_others_may_read_the_file(tmp_path: Path) -> None:
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
    finished = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60)
    assert finished.returncode == -9
    assert path.read_text() == "old"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_reader_sees_the_old_file_whole_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    path.write_text("old")
    with path.open() as reader:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_file_in_the_way_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "mesh.ply", tmp_path / "file" / "deeper" / "mesh.ply"):
        with (
            pytest.raises(InputError, match="cannot write .*mesh.ply: .*choose another folder"),
            atomic_write(path) as new,
        ):
            new.write_text("content")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_the_way_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
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


def test_a_folder_that_is_there_or_can_be_made_passes(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "folder", "folder/deeper"])
def test_a_folder_that_cannot_be_is_refused_with_the_file_in_its_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"{tmp_path}/file is a file; choose another folder"):
        check_folder(tmp_path / "file" / below)
