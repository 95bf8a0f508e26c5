"""Observations of several fits as tensors, in blocks, and draws of them that are even in space."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.devices import POINT_BLOCK
from sdf_backend.observation.observations import Observations

# The curve along which observations are ordered runs through 2^bits cells an axis of the cube of this half side: so
# many that no two points share one, or those that do would be in the order of the input.
CURVE_BITS, CURVE_REACH = 20, 1.5


@dataclass
class Batch:
    """Observations of all fits as tensors: points (s, n, 3) in their own frames, low and high (s, n).

    Each row holds `sizes`, (s,), observations; what follows them says nothing: an interval without bounds.
    """

    points: Tensor
    low: Tensor
    high: Tensor
    sizes: Tensor

    def drawn(self, count: int, shift: float) -> "Batch":
        """A subset of `count` of every fit's; half of it inside, where there are inside observations.

        Of a batch `along_curve` it is even in space. Nothing is left to chance: the same input gives the same code.
        Drawn evenly from all, thin parts would have so few points inside that they vanish for the good of the rest.
        `shift`, 0 to 1: where in its strides it begins.
        """
        if count >= self.points.shape[1]:
            return self
        chosen = torch.stack([self._draw(row, count, shift) for row in range(len(self.points))])
        return self._rows(chosen, self.sizes.clamp_max(count))

    def chosen(self, rows: list[int]) -> "Batch":
        """Some of the rows, or some several times."""
        return Batch(self.points[rows], self.low[rows], self.high[rows], self.sizes[rows])

    def along_curve(self) -> "Batch":
        """The same, each row in the order of its points along a curve that fills space."""
        key = _curve_position(self.points)
        beyond = torch.arange(key.shape[1], device=key.device) >= self.sizes[:, None]
        return self._rows(key.masked_fill(beyond, torch.iinfo(key.dtype).max).argsort(dim=1, stable=True), self.sizes)

    def _rows(self, chosen: Tensor, sizes: Tensor) -> "Batch":
        """The chosen observations of each row, by their numbers (s, m)."""
        points = self.points.gather(1, chosen[..., None].expand(-1, -1, 3))
        return Batch(points, self.low.gather(1, chosen), self.high.gather(1, chosen), sizes)

    def _draw(self, row: int, count: int, shift: float) -> Tensor:
        """Numbers of the observations drawn of one fit, (count,), padding last where it has not so many."""
        size = int(self.sizes[row])
        inside = self.high[row, :size] < 0
        sides = [torch.nonzero(side)[:, 0] for side in (inside, ~inside)]
        drawn = min(count, size)
        # A side that has fewer than half of them gives all it has.
        share = min(max(drawn // 2, drawn - len(sides[1])), len(sides[0]))
        padding = torch.arange(size, size + count - drawn, device=inside.device)
        return torch.cat([evenly(sides[0], share, shift), evenly(sides[1], drawn - share, shift), padding])


def evenly(numbers: Tensor, count: int, shift: float) -> Tensor:
    """`count` of the numbers, (n,), in equal strides, the first of which begins a share of `shift` later."""
    places = (torch.arange(count, dtype=torch.float64) + shift) * (len(numbers) / max(count, 1))
    return numbers[places.long().to(numbers.device)]


def _curve_position(points: Tensor) -> Tensor:
    """Where points, (..., 3), lie along a curve that fills space, (...) int64: Morton's, whose bits take turns."""
    cells = ((points / CURVE_REACH).clamp(-1, 1) * 0.5 + 0.5) * ((1 << CURVE_BITS) - 1)
    key = torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)
    places = cells.long().unbind(dim=-1)
    for bit in range(CURVE_BITS):
        for axis, place in enumerate(places):
            key |= (place >> bit & 1) << (3 * bit + axis)
    return key


def batched(observations: list[Observations], poses: list[Similarity], device: torch.device) -> Batch:
    """Observations in the frames of the first poses, stacked; shorter ones are filled up with what says nothing."""
    sizes = [len(observed.points) for observed in observations]
    if not sizes or 0 in sizes:
        raise InputError(f"observations of {sizes} points cannot be fitted; each needs at least one")

    def stack(arrays: list[np.ndarray], rest: float) -> Tensor:
        filled = np.full(
            (len(arrays), max(sizes) + -max(sizes) % POINT_BLOCK, *arrays[0].shape[1:]), rest, dtype=np.float32
        )
        for row, array in zip(filled, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(filled).to(device)

    pairs = list(zip(observations, poses, strict=True))
    return Batch(
        stack([pose.inverse().apply(observed.points) for observed, pose in pairs], 0),
        stack([observed.low / pose.scale for observed, pose in pairs], -np.inf),
        stack([observed.high / pose.scale for observed, pose in pairs], np.inf),
        torch.tensor(sizes, device=device),
    )
