"""Random draws of the training samples of many shapes, read from disk as they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.dataset import Dataset, ShapeRecord
from training.sampling import BOUND, GRID_STEPS, to_grid
from training.store import map_array

# Points on the 16-bit grid, (n, 3) int16, and their distances, (n,) float32.
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Shape:
    """The rows of one shape; those inside come first, and each side is in random order.

    part : gives the arrays that the rows are of
    """

    part: Callable[[], Arrays]
    start: int
    inside: int
    count: int


class TrainingSamples:
    """The samples of the shapes of a split, for random draws.

    Packed shapes stay on disk, in the system's cache as far as there is memory to spare; shapes in files of their own
    are read into memory.

    Raises
    ------
    InputError : samples that cannot be read
    """

    def __init__(self, dataset: Dataset, records: list[ShapeRecord], device: torch.device) -> None:
        part = cache(lambda folder: partial(_map_part, folder))
        self.shapes = []
        for record in records:
            if stored := dataset.stored(record.name):
                folder, place = stored
                self.shapes.append(_Shape(part(folder), place.start, place.inside, place.count))
            else:
                samples = dataset.load(record.name)
                arrays = to_grid(samples.points, BOUND), samples.distances
                inside = int((samples.distances < 0).sum())
                self.shapes.append(_Shape(partial(tuple, arrays), 0, inside, len(samples.distances)))
        self.device = device

    def draw(self, shapes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw samples, half of them inside and half outside, as a window of each side that begins at random.

        Stored samples are in random order, so that a window of them is a random draw, as in the released DeepSDF code;
        and it takes one access to the disk where single samples would take hundreds. A window goes round at the end of
        its side. Where a shape has no samples on one side, all are of the other.

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
        begins = torch.rand(len(shapes), 2, generator=generator).tolist()  # in [0, 1), of the size of each side
        points = np.empty((len(shapes), count, 3), np.int16)
        distances = np.empty((len(shapes), count), np.float32)
        # Mapped anew for each draw, because pages that stay mapped are counted as memory of the process.
        opened = cache(lambda part: part())
        for row, index in enumerate(shapes.tolist()):
            shape = self.shapes[index]
            for stored, drawn in zip(opened(shape.part), (points[row], distances[row]), strict=True):
                _draw_sides(stored, shape, begins[row], drawn)
        on_device = torch.from_numpy(points).to(self.device).float() * (BOUND / GRID_STEPS)
        return on_device, torch.from_numpy(distances).to(self.device)


def _map_part(folder: Path) -> Arrays:
    return map_array(folder, "points"), map_array(folder, "distances")


def _draw_sides(stored: np.ndarray, shape: _Shape, begins: list[float], drawn: np.ndarray) -> None:
    """Fill `drawn` with a window of each side of a shape; `begins` are its begins, in [0, 1)."""
    middle = shape.start + shape.inside
    sides = [stored[shape.start : middle], stored[middle : shape.start + shape.count]]
    half = len(drawn) // 2 if all(map(len, sides)) else len(drawn) * (len(sides[0]) > 0)
    for side, begin, window in zip(sides, begins, (drawn[:half], drawn[half:]), strict=True):
        place, filled = int(begin * len(side)), 0
        while filled < len(window):
            taken = min(len(side) - place, len(window) - filled)
            window[filled : filled + taken] = side[place : place + taken]
            place, filled = 0, filled + taken
