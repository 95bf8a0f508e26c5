"""Training runs as the commands show them: with progress, TensorBoard, and of all categories with a table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sdf_backend.console import stderr, stdout
from sdf_backend.errors import InputError
from training.dataset import DESCRIPTION_FILE, Dataset
from training.history import EpochReport
from training.ranks import Ranks, SharedError
from training.tensorboard_log import TensorboardLog
from training.train_options import TrainOptions
from training.train_settings import build_train_settings
from training.trainer import Trainer


@dataclass(frozen=True)
class RunSettings:
    """How the runs of one command are made.

    options : preset and overrides
    device : auto, cpu, cuda or cuda:N
    tensorboard : whether each run logs into its folder `tensorboard`
    ranks : the processes that train together
    """

    options: TrainOptions
    device: str
    tensorboard: bool
    ranks: Ranks


@dataclass(frozen=True)
class CategoryRun:
    """What became of one category: a row of the table.

    last : its last epoch; None where it failed
    seconds : that this command took for it, 0 where it was finished before
    error : why it failed; empty where it did not
    """

    category: str
    shapes: int = 0
    last: EpochReport | None = None
    seconds: float = 0.0
    error: str = ""


def train_dataset(dataset: Path, output: Path, settings: RunSettings, resume: bool) -> Path:
    """Train one dataset to its end, with progress on the terminal; all ranks call it. Returns the model's file.

    Raises `InputError` as `Trainer`, `Trainer.begin` and `Trainer.run`.
    """
    trainer = _make_trainer(dataset, output, settings)
    _run(trainer, settings, resume)
    return trainer.model_file


def train_categories(data: Path, output: Path, settings: RunSettings, symmetric: list[str]) -> list[CategoryRun]:
    """Train every dataset in a folder, one after the other; all ranks call it.

    What is finished is left as it is, and a killed run goes on, so that the same call continues after a kill. A
    category that fails has its reason in its row, and the others are trained.

    Parameters
    ----------
    data : folder with a dataset per category; the run of `data`/NAME goes to `output`/NAME
    symmetric : names of those to train with mirror symmetry

    Raises
    ------
    InputError : there is no dataset in `data`, or none of a name in `symmetric`
    """
    ranks = settings.ranks
    with ranks.together():
        folders = sorted(path.parent for path in Path(data).glob(f"*/{DESCRIPTION_FILE}"))
        if not folders:
            raise InputError(f"{data} has no folder that prepare wrote; give the folder of all datasets")
        if unknown := sorted(set(symmetric) - {folder.name for folder in folders}):
            raise InputError(f"--symmetric names {', '.join(unknown)}, which {data} does not have; correct it")
    runs = []
    for folder in folders:
        options = replace(settings.options, symmetric=folder.name in symmetric)
        try:
            runs.append(_train_category(folder, output / folder.name, replace(settings, options=options)))
        except InputError as error:
            # What a single rank knows of ends the run: the others wait for it.
            if ranks.world > 1 and not isinstance(error, SharedError):
                raise
            runs.append(CategoryRun(folder.name, error=str(error)))
    return runs


def print_runs(runs: list[CategoryRun]) -> None:
    """Print a table with a row for each category, and below it the reasons of those that failed."""
    table = Table("category", "shapes", "epochs", "loss", "code norm", "time of this run", "state")
    for run in runs:
        figures = ("", "", "") if run.last is None else (run.last.epoch, run.last.loss, run.last.code_norm)
        shown = [f"{value:.5f}" if isinstance(value, float) else str(value) for value in figures]
        state = "failed" if run.error else "trained" if run.seconds else "was finished"
        table.add_row(run.category, str(run.shapes or ""), *shown, f"{run.seconds / 60:.1f} min", state)
    stdout.print(table)
    for run in runs:
        if run.error:
            stdout.print(f"{run.category}: {run.error}", soft_wrap=True)


def _train_category(dataset: Path, output: Path, settings: RunSettings) -> CategoryRun:
    began = time.perf_counter()
    trainer = _make_trainer(dataset, output, settings)
    with settings.ranks.together():
        resume = trainer.has_checkpoint()
    if settings.ranks.is_first:
        stderr.print(f"{dataset.name}: {len(trainer.records)} shapes, {trainer.settings.epochs} epochs")
    finished = _run(trainer, settings, resume, again=False)
    seconds = 0.0 if finished else time.perf_counter() - began
    return CategoryRun(dataset.name, len(trainer.records), trainer.history[-1], seconds)


def _make_trainer(dataset: Path, output: Path, settings: RunSettings) -> Trainer:
    ranks = settings.ranks
    with ranks.together():
        data = Dataset.open(dataset)
        chosen = build_train_settings(settings.options, data.front)
        device = ranks.device(settings.device)
    return Trainer(data, chosen, output, device, ranks)


def _run(trainer: Trainer, settings: RunSettings, resume: bool, again: bool = True) -> bool:
    """Begin or resume a run, and train to its end. Returns whether there was nothing to do.

    again : whether the model of a finished run is written again; an encoder that was added to it is lost then
    """
    ranks = settings.ranks
    before = trainer.begin(resume)
    if before not in (None, ranks.world) and ranks.is_first:
        stderr.print(f"the checkpoint is of {before} processes; its codes are distributed anew, over {ranks.world}")
    done = trainer.epoch == trainer.settings.epochs
    if not again and ranks.decide(done and trainer.model_file.exists()):
        return True
    with _tensorboard(trainer, settings) as log, _progress(trainer) as bar:
        task = bar.add_task(
            "", total=trainer.settings.epochs, completed=trainer.epoch, loss=float("nan"), norm=0, speed=0
        )

        def show(report: EpochReport) -> None:
            bar.update(
                task,
                completed=report.epoch,
                loss=report.loss,
                norm=report.code_norm,
                speed=report.samples_a_second,
            )
            due = report.epoch % trainer.settings.checkpoint_every == 0
            if ranks.is_first and not stderr.is_terminal and due:
                epochs = trainer.settings.epochs
                stderr.print(f"epoch {report.epoch} of {epochs}: loss {report.loss:.5f}", highlight=False)
            if log:
                log.write(report)

        trainer.run(show)
    return False


def _progress(trainer: Trainer) -> Progress:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.5f}  code norm {task.fields[norm]:.3f}  "),
        TextColumn("{task.fields[speed]:,.0f} samples/s"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=stderr, disable=not stderr.is_terminal or not trainer.ranks.is_first)


@contextmanager
def _tensorboard(trainer: Trainer, settings: RunSettings) -> Iterator[TensorboardLog | None]:
    """The log of a run, on the first rank; None where there is none."""
    log = None
    with settings.ranks.together():
        if settings.tensorboard and settings.ranks.is_first:
            log = TensorboardLog(trainer.output / "tensorboard", trainer.epoch)
    try:
        yield log
    finally:
        if log:
            log.close()
