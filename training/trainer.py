"""Trains an auto-decoder: one decoder, and one latent code per shape (Park et al., DeepSDF, CVPR 2019, section 4.2).

    python -m training train DATASET -o MODEL_DIR --preset small

MODEL_DIR then holds `checkpoint.safetensors` (the complete training state), `history.json`, `loss.png`,
`reconstructions.png`, and at the end the finished `CATEGORY.safetensors`. A killed run continues with `--resume` and
ends with the same weights as an uninterrupted one.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_folder
from sdf_backend.model.card import ModelCard
from sdf_backend.model.decoder import Decoder, initial_codes
from sdf_backend.model.store import Model, save_model
from training.dataset import Dataset, ShapeRecord
from training.history import EpochReport
from training.licences import model_licence
from training.optimisers import Optimisers
from training.progress_pictures import draw_reconstructions, plot_losses
from training.train_settings import Schedule, TrainSettings
from training.training_samples import TrainingSamples

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"
# Indices of shapes, (s,), and their samples: points, (s, n, 3), and distances, (s, n).
Batch = tuple[Tensor, Tensor, Tensor]


class Trainer:
    """One training run: decoder, latent codes, optimiser and random state.

    Parameters
    ----------
    dataset : its training split is used; shapes whose samples are missing are left out
    output : folder for checkpoints, pictures and the finished model

    Raises
    ------
    InputError : the dataset has no training shapes, or samples that cannot be read
    """

    def __init__(
        self, dataset: Dataset, settings: TrainSettings, output: Path, device: torch.device | str = "cpu"
    ) -> None:
        self.dataset, self.settings, self.output = dataset, settings, Path(output)
        self.device = torch.device(device)
        self.records = dataset.split("train")
        self.samples = TrainingSamples(dataset, self.records, self.device)
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.decoder = Decoder(settings.decoder).to(self.device)
        codes = initial_codes(len(self.records), settings.decoder.code_length, self.generator)
        self.codes = torch.nn.Parameter(codes.to(self.device))
        self.optimisers = Optimisers(self.decoder, self.codes, settings)
        self.epoch = 0
        self.history: list[EpochReport] = []

    def run(self, on_epoch: Callable[[EpochReport], None] = lambda report: None) -> Model:
        """Train to the last epoch and write the finished model.

        on_epoch : called after each epoch, its checkpoint and its pictures

        Raises `InputError` where `output` cannot be written, and where the loss or the weights are no longer finite.
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
                self._write_pictures()
            on_epoch(report)
        model = self.model()
        save_model(self.output / f"{self.dataset.category}.safetensors", model)
        return model

    def model(self) -> Model:
        """The model in its current state."""
        return Model(
            ModelCard(
                name=self.dataset.category,
                up="+y",
                front=self.dataset.front,
                clamp=self.settings.clamp,
                decoder=asdict(self.settings.decoder),
                training={**asdict(self.settings), "prepared_with": self.dataset.settings},
                shapes=[record.name for record in self.records],
                sources=_count_sources(self.records),
                licence=model_licence({record.licence for record in self.records}),
            ),
            self.decoder.eval(),
            self.codes.detach(),
        )

    def save_checkpoint(self) -> None:
        """Write everything that `resume` needs, atomically."""
        tensors, meta = {}, {"settings": json.dumps(asdict(self.settings)), "epoch": str(self.epoch)}
        tensors["codes"] = self.codes.detach()
        tensors |= {f"decoder.{name}": value for name, value in self.decoder.state_dict().items()}
        tensors |= {f"optimiser.{name}": value for name, value in self.optimisers.state()}
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
        """Whether `output` holds a checkpoint, which a new run would overwrite."""
        return (self.output / CHECKPOINT_FILE).exists()

    def resume(self) -> None:
        """Restore the last checkpoint in `output`.

        Raises `InputError` where there is none, and where it is damaged, was written with other settings or shapes, or
        is past the requested number of epochs.
        """
        path = self.output / CHECKPOINT_FILE
        if not path.exists():
            raise InputError(f"{path} does not exist; there is nothing to resume")
        try:
            with safe_open(path, framework="pt") as file:
                meta, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is damaged: {error}; start again without --resume") from error
        self._check_compatible(meta, path)
        try:
            self._restore(meta, tensors)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: {error}; start again without --resume") from error

    def _restore(self, meta: dict[str, str], tensors: dict[str, Tensor]) -> None:
        self.decoder.load_state_dict(
            {name.removeprefix("decoder."): value for name, value in tensors.items() if name.startswith("decoder.")}
        )
        self.codes.data.copy_(tensors["codes"])
        self.optimisers.restore(
            {name.removeprefix("optimiser."): value for name, value in tensors.items() if name.startswith("optimiser.")}
        )
        self.generator.set_state(tensors["random.draws"])
        torch.set_rng_state(tensors["random.torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.epoch = int(meta["epoch"])
        self.history = [EpochReport(**row) for row in json.loads(meta["history"])]

    def _check_compatible(self, meta: dict[str, str], path: Path) -> None:
        if not {"settings", "shapes", "epoch", "history"} <= meta.keys():
            raise InputError(f"{path} is not a checkpoint of this trainer; use another folder")
        before, now = json.loads(meta["settings"]), json.loads(json.dumps(asdict(self.settings)))
        # These do not influence the epochs that are done, but for the number of epochs on which a cosine depends.
        may_differ = {"checkpoint_every", "picture_every"}
        if self.settings.schedule is Schedule.HALVING:
            may_differ.add("epochs")
        changed = [key for key in now if key not in may_differ and now[key] != before.get(key)]
        if changed:
            raise InputError(f"{path} was started with other settings ({', '.join(changed)}); use another folder")
        if int(meta["epoch"]) > self.settings.epochs:
            raise InputError(
                f"{path} is already at epoch {meta['epoch']}; request at least as many epochs, or use another folder"
            )
        if json.loads(meta["shapes"]) != [record.name for record in self.records]:
            raise InputError(
                f"{path} was trained on different shapes from those in {self.dataset.folder}; use another folder"
            )

    def _run_epoch(self) -> EpochReport:
        start, total, steps, samples = time.perf_counter(), 0.0, 0, 0
        self.decoder.train()
        factor = self.optimisers.begin_epoch(self.epoch)
        for shapes, points, distances in _one_ahead(self._batches()):
            total += self._step(shapes.to(self.device), points, distances)
            steps, samples = steps + 1, samples + distances.numel()
        loss = total / steps
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} in epoch {self.epoch}; lower the learning rates")
        # The loss is from before the last step; a checkpoint holds the weights after it.
        if not all(bool(torch.isfinite(weights).all()) for weights in (self.codes, *self.decoder.parameters())):
            raise InputError(f"the weights are no longer finite after epoch {self.epoch}; lower the learning rates")
        norm = float(self.codes.detach().norm(dim=1).mean())
        rate = self.settings.decoder_rate * factor
        return EpochReport(self.epoch + 1, loss, norm, rate, samples / (time.perf_counter() - start))

    def _batches(self) -> Iterator[Batch]:
        """The batches of an epoch."""
        order = torch.randperm(len(self.records), generator=self.generator)
        for shapes in order.split(self.settings.shapes_a_step):
            yield shapes, *self.samples.draw(shapes, self.settings.points_a_shape, self.generator)

    def _step(self, shapes: Tensor, points: Tensor, distances: Tensor) -> float:
        """One optimiser step (DeepSDF, equations 4 and 9); returns the loss without the penalty of the codes.

        shapes : (s,), indices; points : (s, n, 3); distances : (s, n)
        """
        settings = self.settings
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bfloat16):
            codes = self.codes[shapes]  # (s, code_length)
            predicted = self.decoder(codes, points)  # (s, n)
        clamp = settings.clamp
        loss = (predicted.clamp(-clamp, clamp) - distances.clamp(-clamp, clamp)).abs().mean()
        ramp = min(1.0, self.epoch / max(settings.penalty_ramp, 1))
        penalty = settings.code_penalty * ramp * codes.square().sum(1).mean()
        self.optimisers.zero_grad()
        (loss + penalty).backward()
        self.optimisers.step()
        with torch.no_grad():
            norm = self.codes.norm(dim=1, keepdim=True)
            self.codes.mul_((settings.code_bound / norm).clamp(max=1))
        return float(loss.detach())

    def _write_pictures(self) -> None:
        plot_losses(self.history, self.output / "loss.png")
        draw_reconstructions(self.model(), self.dataset, self.output / "reconstructions.png")


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, of which the next is drawn in a thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _count_sources(records: list[ShapeRecord]) -> list[dict]:
    """Licence, creator and number of original shapes of each source."""
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        if not record.copy_of:
            key = (record.licence, record.creator)
            counts[key] = counts.get(key, 0) + 1
    return [{"licence": key[0], "creator": key[1], "shapes": count} for key, count in sorted(counts.items())]
