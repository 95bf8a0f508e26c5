"""Print one closing line over several pytest runs: `python tests/summary.py RUN.xml ...` (their --junitxml files).

Exits 1 where a test failed, where a run left no report, or where nothing ran.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def read_counts(report: Path) -> Counter[str]:
    """Count the tests of one report by how they ended; a report that is missing or cut off counts as one failure."""
    try:
        cases = ElementTree.parse(report).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError) as error:
        print(f"{report}: {error}")
        return Counter(failed=1)
    endings = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    return Counter(next((endings[child.tag] for child in case if child.tag in endings), "passed") for case in cases)


def main(reports: list[str]) -> int:
    """Print a line a report and the closing line; return the exit status."""
    total: Counter[str] = Counter()
    for report in map(Path, reports):
        counts = read_counts(report)
        print(f"{report.stem:<14} " + ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped")))
        total += counts
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return int(total["failed"] > 0 or total["passed"] == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
