"""Trials: one input is fitted in several ways, one after another, to see which explains most of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .fit_request import FitRequest
from .session import NO_MORE_STEPS, Job, Steps, session
from .wire.messages import Preview, Result


@dataclass(frozen=True)
class Outcome:
    """How much of the input, 0 to 1, a fit explains."""

    request: FitRequest
    explained: float


# What is done with the outcomes; the result of the steps becomes an undo step if there are any.
Then = Callable[[list[Outcome]], Steps]


def start_trials(variants: Sequence[FitRequest], then: Then, failed: Callable[[], Steps]) -> None:
    """Fit variants of a request, which differ in model or pose.

    The backend remembers each fit, so that the best is completed without another.

    Parameters
    ----------
    then : called with all outcomes
    failed : called if a fit fails or is cancelled

    Raises
    ------
    WireError : as `Session.submit` does
    """
    _submit(_Trials(tuple(variants), (), then, failed))


@dataclass
class _Trials:
    """Handles the result of one fit: submits the next, or passes on what came of all."""

    variants: tuple[FitRequest, ...]
    outcomes: tuple[Outcome, ...]
    then: Then
    failed: Callable[[], Steps]
    undoable: bool = False

    def preview(self, preview: Preview) -> Steps:
        """Ignore it."""
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Submit the next, or do what comes after the last."""
        request = self.variants[len(self.outcomes)]
        outcomes = (*self.outcomes, Outcome(request, result.shapes[0].explained))
        if len(outcomes) < len(self.variants):
            _submit(_Trials(self.variants, outcomes, self.then, self.failed))
            return NO_MORE_STEPS
        steps = self.then(list(outcomes))
        self.undoable = steps is not NO_MORE_STEPS
        return steps

    def fail(self) -> Steps:
        """Give up."""
        return self.failed()


def _submit(trials: _Trials) -> None:
    number = len(trials.outcomes)
    request = trials.variants[number]
    submit = request.submit("encode")
    label = f"{request.source}, trial {number + 1} of {len(trials.variants)}"
    session.submit(submit, Job(submit.job, label, trials))
