"""Options of commands, derived from dataclasses."""

from dataclasses import dataclass, fields, make_dataclass

import pytest
import typer
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from sdf_backend.settings import TaskSettings, bounds_of, help_of
from sdf_backend.wire.settings import Choice, option
from training.cli import app
from training.evaluation.tasks import EvaluationSettings
from training.prepare import PrepareSettings
from training.settings_options import settings_options
from training.train_options import TrainOptions
from training.train_settings import TrainSettings


class Colour(Choice):
    RED = "red", "like a rose"
    BLUE = "blue", "like the sky"


@dataclass(frozen=True)
class PaintSettings:
    colour: Colour = option(Colour.RED, "colour of the paint")
    coats: int = option(1, "number of coats", 1, 3)
    dry_first: bool = option(False, "dry the wall first")
    seconds: float | None = option(None, "time per coat", 0)
    brand: str = "a field without help is no option"

    def __post_init__(self) -> None:
        if self.colour is Colour.BLUE and self.coats == 3:
            raise InputError("three coats of blue are too many")


def run(settings_type: type, *arguments: str) -> tuple[object, int, str]:
    received = []
    command = typer.Typer()

    @command.command()
    @settings_options(settings_type)
    def paint(wall: str, settings: object, twice: bool = False) -> None:
        received.append((wall, settings, twice))

    done = CliRunner().invoke(command, ["north", *arguments])
    return received[0] if received else None, done.exit_code, done.output


def test_every_field_with_help_is_an_option() -> None:
    assert run(PaintSettings) == (("north", PaintSettings(), False), 0, "")
    given = run(PaintSettings, "--colour", "blue", "--coats", "2", "--dry-first", "--seconds", "3", "--twice")
    assert given == (("north", PaintSettings(Colour.BLUE, 2, True, 3.0), True), 0, "")
    assert run(PaintSettings, "--brand", "x")[1] == 2


def test_a_new_field_becomes_an_option_with_its_help() -> None:
    added = [("gloss", int, option(40, "gloss of the paint", 0, 100))]
    wider = make_dataclass("WiderSettings", added, bases=(PaintSettings,), frozen=True)
    received, code, _ = run(wider, "--gloss", "70")
    assert code == 0 and received[1].gloss == 70  # type: ignore[index]
    assert "gloss of the paint" in run(wider, "--help")[2]


@pytest.mark.parametrize("wrong", [["--coats", "4"], ["--coats", "0"], ["--colour", "green"], ["--seconds", "-1"]])
def test_values_out_of_bounds_are_wrong_usage(wrong: list[str]) -> None:
    received, code, _ = run(PaintSettings, *wrong)
    assert received is None and code == 2


def test_values_that_the_settings_reject_are_an_error_of_one_line() -> None:
    received, code, output = run(PaintSettings, "--colour", "blue", "--coats", "3")
    assert (received, code, output) == (None, 1, "error: three coats of blue are too many\n")


@pytest.mark.parametrize(
    ("command", "settings_type"),
    [("evaluate", EvaluationSettings), ("prepare", PrepareSettings), ("train", TrainOptions)],
)
def test_the_commands_offer_their_settings(command: str, settings_type: type) -> None:
    output = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    for one in fields(settings_type):
        assert ("help" not in one.metadata) or f"--{one.name.replace('_', '-')}" in output, one.name


@pytest.mark.parametrize("name", ["resolution", "quality", "refine"])
def test_evaluation_declares_the_settings_of_tasks_as_they_are(name: str) -> None:
    [repeated] = [one for one in fields(EvaluationSettings) if one.name == name]
    assert repeated.default == getattr(TaskSettings, name)
    assert repeated.metadata["help"] == help_of(name) and repeated.metadata["bounds"] == bounds_of(name)


def test_overrides_of_a_preset_are_training_settings() -> None:
    overrides = {one.name for one in fields(TrainOptions)} - {"preset", "symmetric"}
    assert overrides <= {one.name for one in fields(TrainSettings)}
