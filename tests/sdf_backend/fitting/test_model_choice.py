"""Which of two models, of balls and of flat discs, is chosen for what is left of one."""

from typing import Any

import numpy as np
import pytest
from round_things import FLAT, ball_model, directions, stretched
from scipy.spatial.transform import Rotation

from sdf_backend.fitting import model_choice
from sdf_backend.fitting.model_choice import ModelChoiceSettings, choose_model
from sdf_backend.fitting.pose_search import PoseHypothesis, search_poses
from sdf_backend.model.store import Model
from sdf_backend.observation.observations import Observations, observe_points
from sdf_backend.progress import silent
from sdf_backend.settings import Pose, TaskSettings

KNOWN = TaskSettings(pose=Pose.KNOWN)
UPRIGHT = TaskSettings(pose=Pose.UPRIGHT)


@pytest.fixture(scope="module")
def models(spheres: Model) -> dict[str, Model]:
    return {"balls": spheres, "discs": stretched(spheres, FLAT)}


def half(factors: np.ndarray, unit: float = 1.0, centre: float = 0.0) -> Observations:
    points = directions(4_000) * factors * 0.5
    return observe_points(points[points[:, 2] > -0.1] * unit + centre)


@pytest.mark.parametrize(("factors", "name"), [(np.ones(3), "balls"), (FLAT, "discs")])
def test_the_model_that_explains_the_input_is_chosen(models: dict[str, Model], factors: np.ndarray, name: str) -> None:
    choice = choose_model(models, [half(factors)], KNOWN, silent)
    assert (choice.name, choice.note) == (name, "")
    assert choice.confidence > 0.5


@pytest.mark.parametrize("unit", [1e-3, 500.0])
def test_an_upright_disc_is_chosen_in_any_unit(models: dict[str, Model], unit: float) -> None:
    stood_up = Rotation.from_rotvec([np.pi / 2, 0, 0]).as_matrix()  # the y axis to z, which is up
    points = directions(4_000) * FLAT * 0.5 @ stood_up.T
    observed = observe_points(points[points[:, 0] > -0.1] * unit + 3 * unit)
    assert choose_model(models, [observed], UPRIGHT, silent).name == "discs"


def test_several_inputs_get_one_model_whatever_their_units(models: dict[str, Model]) -> None:
    inputs = [half(FLAT), half(FLAT), half(np.ones(3))]
    assert choose_model(models, inputs, KNOWN, silent).name == "discs"


def test_two_models_that_explain_the_same_are_both_named(spheres: Model) -> None:
    choice = choose_model({"one": spheres, "other": spheres}, [half(np.ones(3))], KNOWN, silent)
    assert choice.confidence == pytest.approx(0, abs=1e-6)
    assert choice.note == "other explains this nearly as well as one; choose that model to compare."


def test_an_input_of_no_category_is_said_to_be_none(models: dict[str, Model]) -> None:
    rod = observe_points(np.linspace([-0.9, 0, 0], [0.9, 0.1, 0], 3_000) + directions(3_000) * 0.02)
    choice = choose_model(models, [rod], KNOWN, silent)
    assert choice.note.startswith("No model knows this well, though ")


def test_where_nothing_explains_an_upright_input_its_up_axis_is_doubted(models: dict[str, Model]) -> None:
    on_edge = half(FLAT)  # whose own y axis is up
    assert choose_model(models, [on_edge], KNOWN, silent).note == ""
    note = choose_model({"discs": models["discs"], "more": models["discs"]}, [on_edge], UPRIGHT, silent).note
    assert note == (
        "No model knows this well, though discs comes nearest: its up axis may be another, or it may be of a category "
        "that there is no model for. more explains this nearly as well as discs; choose that model to compare."
    )


def test_a_shape_unlike_those_that_a_model_was_learned_from_is_said_to_be_one(models: dict[str, Model]) -> None:
    strict = ModelChoiceSettings(unlikely=4.0)
    usual, large = half(np.ones(3)), observe_points(directions(4_000) * 0.62)
    assert choose_model(models, [usual], KNOWN, silent, strict).note == ""
    note = choose_model(models, [large], KNOWN, silent, strict).note
    assert note.startswith("balls explains this best, but as a shape unlike those that it was learned from.")
    assert choose_model(models, [usual, large], KNOWN, silent, strict).note == note


def test_of_one_model_there_is_no_choice(spheres: Model) -> None:
    assert choose_model({"balls": spheres}, [half(FLAT)], KNOWN, silent).name == "balls"


def test_the_choice_reports_progress(models: dict[str, Model]) -> None:
    seen: list[float] = []
    choose_model(models, [half(FLAT)], KNOWN, seen.append)
    assert seen == [0.0, 0.25, 0.5]


def test_models_whose_first_fits_are_far_off_are_not_fitted_further(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Model] = []

    def search(model: Model, *rest: Any, **options: Any) -> list[PoseHypothesis]:
        searched.append(model)
        return search_poses(model, *rest, **options)

    monkeypatch.setattr(model_choice, "search_poses", search)
    with_encoder = {"guessing": ball_model(models["balls"]), **models}
    assert choose_model(with_encoder, [half(np.ones(3))], UPRIGHT, silent).name != "discs"
    assert searched == [with_encoder["guessing"], models["balls"]]
