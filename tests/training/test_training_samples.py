"""Draws for training: of the right shape and side, evenly, from the memory and from the store alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.dataset import Dataset, ShapeRecord, save_samples
from training.pack import pack_dataset
from training.sampling import BOUND, ShapeSamples, quantise
from training.training_samples import TrainingSamples

CPU = torch.device("cpu")


def ball(radius: float, count: int = 4_000) -> ShapeSamples:
    """Samples in and around a ball, whose distances tell their radius."""
    rng = np.random.default_rng(int(radius * 1000))
    points = quantise(rng.uniform(-1, 1, (count, 3)))
    distances = np.linalg.norm(points, axis=1) - radius
    surface = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)[:50]
    return ShapeSamples(points.astype(np.float32), distances.astype(np.float32), surface, surface, 1.0, np.zeros(3), 0)


RADII = {"a": 0.4, "b": 0.6, "c": 0.8, "d": 0.95}


@pytest.fixture
def balls(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path / "balls", "balls", "-z", {"seed": 0}, [ShapeRecord(name, "train") for name in RADII])
    dataset.save()
    for name, radius in RADII.items():
        save_samples(dataset.path(name), ball(radius))
    return dataset


def draw(dataset: Dataset, shapes: list[int], count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    samples = TrainingSamples(dataset, dataset.records, CPU)
    return samples.draw(torch.tensor(shapes), count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("packed", [False, True])
def test_half_of_the_drawn_samples_are_inside_and_all_belong_to_their_shape(balls: Dataset, packed: bool) -> None:
    if packed:
        pack_dataset(balls.folder)
    points, distances = draw(balls, [3, 0, 2], 500)
    assert points.shape == (3, 500, 3)
    assert ((distances < 0).sum(1) == 250).all()
    radii = torch.tensor([[0.95], [0.4], [0.8]])
    assert torch.allclose(points.norm(dim=2) - distances, radii.expand(3, 500), atol=1e-6)


def test_packed_and_loose_shapes_give_the_same_draws_to_the_bit(balls: Dataset) -> None:
    loose = draw(balls, [1, 3, 0], 1_000, seed=5)
    pack_dataset(balls.folder, part_bytes=100_000)  # two shapes a part
    assert not list(balls.folder.rglob("*.npz"))
    packed = draw(Dataset.open(balls.folder), [1, 3, 0], 1_000, seed=5)
    assert all(map(torch.equal, loose, packed))


def test_every_sample_of_a_side_is_drawn_equally_often(balls: Dataset) -> None:
    save_samples(balls.path("a"), ball(0.4, 600))
    samples = TrainingSamples(balls, balls.records[:1], CPU)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([samples.draw(torch.tensor([0]), 16, generator)[1][0] for _ in range(6_000)])
    stored = torch.from_numpy(balls.load("a").distances)
    for side, of_side in ((stored[stored < 0], drawn[drawn < 0]), (stored[stored >= 0], drawn[drawn >= 0])):
        _, counts = torch.unique(of_side, return_counts=True)
        assert len(counts) == len(torch.unique(side))
        expected = len(of_side) / len(side)
        # Windows of 8 are drawn at once, so the deviation is not larger than that of single draws.
        assert (counts - expected).abs().max() < 5 * expected**0.5 + 1


def test_a_window_is_spread_over_its_side(balls: Dataset) -> None:
    """The stored order is random: neighbours in a file are not neighbours in space."""
    order = np.argsort(ball(0.8).points[:, 0])
    along_x = ball(0.8)
    save_samples(balls.path("c"), replace(along_x, points=along_x.points[order], distances=along_x.distances[order]))
    points, _ = draw(balls, [2], 256)
    assert float(points[0, :, 0].std()) > 0.8 * float(np.std(along_x.points[:, 0]))


@pytest.mark.parametrize("inside", [0, 3, 4_000])
def test_a_side_with_few_samples_is_gone_round_and_one_without_is_left_out(balls: Dataset, inside: int) -> None:
    samples = ball(0.8)
    distances = np.full(4_000, 0.5, np.float32)
    distances[:inside] = -0.5
    save_samples(balls.path("c"), replace(samples, distances=distances))
    points, drawn = draw(balls, [2], 100)
    assert int((drawn[0] < 0).sum()) == {0: 0, 3: 50, 4_000: 100}[inside]
    known = {tuple(cell) for cell in np.round(samples.points / BOUND * 32767).astype(int).tolist()}
    assert {tuple(cell) for cell in np.round(points[0].numpy() / BOUND * 32767).astype(int).tolist()} <= known


def test_packed_samples_are_not_read_before_they_are_drawn(balls: Dataset) -> None:
    pack_dataset(balls.folder)
    samples = TrainingSamples(Dataset.open(balls.folder), balls.records, CPU)
    path = balls.folder / "store" / "0000" / "distances.npy"
    stored = np.load(path)
    np.save(path, stored + 100)
    _, drawn = samples.draw(torch.tensor([0]), 10, torch.Generator().manual_seed(0))
    assert float(drawn.min()) > 99
