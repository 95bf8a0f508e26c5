"""An environment of the stand-in, and a category of its factories in the table."""

from pathlib import Path

import pytest
from fake_infinigen import make_environment, recipe

from training.generators import infinigen_factories
from training.generators.recipe import CategoryRecipes


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environment")


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch):
    """Put a category `things`, of the given factories in equal shares, into the table."""

    def add(*recipes) -> None:
        chosen = tuple(recipe(one) if isinstance(one, str) else one for one in recipes)
        monkeypatch.setitem(infinigen_factories.CATEGORIES, "things", CategoryRecipes(chosen, (0.1, 5.0)))

    return add
