"""The training samples of all shapes in the memory of the device."""

import torch
from torch import Tensor

from training.dataset import GRID_STEPS, Dataset, ShapeRecord
from training.sampling import BOUND


class ResidentSamples:
    """All samples of all shapes in device memory, for random draws; those inside come first for each shape.

    A sample takes 8 bytes: 16-bit coordinates, as on disk, and the distance as float16.
    """

    def __init__(self, dataset: Dataset, records: list[ShapeRecord], device: torch.device) -> None:
        points, distances, inside, counts = [], [], [], []
        for record in records:
            samples = dataset.load(record.name)
            order = torch.from_numpy(samples.distances).ge(0).to(torch.uint8).argsort(stable=True)
            points.append((torch.from_numpy(samples.points)[order] * (GRID_STEPS / BOUND)).round().to(torch.int16))
            distances.append(torch.from_numpy(samples.distances)[order].half())
            inside.append(int((samples.distances < 0).sum()))
            counts.append(len(order))
        self.points = torch.cat(points).to(device)
        self.distances = torch.cat(distances).to(device)
        self.inside = torch.tensor(inside)
        self.counts = torch.tensor(counts)
        self.starts = torch.cumsum(self.counts, 0) - self.counts
        self.device = device

    def draw(self, shapes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw samples with replacement, half of them inside and half outside.

        Parameters
        ----------
        shapes : (s,), indices of the shapes
        count : samples of each shape
        generator : on the CPU, whatever the device

        Returns
        -------
        points : (s, count, 3) float32
        distances : (s, count) float32, negative inside
        """
        half = torch.rand(2, len(shapes), count // 2, generator=generator)  # (2, s, count / 2), in [0, 1)
        inside, outside = self.inside[shapes, None], (self.counts - self.inside)[shapes, None]  # (s, 1) each
        chosen = torch.cat([(half[0] * inside).long(), inside + (half[1] * outside).long()], 1)  # (s, count)
        rows = (self.starts[shapes, None] + chosen).to(self.device)
        return self.points[rows].float() * (BOUND / GRID_STEPS), self.distances[rows].float()
