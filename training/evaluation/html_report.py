"""The reports of evaluations as self-contained HTML files: tables, and the contact sheet."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from sdf_backend.files import atomic_write
from training.evaluation.report import Report
from training.evaluation.report_columns import SAMPLE_COLUMNS, Column, columns_of, summary_rows, summary_sentences
from training.evaluation.sampled_shapes import SampleReport

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #888 }
tbody tr:nth-child(even) { background: #f4f4f4 } tr.worse { color: #b03020 } img { max-width: 100% }
"""
CONVENTIONS = (
    "“Chamfer” is the Chamfer distance: the sum of the two mean squared nearest-neighbour distances between 30,000 "
    "samples of each surface, times 1000, in canonical units (the shape fits the unit sphere with a margin of 3 %). "
    "“Original” is the same in the units of the dataset, as in the papers; it is several times smaller for the same "
    "surfaces. “Exact” measures from samples to triangles, without the distance between samples of one surface. "
    "“Scan” is the Chamfer distance of the bare scan; a row in red is a result no nearer to the ground truth than its "
    "scan. “Reference” is the released DeepSDF reconstruction with the same decoder, “nearest” the training shape "
    "that is nearest to the ground truth, “snapped” the one nearest to the scan, scaled to its box and snapped to it, "
    "“before” the other model on the same input. “Cut away” is the Chamfer distance within the region that was cut "
    "away, “extent” the largest relative error of height and length, “whole” the share within 5 %. “Rotation” is the "
    "rotation error in degrees, up to the symmetry of the object; “scale” is the estimated over the true scale; "
    "“correct” is the share of poses within 10 degrees and 10 % of the scale; “observed” is the share of the true "
    "surface that the scan covers. “95 % CI” is the bootstrap confidence interval of the mean."
)
SAMPLE_CONVENTIONS = (
    "Sampled shapes are compared with references as collections of point sets in the canonical frame, without any "
    "alignment. JSD (0 to 1) and MMD: lower is better; COV: higher is better; 1-NNA: 50 % is best, more means that the "
    "two can be told apart, and well below 50 % against the training split means that the model copies. CD is the "
    "Chamfer distance, times 1000, EMD the earth mover's distance."
)


def write_html(path: Path, report: Report, sheet: bytes) -> None:
    """Write the report with its contact sheet, a PNG, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(_page(report, sheet), encoding="utf-8")


def write_samples_html(path: Path, report: SampleReport, sheet: bytes) -> None:
    """Write the report of the task `sample` with its contact sheet, a PNG, atomically."""
    sentences = [f"Dataset {report.dataset}", f"{report.settings.resolution} cells per axis", *report.sentences()]
    content = [
        f"<p>{escape('; '.join(sentences))}.</p><p>{SAMPLE_CONVENTIONS}</p>",
        _table(SAMPLE_COLUMNS, report.rows()),
    ]
    title, alt = f"{Path(report.model).stem}: {report.settings.task}", "samples, each beside its nearest training shape"
    with atomic_write(path) as temporary:
        temporary.write_text(_document(title, content, alt, sheet), encoding="utf-8")


def _page(report: Report, sheet: bytes) -> str:
    summary, settings = report.summary, report.settings
    title = f"{Path(report.model).stem}: {settings.task}"
    columns = columns_of(summary)
    sentences = [
        f"Dataset {report.dataset}",
        *summary_sentences(summary),
        f"{settings.resolution} cells per axis",
        f"quality {settings.quality}",
        f"residual field strength {settings.refine:g}",
    ]
    shapes = [(outcome.title, outcome.measures()) for outcome in report.outcomes]
    classes = ["worse" if outcome.worse_than_scan else "" for outcome in report.outcomes]
    content = [
        f"<p>{escape('; '.join(sentences))}.</p><p>{CONVENTIONS}</p>",
        _table(columns, summary_rows(summary)),
        "<h2>All shapes</h2>",
        _table(columns, shapes, classes),
    ]
    return _document(title, content, "inputs, results and ground truth", sheet)


def _document(title: str, content: Sequence[str], alt: str, sheet: bytes) -> str:
    """A page of a heading, some HTML, and the contact sheet with its alternative text."""
    image = base64.b64encode(sheet).decode()
    return "\n".join(
        [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>",
            f"<style>{STYLE}</style><h1>{escape(title)}</h1>",
            *content,
            "<h2>Contact sheet</h2>",
            f"<img alt='{alt}' src='data:image/png;base64,{image}'></html>",
        ]
    )


def _table(
    columns: Sequence[Column], rows: Sequence[tuple[str, Mapping[str, float]]], classes: Sequence[str] | None = None
) -> str:
    head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    body = [
        f"<tr class='{css_class}'><td>{escape(title)}</td>{_cells(columns, values)}</tr>"
        for (title, values), css_class in zip(rows, classes or [""] * len(rows), strict=True)
    ]
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cells(columns: Sequence[Column], values: Mapping[str, float]) -> str:
    return "".join(f"<td>{column.cell(values)}</td>" for column in columns)
