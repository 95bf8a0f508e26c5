"""The report of an evaluation: as JSON, and as an entry of the model card."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sdf_backend.files import atomic_write
from sdf_backend.model.store import load_model, save_model
from training.evaluation.outcomes import ShapeOutcome
from training.evaluation.summary import Summary, summarise
from training.evaluation.tasks import EvaluationSettings, Task

# Measures of the computer and of another model, which the card of this model does not keep.
NOT_OF_THE_MODEL = ("seconds", "reference_seconds", "before")


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

    def to_entry(self) -> dict:
        """The entry of the model card.

        Timings are left out, so that the same evaluation writes the same file on every computer.
        """
        settings, summary = self.settings, asdict(self.summary)
        for measures in (summary["mean"], summary["median"], summary["interval"], *summary["variants"].values()):
            for name in NOT_OF_THE_MODEL:
                measures.pop(name, None)
        return {
            "resolution": settings.resolution,
            "views": settings.views if settings.task.scans or settings.task.breaks else 1,
            "refine": settings.refine,
            "quality": str(settings.quality),
            "seed": settings.seed,
            "seeds": settings.seeds,
            **summary,
        }

    @property
    def failure(self) -> str:
        """Why nothing was measured; empty where something was."""
        failed = bool(self.outcomes) and all(outcome.failed for outcome in self.outcomes)
        return f"all {len(self.outcomes)} shapes failed; the first reason: {self.outcomes[0].reason}" if failed else ""

    def save(self, folder: Path) -> None:
        """Write `TASK.json` into `folder`, atomically."""
        with atomic_write(folder / f"{self.settings.task}.json") as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1))


def record_entry(path: Path, task: Task, entry: dict) -> None:
    """Store the entry of one task in the card of the model file at `path`; weights and codes do not change.

    Raises `InputError` where the file cannot be read or written.
    """
    # Loaded again: the copy of the engine may be on a GPU, and the file may have changed meanwhile.
    model = load_model(path, "cpu")
    card = replace(model.card, accuracy={**model.card.accuracy, str(task): entry})
    save_model(path, replace(model, card=card))
