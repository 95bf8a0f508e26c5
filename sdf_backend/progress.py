"""What a task is doing, who hears of it, and how long each part took."""

import time
from collections.abc import Callable
from enum import StrEnum


class Phase(StrEnum):
    """What a task is doing."""

    LOADING = "loading"
    OBSERVING = "observing"
    POSING = "posing"
    FITTING = "fitting"
    REFINING = "refining"
    EXTRACTING = "extracting"


# Hears of the share done of a phase, and may raise to end the task.
Progress = Callable[[Phase, float], None]


def silent(phase: Phase, fraction: float) -> None:
    """Progress that nobody watches."""


def part(progress: Progress, index: int, count: int) -> Progress:
    """The progress of one of `count` equal parts."""
    return lambda phase, fraction: progress(phase, (index + fraction) / count)


def parts(progress: Progress, count: int) -> list[Progress]:
    """The progress of each of `count` equal parts."""
    return [part(progress, index, count) for index in range(count)]


def only(progress: Progress, phase: Phase) -> Callable[[float], None]:
    """The progress of one phase."""
    return lambda fraction: progress(phase, fraction)


class Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        """What has passed since the last lap was spent on `phase`."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def shared(self, count: int) -> dict[str, float]:
        """Seconds of each phase for one of `count` sources that were done together."""
        return {phase: seconds / count for phase, seconds in self.seconds.items()}
