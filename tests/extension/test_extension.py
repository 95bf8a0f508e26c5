"""Contents of the extension zips. `make extension` downloads the real wheels and lets Blender validate the zips."""

import tomllib
from pathlib import Path

import pytest

from extension.__main__ import PLATFORMS, VARIANTS, Variant, _members

WHEEL = "pyzmq-1.0-cp311-cp311-any.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    (tmp_path / WHEEL).write_bytes(b"a wheel")
    return tmp_path / WHEEL


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_zip_contains_all_files_of_the_addon(variant: Variant, wheel: Path) -> None:
    backend = wheel.with_name("sdf_shapes-1.0-py3-none-any.whl")
    backend.write_bytes(b"the backend")
    members = dict(_members(variant, [wheel], backend))
    assert members[f"backend/{backend.name}"] == b"the backend"
    assert members["backend/constraints.txt"] == Path("constraints.txt").read_bytes()
    needed = {"__init__.py", "session.py", "wire/client.py", "wire/__init__.py", "LICENSE", f"wheels/{WHEEL}"}
    assert needed <= set(members)
    assert members["wire/client.py"] == Path("sdf_backend/wire/client.py").read_bytes()
    manifest = tomllib.loads(members["blender_manifest.toml"].decode())
    assert manifest["wheels"] == [f"./wheels/{WHEEL}"]
    assert manifest["blender_version_min"] == variant.first
    assert manifest.get("blender_version_max") == variant.last
    assert tuple(manifest["platforms"]) == variant.platforms
    assert {"network", "files"} == set(manifest["permissions"])


def test_the_variants_for_official_builds_cover_all_versions_without_overlap() -> None:
    old, new, _ = VARIANTS
    assert old.last == new.first
    assert new.last is None
    assert old.platforms == new.platforms == tuple(PLATFORMS)


def test_the_variant_for_distributions_has_wheels_for_a_newer_python() -> None:
    old, new, distributions = VARIANTS
    assert (distributions.first, distributions.last) == (old.first, old.last)
    assert distributions.abi == new.abi
    assert distributions.platforms == ("linux-x64",)


def test_no_packed_module_imports_a_dependency_of_the_backend(wheel: Path) -> None:
    for name, content in _members(VARIANTS[0], [wheel], wheel):
        if name.endswith(".py"):
            lines = [line.split()[1] for line in content.decode().splitlines() if line.startswith(("import ", "from "))]
            assert not {line.split(".")[0] for line in lines} & {"sdf_backend", "torch", "scipy", "trimesh", "typer"}
