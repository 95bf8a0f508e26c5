"""What a job is doing, in the user's words, and how long it may still take."""

from .session import Job, JobState, capitalised, session
from .translations import translated

# The phases of the wire; one that a later backend adds is shown as it is.
PHASES = {
    "loading": "Loading the model",
    "choosing": "Choosing the model",
    "observing": "Reading the input",
    "posing": "Finding the pose",
    "fitting": "Fitting",
    "refining": "Following the input",
    "extracting": "Building the mesh",
}
STATES = {
    JobState.WAITING: "Waiting",
    JobState.CANCELLING: "Cancelling",
    JobState.FINISHED: "Finished",
}


def status_of(job: Job) -> str:
    """State or phase, and an estimate where there is one."""
    if job.state is JobState.RUNNING:
        phase = translated(PHASES.get(job.phase, capitalised(job.phase)))
        left = session.seconds_left(job)
        return phase if left is None else f"{phase}, {_estimate(left)}"
    if job.state is JobState.WAITING and job.queued_ahead:
        return translated("Waiting, {count} ahead", count=str(job.queued_ahead))
    if job.state is JobState.FINISHED and job.held_back:
        return translated(job.held_back)
    return translated(STATES[job.state])


def _estimate(seconds: float) -> str:
    if seconds < 100:
        return translated("about {seconds} s left", seconds=str(max(1, round(seconds))))
    return translated("about {minutes} min left", minutes=str(round(seconds / 60)))
