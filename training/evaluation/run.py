"""Runs an evaluation to its end: keeps what is done as it goes, and writes its report, its pictures and its page.

report = run_evaluation(Engine(), "chairs", folder, EvaluationSettings(Task.SAMPLE), Path("report"))
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from sdf_backend.engine import Engine
from sdf_backend.errors import InputError
from training.dataset import Dataset
from training.evaluation.evaluate import evaluate_shapes
from training.evaluation.html_report import write_html, write_samples_html
from training.evaluation.interpolation import (
    InterpolationReport,
    InterpolationSettings,
    count_pairs,
    evaluate_interpolations,
)
from training.evaluation.report import Report
from training.evaluation.result_sheet import ResultSheet, SampleSheet
from training.evaluation.sampled_shapes import References, SampleReport, compare_collections, draw_shapes
from training.evaluation.selection import select_records
from training.evaluation.tasks import PROTOCOL, SETTINGS_USED, EvaluationSettings, Task, list_variants

EvaluationReport = Report | SampleReport | InterpolationReport

# Receives what is being done, how much of it is done, and how much there is.
RunProgress = Callable[[str, int, int], None]


def _silent(text: str, done: int, total: int) -> None:
    """Ignore all progress."""


def run_evaluation(
    engine: Engine,
    model: str,
    dataset: Path,
    settings: EvaluationSettings,
    output: Path | None = None,
    progress: RunProgress = _silent,
) -> EvaluationReport:
    """Run any task.

    Parameters
    ----------
    model : name or file
    dataset : folder that `prepare` wrote
    output : folder for TASK.json, which holds what is done even of a run that is killed, TASK.png and TASK.html;
        None writes no files

    Raises
    ------
    InputError : settings that the task does not use, an `output` that is a file, and as the modules of the tasks
    """
    _refuse_unused(settings)
    if output and output.exists() and not output.is_dir():
        raise InputError(f"cannot write into {output}: it is a file; name a folder")
    run = _Run(engine, model, Dataset.open(dataset), settings, output, progress)
    match settings.task:
        case Task.INTERPOLATE:
            return run.interpolations()
        case Task.SAMPLE:
            return run.samples()
        case _:
            return run.shapes()


def _refuse_unused(settings: EvaluationSettings) -> None:
    """Raise `InputError` for settings that the task does not use."""
    used = SETTINGS_USED.get(settings.task, {one.name for one in fields(settings)} - {"samples"})
    unused = [
        one.name for one in fields(settings) if one.name not in used and getattr(settings, one.name) != one.default
    ]
    if unused:
        options = ", ".join(f"--{name}" for name in unused)
        raise InputError(f"the task {settings.task} does not use {options}; leave it out")


@dataclass(frozen=True)
class _Run:
    """One evaluation; the fields are the parameters of `run_evaluation`."""

    engine: Engine
    model: str
    dataset: Dataset
    settings: EvaluationSettings
    output: Path | None
    progress: RunProgress

    def shapes(self) -> Report:
        """Run a task that evaluates shape by shape."""
        settings, output = self.settings, self.output
        sheet, report = ResultSheet(settings.task), Report(self.model, str(self.dataset.folder), settings, [])
        records = select_records(self.engine.model(self.model), self.dataset, settings.task, settings.shapes)
        total = len(records) * len(list_variants(settings))

        def show(name: str, phase: str, _: float) -> None:
            self.progress(f"{name}: {phase}", len(report.outcomes), total)

        for result in evaluate_shapes(self.engine, self.model, self.dataset, settings, show):
            report.outcomes.append(result.outcome)
            if output:
                report.save(output)
                sheet.add(result)
        if output:
            image = output / f"{settings.task}.png"
            sheet.save(image)
            write_html(image.with_suffix(".html"), report, image.read_bytes())
        return report

    def samples(self) -> SampleReport:
        """Run the task `sample`: draw shapes, then compare them."""
        settings, output = self.settings, self.output
        references = References.of(self.engine.model(self.model), self.dataset)
        sheet, report, points = SampleSheet(), SampleReport(self.model, str(self.dataset.folder), settings), []
        total = references.count_samples(settings)
        for sample in draw_shapes(self.engine, self.model, references, settings):
            report.add_sample(sample)
            points.append(sample.points)
            if output and len(points) <= PROTOCOL.pictured_samples:
                sheet.add(sample, references.training_mesh(sample.nearest.name))
            self.progress("drawing", len(points), total)
        if output:
            sheet.save(output / f"{settings.task}.png")

        def show(done: int, total: int) -> None:
            self.progress("comparing", done, total)

        for comparison, sizes, scores in compare_collections(points, references, settings, show):
            report.sizes[comparison], report.scores[comparison] = sizes, scores
            if output:
                report.save(output)
        if output:
            page = output / f"{settings.task}.html"
            write_samples_html(page, report, page.with_suffix(".png").read_bytes())
        return report

    def interpolations(self) -> InterpolationReport:
        """Run the task `interpolate`."""
        settings, output = self.settings, self.output
        interpolation = InterpolationSettings(settings.resolution, settings.quality)
        report = InterpolationReport(self.model, str(self.dataset.folder), [])
        total = count_pairs(self.dataset, interpolation)
        for pair in evaluate_interpolations(self.engine, self.model, self.dataset, interpolation):
            report.pairs.append(pair)
            if output:
                report.save(output)
            self.progress("interpolating", len(report.pairs), total)
        return report
