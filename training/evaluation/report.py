"""An evaluation as one HTML file that opens without a server: tables, and its pictures inside it."""

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path

from sdf_backend.files import atomic_write
from training.evaluation.evaluate import Outcome, Report

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #888 }
tbody tr:nth-child(even) { background: #f4f4f4 } tr.worse { color: #b03020 } img { max-width: 100% }
"""
CONVENTIONS = (
    "Chamfer distance is the sum of the two mean squared nearest distances, 30,000 points a side, times 1000, in "
    "canonical units: the shape fills the unit sphere, less 3 %. “Original” is the same in the data set's own units, "
    "which is what the papers print; the unit-sphere figure of one surface is several times larger. A row in red is "
    "farther from the truth than the scan that it was made from. “Exact” is the Chamfer distance to surfaces instead "
    "of to samples of them, which are apart by themselves. “Reference” is the released DeepSDF reconstruction "
    "with the same decoder, “nearest” the training shape that is nearest to the truth, as it is. Turns are degrees."
)


@dataclass(frozen=True)
class Measure:
    """How a number of an outcome is shown."""

    title: str
    name: str
    form: str = ".3f"
    factor: float = 1.0

    def text(self, values: dict[str, float]) -> str:
        """Its value among these; nothing where it is not among them, as that of a reference that failed."""
        return format(self.factor * values[self.name], self.form) if self.name in values else ""


MEASURES = (
    Measure("Chamfer", "chamfer", ".3f", 1e3),
    Measure("scan", "scan", ".2f", 1e3),
    Measure("reference", "reference", ".3f", 1e3),
    Measure("nearest", "nearest", ".2f", 1e3),
    Measure("exact", "chamfer_exact", ".3f", 1e3),
    Measure("ref. exact", "reference_exact", ".3f", 1e3),
    Measure("original", "chamfer_original", ".4g", 1e3),
    Measure("EMD", "emd"),
    Measure("accuracy", "accuracy", ".4f"),
    Measure("completion", "completion", ".1%"),
    Measure("cosine", "cosine"),
    Measure("turn", "turn", ".1f"),
    Measure("size", "size", ".2f"),
    Measure("right", "right", ".0%"),
    Measure("seen", "seen", ".0%"),
    Measure("s", "seconds", ".1f"),
    Measure("ref. s", "reference_seconds", ".0f"),
)


def write_html(path: Path, report: Report, sheet: bytes) -> None:
    """Write the report with its contact sheet, a PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(_page(report, sheet), encoding="utf-8")


def _page(report: Report, sheet: bytes) -> str:
    summary, settings = report.summary, report.settings
    title = f"{Path(report.model).stem}: {settings.task}"
    chosen = [measure for measure in MEASURES if measure.name in summary.mean]
    ends = [{name: bounds[end] for name, bounds in summary.interval.items()} for end in (0, 1)]
    totals = [("mean", summary.mean), ("median", summary.median), ("95 % of means from", ends[0]), ("to", ends[1])]
    facts = [f"{summary.count - summary.failed} of {summary.count} measured, {summary.failed} failed"]
    if summary.nearer_than_scan is not None:
        facts.append(f"{summary.nearer_than_scan} are nearer to the truth than their scans")
    if summary.seed_deviation is not None:
        facts.append(f"standard deviation of Chamfer over scans of one view {summary.seed_deviation:.1%}")
    facts.append(f"{settings.resolution} cells an axis, quality {settings.quality}, refinement {settings.refine:g}")
    picture = base64.b64encode(sheet).decode()
    return "\n".join(
        [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>",
            f"<style>{STYLE}</style><h1>{escape(title)}</h1>",
            f"<p>Dataset {escape(report.dataset)}; {escape('; '.join(facts))}.</p><p>{CONVENTIONS}</p>",
            _table(chosen, [*totals, *summary.variants.items()]),
            "<h2>Every shape</h2>",
            _table(chosen, [(one.title, one.measures()) for one in report.outcomes], _marks(report.outcomes)),
            f"<h2>Pictures</h2><img alt='inputs, results and truths' src='data:image/png;base64,{picture}'></html>",
        ]
    )


def _marks(outcomes: list[Outcome]) -> list[str]:
    return ["worse" if one.scores and one.scan is not None and not one.nearer else "" for one in outcomes]


def _table(chosen: list[Measure], rows: list[tuple[str, dict[str, float]]], marks: list[str] | None = None) -> str:
    head = "".join(f"<th>{escape(measure.title)}</th>" for measure in chosen)
    body = [
        f"<tr class='{mark}'><td>{escape(title)}</td>{''.join(_cell(measure, values) for measure in chosen)}</tr>"
        for (title, values), mark in zip(rows, marks or [""] * len(rows), strict=True)
    ]
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(measure: Measure, values: dict[str, float]) -> str:
    return f"<td>{measure.text(values)}</td>"
