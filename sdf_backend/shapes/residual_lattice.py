"""The lattice on which residual fields live, and the rows in which they are kept and sent.

A residual field is kept sparsely: (m, 2) float32, rows of a lattice node's number and the correction there; nodes
without a row have none. The wire and the caches hold these rows under the name `refinement`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Nodes per axis of the lattice over [-1, 1]^3; odd, so that 0 is a node. Part of the format, since rows name nodes by
# their numbers. With 129 the remaining error of solids is twice as large.
LATTICE_SIDE = 193
LATTICE_STEP = 2 / (LATTICE_SIDE - 1)
CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


def densify_residual_field(refinement: np.ndarray | None) -> np.ndarray:
    """A residual field, (m, 2) or None, on the whole lattice: (LATTICE_SIDE,) * 3 float32."""
    values = np.zeros(LATTICE_SIDE**3, dtype=np.float32)
    if refinement is not None:
        values[refinement[:, 0].astype(np.int64)] = refinement[:, 1]
    return values.reshape(LATTICE_SIDE, LATTICE_SIDE, LATTICE_SIDE)


def sparsify_residual_field(lattice: np.ndarray, minimum: float) -> np.ndarray:
    """The residual field, (m, 2) float32, of corrections on the whole lattice; smaller ones than the minimum are
    dropped."""
    values = lattice.reshape(-1)
    nodes = np.flatnonzero(np.abs(values) >= minimum)
    return np.stack([nodes, values[nodes]], axis=1).astype(np.float32)


def node_positions(nodes: np.ndarray) -> np.ndarray:
    """Canonical positions, (k, 3), of numbered lattice nodes, (k,) int64."""
    return np.stack(np.unravel_index(nodes, (LATTICE_SIDE,) * 3), axis=1) * LATTICE_STEP - 1.0


@dataclass(frozen=True)
class ResidualLattice:
    """A box of lattice nodes; corrections outside of it are zero. A shape never fills more than a fifth of the cube.

    first : (3,) int64, the box's lowest node; values : (a, b, c), at least two nodes per axis, canonical units
    """

    first: Tensor
    values: Tensor

    @classmethod
    def around_points(cls, points: Tensor, reach: float) -> "ResidualLattice":
        """Zeros at all nodes within `reach`, canonical units, of points, (n, 3)."""
        nodes = _lattice_coordinates(points).floor().long()
        return cls.around_nodes(nodes, int(np.ceil(reach * (LATTICE_SIDE - 1) / 2)) + 1)

    @classmethod
    def around_nodes(cls, nodes: Tensor, reach: int) -> "ResidualLattice":
        """Zeros at all nodes within `reach` nodes, along each axis, of given ones, (n, 3) int64."""
        first, last = nodes.amin(dim=0) - reach, nodes.amax(dim=0) + reach
        return cls(first, torch.zeros(*(last - first + 1).tolist(), device=nodes.device))

    @classmethod
    def from_rows(cls, refinement: np.ndarray, device: torch.device) -> "ResidualLattice":
        """The lattice of a residual field, (m, 2), m at least 1."""
        rows = torch.from_numpy(refinement).to(device)
        number, coordinates = rows[:, 0].long(), []
        for _ in range(3):
            coordinates.append(number % LATTICE_SIDE)
            number = number // LATTICE_SIDE
        nodes = torch.stack(coordinates[::-1], dim=1)  # (m, 3)
        lattice = cls.around_nodes(nodes, 1)
        lattice.values[tuple((nodes - lattice.first).unbind(dim=1))] = rows[:, 1]
        return lattice

    def to_rows(self, minimum: float) -> np.ndarray:
        """The residual field, (m, 2) float32; corrections smaller than the minimum are dropped."""
        found = torch.nonzero(self.values.abs() >= minimum)
        nodes, corrections = found + self.first, self.values[tuple(found.unbind(dim=1))]
        within = ((nodes >= 0) & (nodes < LATTICE_SIDE)).all(dim=1)
        return torch.stack([_node_numbers(nodes[within]).float(), corrections[within]], dim=1).cpu().numpy()

    def splat(self, points: Tensor, values: Tensor) -> Tensor:
        """Values, (n,), at points, (n, 3), distributed trilinearly among the eight nodes around each: (a, b, c)."""
        at = _lattice_coordinates(points) - self.first
        lower = at.floor()
        upper_weight, lower = at - lower, lower.long()
        _, b, c = self.values.shape
        lattice = torch.zeros_like(self.values)
        for corner in CORNERS:
            sides = torch.tensor(corner, device=points.device)
            weight = torch.where(sides > 0, upper_weight, 1 - upper_weight).prod(dim=1)  # (n,)
            x, y, z = (lower + sides).unbind(dim=1)
            lattice.view(-1).index_add_(0, (x * b + y) * c + z, weight * values)
        return lattice

    def interpolate(self, points: Tensor) -> Tensor:
        """Corrections, (n,), at points, (n, 3), trilinearly; zero outside of the box."""
        size = torch.tensor(self.values.shape, device=points.device)
        # grid_sample takes the box from -1 to 1, and the last axis first.
        grid = (2 * (_lattice_coordinates(points) - self.first) / (size - 1) - 1).flip(-1)[None, None, None]
        return functional.grid_sample(self.values[None, None], grid, align_corners=True)[0, 0, 0, 0]

    def gradient(self, points: Tensor) -> Tensor:
        """Gradients of the corrections, (n, 3), at points, (n, 3), by central differences over two nodes."""
        steps = torch.eye(3, device=points.device) * LATTICE_STEP
        differences = [self.interpolate(points + step) - self.interpolate(points - step) for step in steps]
        return torch.stack(differences, dim=1) / (2 * LATTICE_STEP)


def _lattice_coordinates(points: Tensor) -> Tensor:
    """Canonical points, (n, 3), in units of nodes."""
    return (points + 1) * ((LATTICE_SIDE - 1) / 2)


def _node_numbers(nodes: Tensor) -> Tensor:
    """Numbers, (n,), of nodes, (n, 3), of the whole lattice."""
    x, y, z = nodes.unbind(dim=1)
    return (x * LATTICE_SIDE + y) * LATTICE_SIDE + z


def blur(values: Tensor, width: float) -> Tensor:
    """Values, (a, b, c), convolved with a Gaussian of that standard deviation, in nodes, of sum 1; axis by axis."""
    reach = int(np.ceil(3 * width))
    total = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2).sum()
    for _ in range(3):
        a, b, c = values.shape
        # As a product with a band matrix, which takes a fifth of the time of a convolution.
        offset = torch.arange(c, device=values.device)[:, None] - torch.arange(c, device=values.device)
        band = torch.where(offset.abs() <= reach, torch.exp(-0.5 * (offset / width) ** 2), 0) / total  # (c, c)
        # The last axis becomes the first: after three times all axes are blurred.
        values = (values.reshape(-1, c) @ band).reshape(a, b, c).permute(2, 0, 1).contiguous()
    return values
