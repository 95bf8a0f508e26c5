"""Observations of several fits as padded tensors, and draws of them that are even in space."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.devices import POINT_BLOCK
from sdf_backend.observation.observations import Observations

# The space-filling curve has 2^CURVE_BITS cells per axis of the cube of half side CURVE_EXTENT: enough that no two
# points share a cell, since points of one cell would keep the order of the input.
CURVE_BITS, CURVE_EXTENT = 20, 1.5


@dataclass
class ObservationBatch:
    """Observations of s fits, padded to n each.

    points : (s, n, 3) float32, in the frame of each fit's first pose
    low, high : (s, n) float32, the interval of the signed distance
    sizes : (s,) int64, observations of each row; the padding after them has an unbounded interval
    """

    points: Tensor
    low: Tensor
    high: Tensor
    sizes: Tensor

    def draw(self, count: int, shift: float) -> "ObservationBatch":
        """Draw `count` observations of each fit, half of them inside where there are inside observations.

        Of a batch that is `sorted_along_curve` the draw is even in space. It is deterministic: the same input gives the
        same code. An even draw of all observations would leave thin parts so few inside points that they vanish; the
        half was chosen in an early round on the TEST aircraft.

        shift : 0 to 1, the share of a stride at which the draw begins
        """
        if count >= self.points.shape[1]:
            return self
        chosen = torch.stack([self._draw(row, count, shift) for row in range(len(self.points))])
        return self._gather(chosen, self.sizes.clamp_max(count))

    def select_rows(self, rows: list[int]) -> "ObservationBatch":
        """Copies of these rows; a row may occur several times."""
        return ObservationBatch(self.points[rows], self.low[rows], self.high[rows], self.sizes[rows])

    def sorted_along_curve(self) -> "ObservationBatch":
        """The same batch with each row sorted along a space-filling curve."""
        key = _morton_code(self.points)
        padding = torch.arange(key.shape[1], device=key.device) >= self.sizes[:, None]
        order = key.masked_fill(padding, torch.iinfo(key.dtype).max).argsort(dim=1, stable=True)
        return self._gather(order, self.sizes)

    def _gather(self, chosen: Tensor, sizes: Tensor) -> "ObservationBatch":
        """The observations with these indices, (s, m), of each row."""
        points = self.points.gather(1, chosen[..., None].expand(-1, -1, 3))  # (s, m, 3)
        return ObservationBatch(points, self.low.gather(1, chosen), self.high.gather(1, chosen), sizes)

    def _draw(self, row: int, count: int, shift: float) -> Tensor:
        """Indices, (count,), of the observations drawn of one fit, followed by padding where it has fewer."""
        size = int(self.sizes[row])
        inside = self.high[row, :size] < 0
        sides = [torch.nonzero(side)[:, 0] for side in (inside, ~inside)]
        drawn = min(count, size)
        # A side with fewer than half of `drawn` contributes all that it has.
        inside_count = min(max(drawn // 2, drawn - len(sides[1])), len(sides[0]))
        padding = torch.arange(size, size + count - drawn, device=inside.device)
        outside_count = drawn - inside_count
        return torch.cat(
            [evenly_spaced(sides[0], inside_count, shift), evenly_spaced(sides[1], outside_count, shift), padding]
        )


def evenly_spaced(numbers: Tensor, count: int, shift: float) -> Tensor:
    """`count` of the numbers, (n,), at equal strides, the first a share of `shift` of a stride from the beginning."""
    indices = (torch.arange(count, dtype=torch.float64) + shift) * (len(numbers) / max(count, 1))
    return numbers[indices.long().to(numbers.device)]


def _morton_code(points: Tensor) -> Tensor:
    """Position, (...) int64, of points, (..., 3), along the Morton curve, which interleaves the bits of the axes."""
    cells = ((points / CURVE_EXTENT).clamp(-1, 1) * 0.5 + 0.5) * ((1 << CURVE_BITS) - 1)
    key = torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)
    coordinates = cells.long().unbind(dim=-1)
    for bit in range(CURVE_BITS):
        for axis, coordinate in enumerate(coordinates):
            key |= (coordinate >> bit & 1) << (3 * bit + axis)
    return key


def batch_observations(
    observations: list[Observations], poses: list[Similarity], device: torch.device
) -> ObservationBatch:
    """Observations in the frames of their first poses, stacked and padded to a multiple of `POINT_BLOCK`.

    Raises `InputError` where there are none, or one has no points.
    """
    sizes = [len(observed.points) for observed in observations]
    if not sizes or 0 in sizes:
        raise InputError(f"observations of {sizes} points cannot be fitted; each needs at least one")
    length = max(sizes) + -max(sizes) % POINT_BLOCK

    def stack(arrays: list[np.ndarray], padding: float) -> Tensor:
        filled = np.full((len(arrays), length, *arrays[0].shape[1:]), padding, dtype=np.float32)
        for row, array in zip(filled, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(filled).to(device)

    pairs = list(zip(observations, poses, strict=True))
    return ObservationBatch(
        stack([pose.inverse().apply(observed.points) for observed, pose in pairs], 0),
        stack([observed.low / pose.scale for observed, pose in pairs], -np.inf),
        stack([observed.high / pose.scale for observed, pose in pairs], np.inf),
        torch.tensor(sizes, device=device),
    )
