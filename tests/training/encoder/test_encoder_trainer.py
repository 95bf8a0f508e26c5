"""Training of an encoder on the spheres, whose radius it can learn from a part of one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdf_backend.errors import InputError
from sdf_backend.fitting.proposals import propose
from sdf_backend.model.store import Model, load_model, save_model
from sdf_backend.settings import Pose
from training.encoder.cloud_draws import CloudSettings
from training.encoder.decoded_scans import DecodedScanSettings
from training.encoder.encoder_trainer import EncoderTraining, train_encoder

SHORT = EncoderTraining(
    steps=60,
    clouds_a_step=32,
    rate=5e-3,
    checkpoint_every=20,
    scans=DecodedScanSettings(resolution=24, views=3, pixels=24, points=64, between=0.5, neighbours=4),
    clouds=CloudSettings(noise=0.002, cut=0.0),
)


@pytest.fixture
def model_file(spheres: Model, tmp_path: Path) -> Path:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    return path


def test_the_loss_falls_and_a_ball_of_any_size_and_place_is_found(model_file: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    train_encoder(model_file, tmp_path / "run", SHORT, on_step=lambda done, total, loss: losses.append(loss))
    # A ball says nothing of its turn, so that much of the loss stays.
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
    normal = np.random.default_rng(0).normal(size=(4_000, 3))
    ball = normal / np.linalg.norm(normal, axis=1, keepdims=True) * 50 + [1_000, 0, 0]
    [found] = propose(load_model(model_file), ball, [np.eye(3)], Pose.KNOWN)
    np.testing.assert_allclose(found.pose.translation, [1_000, 0, 0], atol=10)
    # The canonical radius is 0.4 to 0.6, so the scale is about 100.
    assert 70 < found.pose.scale < 140
    assert found.codes.shape == (4, 3)


def test_a_killed_run_continues_to_the_same_encoder(model_file: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill_at(last: int):
        def step(done: int, total: int, loss: float) -> None:
            if done > last:
                raise Killed

        return step

    whole = train_encoder(model_file, tmp_path / "whole", SHORT)
    with pytest.raises(Killed):
        train_encoder(model_file, tmp_path / "killed", SHORT, on_step=kill_at(30))
    seen: list[int] = []
    resumed = train_encoder(model_file, tmp_path / "killed", SHORT, on_step=lambda done, total, loss: seen.append(done))
    assert seen[0] == 21
    assert whole.encoder is not None and resumed.encoder is not None
    points = torch.randn(2, 16, 3)
    torch.testing.assert_close(resumed.encoder(points).codes, whole.encoder(points).codes)


def test_a_folder_of_another_run_is_refused_before_anything_is_overwritten(model_file: Path, tmp_path: Path) -> None:
    train_encoder(model_file, tmp_path / "run", replace(SHORT, steps=20))
    with pytest.raises(InputError, match="is of another model or other settings; delete it or use another folder"):
        train_encoder(model_file, tmp_path / "run", replace(SHORT, steps=20, seed=1))


def test_a_damaged_checkpoint_is_told(model_file: Path, tmp_path: Path) -> None:
    train_encoder(model_file, tmp_path / "run", replace(SHORT, steps=20))
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        train_encoder(model_file, tmp_path / "run", replace(SHORT, steps=20))


def test_damaged_scans_are_made_again(model_file: Path, tmp_path: Path) -> None:
    short = replace(SHORT, steps=1)
    train_encoder(model_file, tmp_path / "run", short)
    (tmp_path / "run" / "scans.safetensors").write_bytes(b"nothing")
    scanned: list[int] = []
    train_encoder(model_file, tmp_path / "run", short, on_scan=lambda done, total: scanned.append(done))
    assert scanned[-1] == 18
