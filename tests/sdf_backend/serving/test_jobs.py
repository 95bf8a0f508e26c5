"""The job table of a server, without sockets and clocks: scheduling, positions, bounds and expiry."""

from dataclasses import replace
from itertools import count

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdf_backend.serving.jobs import BATCH_BYTES, Job, JobTable, Outcome, count_bytes, fingerprint
from sdf_backend.wire.messages import JobState, Limits

NUMBERS = count()
KEEP = 10.0


def new_job(client: bytes = b"a", *, model: str = "m", size: int = 10, keep: float = KEEP, now: float = 0.0) -> Job:
    return Job(f"job{next(NUMBERS):08d}", "", client, "complete", model, [bytes(size)], keep, now, batch_key=model)


def added(jobs: JobTable, *clients: bytes) -> list[Job]:
    made = [new_job(client) for client in clients]
    for job in made:
        jobs.add(job)
    return made


def taken(jobs: JobTable) -> list[Job]:
    """All queued jobs, in the order in which they are taken."""
    order = []
    while batch := jobs.take(1, 0.0):
        order += batch
    return order


def ended(jobs: JobTable, job: Job, *, size: int = 10, now: float = 0.0, delivered: bool = True) -> None:
    jobs.finish(job, Outcome.DONE, [bytes(size)], now)
    job.delivered = delivered


# --- scheduling ---


def test_clients_are_scheduled_round_robin_and_jobs_of_each_in_order() -> None:
    jobs = JobTable()
    a1, a2, a3, b1, b2, c1 = added(jobs, b"a", b"a", b"a", b"b", b"b", b"c")
    assert taken(jobs) == [a1, b1, c1, a2, b2, a3]


def test_a_client_that_submits_one_job_at_a_time_gets_no_more_than_its_share() -> None:
    jobs = JobTable()
    heavy = added(jobs, b"h", b"h", b"h")
    order = []
    for _ in range(3):
        [light] = added(jobs, b"l")
        order += [*jobs.take(1, 0.0), *jobs.take(1, 0.0)]
        assert light in order
    assert [job for job in order if job in heavy] == heavy


@given(st.lists(st.integers(0, 4), max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_the_position_is_the_number_of_jobs_taken_before(clients: list[int], cancelled: list[int]) -> None:
    jobs = JobTable()
    made = added(jobs, *(bytes([client]) for client in clients))
    for number in cancelled:
        if number < len(made) and made[number].state is JobState.QUEUED:
            jobs.finish(made[number], Outcome.CANCELLED, [], 0.0)
    waiting = [job for job in made if job.state is JobState.QUEUED]
    positions = {job.name: jobs.position(job) for job in waiting}
    assert positions == {job.name: place for place, job in enumerate(taken(jobs))}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_no_client_has_two_turns_while_another_waits(clients: list[int]) -> None:
    jobs = JobTable()
    added(jobs, *(bytes([client]) for client in clients))
    order = [job.client[0] for job in taken(jobs)]
    for place, client in enumerate(order):
        # Between two turns of a client, all other clients with queued jobs have had one.
        following = order.index(client, place + 1) if client in order[place + 1 :] else None
        if following is not None:
            assert set(order[following:]) <= {client, *order[place + 1 : following]}


def test_a_retried_job_is_next_and_is_counted_once() -> None:
    jobs = JobTable()
    first, second = added(jobs, b"a", b"b")
    assert jobs.take(1, 0.0) == [first]
    jobs.retry(first)
    assert (jobs.position(first), jobs.position(second), jobs.queue_length, len(jobs)) == (0, 1, 2, 2)
    assert taken(jobs) == [first, second]


def test_jobs_with_the_same_batch_key_are_taken_together_in_order() -> None:
    jobs = JobTable()
    a1, a2, b1 = added(jobs, b"a", b"a", b"b")
    other = new_job(b"c", model="other")
    jobs.add(other)
    assert jobs.take(4, 0.0) == [a1, b1]  # the next job is for another model
    assert jobs.take(4, 0.0) == [other]
    assert jobs.take(4, 0.0) == [a2]


def test_a_worker_takes_the_next_job_that_it_can_run_of_whoever_is_first() -> None:
    jobs = JobTable()
    first, second, other = new_job(b"a", model="rare"), new_job(b"a"), new_job(b"b")
    for job in (first, second, other):
        jobs.add(job)

    def is_common(job: Job) -> bool:
        return job.model == "m"

    assert jobs.next() == first
    assert jobs.take(4, 0.0, is_common) == [second, other]
    assert (jobs.next(is_common), jobs.take(1, 0.0, is_common)) == (None, [])
    assert jobs.take(1, 0.0) == [first]


def test_jobs_of_one_name_and_two_owners_are_not_batched() -> None:
    jobs = JobTable()
    first, second = (replace(new_job(client), name="same-name", owner=client.decode()) for client in (b"a", b"b"))
    jobs.add(first)
    jobs.add(second)
    assert jobs.take(2, 0.0) == [first]
    assert jobs.take(2, 0.0) == [second]


def test_a_batch_is_bounded_in_bytes() -> None:
    jobs = JobTable()
    large = [new_job(b"a", size=BATCH_BYTES // 2) for _ in range(3)]
    for job in large:
        jobs.add(job)
    assert jobs.take(4, 0.0) == large[:2]
    assert [job.batch_size for job in large] == [2, 2, 1]


def test_an_owner_has_one_queue_however_many_clients() -> None:
    jobs = JobTable(Limits(client_queue=2))
    for client, owner in ((b"1", "alice"), (b"2", "alice"), (b"3", "bob")):
        jobs.add(replace(new_job(client), owner=owner))
    assert "of this client" in jobs.rejection_reason("alice", b"4", 1)
    assert jobs.rejection_reason("bob", b"4", 1) == ""
    assert [job.owner for job in taken(jobs)] == ["alice", "bob", "alice"]


def test_a_job_that_has_lost_a_worker_runs_alone() -> None:
    jobs = JobTable()
    made = added(jobs, b"a", b"b", b"c")
    [first] = jobs.take(1, 0.0)
    first.lost_workers = 1
    jobs.retry(first)
    assert jobs.take(3, 0.0) == [first]
    assert jobs.take(3, 0.0) == made[1:]


# --- bounds ---


def test_the_queue_is_bounded_in_all_and_for_each_client() -> None:
    jobs = JobTable(Limits(queue=5, client_queue=2))
    added(jobs, b"a", b"a")
    assert "of this client" in jobs.rejection_reason("", b"a", 1)
    assert jobs.rejection_reason("", b"b", 1) == ""
    added(jobs, b"b", b"c", b"d")
    assert "queue is full" in jobs.rejection_reason("", b"e", 1)
    jobs.take(1, 0.0)
    assert jobs.rejection_reason("", b"e", 1) == ""


@pytest.mark.parametrize("greedy", [1, 2, 3, 9])
def test_those_who_fill_the_queue_leave_room_for_one_more(greedy: int) -> None:
    jobs, clients = JobTable(Limits(queue=120, client_queue=120)), [bytes([number]) for number in range(greedy)]
    for client in clients * 120:
        if not jobs.rejection_reason("", client, 10):
            added(jobs, client)
    assert jobs.queue_length == pytest.approx(120 * greedy / (greedy + 1), abs=greedy)
    for _ in range(3):
        assert jobs.rejection_reason("", b"newcomer", 10) == ""
        added(jobs, b"newcomer")


def test_the_queue_is_bounded_in_bytes_but_accepts_one_job_of_any_size() -> None:
    jobs = JobTable(queue_bytes=100)
    assert jobs.rejection_reason("", b"a", 1000) == ""
    jobs.add(new_job(size=30))
    assert "MiB" in jobs.rejection_reason("", b"a", 41)  # more than what is left for others
    assert jobs.rejection_reason("", b"a", 40) == ""
    assert "MiB" in jobs.rejection_reason("", b"b", 71)
    assert jobs.rejection_reason("", b"b", 70) == ""
    jobs.take(1, 0.0)
    assert jobs.rejection_reason("", b"a", 1000) == ""


def test_delivered_results_are_evicted_first_and_the_newest_never() -> None:
    jobs = JobTable(result_bytes=100)
    fetched, waiting, newest = added(jobs, b"a", b"a", b"a")
    ended(jobs, waiting, size=60, delivered=False)
    ended(jobs, fetched, size=60)
    ended(jobs, newest, size=1000)
    assert set(jobs) == {waiting, newest}
    [last] = added(jobs, b"b")
    ended(jobs, last, size=0)
    assert set(jobs) == {waiting, last}
    assert jobs._result_bytes == 60


@pytest.mark.parametrize(("size", "count_of_greedy"), [(0, 40), (60, 40)])
def test_many_or_large_results_of_one_client_evict_no_other(size: int, count_of_greedy: int) -> None:
    jobs = JobTable(result_bytes=100, finished_jobs=4)
    [small] = added(jobs, b"small")
    ended(jobs, small, size=30)
    for job in added(jobs, *[b"greedy"] * count_of_greedy):
        ended(jobs, job, size=size, delivered=False)
    assert small in list(jobs)


def test_the_number_of_finished_jobs_is_bounded() -> None:
    jobs = JobTable(finished_jobs=3)
    made = added(jobs, *[b"a"] * 5)
    for job in made:
        ended(jobs, job, size=0)
    assert list(jobs) == made[2:]


def test_a_fingerprint_tells_submissions_apart() -> None:
    small, large = bytes(range(256)), bytes(3_000_000)
    assert fingerprint([small, large]) == fingerprint([zmq.Frame(small), memoryview(large)])
    changed = bytearray(small)
    changed[77] += 1
    others = [
        [bytes(changed), large],
        [small, large + b"\0"],
        [small + large],
        [small, b"\1" + large[1:]],
        [large, small],
    ]
    assert len({fingerprint(frames) for frames in [[small, large], *others]}) == 6


def test_a_finished_job_releases_its_submission() -> None:
    jobs = JobTable()
    [job] = added(jobs, b"a")
    ended(jobs, job)
    assert job.request_bytes == 0


# --- owners and clients ---


def test_jobs_of_one_name_and_two_owners_are_separate() -> None:
    jobs = JobTable()
    mine, theirs = new_job(), new_job()
    mine.owner, theirs.owner, theirs.name = "me", "them", mine.name
    jobs.add(mine)
    jobs.add(theirs)
    assert jobs.find("me", mine.name) is mine
    assert jobs.find("them", mine.name) is theirs
    assert jobs.find("", mine.name) is None
    with pytest.raises(ValueError, match="already"):
        jobs.add(mine)


def test_a_job_attached_to_another_client_moves_to_its_queue() -> None:
    jobs = JobTable()
    a1, a2, b1 = added(jobs, b"a", b"a", b"b")
    jobs.attach(a1, b"b")
    assert taken(jobs) == [a2, b1, a1]


def test_jobs_of_an_absent_client_expire() -> None:
    jobs = JobTable()
    running, finished, waiting = added(jobs, b"a", b"a", b"a")
    jobs.take(1, 0.0)
    ended(jobs, finished, now=1.0, delivered=False)
    [other] = added(jobs, b"b")
    assert jobs.expired(1e9) == []  # it is connected, and an undelivered result is kept for it
    jobs.mark_absent(b"a", 5.0)
    jobs.mark_absent(b"a", 7.0)  # does not restart the time
    assert jobs.expired(14.9) == []
    assert set(jobs.expired(15.0)) == {running, finished, waiting}
    assert jobs.mark_present(b"a") == [finished]
    assert jobs.expired(1e9) == []
    assert other.client_absent_since is None


def test_a_delivered_result_expires_after_its_end_and_the_absence_of_its_client() -> None:
    jobs = JobTable()
    [job] = added(jobs, b"a")
    ended(jobs, job, now=100.0)
    assert jobs.expired(109.0) == []
    jobs.mark_absent(b"a", 105.0)
    assert jobs.expired(114.0) == []
    assert jobs.expired(115.0) == [job]
    jobs.remove(job)
    assert (len(jobs), jobs._result_bytes, jobs.find("", job.name)) == (0, 0, None)


# --- everything at once ---


class JobTableMachine(RuleBasedStateMachine):
    """Random operations, and invariants that hold after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(queue=6, client_queue=3)
        self.jobs = JobTable(self.limits, queue_bytes=100, result_bytes=60, finished_jobs=4)
        self.now = 0.0
        self.accepted = 0

    def pick(self, state: JobState, choice: int) -> Job | None:
        found = [job for job in self.jobs if job.state is state]
        return found[choice % len(found)] if found else None

    @rule(client=st.sampled_from([b"a", b"b", b"c"]), size=st.integers(0, 60))
    def submit(self, client: bytes, size: int) -> None:
        if not self.jobs.rejection_reason("", client, size):
            self.jobs.add(new_job(client, size=size, now=self.now))
            self.accepted += 1

    @rule(most=st.integers(1, 3))
    def take(self, most: int) -> None:
        expected = min((job for job in self.jobs.queued), key=self.jobs.position, default=None)
        batch = self.jobs.take(most, self.now)
        assert (batch[0] if batch else None) is expected
        assert len(batch) <= most

    @rule(choice=st.integers(0, 9))
    def retry(self, choice: int) -> None:
        if job := self.pick(JobState.RUNNING, choice):
            job.lost_workers += 1
            self.jobs.retry(job)

    @rule(choice=st.integers(0, 9), size=st.integers(0, 40), delivered=st.booleans(), state=st.sampled_from(JobState))
    def finish(self, choice: int, size: int, delivered: bool, state: JobState) -> None:
        job = self.pick(state, choice)
        if job and job.state is not JobState.FINISHED:
            ended(self.jobs, job, size=size, now=self.now, delivered=delivered)
            assert job in list(self.jobs)

    @rule(choice=st.integers(0, 9), client=st.sampled_from([b"a", b"b", b"c"]), state=st.sampled_from(JobState))
    def attach(self, choice: int, client: bytes, state: JobState) -> None:
        if job := self.pick(state, choice):
            self.jobs.attach(job, client)
            assert job.client == client

    @rule(client=st.sampled_from([b"a", b"b", b"c"]), there=st.booleans())
    def come_and_go(self, client: bytes, there: bool) -> None:
        if there:
            self.jobs.mark_present(client)
        else:
            self.jobs.mark_absent(client, self.now)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for job in self.jobs.expired(self.now):
            if job.state is not JobState.FINISHED:
                self.jobs.finish(job, Outcome.CANCELLED, [], self.now)
        for job in self.jobs.expired(self.now):
            if job.state is JobState.FINISHED:
                self.jobs.remove(job)
        assert self.jobs.expired(self.now) == []

    @precondition(lambda self: self.jobs.queue_length)
    @rule()
    def drain(self) -> None:
        order = [(self.jobs.position(job), job) for job in self.jobs.queued]
        assert [job for _, job in sorted(order, key=lambda pair: pair[0])] == taken(self.jobs)

    @invariant()
    def counts_agree(self) -> None:
        everything = list(self.jobs)
        waiting, running = self.jobs.queued, self.jobs.running
        finished = [job for job in everything if job.state is JobState.FINISHED]
        assert len(waiting) + len(running) + len(finished) == len(everything) <= self.accepted
        assert self.jobs.queue_length == len(waiting)
        assert sorted(map(self.jobs.position, waiting)) == list(range(len(waiting)))
        assert self.jobs._queued_bytes == sum(job.request_bytes for job in waiting)
        assert self.jobs._result_bytes == sum(count_bytes(job.last_message) for job in finished)

    @invariant()
    def bounds_hold(self) -> None:
        everything = list(self.jobs)
        finished = [job for job in everything if job.state is JobState.FINISHED]
        assert len(finished) <= 4
        newest = max((count_bytes(job.last_message) for job in finished), default=0)
        assert self.jobs._result_bytes <= 60 + newest
        assert self.jobs.bytes_held == sum(job.request_bytes + count_bytes(job.last_message) for job in everything)


TestJobTable = JobTableMachine.TestCase
TestJobTable.settings = settings(max_examples=60, stateful_step_count=40)
