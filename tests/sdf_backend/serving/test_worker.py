"""The link of a worker to its server, by itself: each job ends once, in whatever order messages arrive."""

from collections.abc import Iterator

import pytest

from sdf_backend.errors import Cancelled
from sdf_backend.serving.worker_link import ServerLink
from sdf_backend.serving.worker_messages import Batch, WorkerConfig
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.messages import REPLIES, Cancel, Error, Limits, Result, Submit

JOBS = ["first-job", "second-job"]


@pytest.fixture
def link() -> Iterator[ServerLink]:
    """A link whose thread does not run: the test decides the order of messages."""
    link = ServerLink(WorkerConfig("worker-0", "worker-0.1", "tcp://127.0.0.1:1", None))
    yield link
    link._context.destroy(linger=0)


def said(link: ServerLink) -> list[tuple[str, str]]:
    """(job, code or kind) of the messages to be sent."""
    replies = [decode(frames, REPLIES, Limits()) for frames in link._outgoing if frames]
    return [(reply.job, getattr(reply, "code", reply.kind)) for reply in replies]


def test_a_cancelled_job_of_a_batch_ends_at_once_and_only_once(link: ServerLink) -> None:
    link.begin(JOBS)
    link.set_current(JOBS)
    link._handle(encode(Cancel("first-job")))
    assert said(link) == [("first-job", "cancelled")]
    link.report("fitting", 0.5)  # the other continues
    for job in JOBS:
        link.end(job, encode(Result(job)))
    assert said(link) == [("first-job", "cancelled"), ("second-job", "result")]


def test_a_job_cancelled_before_its_batch_begins_ends_with_its_begin(link: ServerLink) -> None:
    link._handle(encode(Cancel("first-job")))
    assert said(link) == []
    link.begin(JOBS)
    assert said(link) == [("first-job", "cancelled")]
    assert [link.is_running(job) for job in JOBS] == [False, True]


@pytest.mark.parametrize("jobs", [JOBS, JOBS[:1]])
def test_a_batch_stops_when_all_its_jobs_are_cancelled(link: ServerLink, jobs: list[str]) -> None:
    link.begin(jobs)
    link.set_current(jobs)
    for job in jobs:
        link.report("fitting", 0.1)
        link._handle(encode(Cancel(job)))
    with pytest.raises(Cancelled):
        link.report("fitting", 0.2)
    assert said(link) == [(job, "cancelled") for job in jobs[:-1]]  # the main thread ends the last one


def test_a_late_cancellation_does_not_affect_the_next_job_of_that_name(link: ServerLink) -> None:
    link._handle(encode(Cancel("first-job")))
    link._handle(encode(Submit("first-job", "echo")))
    [frames] = link.next_batch(0)
    link.begin(["first-job"])
    link.set_current(["first-job"])
    link.report("fitting", 0.1)
    assert decode(frames, {Submit.kind: Submit}, Limits()).job == "first-job"


def test_cancellations_are_not_kept_for_ever(link: ServerLink) -> None:
    for number in range(100):
        link._handle(encode(Cancel(f"job-{number:08d}")))
    link.begin(JOBS)
    assert link._cancelled == set()


def test_a_batch_is_handed_over_when_it_is_complete(link: ServerLink) -> None:
    link._handle(encode(Batch(2)))
    link._handle(encode(Submit("first-job", "echo")))
    assert link.next_batch(0) == []
    link._handle(encode(Batch(2)))  # the first was never completed
    for job in ("first-job", "second-job"):
        link._handle(encode(Submit(job, "echo")))
    assert len(link.next_batch(0)) == 2
    link._handle(encode(Submit("third-job", "echo")))
    assert len(link.next_batch(0)) == 1


def test_a_failure_is_sent_once(link: ServerLink) -> None:
    link.begin(JOBS)
    for _ in range(2):
        link.end("first-job", encode(Error("failed", "it failed", "first-job")))
    assert said(link) == [("first-job", "failed")]
