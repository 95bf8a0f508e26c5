"""Preparing on a real Ray cluster on this machine, which loses a node and its head; and what is refused."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.cluster import endure
from training.cli import app


def test_a_cluster_that_loses_a_node_and_its_head_makes_what_one_process_makes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = endure(tmp_path / "run", meshes=40, samples=2_000)
    assert found["code"] == 1
    assert found["stderr"].strip().splitlines()[-1].startswith("error: the head of the Ray cluster at ")
    assert found["samples before the second run"] >= 20
    assert found["sampled twice"] == 0
    assert found["equal"]


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    folder = tmp_path / "meshes"
    folder.mkdir()
    (folder / "tetrahedron.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n")
    return folder


def refused(mesh: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["prepare", str(mesh), "-o", str(mesh.parent / "data"), *options])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_a_missing_ray_is_named_with_its_extra(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert "pip install 'sdf-shapes[cluster]'" in refused(mesh, "--ray", "auto")


def test_an_address_where_no_cluster_answers_is_refused_at_once(mesh: Path) -> None:
    pytest.importorskip("ray")
    assert "no Ray cluster answers at 127.0.0.1:1; start one with: ray start" in refused(mesh, "--ray", "127.0.0.1:1")


def test_ray_goes_with_neither_shards_nor_processes(mesh: Path) -> None:
    assert "are different steps; give one of them" in refused(mesh, "--ray", "auto", "--shard", "1/2")
    assert "leave out --jobs" in refused(mesh, "--ray", "auto", "--jobs", "2")
