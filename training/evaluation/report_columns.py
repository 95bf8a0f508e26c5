"""The columns of a report's tables, in the terminal and in HTML."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.evaluation.summary import Summary


@dataclass(frozen=True)
class Column:
    """A measure as a table column: `factor` times its value, printed with `format_spec`."""

    title: str
    measure: str
    format_spec: str = ".3f"
    factor: float = 1.0

    def cell(self, values: Mapping[str, float]) -> str:
        """The text for these measures; empty where they lack this one, as for a reference that failed."""
        return format(self.factor * values[self.measure], self.format_spec) if self.measure in values else ""


COLUMNS = (
    Column("Chamfer", "chamfer", ".3f", 1e3),
    Column("before", "before", ".3f", 1e3),
    Column("scan", "scan", ".2f", 1e3),
    Column("reference", "reference", ".3f", 1e3),
    Column("nearest", "nearest", ".2f", 1e3),
    Column("snapped", "snapped", ".2f", 1e3),
    Column("exact", "chamfer_exact", ".3f", 1e3),
    Column("ref. exact", "reference_exact", ".3f", 1e3),
    Column("original", "chamfer_original", ".4g", 1e3),
    Column("EMD", "emd"),
    Column("accuracy", "accuracy", ".4f"),
    Column("completion", "completion", ".1%"),
    Column("cosine", "cosine"),
    Column("UCD", "ucd", ".4f"),
    Column("UHD", "uhd"),
    Column("cut away", "cut", ".2f", 1e3),
    Column("extent", "extent", ".1%"),
    Column("whole", "whole", ".0%"),
    Column("rotation", "turn", ".1f"),
    Column("scale", "size", ".2f"),
    Column("correct", "right", ".0%"),
    Column("observed", "seen", ".0%"),
    Column("s", "seconds", ".1f"),
    Column("ref. s", "reference_seconds", ".0f"),
)

SAMPLE_COLUMNS = (
    Column("JSD", "jsd"),
    Column("MMD-CD", "mmd_chamfer", ".2f", 1e3),
    Column("COV-CD", "coverage_chamfer", ".0%"),
    Column("1-NNA-CD", "one_nna_chamfer", ".0%"),
    Column("MMD-EMD", "mmd_emd"),
    Column("COV-EMD", "coverage_emd", ".0%"),
    Column("1-NNA-EMD", "one_nna_emd", ".0%"),
)


def columns_of(summary: Summary) -> list[Column]:
    """The columns that a summary has values for."""
    return [column for column in COLUMNS if column.measure in summary.mean]


def summary_rows(summary: Summary) -> list[tuple[str, dict[str, float]]]:
    """Titles and values of the summary's rows: mean, median, confidence interval, and the mean of each variant."""
    low, high = ({name: bounds[end] for name, bounds in summary.interval.items()} for end in (0, 1))
    return [
        ("mean", summary.mean),
        ("median", summary.median),
        ("95 % CI from", low),
        ("95 % CI to", high),
        *summary.variants.items(),
    ]


def summary_sentences(summary: Summary) -> list[str]:
    """Counts, and the spread over seeds where there is one."""
    measured = summary.count - summary.failed
    sentences = [f"{measured} of {summary.count} measured, {summary.failed} failed"]
    if summary.nearer_than_scan is not None:
        sentences.append(
            f"{summary.nearer_than_scan} of {measured} completions are nearer to the ground truth than their scans"
        )
    if summary.seed_deviation is not None:
        sentences.append(
            f"standard deviation of the Chamfer distance over seeds of one view: {summary.seed_deviation:.1%}"
        )
    return sentences
