"""Trains the encoder of a finished model, which proposes where fits begin; the model's decoder stays as it is.

    python -m training train-encoder runs/chairs/chairs.safetensors -o runs/chairs/encoder

The folder then holds the scans that it learns from and a checkpoint, so that a killed run continues; at the end the
model file gets the encoder.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from sdf_backend.content_cache import content_key
from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_folder
from sdf_backend.model.encoder import Encoder, EncoderSettings, Guesses
from sdf_backend.model.store import Model, load_model, save_model
from training.encoder.cloud_draws import Clouds, CloudSettings, draw_clouds
from training.encoder.decoded_scans import DecodedScans, DecodedScanSettings, scan_codes

CHECKPOINT_FILE = "checkpoint.safetensors"
SCANS_FILE = "scans.safetensors"


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained."""

    steps: int = 4_000
    """optimiser steps"""
    clouds_a_step: int = 64
    """clouds of each step"""
    rate: float = 1e-3
    """first learning rate of AdamW; it falls to zero along half a cosine"""
    weight_decay: float = 1e-4
    """of AdamW"""
    all_codes: float = 0.03
    """weight of the codes that are guessed beside the best one, so that none of them is lost"""
    pose_unit: float = 0.1
    """error of log scale and position that counts as one"""
    turn_unit: float = 0.3
    """error of the turn that counts as one, radians"""
    pose_weight: float = 0.1
    """weight of pose and choice of the code beside the code, whose spread counts as one"""
    right_weight: float = 0.5
    """weight of whether the orientation is right"""
    checkpoint_every: int = 500
    """steps between checkpoints"""
    scans: DecodedScanSettings = field(default_factory=DecodedScanSettings)
    clouds: CloudSettings = field(default_factory=CloudSettings)
    seed: int = 0
    """seed of everything random"""


# Called with the steps done, all steps, and the loss.
OnStep = Callable[[int, int, float], None]


def train_encoder(
    path: Path,
    folder: Path,
    settings: EncoderTraining = EncoderTraining(),
    device: torch.device | str = "cpu",
    on_scan: Callable[[int, int], None] = lambda done, total: None,
    on_step: OnStep = lambda done, total, loss: None,
) -> Model:
    """Train the encoder of a model file and put it into the file, in place of an earlier one.

    Parameters
    ----------
    path : the model file
    folder : for scans and checkpoint; a killed run in it continues

    Raises `InputError` for a file that is no model, a folder of another run, and a loss that is no longer finite.
    """
    model = load_model(path, device)
    check_folder(folder)
    identity = content_key(settings, model.codes.cpu().numpy())
    scans = _scans(model, folder / SCANS_FILE, settings, identity, on_scan)
    trainer = _EncoderTrainer(model, scans, settings)
    checkpoint = folder / CHECKPOINT_FILE
    trainer.restore(checkpoint, identity)
    for loss in trainer.steps():
        on_step(trainer.done, settings.steps, loss)
        if trainer.done % settings.checkpoint_every == 0 or trainer.done == settings.steps:
            trainer.save(checkpoint, identity)
    trained = replace(model, encoder=trainer.encoder.eval().requires_grad_(False))
    save_model(path, trained)
    return trained


class _EncoderTrainer:
    """An encoder in training, its optimiser and random state."""

    def __init__(self, model: Model, scans: DecodedScans, settings: EncoderTraining) -> None:
        self.settings, self.scans, self.device = settings, scans, model.device
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.encoder = Encoder(EncoderSettings(model.codes.shape[1])).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.encoder.parameters(), settings.rate, weight_decay=settings.weight_decay, fused=True
        )
        self.targets = ((scans.codes.to(self.device) - model.mean) / model.spread).float()
        self.done = 0

    def steps(self) -> Iterator[float]:
        """Take all steps that are left; gives the loss of each."""
        settings = self.settings
        while self.done < settings.steps:
            for group in self.optimiser.param_groups:
                group["lr"] = settings.rate * (1 + math.cos(math.pi * self.done / settings.steps)) / 2
            points = self.encoder.settings.points
            clouds = draw_clouds(self.scans, settings.clouds_a_step, points, self.generator, settings.clouds)
            with torch.autocast(self.device.type, torch.bfloat16):
                guesses = self.encoder(clouds.points.to(self.device))
            loss = encoder_loss(guesses, clouds, self.targets, settings)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.done += 1
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(f"the loss became {value} in step {self.done}; the model's codes may be damaged")
            yield value

    def save(self, path: Path, identity: str) -> None:
        tensors = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        tensors["random"] = self.generator.get_state()
        with atomic_write(path) as temporary:
            save_file(
                {name: value.cpu().contiguous() for name, value in tensors.items()},
                temporary,
                {"identity": identity, "done": str(self.done)},
            )

    def restore(self, path: Path, identity: str) -> None:
        """Continue from a checkpoint, if there is one of this run."""
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                meta, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if meta.get("identity") != identity:
                raise InputError(f"{path} is of another model or other settings; delete it or use another folder")
            self.encoder.load_state_dict(
                {name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")}
            )
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith("optimiser."):
                    _, index, key = name.split(".")
                    states.setdefault(int(index), {})[key] = value
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": states})
            self.generator.set_state(tensors["random"])
            self.done = int(meta["done"])
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: {error}; delete it") from error


def encoder_loss(guesses: Guesses, clouds: Clouds, targets: Tensor, settings: EncoderTraining) -> Tensor:
    """The loss of guesses about b clouds.

    Of the codes that are guessed only the best is drawn to the true one (multiple choice learning; Guzman-Rivera et al.
    2012), so that they may differ where the cloud leaves a choice. Code and pose count where the orientation is right.

    targets : (s, code_length), the codes of all scanned shapes in the units of `Guesses`
    """
    device = guesses.right.device
    right, shapes = clouds.right.to(device), clouds.shapes.to(device)
    share = right.float() / right.sum().clamp_min(1)  # (b,)
    errors = (guesses.codes - targets[shapes][:, None]).square().sum(2)  # (b, k)
    best = errors.detach().argmin(1)
    code = errors.gather(1, best[:, None])[:, 0] + settings.all_codes * errors.mean(1)
    choice = functional.nll_loss(guesses.code_weights.clamp_min(1e-9).log(), best, reduction="none")
    size = (guesses.log_scale - clouds.log_scale.to(device)).square()
    place = (guesses.shift - clouds.shift.to(device)).square().sum(1)
    turn = (guesses.turn - clouds.turn.to(device)).square().sum(1)
    pose = (size + place) / settings.pose_unit**2 + turn / settings.turn_unit**2
    orientation = functional.binary_cross_entropy_with_logits(guesses.right, right.float())
    return ((code + settings.pose_weight * (choice + pose)) * share).sum() + settings.right_weight * orientation


def _scans(
    model: Model, path: Path, settings: EncoderTraining, identity: str, progress: Callable[[int, int], None]
) -> DecodedScans:
    """The scans of a model, those of an earlier run where they are there and can be read."""
    if path.exists():
        with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("identity") == identity:
                return DecodedScans(file.get_tensor("points"), file.get_tensor("codes"))
    scans = scan_codes(model, settings.scans, progress, settings.seed)
    with atomic_write(path) as temporary:
        save_file({"points": scans.points, "codes": scans.codes}, temporary, {"identity": identity})
    return scans
