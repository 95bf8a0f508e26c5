"""Recipes of procedural pieces: a generator, its share, its axes, its variations and its deformation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.augment import AugmentSettings
from training.generators.reprofile import ReprofileSettings

Mesh = tuple[np.ndarray, np.ndarray]
Deformation = AugmentSettings | ReprofileSettings
Sampler = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class Draw:
    """One piece of an Infinigen factory, fully determined."""

    label: str
    module: str
    factory: str
    seed: int
    placeholder: bool
    options: Mapping[str, Any]
    assign: Mapping[str, Any]
    scale: Mapping[str, Any]

    def request(self, output: Path) -> dict[str, Any]:
        """The line of JSON that `infinigen_worker` is sent."""
        keys = ("module", "factory", "seed", "placeholder", "options", "assign", "scale")
        return {key: getattr(self, key) for key in keys} | {"output": str(output)}


@dataclass(frozen=True)
class InfinigenFactory:
    """One factory class of Infinigen, and the parameters that are varied in addition to its own."""

    label: str
    """names the pieces and their family"""
    module: str
    """below `infinigen.assets.objects`"""
    factory: str
    """name of the class"""
    weight: float = 1.0
    """share among the category's recipes"""
    front: str = "+x"
    """the factory's front axis; up is +z"""
    placeholder: bool = False
    """whether `create_asset` requires the factory's placeholder"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """further keyword arguments of `create_asset`"""
    assign: Mapping[str, Sampler] = field(default_factory=dict)
    """attribute path -> what to draw its value from"""
    scale: Mapping[str, Sampler] = field(default_factory=dict)
    """attribute path -> what to draw its factor from"""
    deform: Deformation | None = None
    """how far the finished piece is deformed; None leaves it as it is"""

    up = "+z"

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw seed and variations of one piece; the order of the table's entries is that of the draws."""
        return Draw(
            self.label,
            f"infinigen.assets.objects.{self.module}",
            self.factory,
            int(rng.integers(2**31)),
            self.placeholder,
            dict(self.options),
            {path: sampler(rng) for path, sampler in self.assign.items()},
            {path: sampler(rng) for path, sampler in self.scale.items()},
        )


@dataclass(frozen=True)
class ParametricShape:
    """A generator of our own, which runs in this process."""

    label: str
    """names the pieces and their family"""
    build: Callable[[np.random.Generator], Mesh]
    """draws one mesh, metres, canonical axes"""
    weight: float = 1.0
    """share among the category's recipes"""
    deform: Deformation | None = None
    """how far the finished piece is deformed; None leaves it as it is"""


Recipe = InfinigenFactory | ParametricShape


@dataclass(frozen=True)
class CategoryRecipes:
    """All recipes of a category, and what a plausible piece of it measures."""

    recipes: tuple[Recipe, ...]
    longest: tuple[float, float]
    """smallest and largest plausible longest side of the bounding box, metres"""

    def choose(self, rng: np.random.Generator) -> Recipe:
        """Draw a recipe by weight."""
        weights = np.array([recipe.weight for recipe in self.recipes])
        return self.recipes[rng.choice(len(weights), p=weights / weights.sum())]


def uniform(low: float, high: float) -> Sampler:
    """Evenly between two bounds."""
    return lambda rng: float(rng.uniform(low, high))


def log_normal(sigma: float) -> Sampler:
    """A factor about 1 whose logarithm has the standard deviation `sigma`, cut at two of them."""
    return lambda rng: float(np.exp(np.clip(rng.normal(), -2, 2) * sigma))


def choice(*values: Any) -> Sampler:
    """One of the values, all alike."""
    return lambda rng: values[int(rng.integers(len(values)))]
