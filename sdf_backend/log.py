"""Log lines for people and programs, one an event (logfmt): `TIME level event key=value key="two words"`."""

import json
import logging
import re
import time

logger = logging.getLogger("sdf_backend")
_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+")


def line(event: str, **values: object) -> str:
    """The text of an event; values are escaped, so that whatever a stranger sent stays on one line."""
    return " ".join([event, *(f"{key}={_escaped(value)}" for key, value in values.items())])


def configure(level: int = logging.INFO) -> None:
    """Write the events of this process to stderr. A full disk costs the lines, not the process."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.raiseExceptions = False
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def _escaped(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


class Throttle:
    """Logs the like once a minute, and then says how often it was: strangers can try many times a second."""

    SECONDS, MOST = 60.0, 1000

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def warning(self, like: tuple[str, ...], event: str, **values: object) -> None:
        """Log an event, unless one that is `like` it was logged within the last minute."""
        now = time.monotonic()
        first, held_back = self._seen.get(like, (float("-inf"), 0))
        if now - first < self.SECONDS:
            self._seen[like] = first, held_back + 1
            return
        if len(self._seen) >= self.MOST:
            self._seen.clear()
        self._seen[like] = now, 0
        if held_back:
            values["and_before"] = held_back
        logger.warning(line(event, **values))
