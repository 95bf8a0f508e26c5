"""What may join the models that ship: measured, small enough, of data under licences that go together."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from sdf_backend.model.store import Model, load_model, save_model
from training.cli import app
from training.ship import ShipLimits, ship

MEASURES = {"chamfer": 0.001, "scan": 0.002, "cosine": 0.9}
ACCURACY = {task: {"count": 8, "mean": MEASURES, "median": MEASURES} for task in ("unknown", "complete")}
TRAINING = {"epochs": 700, "prepared_with": {"sampling": {"count": 80_000}}}


@pytest.fixture
def measured(spheres: Model, tmp_path: Path) -> Path:
    """The file of a measured model."""
    return write(tmp_path, spheres)


def write(folder: Path, spheres: Model, **changes: object) -> Path:
    path = folder / "spheres.safetensors"
    save_model(path, replace(spheres, card=replace(spheres.card, accuracy=ACCURACY, training=TRAINING, **changes)))
    return path


def test_a_measured_model_is_copied_with_its_data_card(measured: Path, tmp_path: Path) -> None:
    shipped = ship(measured, tmp_path / "shipped")
    assert shipped == tmp_path / "shipped" / "spheres.safetensors"
    assert load_model(shipped).card == load_model(measured).card
    assert sorted(path.name for path in shipped.parent.iterdir()) == ["spheres.md", "spheres.safetensors"]
    assert "| the tests | CC0-1.0 | 12 |" in shipped.with_suffix(".md").read_text()


def test_a_model_that_is_too_large_is_refused_and_the_shipped_one_stays(measured: Path, tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    before = ship(measured, shipped).read_bytes()
    size = measured.stat().st_size
    # In place of itself it counts once.
    assert ship(measured, shipped, ShipLimits(file_bytes=size, total_bytes=size)).read_bytes() == before
    with pytest.raises(InputError, match=r"spheres\.safetensors has 0\.\d MB, more than the .* MB that a model may"):
        ship(measured, shipped, ShipLimits(file_bytes=size - 1))
    (shipped / "others.safetensors").write_bytes(bytes(1_000_000))
    with pytest.raises(InputError, match=r"the 2 models of .*shipped have 1\.\d MB, more than the 1 MB"):
        ship(measured, shipped, ShipLimits(total_bytes=1_000_000))
    assert (shipped / "spheres.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": {"unknown": ACCURACY["unknown"]}}, "not measured; run evaluate --record with --task complete"),
        ({"name": "balls"}, r"is a model of balls; name it balls\.safetensors"),
        ({"training": {"epochs": 700}}, "was not made by train"),
    ],
)
def test_a_model_of_which_too_little_is_known_is_refused(
    spheres: Model, tmp_path: Path, changes: dict, message: str
) -> None:
    card = replace(spheres.card, **{"accuracy": ACCURACY, "training": TRAINING, **changes})
    path = tmp_path / "spheres.safetensors"
    save_model(path, replace(spheres, card=card))
    with pytest.raises(InputError, match=message):
        ship(path, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


@pytest.mark.parametrize(
    ("licences", "message"),
    [
        (("CC0-1.0", "unknown"), "a source of .*, Ada, has the licence 'unknown'"),
        (("CC0-1.0", "FAL-1.3"), "trains with a mesh under FAL-1.3"),
        (("GPL-2.0+", "CC-BY-SA-3.0"), "to be shipped under CC-BY-SA-3.0 and under GPL-3.0-or-later at once"),
    ],
)
def test_a_model_that_may_not_be_passed_on_is_refused(
    spheres: Model, tmp_path: Path, licences: tuple[str, ...], message: str
) -> None:
    sources = [{"licence": licence, "creator": "Ada", "shapes": 1} for licence in licences]
    with pytest.raises(InputError, match=message):
        ship(write(tmp_path, spheres, sources=sources), tmp_path / "shipped")


def test_the_command_says_what_it_shipped_or_why_not_in_one_line(measured: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ship", str(measured), "-o", str(tmp_path / "shipped")])
    assert (done.exit_code, done.stdout.replace("\n", "")) == (0, f"shipped: {tmp_path}/shipped/spheres.safetensors")
    measured.write_bytes(b"no model")
    done = CliRunner().invoke(app, ["ship", str(measured), "-o", str(tmp_path / "shipped")])
    assert done.exit_code == 1
    assert "spheres.safetensors is damaged" in done.stderr and len(done.stderr.splitlines()) == 1
