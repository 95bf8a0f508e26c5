"""One declaration: a field that is added to the settings is an option of the command line and a field of the wire."""

import subprocess
import sys
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sdf_backend.cli import app
from sdf_backend.errors import InputError
from sdf_backend.settings import Axis, Pose, Quality, TaskSettings
from sdf_backend.settings_options import settings_options
from sdf_backend.wire.settings import Choice, Settings, option

ROOT = Path(__file__).parents[2]
COMMANDS = {command.name: command for command in typer.main.get_command(app).commands.values()}  # type: ignore[attr-defined]

# Adds a field before any other module has imported the settings, and follows it through command line and wire.
ADDED_FIELD = """
from dataclasses import dataclass
from sdf_backend.wire import settings as declared

@dataclass(frozen=True)
class Extended(declared.TaskSettings):
    smoothness: float = declared.option(0.5, "how smooth the result is", 0, 2)

declared.TaskSettings = Extended

from typer.testing import CliRunner
from sdf_backend import cli
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.messages import REQUESTS, Limits, Submit

received = []
class Engine:
    def complete(self, model, sources, settings, progress):
        received.append(settings)
        return []
class Opened:
    def __enter__(self): return Engine()
    def __exit__(self, *_): pass
cli._engine = lambda *_: Opened()
cli._source = lambda *_: None
cli._write = lambda *_: []

run = lambda *options: CliRunner().invoke(cli.app, ["complete", "in.ply", "-o", "out.ply", "--model", "m", *options])
shown = CliRunner().invoke(cli.app, ["complete", "--help"], env={"COLUMNS": "200"}).stdout
assert "--smoothness" in shown and "how smooth the result is; 0 to 2" in shown and "default: 0.5" in shown, shown
for options, value in (((), 0.5), (("--smoothness", "1.5"), 1.5)):
    assert run(*options).exit_code == 0
    assert received[-1].smoothness == value
refused = run("--smoothness", "3")
assert refused.exit_code == 1 and "smoothness is 3.0; use 0 to 2" in refused.stderr, refused.stderr

frames = encode(Submit("0123456789", "complete", settings=received[-1]))
assert b'"smoothness":1.5' in bytes(frames[1])
assert decode(frames, REQUESTS, Limits()).settings == received[-1]
assert decode(frames, REQUESTS, Limits()).settings.smoothness == 1.5
"""


class Colour(Choice):
    RED = "red", "like a rose"
    BLUE = "blue", "like the sky"


@dataclass(frozen=True)
class PaintSettings(Settings):
    colour: Colour = option(Colour.RED, "colour of the paint")
    coats: int = option(1, "number of coats", 1, 3)
    dry_first: bool = option(False, "dry the wall first")
    seconds: float | None = option(None, "time per coat", 0)
    brand: str = "a field without help is no option"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colour is Colour.BLUE and self.coats == 3:
            raise InputError("three coats of blue are too many")


def paint(settings_type: type[Settings], *arguments: str) -> tuple[object, int, str]:
    """What a command with the options of the settings received, its exit code and its output."""
    received = []
    command = typer.Typer()

    @command.command()
    @settings_options(settings_type)
    def paint_wall(wall: str, settings: object, twice: bool = False) -> None:
        if wall == "wet":
            raise InputError("the wall is wet")
        received.append((wall, settings, twice))

    done = CliRunner().invoke(command, arguments, env={"COLUMNS": "200"})
    return received[0] if received else None, done.exit_code, done.output


def test_every_field_with_help_is_an_option() -> None:
    assert paint(PaintSettings, "north") == (("north", PaintSettings(), False), 0, "")
    given = ["--colour", "blue", "--coats", "2", "--dry-first", "--seconds", "3", "--twice"]
    assert paint(PaintSettings, "north", *given) == (("north", PaintSettings(Colour.BLUE, 2, True, 3.0), True), 0, "")
    assert paint(PaintSettings, "north", "--brand", "x")[1] == 2


def test_a_flag_has_no_twin() -> None:
    assert paint(PaintSettings, "north", "--no-dry-first")[1] == 2


def test_a_new_field_becomes_an_option_with_its_help() -> None:
    added = [("gloss", int, option(40, "gloss of the paint", 0, 100))]
    wider = make_dataclass("WiderSettings", added, bases=(PaintSettings,), frozen=True)
    received, code, _ = paint(wider, "north", "--gloss", "70")
    assert code == 0 and received[1].gloss == 70  # type: ignore[index]
    assert "gloss of the paint; 0 to 100" in paint(wider, "--help")[2]


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("coats", "4", "1 to 3"),
        ("coats", "0", "1 to 3"),
        ("seconds", "-1.0", "0 or more"),
        ("seconds", "nan", "0 or more"),
    ],
)
def test_values_out_of_bounds_are_an_error_of_one_line(name: str, value: str, bounds: str) -> None:
    assert paint(PaintSettings, "north", f"--{name}", value) == (None, 1, f"error: {name} is {value}; use {bounds}\n")
    with pytest.raises(InputError, match=f"{name} is {value}; use {bounds}"):
        PaintSettings(**{name: float(value) if name == "seconds" else int(value)})


@pytest.mark.parametrize("wrong", [["--colour", "green"], ["--coats", "many"]])
def test_values_of_another_type_are_wrong_usage(wrong: list[str]) -> None:
    received, code, _ = paint(PaintSettings, "north", *wrong)
    assert received is None and code == 2


def test_errors_of_the_settings_and_of_the_command_are_one_line() -> None:
    refused = paint(PaintSettings, "north", "--colour", "blue", "--coats", "3")
    assert refused == (None, 1, "error: three coats of blue are too many\n")
    assert paint(PaintSettings, "wet") == (None, 1, "error: the wall is wet\n")


def test_an_added_field_is_an_option_and_survives_the_wire() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", ADDED_FIELD], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("command", ["complete", "reconstruct"])
def test_a_fit_has_an_option_for_every_field(command: str) -> None:
    options = {parameter.name: parameter for parameter in COMMANDS[command].params}
    for field in fields(TaskSettings):
        if field.name == "keep" and command == "reconstruct":  # a whole mesh lacks nothing
            assert field.name not in options
            continue
        assert f"--{field.name}" in options[field.name].opts
        default = options[field.name].default
        assert (getattr(default, "value", default)) == field.default
        assert field.metadata["help"] in options[field.name].help


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("interpolate", {"resolution", "pose", "up", "front", "quality", "triangles", "quads"}),
        ("sample", {"resolution", "seed", "triangles", "quads"}),
    ],
)
def test_other_commands_have_the_options_that_they_name(command: str, names: set[str]) -> None:
    options = {parameter.name for parameter in COMMANDS[command].params}
    assert options & {field.name for field in fields(TaskSettings)} == names


def test_choices_are_options_of_their_values_and_axes_take_other_spellings() -> None:
    received = []
    probe = typer.Typer()

    @probe.command()
    @settings_options(TaskSettings)
    def command(settings: TaskSettings) -> None:
        received.append(settings)

    arguments = ["--pose", "aligned", "--up", "Y", "--front", "-z", "--quality", "fine", "--seed", "7"]
    assert CliRunner().invoke(probe, arguments).exit_code == 0
    assert received == [
        TaskSettings(pose=Pose.ALIGNED, up=Axis.POSITIVE_Y, front=Axis.NEGATIVE_Z, quality=Quality.FINE, seed=7)
    ]
    assert all(isinstance(getattr(received[0], name), Choice) for name in ("pose", "up", "front", "quality"))
    assert CliRunner().invoke(probe, ["--pose", "sideways"]).exit_code == 2
