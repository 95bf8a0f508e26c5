"""The report of an evaluation: as JSON, and as an entry of the model card."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sdf_backend.files import atomic_write
from sdf_backend.model.store import load_model, save_model
from training.evaluation.outcomes import ShapeOutcome
from training.evaluation.summary import Summary, summarise
from training.evaluation.tasks import EvaluationSettings, Task

# Measures of the computer rather than of the model.
TIMINGS = ("seconds", "reference_seconds")


@dataclass(frozen=True)
class Report:
    """Model, dataset, settings and outcomes of one evaluation."""

    model: str
    dataset: str
    settings: EvaluationSettings
    outcomes: list[ShapeOutcome]

    @property
    def summary(self) -> Summary:
        """Statistics over the outcomes."""
        return summarise(self.outcomes)

    def to_json(self) -> dict:
        """The content of `TASK.json`."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            **asdict(self.settings),
            "summary": asdict(self.summary),
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }

    def save(self, folder: Path) -> None:
        """Write `TASK.json` into `folder`, atomically."""
        with atomic_write(folder / f"{self.settings.task}.json") as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1))


def record_accuracy(path: Path, report: Report) -> None:
    """Store the summary in the card of the model file at `path`, one entry per task; weights and codes do not change.

    Timings are left out, so that the same evaluation writes the same file on every computer.
    Raises `InputError` where the file cannot be read or written.
    """
    settings, summary = report.settings, asdict(report.summary)
    for measures in (summary["mean"], summary["median"], summary["interval"], *summary["variants"].values()):
        for name in TIMINGS:
            measures.pop(name, None)
    entry = {
        "resolution": settings.resolution,
        "views": settings.views if settings.task.scans else 1,
        "refine": settings.refine,
        "quality": str(settings.quality),
        "seed": settings.seed,
        "seeds": settings.seeds,
        **summary,
    }
    record_entry(path, settings.task, entry)


def record_entry(path: Path, task: Task, entry: dict) -> None:
    """Store the entry of one task in the card of the model file at `path`; see `record_accuracy`."""
    # Loaded again: the copy of the engine may be on a GPU, and the file may have changed meanwhile.
    model = load_model(path, "cpu")
    card = replace(model.card, accuracy={**model.card.accuracy, str(task): entry})
    save_model(path, replace(model, card=card))
