"""Log lines for people and programs, one for each event (logfmt): `TIME level event key=value key="two words"`."""

import json
import logging
import re
import time

logger = logging.getLogger("sdf_backend")
_BARE = re.compile(r"[^\s\"=\\]+")


def line(event: str, **values: object) -> str:
    """Format an event; values are escaped, so that text from strangers stays on one line."""
    return " ".join([event, *(f"{key}={_escaped(value)}" for key, value in values.items())])


def configure(level: int = logging.INFO) -> None:
    """Write the events of this process to stderr; a full disk loses lines but does not stop the process."""
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
    return text if _BARE.fullmatch(text) and text.isprintable() else json.dumps(text)


class Throttle:
    """Logs similar events once a minute, with a count of those suppressed: strangers can cause many a second."""

    SECONDS, MAX_KEYS = 60.0, 1000

    def __init__(self) -> None:
        self._logged: dict[tuple[str, ...], tuple[float, int]] = {}

    def warning(self, key: tuple[str, ...], event: str, /, **values: object) -> None:
        """Log an event, unless one with the same `key` was logged within the last minute."""
        now = time.monotonic()
        first, suppressed = self._logged.get(key, (float("-inf"), 0))
        if now - first < self.SECONDS:
            self._logged[key] = first, suppressed + 1
            return
        if len(self._logged) >= self.MAX_KEYS:
            self._logged.clear()
        self._logged[key] = now, 0
        if suppressed:
            values["suppressed"] = suppressed
        logger.warning(line(event, **values))
