"""One process of a training run of `test_ranks.py`, started by torchrun: trains on tiny settings, and says what it did.

Its argument is a JSON object: `dataset`, `output`, `epochs`, `resume`, `killed_at` (after which epoch the last rank
dies by SIGKILL, in the first start of torchrun alone), `copy` (folder for a checkpoint that is written right after the
start, instead of training). Each rank writes `rank-N.json` into `output`. With `command`, arguments of `python -m
training`, it does that instead, with the tiny settings as the preset small.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
import typer
from test_trainer import WITH_DROPOUT

from sdf_backend.console import report_errors
from training.cli import app
from training.dataset import Dataset
from training.history import EpochReport
from training.ranks import join_ranks
from training.train_options import Preset
from training.train_settings import PRESETS
from training.trainer import Trainer


def main(asked: dict) -> None:
    torch.set_num_threads(1)
    Trainer._write_pictures = lambda trainer: None  # type: ignore[method-assign]
    with join_ranks() as ranks:
        settings = replace(WITH_DROPOUT, epochs=asked["epochs"])
        trainer = Trainer(Dataset.open(Path(asked["dataset"])), settings, Path(asked["output"]), "cpu", ranks)
        before, began = trainer.begin(asked.get("resume", False)), trainer.epoch

        def after(report: EpochReport) -> None:
            last, first_start = ranks.rank == ranks.world - 1, os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
            if last and first_start and report.epoch == asked.get("killed_at"):
                os.kill(os.getpid(), signal.SIGKILL)

        if "copy" in asked:
            trainer.output = Path(asked["copy"])
            trainer.save_checkpoint()
        else:
            trainer.run(after)
        weights = b"".join(value.numpy().tobytes() for value in trainer.decoder.state_dict().values())
        moments = [value for name, value in trainer.optimisers.state() if trainer.optimisers.is_of_codes(name)]
        made = {
            "before": before,
            "began": began,
            "weights": hashlib.sha256(weights).hexdigest(),
            "codes": len(trainer.codes),
            "code_bytes": sum(value.nbytes for value in (trainer.codes, *moments)),
        }
        (Path(asked["output"]) / f"rank-{ranks.rank}.json").write_text(json.dumps(made))


def run_command(arguments: list[str]) -> None:
    PRESETS[Preset.SMALL] = WITH_DROPOUT
    Trainer._write_pictures = lambda trainer: None  # type: ignore[method-assign]
    app(arguments)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if "command" in given:
        run_command(given["command"])
    try:
        with report_errors():
            main(given)
    except typer.Exit as error:
        sys.exit(error.exit_code)
