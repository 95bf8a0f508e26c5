"""The history of a training run: one report per epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochReport:
    """Statistics of one epoch. Field names are keys of `history.json`."""

    epoch: int
    """counted from 1"""
    loss: float
    """mean clamped distance error, canonical units"""
    code_norm: float
    """mean norm of the latent codes"""
    rate: float
    """learning rate of the decoder"""
    samples_a_second: float
    """training throughput"""
