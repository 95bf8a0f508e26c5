"""What `make starter-models` runs: each model from the pieces that there are, by the settings of its row, resumably."""

import csv
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from training.augment import DeformationPreset
from training.generators.generate import HUMANS
from training.generators.infinigen_factories import CATEGORIES

ROOT = Path(__file__).parents[1]
with (ROOT / "training" / "starter_catalog.csv").open(newline="") as file:
    PACKAGES = {(row["category"], row["package"]) for row in csv.DictReader(file)}
COLLECTED = {category for category, _ in PACKAGES}
DRAWN = {*CATEGORIES, HUMANS}
MODELS = re.findall(r"^model\.(\w+) *:=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@cache
def planned(*arguments: str) -> str:
    """What make would run on a bare machine."""
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return made.stdout


def steps(model: str, *overrides: str) -> list[list[str]]:
    """The words of each command of `training`, in order."""
    lines = re.findall(r"^echo '(.*?)'$", planned(f"starter-{model}", *overrides).replace("\\\n", ""), re.MULTILINE)
    return [command.split() for line in lines for command in re.findall(r"-m training ([^&]*)", line)]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_every_category_has_a_model() -> None:
    assert set(MODELS) == COLLECTED | DRAWN


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_made_of_all_the_pieces_that_there_are(model: str) -> None:
    meshes = [step for step, there in (("collect", COLLECTED), ("generate", DRAWN)) if model in there]
    commands = steps(model)
    learn = ["prepare", "train", "train-encoder"]
    assert [command[0] for command in commands] == [*meshes, *learn, *["evaluate"] * 3, "ship"]
    by_step = {command[0]: command for command in commands}
    assert DeformationPreset(option(by_step["prepare"], "--deform"))
    assert int(option(by_step["prepare"], "--copies")) >= (model not in DRAWN)
    assert int(option(by_step["train"], "--epochs")) >= 100
    assert by_step["ship"][1:] == [f"runs/{model}/{model}.safetensors", "-o", "sdf_backend/starter_models"]


@pytest.mark.parametrize("model", MODELS)
def test_only_the_packages_of_the_category_are_fetched(model: str) -> None:
    fetched = set(re.findall(r"apt-get download (\S+)", planned(f"starter-{model}")))
    assert fetched == {package for category, package in PACKAGES if category == model}


def test_aircraft_point_along_x_and_all_else_along_z() -> None:
    fronts = {model: next(word for word in steps(model)[-7] if word.startswith("--front")) for model in MODELS}
    assert fronts.pop("airplanes") == "--front=-x"
    assert set(fronts.values()) == {"--front=+z"}


def test_a_quick_look_takes_its_numbers_from_the_command_line() -> None:
    overrides = ("GENERATED=6", "COPIES=1", "SAMPLES=2000", "EPOCHS=2", "SHIPPED=out/shipped")
    _, generate, prepare, train, *_, ship = steps("chairs", *overrides)
    assert option(generate, "--count") == "6"
    assert (option(prepare, "--samples"), option(prepare, "--copies")) == ("2000", "1")
    assert option(train, "--epochs") == "2"
    assert option(ship, "-o") == "out/shipped"


def test_the_environment_of_infinigen_is_made_where_it_is_needed_alone() -> None:
    wanting = {model for model in MODELS if "-m venv .venv-infinigen" in planned(f"starter-{model}")}
    assert wanting == set(CATEGORIES)


# The steps themselves, with a Python that only writes down what it was asked to do.

MUGS = ["collect", "generate", "prepare", "train", "train-encoder", *["evaluate"] * 3, "ship"]
STUB = """#!/bin/sh
echo "$3" >>calls
test ! -e "broken-$3"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which everything is installed and every package is unpacked."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "training/starter_catalog.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    requirements = tmp_path / "training" / "generators" / "infinigen-requirements.txt"
    ready = [tmp_path / "data" / "packages" / package / "ready" for _, package in PACKAGES]
    for path in (requirements, tmp_path / ".venv" / "ready", tmp_path / ".venv-infinigen" / "ready", *ready):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    stub = tmp_path / ".venv" / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    return tmp_path


def make(project: Path, target: str = "starter-mugs") -> list[str]:
    """The commands of `training` that making the target runs, until one fails."""
    (project / "calls").write_text("")
    subprocess.run(["make", target], cwd=project, capture_output=True, check=False)
    return (project / "calls").read_text().split()


def test_a_model_that_is_made_is_not_made_again(project: Path) -> None:
    assert make(project) == MUGS
    assert make(project) == []


@pytest.mark.parametrize("step", ["collect", "prepare", "train", "train-encoder", "ship"])
def test_a_make_that_failed_goes_on_with_that_step(project: Path, step: str) -> None:
    (project / f"broken-{step}").touch()
    at = MUGS.index(step)
    assert make(project) == MUGS[: at + 1]
    (project / f"broken-{step}").unlink()
    assert make(project) == MUGS[at:]


@pytest.mark.parametrize(
    ("stamp", "step"), [("data/meshes/mugs/generated", "generate"), ("data/mugs/prepared", "prepare")]
)
def test_a_step_without_its_stamp_is_done_again_and_all_after_it(project: Path, stamp: str, step: str) -> None:
    make(project)
    (project / stamp).unlink()
    assert make(project) == MUGS[MUGS.index(step) :]


def test_rows_of_the_category_alone_make_it_collect_again(project: Path) -> None:
    make(project)
    catalogue = project / "training" / "starter_catalog.csv"
    rows = catalogue.read_bytes()
    catalogue.write_bytes(rows.replace(b"sofas,train", b"sofas,test"))
    assert make(project) == []
    catalogue.write_bytes(rows.replace(b"mugs,train", b"mugs,test"))
    assert make(project) == MUGS


def test_training_goes_on_from_a_checkpoint(project: Path) -> None:
    stub = project / ".venv" / "bin" / "python"
    stub.write_text('#!/bin/sh\necho "$@" >>calls\n')
    assert "--resume" not in make(project, "runs/mugs/trained")
    (project / "runs" / "mugs" / "trained").unlink()
    (project / "runs" / "mugs" / "checkpoint.safetensors").touch()
    assert "--resume" in make(project, "runs/mugs/trained")


def test_the_log_has_the_beginning_and_the_times_of_each_step(project: Path) -> None:
    (project / "broken-train").touch()
    make(project)
    lines = (project / "runs" / "times.log").read_text().splitlines()
    assert [re.sub(r"^\S+Z |\d+", "", line) for line in lines if "prepared" in line] == [
        "mugs prepared: begun",
        "mugs prepared:  s, CPU  s",
    ]
    assert lines[-1] == "mugs trained: failed"
