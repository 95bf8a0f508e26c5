"""The auto-decoder's training loop: one decoder and one code a shape, learnt together (DeepSDF, section 4.2).

    python -m training train DATASET -o MODEL_DIR --preset small

MODEL_DIR then holds `checkpoint.safetensors` (everything that goes on changing), `history.json`, `loss.png`,
`reconstructions.png`, and at the end the finished `CATEGORY.safetensors`. A killed run goes on with `--resume` and
ends with the same weights as one that was not killed.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_folder
from sdf_backend.geometry.similarity import axis_vector
from sdf_backend.model.decoder import Decoder, DecoderSettings, initial_codes
from sdf_backend.model.store import Model, ModelCard, save_model
from training.dataset import Dataset, ShapeRecord
from training.sampling import BOUND

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class TrainSettings:
    """How a decoder is trained; the defaults are the paper's, `PRESETS` holds them by name."""

    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    """the shape of the network"""
    epochs: int = 2000
    """passes over the shapes"""
    shapes_a_step: int = 64
    """shapes in one optimiser step"""
    points_a_shape: int = 16_384
    """samples of each of them, half inside and half outside"""
    clamp: float = 0.1
    """distances are clamped to this before they are compared, canonical units"""
    decoder_rate: float = 5e-4
    """Adam's learning rate for the decoder"""
    code_rate: float = 1e-3
    """Adam's learning rate for the codes"""
    halve_every: int = 500
    """epochs after which both rates are halved"""
    code_penalty: float = 1e-4
    """weight of the mean squared norm of the codes"""
    penalty_ramp: int = 100
    """epochs over which the penalty grows to its weight"""
    code_bound: float = 1.0
    """a longer code is scaled back to this norm after each step"""
    bfloat16: bool = True
    """matrix products in bfloat16; weights, codes and optimiser stay in float32"""
    checkpoint_every: int = 10
    """epochs between checkpoints"""
    picture_every: int = 50
    """epochs between pictures of the loss and of a few reconstructions"""
    seed: int = 0
    """seed of weights, codes and the order of samples"""

    def mirrored(self, front: str) -> "TrainSettings":
        """The same for a category that is symmetric across the plane that up (y) and `front` span."""
        side = int(np.argmax(np.abs(np.cross(axis_vector("+y"), axis_vector(front)))))
        return replace(self, decoder=replace(self.decoder, mirror_axis=side))


PRESETS = {
    "paper": TrainSettings(),
    "small": TrainSettings(
        decoder=DecoderSettings(code_length=128, width=256, layers=8, skip_at=4, dropout=0.0),
        epochs=800,
        shapes_a_step=32,
        points_a_shape=512,
        decoder_rate=1e-3,
        code_rate=2e-3,
        halve_every=130,
        penalty_ramp=100,
    ),
}


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to."""

    epoch: int
    loss: float
    code_norm: float
    rate: float
    samples_a_second: float


class ResidentSamples:
    """All samples of all shapes in the device's memory, inside ones first, drawn from at random.

    10 bytes a sample: 16-bit coordinates as they are on disk, and the distance as float16.
    """

    def __init__(self, dataset: Dataset, records: list[ShapeRecord], device: torch.device) -> None:
        points, distances, inside, counts = [], [], [], []
        for record in records:
            samples = dataset.load(record.name)
            order = torch.from_numpy(samples.distances).ge(0).to(torch.uint8).argsort(stable=True)
            points.append((torch.from_numpy(samples.points)[order] * (32767 / BOUND)).round().to(torch.int16))
            distances.append(torch.from_numpy(samples.distances)[order].half())
            inside.append(int((samples.distances < 0).sum()))
            counts.append(len(order))
        self.points = torch.cat(points).to(device)
        self.distances = torch.cat(distances).to(device)
        self.inside = torch.tensor(inside)
        self.counts = torch.tensor(counts)
        self.starts = torch.cumsum(self.counts, 0) - self.counts
        self.device = device

    def draw(self, shapes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points (s, count, 3) and distances (s, count) of the given shapes, half of them inside."""
        half = torch.rand(2, len(shapes), count // 2, generator=generator)
        inside, outside = self.inside[shapes, None], (self.counts - self.inside)[shapes, None]
        chosen = torch.cat([(half[0] * inside).long(), inside + (half[1] * outside).long()], 1)
        rows = (self.starts[shapes, None] + chosen).to(self.device)
        return self.points[rows].float() * (BOUND / 32767), self.distances[rows].float()


class Trainer:
    """Network, codes, optimiser and random state of one run."""

    def __init__(
        self, dataset: Dataset, settings: TrainSettings, output: Path, device: torch.device | str = "cpu"
    ) -> None:
        self.dataset, self.settings, self.output = dataset, settings, Path(output)
        self.device = torch.device(device)
        self.records = dataset.split("train")
        self.samples = ResidentSamples(dataset, self.records, self.device)
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.decoder = Decoder(settings.decoder).to(self.device)
        codes = initial_codes(len(self.records), settings.decoder.code_length, self.generator)
        self.codes = torch.nn.Parameter(codes.to(self.device))
        self.optimiser = torch.optim.Adam(
            [
                {"params": list(self.decoder.parameters()), "lr": settings.decoder_rate},
                {"params": [self.codes], "lr": settings.code_rate},
            ],
            fused=True,
        )
        self.epoch = 0
        self.history: list[EpochReport] = []

    def run(self, on_epoch: Callable[[EpochReport], None] = lambda report: None) -> Model:
        """Train to the end and write the finished model; returns it.

        Raises `InputError` where `output` cannot be written and where loss or weights are no longer numbers.
        """
        check_folder(self.output)
        while self.epoch < self.settings.epochs:
            report = self._run_epoch()
            self.history.append(report)
            self.epoch += 1
            last = self.epoch == self.settings.epochs
            if self.epoch % self.settings.checkpoint_every == 0 or last:
                self.save_checkpoint()
            if self.epoch % self.settings.picture_every == 0 or last:
                self._draw()
            on_epoch(report)
        model = self.model()
        save_model(self.output / f"{self.dataset.category}.safetensors", model)
        return model

    def model(self) -> Model:
        """The model as it stands."""
        return Model(
            ModelCard(
                name=self.dataset.category,
                up="+y",
                front=self.dataset.front,
                clamp=self.settings.clamp,
                decoder=asdict(self.settings.decoder),
                training={**asdict(self.settings), "prepared_with": self.dataset.settings},
                shapes=[record.name for record in self.records],
                sources=_credits(self.records),
            ),
            self.decoder.eval(),
            self.codes.detach(),
        )

    def save_checkpoint(self) -> None:
        """Write all that `resume` needs, whole or not at all."""
        tensors, meta = {}, {"settings": json.dumps(asdict(self.settings)), "epoch": str(self.epoch)}
        tensors["codes"] = self.codes.detach()
        tensors |= {f"decoder.{name}": value for name, value in self.decoder.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        tensors["random.draws"] = self.generator.get_state()
        tensors["random.torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        meta["shapes"] = json.dumps([record.name for record in self.records])
        meta["history"] = json.dumps([asdict(report) for report in self.history])
        with atomic_write(self.output / CHECKPOINT_FILE) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, meta)
        with atomic_write(self.output / HISTORY_FILE) as temporary:
            temporary.write_text(meta["history"])

    def has_checkpoint(self) -> bool:
        """Whether `output` holds a run that starting anew would overwrite."""
        return (self.output / CHECKPOINT_FILE).exists()

    def resume(self) -> None:
        """Go on where the last checkpoint in `output` was written.

        Raises `InputError` where there is none, it is damaged, it belongs to other settings or shapes, or is beyond the
        epochs that are asked for.
        """
        path = self.output / CHECKPOINT_FILE
        if not path.exists():
            raise InputError(f"{path} does not exist; there is nothing to resume")
        try:
            with safe_open(path, framework="pt") as file:
                meta, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is damaged: {error}; start again without --resume") from error
        self._check_same(meta, path)
        try:
            self._restore(meta, tensors)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: {error}; start again without --resume") from error

    def _restore(self, meta: dict[str, str], tensors: dict[str, Tensor]) -> None:
        self.decoder.load_state_dict(
            {name.removeprefix("decoder."): value for name, value in tensors.items() if name.startswith("decoder.")}
        )
        self.codes.data.copy_(tensors["codes"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.generator.set_state(tensors["random.draws"])
        torch.set_rng_state(tensors["random.torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.epoch = int(meta["epoch"])
        self.history = [EpochReport(**row) for row in json.loads(meta["history"])]

    def _check_same(self, meta: dict[str, str], path: Path) -> None:
        if not {"settings", "shapes", "epoch", "history"} <= meta.keys():
            raise InputError(f"{path} is no checkpoint of this trainer; use another folder")
        before, now = json.loads(meta["settings"]), json.loads(json.dumps(asdict(self.settings)))
        # Running longer than first meant changes nothing that was done so far.
        free = {"epochs", "checkpoint_every", "picture_every"}
        changed = [key for key in now if key not in free and now[key] != before.get(key)]
        if changed:
            raise InputError(f"{path} was begun with other settings ({', '.join(changed)}); use another folder")
        if int(meta["epoch"]) > self.settings.epochs:
            raise InputError(f"{path} has done {meta['epoch']} epochs already; ask for as many, or use another folder")
        if json.loads(meta["shapes"]) != [record.name for record in self.records]:
            raise InputError(f"{path} was trained on other shapes than {self.dataset.folder} holds")

    def _run_epoch(self) -> EpochReport:
        start, total, steps, seen = time.perf_counter(), 0.0, 0, 0
        self.decoder.train()
        decay = 0.5 ** (self.epoch // self.settings.halve_every)
        for group, rate in zip(
            self.optimiser.param_groups, (self.settings.decoder_rate, self.settings.code_rate), strict=True
        ):
            group["lr"] = rate * decay
        for shapes in self._batches():
            points, distances = self.samples.draw(shapes, self.settings.points_a_shape, self.generator)
            total += self._step(shapes.to(self.device), points, distances)
            steps, seen = steps + 1, seen + distances.numel()
        loss = total / steps
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} in epoch {self.epoch}; lower the learning rates")
        # The loss is that before the last step, and a checkpoint holds what comes after it.
        if not all(bool(torch.isfinite(weights).all()) for weights in (self.codes, *self.decoder.parameters())):
            raise InputError(f"the weights are no longer numbers after epoch {self.epoch}; lower the learning rates")
        norm = float(self.codes.detach().norm(dim=1).mean())
        rate = self.settings.decoder_rate * decay
        return EpochReport(self.epoch + 1, loss, norm, rate, seen / (time.perf_counter() - start))

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.records), generator=self.generator)
        return iter(order.split(self.settings.shapes_a_step))

    def _step(self, shapes: Tensor, points: Tensor, distances: Tensor) -> float:
        settings = self.settings
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bfloat16):
            codes = self.codes[shapes]
            predicted = self.decoder(codes, points)
        clamp = settings.clamp
        loss = (predicted.clamp(-clamp, clamp) - distances.clamp(-clamp, clamp)).abs().mean()
        ramp = min(1.0, self.epoch / max(settings.penalty_ramp, 1))
        penalty = settings.code_penalty * ramp * codes.square().sum(1).mean()
        self.optimiser.zero_grad()
        (loss + penalty).backward()
        self.optimiser.step()
        with torch.no_grad():
            norm = self.codes.norm(dim=1, keepdim=True)
            self.codes.mul_((settings.code_bound / norm).clamp(max=1))
        return float(loss.detach())

    def _draw(self) -> None:
        # The pictures need matplotlib and embree, which training itself does not.
        from training.progress_pictures import draw_losses, draw_reconstructions

        draw_losses(self.history, self.output / "loss.png")
        draw_reconstructions(self.model(), self.dataset, self.output / "reconstructions.png")


def chosen_preset(name: str, **changes: object) -> TrainSettings:
    """The settings of a preset with some changed; raises `InputError` for an unknown name."""
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; known presets: {', '.join(PRESETS)}")
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


def _credits(records: list[ShapeRecord]) -> list[dict]:
    """Licence, creator and number of originals, one entry a source."""
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        if not record.copy_of:
            key = (record.licence, record.creator)
            counts[key] = counts.get(key, 0) + 1
    return [{"licence": key[0], "creator": key[1], "shapes": count} for key, count in sorted(counts.items())]
