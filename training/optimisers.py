"""The optimisers of a training run, and their learning rates: one object to step, save and restore."""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from sdf_backend.model.decoder import Decoder
from training.train_settings import Optimiser, Schedule, TrainSettings


class Optimisers:
    """Steps the decoder's parameters and the latent codes.

    With Muon (Jordan et al. 2024), the update of each hidden layer's matrix is its momentum with all singular values
    made about 1; biases, the last layer and the codes are Adam's.

    Parameters
    ----------
    codes : (n, code_length)
    """

    def __init__(self, decoder: Decoder, codes: Tensor, settings: TrainSettings) -> None:
        self.settings = settings
        with_muon = settings.optimiser is Optimiser.MUON
        matrices = [cast(torch.nn.Linear, layer).weight for layer in decoder.hidden] if with_muon else []
        held = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in decoder.parameters() if id(parameter) not in held]
        groups = [{"params": others, "lr": settings.decoder_rate}, {"params": [codes], "lr": settings.code_rate}]
        # Adam numbers the parameters of its groups in their order.
        self._of_codes = {f"0.{len(others)}.{moment}" for moment in ("exp_avg", "exp_avg_sq")}
        self._all: list[torch.optim.Optimizer] = [torch.optim.Adam(groups, fused=True)]
        if matrices:
            self._all.append(torch.optim.Muon(matrices, settings.matrix_rate, weight_decay=0.0))
        for optimiser in self._all:
            for group in optimiser.param_groups:
                group["first_rate"] = group["lr"]

    def begin_epoch(self, epoch: int) -> float:
        """Set the learning rates of an epoch, from 0; returns their factor."""
        factor = learning_rate_factor(self.settings, epoch)
        for optimiser in self._all:
            for group in optimiser.param_groups:
                group["lr"] = group["first_rate"] * factor
        return factor

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimiser in self._all:
            optimiser.zero_grad()

    def step(self) -> None:
        """Step all parameters along their gradients."""
        for optimiser in self._all:
            optimiser.step()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of the state, for `restore`."""
        for number, optimiser in enumerate(self._all):
            for index, state in optimiser.state_dict()["state"].items():
                for key, value in state.items():
                    yield f"{number}.{index}.{key}", value

    def is_of_codes(self, name: str) -> bool:
        """Whether this tensor of the state has a row for each code, as the codes themselves."""
        return name in self._of_codes

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` has given.

        Raises `KeyError`, `ValueError` or `RuntimeError` where the tensors are not of these parameters.
        """
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self._all]
        for name, value in tensors.items():
            number, index, key = name.split(".")
            states[int(number)].setdefault(int(index), {})[key] = value
        for optimiser, state in zip(self._all, states, strict=True):
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def learning_rate_factor(settings: TrainSettings, epoch: int) -> float:
    """The factor of all learning rates in an epoch, counted from 0."""
    if settings.schedule is Schedule.HALVING:
        return 0.5 ** (epoch // settings.halve_every)
    warm = min(1.0, (epoch + 1) / max(settings.warm_up * settings.epochs, 1))
    return warm * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
