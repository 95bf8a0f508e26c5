"""The HTML report."""

import base64
from html.parser import HTMLParser
from pathlib import Path

from training.evaluation.baselines import Baseline
from training.evaluation.html_report import write_html
from training.evaluation.metrics import ShapeScores
from training.evaluation.outcomes import ShapeOutcome
from training.evaluation.report import Report
from training.evaluation.tasks import EvaluationSettings, Task

SHEET = b"\x89PNG not really"


class Page(HTMLParser):
    """Rows, cells and image of a page, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[tuple[str, list[str]]] = []
        self.open: list[str] = []
        self.image = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "tr":
            self.rows.append((found.get("class") or "", []))
        if tag == "img":
            self.image = found["src"] or ""
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag or tag == "html"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][1].append(data)


def test_the_page_is_self_contained_and_holds_every_shape_and_the_contact_sheet(tmp_path: Path) -> None:
    scores = [ShapeScores(value, 2 * value, 0.1, 0.01, 0.9, 0.8, value) for value in (1e-3, 3e-3)]
    outcomes = [
        ShapeOutcome("good <&>", scores=scores[0], scan=2e-3, reference=Baseline(5e-3, 30.0), nearest=Baseline(9e-3)),
        # The reference failed.
        ShapeOutcome("bad", scores=scores[1], scan=2e-3, nearest=Baseline(9e-3)),
        ShapeOutcome("broken", reason="no ray hits the mesh"),
    ]
    report = Report("models/cubes.safetensors", "data", EvaluationSettings(Task.COMPLETE), outcomes)
    path = tmp_path / "complete.html"
    write_html(path, report, SHEET)
    page = Page(path.read_text(encoding="utf-8"))
    rows = {cells[0]: (mark, cells[1:]) for mark, cells in page.rows if cells}
    assert rows["mean"][1][:4] == ["2.000", "2.00", "5.000", "9.00"]
    assert rows["good <&>"][0] == "" and rows["good <&>"][1][0] == "1.000"
    assert rows["bad"][0] == "worse" and rows["bad"][1][2] == "9.00"
    assert rows["broken"] == ("", [])
    assert base64.b64decode(page.image.removeprefix("data:image/png;base64,")) == SHEET
    assert "http" not in path.read_text(encoding="utf-8")
