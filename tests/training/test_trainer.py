"""Tiny training runs on boxes: convergence, and that a resumed run ends like an uninterrupted one."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from sdf_backend.model.decoder import DecoderSettings
from sdf_backend.model.store import Model, load_model
from training import trainer as module
from training.cli import app
from training.dataset import Dataset, ShapeRecord, save_samples
from training.history import EpochReport
from training.sampling import SampleSettings, sample_mesh
from training.train_options import Preset, TrainOptions
from training.train_settings import PRESETS, Optimiser, Schedule, TrainSettings, build_train_settings
from training.trainer import CHECKPOINT_FILE, Trainer

ROOT = Path(__file__).parents[2]
SIZES = {"cube": (1, 1, 1), "plank": (2, 0.4, 1), "rod": (0.4, 0.4, 2), "tower": (0.6, 2, 0.6)}
TINY = TrainSettings(
    decoder=DecoderSettings(code_length=4, width=64, layers=8, skip_at=4, dropout=0.0),
    epochs=40,
    shapes_a_step=2,
    points_a_shape=256,
    decoder_rate=2e-3,
    code_rate=5e-3,
    halve_every=25,
    bfloat16=False,
    checkpoint_every=5,
    picture_every=1000,
    penalty_ramp=10,
)
WITH_DROPOUT = replace(TINY, decoder=replace(TINY.decoder, dropout=0.2))
WITH_MUON = replace(
    TINY,
    decoder=replace(TINY.decoder, weight_norm=False),
    optimiser=Optimiser.MUON,
    schedule=Schedule.COSINE,
)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four boxes with credits, and a few thousand samples each."""
    folder = tmp_path_factory.mktemp("boxes")
    licences = {"cube": "CC0-1.0", "plank": "CC0-1.0"}
    records = [ShapeRecord(name, "train", licences.get(name, "CC-BY-SA-3.0"), "Ada") for name in SIZES]
    dataset = Dataset(folder, "boxes", "-z", {"seed": 0}, records)
    dataset.save()
    settings = SampleSettings(count=4_000, surface_count=500)
    for seed, (name, size) in enumerate(SIZES.items()):
        box = trimesh.creation.box(size)
        rng = np.random.default_rng(seed)
        save_samples(dataset.path(name), sample_mesh(np.array(box.vertices), np.array(box.faces), settings, rng))
    return dataset


WRITE_PICTURES = Trainer._write_pictures


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take a second each; one test draws them."""
    monkeypatch.setattr(Trainer, "_write_pictures", lambda trainer: None)


def same_weights(one: Model, other: Model) -> bool:
    mine, theirs = one.decoder.state_dict(), other.decoder.state_dict()
    return torch.equal(one.codes, other.codes) and all(torch.equal(mine[name], theirs[name]) for name in mine)


class Stop(Exception):
    """Interrupts a run from its callback."""


def stop_after(epoch: int) -> Callable[[EpochReport], None]:
    def listen(report: EpochReport) -> None:
        if report.epoch == epoch:
            raise Stop

    return listen


def interrupted(boxes: Dataset, settings: TrainSettings, output: Path, epoch: int) -> None:
    with pytest.raises(Stop):
        Trainer(boxes, settings, output).run(stop_after(epoch))


@pytest.mark.parametrize("settings", [TINY, WITH_MUON], ids=["adam", "muon"])
def test_the_loss_falls_to_a_third_and_signs_are_learnt(
    boxes: Dataset, tmp_path: Path, settings: TrainSettings
) -> None:
    reports: list[EpochReport] = []
    settings = replace(settings, epochs=200, halve_every=80, points_a_shape=512)
    model = Trainer(boxes, settings, tmp_path).run(reports.append)
    assert [report.epoch for report in reports] == list(range(1, 201))
    first, last = (np.mean([report.loss for report in part]) for part in (reports[:2], reports[-5:]))
    assert last < first / 3
    # For each box the sign of the decoder is that of the analytic distance nearly everywhere.
    for index, name in enumerate(model.card.shapes):
        samples = boxes.load(name)
        with torch.inference_mode():
            made = model.decoder(model.codes[index : index + 1], torch.from_numpy(samples.points)[None])[0].numpy()
        clear = np.abs(samples.distances) > 0.05
        assert np.mean((made < 0)[clear] == (samples.distances < 0)[clear]) > 0.97, name


@pytest.mark.parametrize(
    "settings",
    [TINY, WITH_DROPOUT, replace(TINY, bfloat16=True), WITH_MUON],
    ids=["plain", "dropout", "bf16", "muon"],
)
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    boxes: Dataset, tmp_path: Path, settings: TrainSettings
) -> None:
    settings = replace(settings, epochs=14)
    whole = Trainer(boxes, settings, tmp_path / "whole").run()
    interrupted(boxes, settings, tmp_path / "stopped", 8)
    torch.manual_seed(99)  # what else happened to the random state must not matter
    trainer = Trainer(boxes, settings, tmp_path / "stopped")
    trainer.resume()
    assert trainer.epoch == 5
    resumed = trainer.run()
    assert same_weights(whole, resumed)
    histories = [json.loads((tmp_path / folder / "history.json").read_text()) for folder in ("whole", "stopped")]
    losses = [[row["loss"] for row in history] for history in histories]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]  # without progress, equal bits mean nothing


RUN = """
import sys, torch
from pathlib import Path
from training.dataset import Dataset
from training.trainer import Trainer
sys.path.insert(0, sys.argv[3])
from test_trainer import WITH_DROPOUT
torch.set_num_threads(1)
Trainer._write_pictures = lambda trainer: None
trainer = Trainer(Dataset.open(Path(sys.argv[1])), WITH_DROPOUT, Path(sys.argv[2]))
trainer.run(lambda report: print(report.epoch, flush=True))
"""


def test_a_run_killed_by_sigkill_and_resumed_ends_with_the_same_bits(boxes: Dataset, tmp_path: Path) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", RUN, str(boxes.folder), str(tmp_path / "killed"), str(Path(__file__).parent)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert killed.stdout
    for line in killed.stdout:
        if int(line) >= 12:
            os.killpg(killed.pid, signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "boxes.safetensors").exists()
    trainer = Trainer(boxes, WITH_DROPOUT, tmp_path / "killed")
    trainer.resume()
    assert 10 <= trainer.epoch < WITH_DROPOUT.epochs
    assert trainer.epoch % WITH_DROPOUT.checkpoint_every == 0
    assert same_weights(trainer.run(), Trainer(boxes, WITH_DROPOUT, tmp_path / "whole").run())


def test_the_model_depends_on_the_seed_alone(boxes: Dataset, tmp_path: Path) -> None:
    settings = replace(WITH_DROPOUT, epochs=2)
    first = Trainer(boxes, settings, tmp_path / "a").run()
    again = Trainer(boxes, settings, tmp_path / "b").run()
    other = Trainer(boxes, replace(settings, seed=1), tmp_path / "c").run()
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_a_finished_run_can_be_resumed_with_more_epochs(boxes: Dataset, tmp_path: Path) -> None:
    Trainer(boxes, replace(TINY, epochs=4), tmp_path / "run").run()
    trainer = Trainer(boxes, replace(TINY, epochs=9), tmp_path / "run")
    trainer.resume()
    assert trainer.epoch == 4
    assert same_weights(trainer.run(), Trainer(boxes, replace(TINY, epochs=9), tmp_path / "whole").run())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (replace(TINY, decoder_rate=1e-3), "decoder_rate"),
        (replace(TINY, decoder=replace(TINY.decoder, width=72)), "decoder"),
        (replace(TINY, seed=1), "seed"),
    ],
)
def test_a_checkpoint_with_other_settings_is_rejected(
    boxes: Dataset, tmp_path: Path, changed: TrainSettings, named: str
) -> None:
    Trainer(boxes, TINY, tmp_path).save_checkpoint()
    with pytest.raises(InputError, match=rf"other settings \({named}\); use another folder"):
        Trainer(boxes, changed, tmp_path).resume()


def test_a_checkpoint_of_other_shapes_is_rejected(boxes: Dataset, tmp_path: Path) -> None:
    Trainer(boxes, TINY, tmp_path).save_checkpoint()
    fewer = replace(boxes, records=boxes.records[1:])
    with pytest.raises(InputError, match="trained on different shapes"):
        Trainer(fewer, TINY, tmp_path).resume()


def test_resuming_without_a_checkpoint_is_an_error(boxes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        Trainer(boxes, TINY, tmp_path).resume()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(10_000))


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def without_codes(path: Path) -> None:
    meta = {"settings": json.dumps(asdict(TINY)), "epoch": "5", "shapes": json.dumps(list(SIZES)), "history": "[]"}
    save_file({name: value for name, value in load_file(path).items() if name != "codes"}, path, meta)


@pytest.mark.parametrize("damage", [cut_short, emptied, overwritten, foreign, without_codes])
def test_a_damaged_checkpoint_is_rejected(boxes: Dataset, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    interrupted(boxes, TINY, tmp_path, 5)
    damage(tmp_path / "checkpoint.safetensors")
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is (damaged|not a checkpoint)"):
        Trainer(boxes, TINY, tmp_path).resume()


def test_no_temporary_file_is_left_beside_a_checkpoint(boxes: Dataset, tmp_path: Path) -> None:
    interrupted(boxes, TINY, tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "history.json"]


@pytest.mark.parametrize("bound", [0.05, 0.3])
def test_no_code_norm_exceeds_the_bound(boxes: Dataset, tmp_path: Path, bound: float) -> None:
    settings = replace(TINY, epochs=5, code_bound=bound, code_rate=0.5)
    trainer = Trainer(boxes, settings, tmp_path)
    norms: list[float] = []
    trainer.run(lambda report: norms.append(float(trainer.codes.detach().norm(dim=1).max())))
    assert max(norms) <= bound * (1 + 1e-6)
    assert max(norms) > 0.9 * bound  # the bound was reached


def test_the_code_penalty_grows_over_its_ramp(boxes: Dataset, tmp_path: Path) -> None:
    # With an output that does not depend on the codes, their gradient is that of the penalty: 2 w r(epoch) z / n.
    settings = replace(TINY, decoder_rate=0.0, code_rate=0.0, code_penalty=3.0, penalty_ramp=8, code_bound=10.0)
    trainer = Trainer(boxes, settings, tmp_path)
    torch.nn.init.zeros_(trainer.decoder.last.weight)  # the output no longer depends on the code
    shapes = torch.arange(4)
    points, distances = trainer.samples.draw(shapes, 64, trainer.generator)
    for epoch, ramp in ((0, 0.0), (2, 0.25), (4, 0.5), (8, 1.0), (100, 1.0)):
        trainer.epoch = epoch
        trainer._step(shapes, points, distances, len(shapes))
        assert trainer.codes.grad is not None
        expected = 2 * 3.0 * ramp * trainer.codes.detach() / 4
        assert torch.allclose(trainer.codes.grad, expected, atol=1e-7), epoch


def test_the_penalty_shortens_codes(boxes: Dataset, tmp_path: Path) -> None:
    free, penalised = (
        Trainer(boxes, replace(TINY, epochs=20, code_penalty=weight, penalty_ramp=1), tmp_path / str(weight)).run()
        for weight in (0.0, 10.0)
    )
    assert penalised.codes.norm(dim=1).mean() < 0.8 * free.codes.norm(dim=1).mean()


def test_the_learning_rates_halve_on_schedule(boxes: Dataset, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    Trainer(boxes, replace(TINY, epochs=7, halve_every=3), tmp_path).run(reports.append)
    assert [report.rate / TINY.decoder_rate for report in reports] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_the_learning_rates_fall_along_a_cosine(boxes: Dataset, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    Trainer(boxes, replace(WITH_MUON, epochs=6, warm_up=1 / 3), tmp_path).run(reports.append)
    wave = [1, 0.5 + math.sqrt(3) / 4, 0.75, 0.5, 0.25, 0.5 - math.sqrt(3) / 4]
    wave[0] = 0.5  # the first of two epochs over which they rise
    assert [report.rate / WITH_MUON.decoder_rate for report in reports] == pytest.approx(wave)


def test_a_run_along_a_cosine_is_not_resumed_with_other_epochs(boxes: Dataset, tmp_path: Path) -> None:
    Trainer(boxes, replace(WITH_MUON, epochs=4), tmp_path).run()
    with pytest.raises(InputError, match=r"started with other settings \(epochs\)"):
        Trainer(boxes, replace(WITH_MUON, epochs=9), tmp_path).resume()


def test_the_finished_model_file_gives_the_same_distances(boxes: Dataset, tmp_path: Path) -> None:
    model = Trainer(boxes, replace(WITH_DROPOUT, epochs=3), tmp_path).run()
    loaded = load_model(tmp_path / "boxes.safetensors")
    assert loaded.card == replace(model.card, training=json.loads(json.dumps(model.card.training)))
    assert (loaded.card.name, loaded.card.front, loaded.card.shapes) == ("boxes", "-z", list(SIZES))
    assert loaded.card.sources == [
        {"licence": "CC-BY-SA-3.0", "creator": "Ada", "shapes": 2},
        {"licence": "CC0-1.0", "creator": "Ada", "shapes": 2},
    ]
    assert loaded.card.licence == "CC-BY-SA-3.0"
    points = torch.rand(4, 200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(model.decoder(model.codes, points), loaded.decoder(model.codes, points))
    assert torch.allclose(model.codes, loaded.codes, atol=1e-3)  # codes are stored in half precision


def test_a_shape_without_samples_is_left_out(boxes: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    (folder / "shapes").mkdir(parents=True)
    copied = replace(boxes, folder=folder)
    copied.save()
    for name in ("cube", "rod", "tower"):
        copied.path(name).write_bytes(boxes.path(name).read_bytes())
    model = Trainer(Dataset.open(folder), replace(TINY, epochs=2), tmp_path / "run").run()
    assert model.card.shapes == ["cube", "rod", "tower"]
    assert len(model.codes) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    boxes: Dataset, tmp_path: Path, value: float
) -> None:
    trainer = Trainer(boxes, TINY, tmp_path)

    def spoil(report: EpochReport) -> None:
        if report.epoch == 6:
            trainer.decoder.last.bias.data.fill_(value)
            trainer.decoder.last.weight.data.fill_(value)

    with pytest.raises(InputError, match=r"the loss became nan in epoch \d+; lower the learning rates"):
        trainer.run(spoil)
    assert not (tmp_path / "boxes.safetensors").exists()
    fresh = Trainer(boxes, TINY, tmp_path)
    fresh.resume()
    assert fresh.epoch == 5
    assert all(bool(torch.isfinite(value).all()) for value in fresh.decoder.state_dict().values())


@pytest.mark.parametrize("epochs", [10, 12])
def test_weights_that_are_not_finite_are_never_written(boxes: Dataset, tmp_path: Path, epochs: int) -> None:
    """Not even after the tenth epoch, which ends with a checkpoint: the loss is from before the last step."""
    trainer = Trainer(boxes, replace(TINY, epochs=epochs), tmp_path)
    step = trainer._step

    def spoiling(*arguments: torch.Tensor) -> float:
        loss = step(*arguments)
        if trainer.epoch == 9:
            trainer.decoder.last.weight.data.fill_(math.nan)
        return loss if trainer.epoch < 9 else 0.01

    trainer._step = spoiling  # type: ignore[method-assign]
    with pytest.raises(InputError, match="the weights are no longer finite after epoch 9"):
        trainer.run()
    assert not (tmp_path / "boxes.safetensors").exists()
    fresh = Trainer(boxes, replace(TINY, epochs=epochs), tmp_path)
    fresh.resume()
    assert fresh.epoch == 5


def test_a_checkpoint_past_the_requested_epochs_is_rejected(boxes: Dataset, tmp_path: Path) -> None:
    Trainer(boxes, replace(TINY, epochs=4), tmp_path).run()
    with pytest.raises(InputError, match="is already at epoch 4"):
        Trainer(boxes, replace(TINY, epochs=3), tmp_path).resume()


def test_an_output_that_is_a_file_is_rejected_before_the_first_epoch(boxes: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reports: list[EpochReport] = []
    with pytest.raises(InputError, match="file"):
        Trainer(boxes, TINY, tmp_path / "file").run(reports.append)
    assert reports == []


def test_a_symmetric_category_is_symmetric_across_the_plane_of_up_and_front(boxes: Dataset, tmp_path: Path) -> None:
    assert (
        TINY.with_mirror_symmetry("-z").decoder.mirror_axis == TINY.with_mirror_symmetry("+z").decoder.mirror_axis == 0
    )
    assert TINY.with_mirror_symmetry("+x").decoder.mirror_axis == 2
    model = Trainer(boxes, replace(TINY.with_mirror_symmetry("-z"), epochs=2), tmp_path).run()
    points = torch.rand(4, 100, 3) * 2 - 1
    with torch.inference_mode():
        mirrored = model.decoder(model.codes, points * torch.tensor([-1.0, 1, 1]))
        assert torch.equal(model.decoder(model.codes, points), mirrored)


def test_options_override_the_settings_of_their_preset() -> None:
    assert build_train_settings(TrainOptions(), "-z") == PRESETS[Preset.SMALL]
    paper = build_train_settings(TrainOptions(Preset.PAPER, epochs=3, halve_every=2, seed=4), "-z")
    assert paper == replace(TrainSettings(), epochs=3, halve_every=2, seed=4)
    symmetric = build_train_settings(TrainOptions(symmetric=True), "-z")
    assert symmetric == PRESETS[Preset.SMALL].with_mirror_symmetry("-z")
    with pytest.raises(InputError, match="leave out --halve-every"):
        build_train_settings(TrainOptions(halve_every=9), "-z")
    with pytest.raises(InputError, match="unknown preset 'huge'; use one of small, paper"):
        TrainOptions("huge")  # type: ignore[arg-type]


def test_an_empty_training_split_is_rejected(boxes: Dataset, tmp_path: Path) -> None:
    records = [replace(record, split="test") for record in boxes.records]
    with pytest.raises(InputError, match="no prepared shape of the split 'train'"):
        Trainer(replace(boxes, records=records), TINY, tmp_path)


def test_drawing_pictures_changes_no_weights(boxes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Trainer(boxes, replace(WITH_DROPOUT, epochs=2), tmp_path / "plain").run()
    monkeypatch.setattr(Trainer, "_write_pictures", WRITE_PICTURES)
    # After two epochs the level set fills all of space; a fine one would take a minute.
    quick = partial(module.draw_reconstructions, count=2, resolution=32)
    monkeypatch.setattr(module, "draw_reconstructions", quick)
    drawn = Trainer(boxes, replace(WITH_DROPOUT, epochs=2, picture_every=1), tmp_path / "drawn").run()
    assert same_weights(plain, drawn)
    for name in ("loss.png", "reconstructions.png"):
        with Image.open(tmp_path / "drawn" / name) as image:
            image.load()
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_a_new_run_over_an_old_one_is_rejected(boxes: Dataset, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"an old run")
    result = CliRunner().invoke(app, ["train", str(boxes.folder), "-o", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 1
    assert "--resume" in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == b"an old run"
