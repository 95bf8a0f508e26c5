"""The languages of the interface: complete, with the places for values, and without words that nothing shows."""

import importlib
import re
import string
from pathlib import Path
from typing import Any

import pytest
from stand_in import declared, stand_in

ROOT = Path(__file__).parents[2]
ADDON = ROOT / "blender_addon"
# Names that are the same everywhere, and the axes.
NAMES = re.compile(r"SDF Shapes.*|Python|Text|[+-][XYZ]")


def fields(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """The labels of all panels, operators and properties."""
    with stand_in():
        addon: Any = importlib.import_module("blender_addon")
        words = {
            getattr(one, "bl_label", "")
            for one in addon.CLASSES
            if not getattr(one, "bl_options", set()) & {"INTERNAL"}
        }
        settings = [
            *declared(importlib.import_module("blender_addon.properties").SDFSettings).values(),
            *declared(importlib.import_module("blender_addon.preferences").SDFPreferences).values(),
        ]
        words |= {one.settings["name"] for one in settings}
        words |= {label for one in settings if one.kind == "EnumProperty" for label in one.choices.values()}
    return {word for word in words if word and not NAMES.fullmatch(word)}


@pytest.mark.parametrize("language", ["de", "ja", "zh"])
def test_a_language_has_every_label_and_nothing_else(language: str, shown: set[str]) -> None:
    source = (ADDON / f"words_{language}.py").read_text()
    table: dict[str, str] = {}
    exec(source, table)
    words: Any = table["WORDS"]
    assert shown - set(words) == set()
    assert all(fields(text) == fields(there) and there for text, there in words.items())
    # Fixed messages of the backend are shown too.
    sources = [*ADDON.glob("*.py"), *(ROOT / "sdf_backend").rglob("*.py")]
    code = " ".join(path.read_text() for path in sources if not path.name.startswith("words_"))
    assert [text for text in words if text not in shown and f'"{text}"' not in code] == []


def test_what_is_not_a_label_is_looked_up_in_the_own_context_and_by_its_parts() -> None:
    with stand_in() as bpy:
        session, translations = (
            importlib.import_module(f"blender_addon.{name}") for name in ("session", "translations")
        )
        words = translations.GERMAN
        bpy.app.translations.pgettext_iface = lambda text, context: (
            words.get(text, text) if context == "SDF Shapes" else ""
        )
        assert translations.translated("Waiting, {count} ahead", count="2") == "Wartet, 2 davor"
        assert session.with_remedy("busy", "all faces are degenerate") == (
            f"{words['all faces are degenerate']}; {words['try again in a while']}"
        )
        assert session.with_remedy("failed", "a {brace} and 5 points") == "a {brace} and 5 points"
