"""One declaration: a field that is added to the settings is an option of the command line and a field of the wire."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sdf_backend.cli import app
from sdf_backend.settings import Axis, Pose, Quality, TaskSettings
from sdf_backend.task_options import with_task_options
from sdf_backend.wire.settings import Choice

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


def test_an_added_field_is_an_option_and_survives_the_wire() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", ADDED_FIELD], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("command", ["complete", "reconstruct"])
def test_a_fit_has_an_option_for_every_field(command: str) -> None:
    options = {parameter.name: parameter for parameter in COMMANDS[command].params}
    for field in fields(TaskSettings):
        assert f"--{field.name}" in options[field.name].opts
        default = options[field.name].default
        assert (getattr(default, "value", default)) == field.default
        assert field.metadata["help"] in options[field.name].help


@pytest.mark.parametrize(
    ("command", "names"),
    [("interpolate", {"resolution", "pose", "up", "front", "quality"}), ("sample", {"resolution", "seed"})],
)
def test_other_commands_have_the_options_that_they_name(command: str, names: set[str]) -> None:
    options = {parameter.name for parameter in COMMANDS[command].params}
    assert options & {field.name for field in fields(TaskSettings)} == names


def test_choices_are_options_of_their_values_and_axes_take_other_spellings() -> None:
    received = []
    probe = typer.Typer()

    @probe.command()
    @with_task_options()
    def command(settings: TaskSettings) -> None:
        received.append(settings)

    arguments = ["--pose", "aligned", "--up", "Y", "--front", "-z", "--quality", "fine", "--seed", "7"]
    assert CliRunner().invoke(probe, arguments).exit_code == 0
    assert received == [
        TaskSettings(pose=Pose.ALIGNED, up=Axis.POSITIVE_Y, front=Axis.NEGATIVE_Z, quality=Quality.FINE, seed=7)
    ]
    assert all(isinstance(getattr(received[0], name), Choice) for name in ("pose", "up", "front", "quality"))
    assert CliRunner().invoke(probe, ["--pose", "sideways"]).exit_code == 2
