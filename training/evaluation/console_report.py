"""The report of an evaluation as tables in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from sdf_backend.console import PrintableConsole, stdout
from training.evaluation.interpolation import InterpolationReport
from training.evaluation.report import Report
from training.evaluation.report_columns import SAMPLE_COLUMNS, columns_of, summary_rows, summary_sentences
from training.evaluation.run import EvaluationReport
from training.evaluation.sampled_shapes import SampleReport

# Columns of a table that goes into a file or a pipe, which has no width of its own.
PIPE_WIDTH = 160


def print_report(report: EvaluationReport) -> None:
    """Print the tables of any report."""
    match report:
        case Report():
            _print_shapes(report)
        case SampleReport():
            _print_samples(report)
        case InterpolationReport():
            _print_pairs(report)


def _print_shapes(report: Report) -> None:
    """Print a row per shape, the rows of the summary, and the reasons of failed shapes."""
    summary = report.summary
    columns = columns_of(summary)
    table = Table(
        Column("shape", overflow="fold", min_width=8),
        *(Column(column.title, justify="right", no_wrap=True) for column in columns),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for outcome in report.outcomes:
        if not outcome.failed:
            measures, style = outcome.measures(), "red" if outcome.worse_than_scan else ""
            table.add_row(outcome.title, *(column.cell(measures) for column in columns), style=style)
    table.add_section()
    for title, values in summary_rows(summary):
        table.add_row(title, *(column.cell(values) for column in columns))
    (stdout if stdout.is_terminal else PrintableConsole(width=PIPE_WIDTH)).print(table)
    for outcome in report.outcomes:
        if outcome.failed:
            stdout.print(f"failed {outcome.title}: {outcome.reason}", highlight=False, soft_wrap=True)
    sentences = [*summary_sentences(summary), "Chamfer distances are squared, times 1000"]
    stdout.print("; ".join(sentences), highlight=False, soft_wrap=True)


def _print_samples(report: SampleReport) -> None:
    """Print a row per comparison, and what a reader should know of the figures."""
    table = Table(
        "", *(Column(column.title, justify="right", no_wrap=True) for column in SAMPLE_COLUMNS), box=SIMPLE_HEAD
    )
    for title, measures in report.rows():
        table.add_row(title, *(column.cell(measures) for column in SAMPLE_COLUMNS))
    (stdout if stdout.is_terminal else PrintableConsole(width=PIPE_WIDTH)).print(table)
    for sentence in report.sentences():
        stdout.print(sentence, highlight=False, soft_wrap=True)


def _print_pairs(report: InterpolationReport) -> None:
    """Print a row per interpolation; that of a failed one gives its reason."""
    titles = ("from", "to", "steps", "closed", "largest step", "median step", "ratio", "")
    table = Table(*titles, box=SIMPLE_HEAD)
    for pair in report.pairs:
        numbers = (f"{pair.largest:.4f}", f"{pair.median:.4f}", f"{pair.ratio:.2f}")
        table.add_row(pair.first, pair.last, str(pair.steps), str(pair.closed), *numbers, pair.reason)
    stdout.print(table)
