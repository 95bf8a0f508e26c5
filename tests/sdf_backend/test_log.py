"""Log lines: one for each event, whatever it contains."""

import logging
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.log import Throttle, line, logger


def test_a_line_is_logfmt() -> None:
    assert line("job done", job="ab12", seconds=1.23456, reason="no room", empty="", worker=None) == (
        'job done job=ab12 seconds=1.235 reason="no room" empty="" worker=None'
    )


@given(st.text())
def test_any_text_is_one_value_on_one_line(text: str) -> None:
    written = line("event", value=text, after=1)
    assert len(written.splitlines()) == 1
    assert written.isprintable() or not text.isprintable()
    assert written.endswith(" after=1")
    assert len(shlex.split(written.replace("'", "x"))) == 3


def test_similar_events_are_logged_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, now = [], [0.0]
    monkeypatch.setattr("sdf_backend.log.time.monotonic", lambda: now[0])
    monkeypatch.setattr(logger, "warning", lines.append)
    throttle = Throttle()
    for moment in (0, 1, 2, 61, 62):
        now[0] = moment
        throttle.warning(("a",), "refused", who="a", when=moment)
    throttle.warning(("b",), "refused", who="b")
    assert lines == ["refused who=a when=0", "refused who=a when=61 suppressed=2", "refused who=b"]


def test_the_number_of_throttled_keys_is_bounded() -> None:
    logging.getLogger("sdf_backend").disabled, throttle = True, Throttle()
    try:
        for number in range(3 * Throttle.MAX_KEYS):
            throttle.warning((str(number),), "refused")
    finally:
        logging.getLogger("sdf_backend").disabled = False
    assert len(throttle._logged) <= Throttle.MAX_KEYS
