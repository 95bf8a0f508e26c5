"""The pages for people: their links lead somewhere, and the commands that they show exist."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("sdf_backend/starter_models/*.md")],
    key=lambda page: page.name,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_by_its_path_exists(page: Path) -> None:
    folders = "sdf_backend|training|blender_addon|benchmarks|demo|extension|tests|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w.-]+):", makefile, re.MULTILINE))
    targets |= {f"starter-{name}" for name in re.findall(r"^model\.(\w+) *:=", makefile, re.MULTILINE)}
    named = re.findall(r"(?:^    |`)make ((?:[a-z][\w.-]* ?)+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {target for line in named for target in line.split()} <= targets


def commands() -> list[tuple[str, str, str]]:
    """Each page's `python -m PACKAGE COMMAND ... --option`, with backslashes at line ends joined."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for package, rest in re.findall(r"python -m (sdf_backend|training) ([a-z][^`\n]*)", text):
            found.append((page.name, package, rest.split("      #")[0]))
    return found


@pytest.mark.parametrize(("page", "package", "rest"), commands())
def test_every_command_that_a_page_shows_exists_with_its_options(page: str, package: str, rest: str) -> None:
    from importlib import import_module

    from typer.main import get_command

    group = get_command(import_module(f"{package}.cli").app)
    words = rest.split()
    known = group.commands  # type: ignore[attr-defined]
    assert words[0] in known, f"{page} shows {words[0]}"
    declared = known[words[0]].params
    options = {option for parameter in declared for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert used <= options | {"--help"}, f"{page} shows {rest}"


def test_every_log_line_that_the_operator_may_meet_exists() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("sdf_backend/**/*.py")))
    table = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8").split("## What can go wrong", 1)[1]
    events = re.findall(r"`([a-z ]+?)(?: code=\w+)?`", "".join(re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)))
    assert len(events) >= 10
    assert [event for event in events if f'"{event}"' not in sources] == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_backend_and_the_extension_have_one_version() -> None:
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    extension = tomllib.loads((ROOT / "blender_addon" / "blender_manifest.toml").read_text())["version"]
    assert backend == extension
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == backend
