"""The worker's thread that talks to the server, by itself: whatever comes when, each job ends once."""

from collections.abc import Iterator

import pytest

from sdf_backend.errors import Cancelled
from sdf_backend.serving.worker import Link
from sdf_backend.serving.worker_messages import Assignment, Batch
from sdf_backend.wire.codec import decode, encode
from sdf_backend.wire.messages import REPLIES, Cancel, Error, Limits, Result, Submit

JOBS = ["first-job", "second-job"]


@pytest.fixture
def link() -> Iterator[Link]:
    """Of which no thread runs: the test decides what comes when."""
    link = Link(Assignment("worker-0", "worker-0.1", "tcp://127.0.0.1:1", None))
    yield link
    link._context.destroy(linger=0)


def said(link: Link) -> list[tuple[str, str]]:
    """(job, code or kind) of what is to be sent."""
    replies = [decode(frames, REPLIES, Limits()) for frames in link._outgoing if frames]
    return [(reply.job, getattr(reply, "code", reply.kind)) for reply in replies]


def test_one_of_several_that_is_cancelled_ends_at_once_and_once(link: Link) -> None:
    link.begin(JOBS)
    link.turn_to(JOBS)
    link._take(encode(Cancel("first-job")))
    assert said(link) == [("first-job", "cancelled")]
    link.report("fitting", 0.5)  # the other goes on
    for job in JOBS:
        link.end(job, encode(Result(job)))
    assert said(link) == [("first-job", "cancelled"), ("second-job", "result")]


def test_a_job_that_is_cancelled_before_its_batch_begins_ends_when_it_does(link: Link) -> None:
    link._take(encode(Cancel("first-job")))
    assert said(link) == []
    link.begin(JOBS)
    assert said(link) == [("first-job", "cancelled")]
    assert [link.running(job) for job in JOBS] == [False, True]


@pytest.mark.parametrize("jobs", [JOBS, JOBS[:1]])
def test_work_ends_when_nobody_wants_it(link: Link, jobs: list[str]) -> None:
    link.begin(jobs)
    link.turn_to(jobs)
    for job in jobs:
        link.report("fitting", 0.1)
        link._take(encode(Cancel(job)))
    with pytest.raises(Cancelled):
        link.report("fitting", 0.2)
    assert said(link) == [(job, "cancelled") for job in jobs[:-1]]  # the last one is told by who computes it


def test_an_order_to_cancel_that_came_too_late_says_nothing_about_the_next_job_of_that_name(link: Link) -> None:
    link._take(encode(Cancel("first-job")))
    link._take(encode(Submit("first-job", "echo")))
    [frames] = link.next_jobs(0)
    link.begin(["first-job"])
    link.turn_to(["first-job"])
    link.report("fitting", 0.1)
    assert decode(frames, {Submit.kind: Submit}, Limits()).job == "first-job"


def test_orders_to_cancel_are_not_kept_for_ever(link: Link) -> None:
    for number in range(100):
        link._take(encode(Cancel(f"job-{number:08d}")))
    link.begin(JOBS)
    assert link._cancelled == set()


def test_a_batch_is_handed_over_when_all_of_it_has_come(link: Link) -> None:
    link._take(encode(Batch(2)))
    link._take(encode(Submit("first-job", "echo")))
    assert link.next_jobs(0) == []
    link._take(encode(Batch(2)))  # the first was never completed
    for job in ("first-job", "second-job"):
        link._take(encode(Submit(job, "echo")))
    assert len(link.next_jobs(0)) == 2
    link._take(encode(Submit("third-job", "echo")))
    assert len(link.next_jobs(0)) == 1


def test_a_failure_is_told_once(link: Link) -> None:
    link.begin(JOBS)
    for _ in range(2):
        link.end("first-job", encode(Error("failed", "it failed", "first-job")))
    assert said(link) == [("first-job", "failed")]
