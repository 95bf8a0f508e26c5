"""docs/architecture.md describes the tree as it is: folders and files, layers, and the names of its glossary."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# What is generated or ignored by git, and the empty files that make a folder a package.
UNLISTED = (".*", "__init__.py", "__pycache__", "*.egg-info", "*.tmp", "build", "dist", "data", "runs", "out", "venv")


def block(heading: str) -> list[str]:
    """The lines of the first fenced block under a heading."""
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("```", 2)[1].splitlines()[1:]


def tree() -> dict[str, str]:
    """Listed paths, folders with a slash at their end, and the line of text beside each."""
    found: dict[str, str] = {}
    parents: list[str] = []
    for line in block("The tree"):
        entry, _, text = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], entry]
        path = "".join(parents)
        assert path not in found, f"{path} is listed twice"
        found[path] = text.strip()
    return found


TREE = tree()
FOLDERS = ["", *(path for path in TREE if path.endswith("/"))]


def listed(folder: str) -> set[str]:
    """Names that the page lists directly in a folder; a name may be a pattern, such as *.png."""
    inside = [path.removeprefix(folder) for path in TREE if path.startswith(folder) and path != folder]
    return {name.rstrip("/") for name in inside if "/" not in name.rstrip("/")}


def present(folder: str) -> set[str]:
    """Names that are directly in a folder."""
    names = {path.name for path in (ROOT / folder).iterdir()}
    return {name for name in names if not any(fnmatch(name, pattern) for pattern in UNLISTED)}


def test_every_entry_of_the_tree_has_a_description() -> None:
    assert [path for path, text in TREE.items() if not text] == []


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if listed(folder)])
def test_the_tree_lists_what_is_in_the_folder(folder: str) -> None:
    names, entries = present(folder), listed(folder)
    assert sorted(name for name in names if not any(fnmatch(name, entry) for entry in entries)) == []
    assert sorted(entry for entry in entries if not any(fnmatch(name, entry) for name in names)) == []


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if not listed(folder) and folder[:6] != "tests/"])
def test_a_folder_without_listed_files_holds_no_code_of_its_own(folder: str) -> None:
    assert (ROOT / folder).is_symlink() or not list((ROOT / folder).rglob("*.py"))


def test_the_layers_of_the_page_are_those_that_import_linter_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["name"] == "Layers of the backend"]
    assert [line.split("  ")[0].strip() for line in block("Layers")] == layers


GLOSSARY = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| (.+) \|$", PAGE, re.MULTILINE)
REFERENCE = re.compile(r"`([\w./]+\.py)`((?: `[\w.]+`,?)*)")


@pytest.mark.parametrize(("term", "where"), GLOSSARY, ids=[term for term, _ in GLOSSARY])
def test_the_glossary_points_at_names_that_exist(term: str, where: str) -> None:
    references = REFERENCE.findall(where)
    assert references
    for path, names in references:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+)`", names):
            assert all(re.search(rf"\b{part}\b", source) for part in name.split(".")), f"{path} has no {name}"


def test_the_glossary_is_found() -> None:
    assert len(GLOSSARY) >= 30
