"""What the command `train` offers: a preset, and the settings that override it. Loads no torch."""

from dataclasses import dataclass

from sdf_backend.wire.settings import LARGEST_SEED, Choice, Settings, option


class Preset(Choice):
    """A named set of training settings."""

    SMALL = "small", "8 layers of 256, codes of 128; for a CPU or a quick look"
    PAPER = "paper", "network and schedule of the DeepSDF paper"


@dataclass(frozen=True)
class TrainOptions(Settings):
    """A preset with overrides; epochs, halve_every and seed are fields of `TrainSettings`."""

    preset: Preset = option(Preset.SMALL, "; ".join(f"{preset}: {preset.help}" for preset in Preset))
    epochs: int | None = option(None, "number of epochs; default: that of the preset", 1)
    halve_every: int | None = option(
        None, "epochs after which the learning rates halve; default: that of the preset", 1
    )
    symmetric: bool = option(False, "share the weights of left and right, for categories with mirror symmetry")
    seed: int | None = option(
        None, "seed of weights, latent codes and sample order; default: that of the preset", 0, LARGEST_SEED
    )
