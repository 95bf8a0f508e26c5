"""The solids and the furniture made of them: closed, of one orientation, upright, of a plausible size, varied."""

import numpy as np
import pytest
import trimesh

from training.generators.finish import PlausibilityLimits, check_plausible
from training.generators.infinigen_factories import CATEGORIES
from training.generators.recipe import InfinigenFactory, ParametricShape, log_normal
from training.generators.solids import (
    PLAIN,
    Mesh,
    beam,
    box,
    disc,
    lathe,
    merge,
    mirrored,
    rotated,
    rounded_path,
    translated,
    tube,
    wall,
)

ARC = np.linspace(0.5, 5.5, 60)
OWN = [
    (name, recipe)
    for name, category in CATEGORIES.items()
    for recipe in category.recipes
    if isinstance(recipe, ParametricShape)
]


def volume(mesh: Mesh) -> float:
    """Of a mesh that is checked to be closed, every face looking outwards."""
    solid = trimesh.Trimesh(*mesh, process=False)
    assert solid.is_watertight and solid.is_winding_consistent
    return float(solid.volume)


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (box((0, 0, 0), (1, 2, 3)), 6.0),
        (box((0, 0, 0), (1, 2, 3), samples=PLAIN), 6.0),
        # A box with rounded edges: that of the middles, slabs, quarter cylinders, a sphere.
        (
            box((0, 0, 0), (1, 1, 1), 0.2, samples=(16, 2)),
            0.216 + 6 * 0.072 + 3 * np.pi * 0.04 * 0.6 + 4 / 3 * np.pi * 0.008,
        ),
        (lathe([(1, 0), (1, 2)], 128), 2 * np.pi),
        (disc(1.0, 0.5, sides=128), np.pi / 2),
        (beam((0, 0, 0), (0, 0, 2), (0.5, 0.25)), 0.25),
        (beam((1, 2, 3), (2, 3, 4), (0.2, 0.2), end_share=1.0, sides=64), np.pi * 0.01 * np.sqrt(3)),
        (tube(np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0]]), 0.1, 64), 2 * np.pi * 0.01),
        (wall(np.stack([np.sin(ARC), np.cos(ARC)], 1), 0.1, np.zeros(60), np.full(60, 2.0)), 5 * 0.1 * 2),
        (mirrored(box((0, 0, 0), (1, 2, 3))), 6.0),
        (rotated(box((0, 0, 0), (1, 2, 3)), 1, 30, (1, 1, 1)), 6.0),
        (merge(box((0, 0, 0), (1, 1, 1)), translated(box((0, 0, 0), (1, 1, 1)), (5, 0, 0))), 2.0),
    ],
)
def test_solids_are_closed_and_have_the_volume_of_the_formula(mesh: Mesh, expected: float) -> None:
    assert volume(mesh) == pytest.approx(expected, rel=0.01)


def test_a_bulge_lifts_the_middle_and_no_edge() -> None:
    vertices, _ = box((-1, 0, -1), (1, 1, 1), 0.01, (0, 0.3, 0), samples=(4, 7))
    assert vertices[:, 1].max() == pytest.approx(1.3)
    rim = (np.abs(vertices[:, 0]) > 0.99) & (vertices[:, 1] > 0.9)
    assert vertices[rim, 1].max() == pytest.approx(1.0, abs=0.02)


def test_turning_follows_the_right_hand() -> None:
    point = np.array([[0.0, 0, 1]]), np.zeros((0, 3), int)
    np.testing.assert_allclose(rotated(point, 1, 90)[0], [[1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(rotated(point, 0, 90)[0], [[0, -1, 0]], atol=1e-12)


def test_a_rounded_path_keeps_its_ends_and_cuts_its_corner() -> None:
    path = rounded_path(np.array([[0, 0, 0], [0, 1, 0], [1, 1, 0]]), 0.3)
    np.testing.assert_allclose(path[[0, -1]], [[0, 0, 0], [1, 1, 0]])
    assert np.linalg.norm(path - [0, 1, 0], axis=1).min() > 0.1


@pytest.mark.parametrize(("name", "recipe"), OWN, ids=[f"{name}-{recipe.label}" for name, recipe in OWN])
def test_shapes_of_our_own_are_closed_upright_and_plausible(name: str, recipe: ParametricShape) -> None:
    sizes = []
    for seed in range(25):
        vertices, faces = recipe.build(np.random.default_rng(seed))
        assert volume((vertices, faces)) > 0
        check_plausible((vertices, faces), CATEGORIES[name].longest, PlausibilityLimits())
        assert abs(vertices[:, 1].min()) < 0.02, "it neither floats nor sinks"
        sizes.append(np.ptp(vertices, axis=0))
    assert np.std(np.log(sizes), axis=0).min() > 0.03, "they differ in every direction"


@pytest.mark.parametrize("label", ["assembled", "upholstered"])
def test_chairs_face_the_front(label: str) -> None:
    [recipe] = [one for one in CATEGORIES["chairs"].recipes if one.label == label]
    assert isinstance(recipe, ParametricShape)
    behind = []
    for seed in range(40):
        vertices, _ = recipe.build(np.random.default_rng(seed))
        upper = vertices[vertices[:, 1] > 0.85 * vertices[:, 1].max()]
        behind.append(upper[:, 2].mean() < 0)
    assert np.mean(behind) > 0.9  # all but stools


def test_the_table_names_no_recipe_twice_and_every_category_has_some() -> None:
    for name, category in CATEGORIES.items():
        labels = [recipe.label for recipe in category.recipes]
        assert labels and len(set(labels)) == len(labels), name
        assert all(recipe.weight > 0 for recipe in category.recipes)
        assert 0 < category.longest[0] < category.longest[1]


def test_every_recipe_is_drawn_about_as_often_as_its_weight_says() -> None:
    category = CATEGORIES["chairs"]
    rng = np.random.default_rng(0)
    drawn = [category.choose(rng).label for _ in range(4000)]
    total = sum(recipe.weight for recipe in category.recipes)
    for recipe in category.recipes:
        assert drawn.count(recipe.label) / 4000 == pytest.approx(recipe.weight / total, abs=0.03)


def test_a_draw_is_all_that_a_request_needs() -> None:
    for category in CATEGORIES.values():
        for recipe in category.recipes:
            if isinstance(recipe, InfinigenFactory):
                one, other = (recipe.draw(np.random.default_rng(seed)) for seed in (0, 1))
                assert one == recipe.draw(np.random.default_rng(0)) != other
                assert one.module.startswith("infinigen.assets.objects.") and one.factory.endswith("Factory")


def test_factors_are_cut_at_two_deviations() -> None:
    sampler, rng = log_normal(0.3), np.random.default_rng(0)
    logs = np.log([sampler(rng) for _ in range(3000)])
    assert np.abs(logs).max() == pytest.approx(0.6)
    assert logs.std() == pytest.approx(0.28, abs=0.03)
