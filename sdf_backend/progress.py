"""Progress of a task: its phases, the callback that follows them, and the time that each took."""

import time
from collections.abc import Callable
from enum import StrEnum


class Phase(StrEnum):
    """What a task is doing."""

    LOADING = "loading"
    OBSERVING = "observing"
    CHOOSING = "choosing"
    POSING = "posing"
    FITTING = "fitting"
    REFINING = "refining"
    EXTRACTING = "extracting"
    JOINING = "joining"


# Called with a `Phase` (a remote engine also passes the state of its connection) and the fraction done, 0 to 1. May
# raise `Cancelled` to end the task.
Progress = Callable[[str, float], None]
# The same within one phase: called with the fraction done. `of_phase` makes it.
PhaseProgress = Callable[[float], None]


def silent(*_: str | float) -> None:
    """Ignore progress; serves as a `Progress` and as a `PhaseProgress`."""


def part(progress: Progress, index: int, count: int) -> Progress:
    """Progress of part `index` of `count` equal parts."""
    return lambda phase, fraction: progress(phase, (index + fraction) / count)


def parts(progress: Progress, count: int) -> list[Progress]:
    """Progress of each of `count` equal parts."""
    return [part(progress, index, count) for index in range(count)]


def of_phase(progress: Progress, phase: Phase) -> PhaseProgress:
    """Progress of one phase."""
    return lambda fraction: progress(phase, fraction)


class Clock:
    """Measures the seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        """Add the time since the last lap to `phase`."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def seconds_each(self, count: int) -> dict[str, float]:
        """Seconds of each phase, divided equally among `count` results of one batch."""
        return {phase: seconds / count for phase, seconds in self.seconds.items()}
