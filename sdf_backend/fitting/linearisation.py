"""A cost function linearised at a point: what a Gauss-Newton step needs."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linearisation:
    """Cost and derivatives of a batch of s fits with k unknowns each.

    gradient : (s, k)
    hessian : (s, k, k), the Gauss-Newton approximation J^T W J (the normal matrix)
    cost : (s,)
    """

    gradient: Tensor
    hessian: Tensor
    cost: Tensor

    def select_rows(self, rows: list[int]) -> "Linearisation":
        """Copies of these rows; a row may occur several times."""
        return Linearisation(self.gradient[rows], self.hessian[rows], self.cost[rows])

    def replace_rows(self, mask: Tensor, other: "Linearisation") -> "Linearisation":
        """`other` in the rows of `mask`, (s,) bool, and this one in the rest."""
        return Linearisation(
            torch.where(mask[:, None], other.gradient, self.gradient),
            torch.where(mask[:, None, None], other.hessian, self.hessian),
            torch.where(mask, other.cost, self.cost),
        )

    def copy_row(self, row: int, other: "Linearisation", other_row: int) -> None:
        """Overwrite a row with a row of another linearisation, in place."""
        self.gradient[row] = other.gradient[other_row]
        self.hessian[row] = other.hessian[other_row]
        self.cost[row] = other.cost[other_row]
