"""Settings of the training loop, and the presets."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import axis_vector
from sdf_backend.model.decoder import DecoderSettings
from training.train_options import Preset, TrainOptions


class Optimiser(StrEnum):
    """What steps the matrices of the hidden layers; everything else is Adam's."""

    ADAM = "adam"
    MUON = "muon"


class Schedule(StrEnum):
    """How the learning rates fall."""

    HALVING = "halving"
    """by half, every so many epochs"""
    COSINE = "cosine"
    """along half a cosine, to zero at the last epoch"""


@dataclass(frozen=True)
class TrainSettings:
    """How a decoder is trained. The defaults are those of the paper (Park et al., DeepSDF, CVPR 2019) and of its code.

    Field names are keys of the model card and of checkpoints.
    """

    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    """the network"""
    epochs: int = 2000
    """passes over the shapes"""
    shapes_a_step: int = 64
    """shapes per optimiser step"""
    points_a_shape: int = 16_384
    """samples per shape and step, half of them inside and half outside"""
    clamp: float = 0.1
    """clamping distance of the loss, canonical units"""
    optimiser: Optimiser = Optimiser.ADAM
    """what steps the matrices of the hidden layers"""
    matrix_rate: float = 0.01
    """learning rate of Muon for those; chosen on held-out training chairs, where 0.04 did not learn at all"""
    decoder_rate: float = 5e-4
    """learning rate of Adam for the decoder"""
    code_rate: float = 1e-3
    """learning rate of Adam for the latent codes"""
    schedule: Schedule = Schedule.HALVING
    """how all learning rates fall"""
    halve_every: int = 500
    """epochs after which they halve, in that schedule"""
    warm_up: float = 0.02
    """share of the epochs over which they rise at first, in the cosine schedule"""
    code_penalty: float = 1e-4
    """weight of the regularisation of the codes, their mean squared norm"""
    penalty_ramp: int = 100
    """epochs over which that weight grows linearly from zero"""
    code_bound: float = 1.0
    """largest norm of a code; longer ones are scaled back after each step"""
    bfloat16: bool = True
    """matrix products in bfloat16; weights, codes and optimiser state stay in float32"""
    checkpoint_every: int = 10
    """epochs between checkpoints"""
    picture_every: int = 50
    """epochs between pictures of the loss and of a few reconstructions"""
    seed: int = 0
    """seed of weights, codes and sample order"""

    def with_mirror_symmetry(self, front: str) -> "TrainSettings":
        """The same settings for a category with mirror symmetry across the plane spanned by up (y) and `front`."""
        side = int(np.argmax(np.abs(np.cross(axis_vector("+y"), axis_vector(front)))))
        return replace(self, decoder=replace(self.decoder, mirror_axis=side))


PRESETS = {
    Preset.PAPER: TrainSettings(),
    Preset.SMALL: TrainSettings(
        decoder=DecoderSettings(code_length=128, width=256, layers=8, skip_at=4, dropout=0.0, weight_norm=False),
        epochs=800,
        shapes_a_step=32,
        points_a_shape=512,
        optimiser=Optimiser.MUON,
        decoder_rate=1e-3,
        code_rate=2e-3,
        schedule=Schedule.COSINE,
        penalty_ramp=100,
    ),
}


def build_train_settings(options: TrainOptions, front: str) -> TrainSettings:
    """The settings of a preset with the overrides of the options, for a dataset with this front axis."""
    overrides = {name: getattr(options, name) for name in ("epochs", "halve_every", "seed")}
    preset = PRESETS[options.preset]
    if options.halve_every is not None and preset.schedule is not Schedule.HALVING:
        raise InputError(
            f"the learning rates of the preset '{options.preset}' fall along a cosine; leave out --halve-every"
        )
    settings = replace(preset, **{name: value for name, value in overrides.items() if value is not None})
    return settings.with_mirror_symmetry(front) if options.symmetric else settings
