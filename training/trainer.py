"""Trains an auto-decoder: one decoder, and one latent code per shape (Park et al., DeepSDF, CVPR 2019, section 4.2).

    python -m training train DATASET -o MODEL_DIR --preset small

MODEL_DIR then holds `checkpoint.safetensors` (the complete training state), `history.json`, `loss.png`,
`reconstructions.png`, and at the end the finished `CATEGORY.safetensors`. A killed run continues with `--resume` and
ends with the same weights as an uninterrupted one. Under torchrun the run has many processes (`training.ranks`), of
which the first writes these files; a checkpoint holds the codes of all.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
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
from training.ranks import Ranks
from training.train_settings import Schedule, TrainSettings
from training.training_samples import TrainingSamples

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"
# Begin the names of the tensors of decoder and optimisers in a checkpoint.
DECODER, OPTIMISER = "decoder.", "optimiser."
# Indices of shapes, (s,), their samples: points, (s, n, 3), and distances, (s, n); and the shapes of all ranks.
Batch = tuple[Tensor, Tensor, Tensor, int]


class Trainer:
    """One training run: decoder, latent codes, optimiser and random state.

    Parameters
    ----------
    dataset : its training split is used; shapes whose samples are missing are left out
    output : folder for checkpoints, pictures and the finished model, which the first rank writes
    ranks : the processes of the run, all of which make a trainer and call the same methods; `codes`, `samples` and the
        state of the optimisers are those of the shapes that this one owns

    Raises
    ------
    InputError : the dataset has no training shapes, fewer than there are ranks, or samples that cannot be read
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        output: Path,
        device: torch.device | str = "cpu",
        ranks: Ranks = Ranks(),
    ) -> None:
        self.dataset, self.settings, self.output, self.ranks = dataset, settings, Path(output), ranks
        self.device = torch.device(device)
        with ranks.together():
            self.records = dataset.split("train")
            self.samples = TrainingSamples(dataset, ranks.own(self.records), self.device)
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.decoder = Decoder(settings.decoder).to(self.device)
        codes = initial_codes(len(self.records), settings.decoder.code_length, self.generator)
        # A copy, without the codes of other ranks.
        self.codes = torch.nn.Parameter(ranks.own(codes).clone().to(self.device))
        self.optimisers = Optimisers(self.decoder, self.codes, settings)
        self.parallel = ranks.parallel(self.decoder)
        self.epoch = 0
        self.history: list[EpochReport] = []
        if not ranks.is_first:
            self._reseed()

    def run(self, on_epoch: Callable[[EpochReport], None] = lambda report: None) -> Model | None:
        """Train to the last epoch and write the finished model.

        on_epoch : called after each epoch, its checkpoint and its pictures

        Returns
        -------
        The model; None on ranks other than the first.

        Raises
        ------
        InputError : `output` cannot be written, or the loss or the weights are no longer finite
        """
        with self.ranks.together():
            if self.ranks.is_first:
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
        with self.ranks.together():
            if model:
                save_model(self.model_file, model)
        return model

    @property
    def model_file(self) -> Path:
        """Where the finished model is."""
        return self.output / f"{self.dataset.category}.safetensors"

    def model(self) -> Model | None:
        """The model in its current state; None on ranks other than the first."""
        codes = self.ranks.gather(self.codes, len(self.records))
        if codes is None:
            return None
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
            codes.to(self.device),
        )

    def save_checkpoint(self) -> None:
        """Write everything that `resume` needs, atomically, into one file, whatever the number of ranks."""
        tensors = self._state()
        with self.ranks.together():
            if not self.ranks.is_first:
                return
            meta = {
                "settings": json.dumps(asdict(self.settings)),
                "epoch": str(self.epoch),
                "shapes": json.dumps([record.name for record in self.records]),
                "history": json.dumps([asdict(report) for report in self.history]),
                "ranks": str(self.ranks.world),
                "launch": self.ranks.launch,
            }
            with atomic_write(self.output / CHECKPOINT_FILE) as temporary:
                save_file(tensors, temporary, meta)
            with atomic_write(self.output / HISTORY_FILE) as temporary:
                temporary.write_text(meta["history"])

    def _state(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint, on the CPU; complete on the first rank."""
        optimiser = {f"{OPTIMISER}{name}": value for name, value in self.optimisers.state()}
        owned = {"codes": self.codes} | {name: value for name, value in optimiser.items() if self._is_owned(name)}
        shared = {f"{DECODER}{name}": value for name, value in self.decoder.state_dict().items()}
        shared |= {name: value for name, value in optimiser.items() if name not in owned}
        count, world = len(self.records), self.ranks.world
        gathered = {name: self.ranks.gather(rows, count) for name, rows in owned.items()}
        for name, state in self._random_states().items():
            states = self.ranks.gather(state[None], world)  # (world, bytes)
            gathered[name] = None if states is None else states.flatten()
        return {
            name: value.detach().cpu().contiguous() for name, value in (shared | gathered).items() if value is not None
        }

    def _is_owned(self, name: str) -> bool:
        """Whether a tensor of a checkpoint has a row for each shape, of which a rank has those that it owns."""
        return name == "codes" or self.optimisers.is_of_codes(name.removeprefix(OPTIMISER))

    def _random_states(self) -> dict[str, Tensor]:
        """The random states of this rank, (bytes,) uint8 each."""
        states = {"random.draws": self.generator.get_state(), "random.torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _reseed(self) -> None:
        """Draw from here on what neither another rank nor an earlier epoch has drawn."""
        ranks = self.ranks
        draws, rest = np.random.SeedSequence([self.settings.seed, self.epoch, ranks.world, ranks.rank]).generate_state(
            2
        )
        self.generator.manual_seed(int(draws))
        torch.manual_seed(int(rest))

    def has_checkpoint(self) -> bool:
        """Whether `output` holds a checkpoint, which a new run would overwrite."""
        return (self.output / CHECKPOINT_FILE).exists()

    def begin(self, resume: bool) -> int | None:
        """Resume where that is wanted, or where torchrun has started this run again; otherwise check that it is new.

        Returns
        -------
        As `resume`; None for a new run.

        Raises
        ------
        InputError : as `resume`; or `output` holds a run already, which is not to be resumed
        """
        if resume or self.ranks.decide(self._was_restarted()):
            return self.resume()
        with self.ranks.together():
            if self.has_checkpoint():
                raise InputError(
                    f"{self.output} already holds a run; continue it with --resume, or choose another folder"
                )
        return None

    def _was_restarted(self) -> bool:
        """Whether the checkpoint is of this same launch of torchrun, which starts all ranks anew when one dies."""
        try:
            with safe_open(self.output / CHECKPOINT_FILE, framework="pt") as file:
                launch = (file.metadata() or {}).get("launch", "")
        except (OSError, SafetensorError):
            return False
        return launch != "" and launch == self.ranks.launch

    def resume(self) -> int:
        """Restore the last checkpoint in `output`.

        With as many ranks as before the run goes on to the same weights as without a stop. With another number each
        rank takes the codes of the shapes that it owns now, and their optimiser state; random draws begin anew.

        Returns
        -------
        The number of ranks that wrote it.

        Raises
        ------
        InputError : there is none, or it is damaged, was written with other settings or shapes, or is past the
            requested number of epochs; or the ranks find different ones
        """
        with self.ranks.together():
            before = self._read_checkpoint()
        [total] = self.ranks.sum([self.epoch])
        with self.ranks.together():
            if total != self.epoch * self.ranks.world:
                raise InputError(f"{self.output} is not the same folder for all processes; use one that they share")
        return before

    def _read_checkpoint(self) -> int:
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
            return self._restore(meta, tensors)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: {error}; start again without --resume") from error

    def _restore(self, meta: dict[str, str], tensors: dict[str, Tensor]) -> int:
        tensors = {
            name: self.ranks.own(value).contiguous() if self._is_owned(name) else value
            for name, value in tensors.items()
        }
        self.decoder.load_state_dict(_named(tensors, DECODER))
        self.codes.data.copy_(tensors["codes"])
        self.optimisers.restore(_named(tensors, OPTIMISER))
        self.epoch = int(meta["epoch"])
        self.history = [EpochReport(**row) for row in json.loads(meta["history"])]
        before, ranks = int(meta.get("ranks", 1)), self.ranks  # version 0.2 had no ranks
        if before != ranks.world:
            self._reseed()
            return before
        # Copies, because a generator reads a view from the start of its storage.
        own = {name: tensors[name].view(before, -1)[ranks.rank].clone() for name in self._random_states()}
        self.generator.set_state(own["random.draws"])
        torch.set_rng_state(own["random.torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(own["random.cuda"], self.device)
        return before

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
        for shapes, points, distances, of_step in _one_ahead(self._batches()):
            total += self._step(shapes.to(self.device), points, distances, of_step)
            steps, samples = steps + 1, samples + distances.numel()
        norm = float(self.codes.detach().norm(dim=1).mean())
        total, samples, norms = self.ranks.sum([total, samples, norm * len(self.codes)])
        loss = total / steps
        with self.ranks.together():
            if not math.isfinite(loss):
                raise InputError(f"the loss became {loss} in epoch {self.epoch}; lower the learning rates")
            # The loss is from before the last step; a checkpoint holds the weights after it.
            if not all(bool(torch.isfinite(weights).all()) for weights in (self.codes, *self.decoder.parameters())):
                raise InputError(f"the weights are no longer finite after epoch {self.epoch}; lower the learning rates")
        rate = self.settings.decoder_rate * factor
        speed = samples / (time.perf_counter() - start)
        return EpochReport(self.epoch + 1, loss, norms / len(self.records), rate, speed)

    def _batches(self) -> Iterator[Batch]:
        """This rank's batches of an epoch."""
        order, begin = torch.randperm(len(self.codes), generator=self.generator), 0
        for count, of_step in self.ranks.shares(len(self.records), self.settings.shapes_a_step):
            shapes = order[begin : begin + count]
            yield shapes, *self.samples.draw(shapes, self.settings.points_a_shape, self.generator), of_step
            begin += count

    def _step(self, shapes: Tensor, points: Tensor, distances: Tensor, of_step: int) -> float:
        """One optimiser step (DeepSDF, equations 4 and 9); returns the loss without the penalty of the codes.

        Of several ranks each computes its shapes' share of the mean over all shapes of the step, and of its gradient.

        shapes : (s,), indices; points : (s, n, 3); distances : (s, n); of_step : shapes of all ranks
        """
        settings = self.settings
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bfloat16):
            codes = self.codes[shapes]  # (s, code_length)
            predicted = self.parallel(codes, points)  # (s, n)
        clamp = settings.clamp
        errors = (predicted.clamp(-clamp, clamp) - distances.clamp(-clamp, clamp)).abs()
        loss = errors.sum() / (of_step * distances.shape[1])
        ramp = min(1.0, self.epoch / max(settings.penalty_ramp, 1))
        penalty = settings.code_penalty * ramp * (codes.square().sum(1).sum() / of_step)
        self.optimisers.zero_grad()
        (loss + penalty).backward()
        self.optimisers.step()
        with torch.no_grad():
            norm = self.codes.norm(dim=1, keepdim=True)
            self.codes.mul_((settings.code_bound / norm).clamp(max=1))
        return float(loss.detach())

    def _write_pictures(self) -> None:
        model = self.model()
        with self.ranks.together():
            if model:
                plot_losses(self.history, self.output / "loss.png")
                draw_reconstructions(model, self.dataset, self.output / "reconstructions.png")


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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
