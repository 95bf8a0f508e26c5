"""The commands offer the fields of their settings as options."""

from dataclasses import fields

import pytest
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from sdf_backend.settings import TaskSettings, bounds_of, help_of
from sdf_backend.wire.settings import Settings
from training.cli import app
from training.evaluation.tasks import EvaluationSettings
from training.generators.generate import GenerateSettings
from training.prepare import PrepareSettings
from training.train_options import TrainOptions
from training.train_settings import TrainSettings


@pytest.mark.parametrize(
    ("command", "settings_type"),
    [
        ("evaluate", EvaluationSettings),
        ("prepare", PrepareSettings),
        ("train", TrainOptions),
        ("generate", GenerateSettings),
    ],
)
def test_the_commands_offer_their_settings(command: str, settings_type: type[Settings]) -> None:
    output = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    for one in fields(settings_type):
        assert ("help" not in one.metadata) or f"--{one.name.replace('_', '-')}" in output, one.name


@pytest.mark.parametrize("name", ["resolution", "quality", "refine"])
def test_evaluation_declares_the_settings_of_tasks_as_they_are(name: str) -> None:
    [repeated] = [one for one in fields(EvaluationSettings) if one.name == name]
    assert repeated.default == getattr(TaskSettings, name)
    assert help_of(name, EvaluationSettings) == help_of(name)
    assert bounds_of(name, EvaluationSettings) == bounds_of(name)


def test_overrides_of_a_preset_are_training_settings() -> None:
    overrides = {one.name for one in fields(TrainOptions)} - {"preset", "symmetric"}
    assert overrides <= {one.name for one in fields(TrainSettings)}


@pytest.mark.parametrize("name", ["epochs", "halve_every"])
def test_options_of_train_refuse_what_the_command_refuses(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; use 1 or more"):
        TrainOptions(**{name: 0})
    option = f"--{name.replace('_', '-')}"
    done = CliRunner().invoke(app, ["train", "dataset", "-o", "run", option, "0"])
    assert (done.exit_code, done.stderr) == (1, f"error: {name} is 0; use 1 or more\n")
