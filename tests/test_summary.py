"""The closing line counts what every run reports, and a run without a report is a failure."""

import subprocess
import sys
from pathlib import Path

SUMMARY = Path(__file__).parent / "summary.py"
REPORT = "<testsuites><testsuite>{}</testsuite></testsuites>"
PASSED, FAILED, SKIPPED = '<testcase name="a"/>', "<testcase><failure/></testcase>", "<testcase><skipped/></testcase>"


def summarise(folder: Path, **reports: str) -> tuple[str, int]:
    paths = [folder / f"{name}.xml" for name in reports]
    for path, text in zip(paths, reports.values(), strict=True):
        if text:
            path.write_text(text)
    finished = subprocess.run([sys.executable, SUMMARY, *paths], capture_output=True, text=True, timeout=60)
    return finished.stdout.splitlines()[-1], finished.returncode


def test_runs_add_up(tmp_path: Path) -> None:
    first, second = REPORT.format(PASSED * 3 + SKIPPED), REPORT.format(PASSED)
    assert summarise(tmp_path, first=first, second=second) == ("4 passed, 0 failed, 1 skipped", 0)


def test_a_failure_or_an_error_fails_the_whole(tmp_path: Path) -> None:
    error = "<testcase><error/></testcase>"
    assert summarise(tmp_path, run=REPORT.format(PASSED + FAILED + error)) == ("1 passed, 2 failed, 0 skipped", 1)


def test_a_run_that_left_no_report_counts_as_a_failure(tmp_path: Path) -> None:
    assert summarise(tmp_path, run=REPORT.format(PASSED), killed="") == ("1 passed, 1 failed, 0 skipped", 1)
    assert summarise(tmp_path, cut="<testsuites><testsu") == ("0 passed, 1 failed, 0 skipped", 1)


def test_nothing_run_is_no_success(tmp_path: Path) -> None:
    assert summarise(tmp_path, run=REPORT.format("")) == ("0 passed, 0 failed, 0 skipped", 1)
