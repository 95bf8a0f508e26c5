"""The queue and the memory of a server, without sockets and clocks: turns, positions, bounds, and what is forgotten."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdf_backend.serving.jobs import BATCH_BYTES, Job, Jobs, Outcome, State, size_of
from sdf_backend.wire.messages import Limits

NUMBERS = count()
KEEP = 10.0


def new_job(client: bytes = b"a", *, model: str = "m", size: int = 10, keep: float = KEEP, now: float = 0.0) -> Job:
    return Job(f"job{next(NUMBERS):08d}", "", client, "complete", model, [bytes(size)], keep, now, alike=model)


def added(jobs: Jobs, *clients: bytes) -> list[Job]:
    made = [new_job(client) for client in clients]
    for job in made:
        jobs.add(job)
    return made


def taken(jobs: Jobs) -> list[Job]:
    """All that wait, in the order in which they are taken."""
    order = []
    while batch := jobs.take(1, 0.0):
        order += batch
    return order


def ended(jobs: Jobs, job: Job, *, size: int = 10, now: float = 0.0, delivered: bool = True) -> None:
    jobs.finish(job, Outcome.DONE, [bytes(size)], now)
    job.delivered = delivered


# --- turns ---


def test_clients_take_turns_and_the_first_come_of_each_is_the_first() -> None:
    jobs = Jobs()
    a1, a2, a3, b1, b2, c1 = added(jobs, b"a", b"a", b"a", b"b", b"b", b"c")
    assert taken(jobs) == [a1, b1, c1, a2, b2, a3]


def test_a_client_that_comes_back_with_one_job_at_a_time_gets_no_more_than_its_turn() -> None:
    jobs = Jobs()
    heavy = added(jobs, b"h", b"h", b"h")
    order = []
    for _ in range(3):
        [light] = added(jobs, b"l")
        order += [*jobs.take(1, 0.0), *jobs.take(1, 0.0)]
        assert light in order
    assert [job for job in order if job in heavy] == heavy


@given(st.lists(st.integers(0, 4), max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_the_position_is_how_many_are_taken_before(clients: list[int], cancelled: list[int]) -> None:
    jobs = Jobs()
    made = added(jobs, *(bytes([client]) for client in clients))
    for number in cancelled:
        if number < len(made) and made[number].state is State.QUEUED:
            jobs.finish(made[number], Outcome.CANCELLED, [], 0.0)
    waiting = [job for job in made if job.state is State.QUEUED]
    positions = {job.name: jobs.position(job) for job in waiting}
    assert positions == {job.name: place for place, job in enumerate(taken(jobs))}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_nobody_is_passed_over_twice_by_the_same_client(clients: list[int]) -> None:
    jobs = Jobs()
    added(jobs, *(bytes([client]) for client in clients))
    order = [job.client[0] for job in taken(jobs)]
    for place, client in enumerate(order):
        # Between two turns of a client all others that still wait have had one.
        following = order.index(client, place + 1) if client in order[place + 1 :] else None
        if following is not None:
            assert set(order[following:]) <= {client, *order[place + 1 : following]}


def test_a_job_that_is_tried_again_is_the_next_and_still_counts_once() -> None:
    jobs = Jobs()
    first, second = added(jobs, b"a", b"b")
    assert jobs.take(1, 0.0) == [first]
    jobs.retry(first)
    assert (jobs.position(first), jobs.position(second), jobs.queued, len(jobs)) == (0, 1, 2, 2)
    assert taken(jobs) == [first, second]


def test_alike_jobs_are_taken_together_in_the_order_of_turns() -> None:
    jobs = Jobs()
    a1, a2, b1 = added(jobs, b"a", b"a", b"b")
    other = new_job(b"c", model="other")
    jobs.add(other)
    assert jobs.take(4, 0.0) == [a1, b1]  # the next in turn is another model's
    assert jobs.take(4, 0.0) == [other]
    assert jobs.take(4, 0.0) == [a2]


def test_two_owners_jobs_of_one_name_are_not_taken_together() -> None:
    jobs = Jobs()
    first, second = (replace(new_job(client), name="same-name", owner=client.decode()) for client in (b"a", b"b"))
    jobs.add(first)
    jobs.add(second)
    assert jobs.take(2, 0.0) == [first]
    assert jobs.take(2, 0.0) == [second]


def test_what_is_taken_together_is_bounded_in_bytes() -> None:
    jobs = Jobs()
    large = [new_job(b"a", size=BATCH_BYTES // 2) for _ in range(3)]
    for job in large:
        jobs.add(job)
    assert jobs.take(4, 0.0) == large[:2]
    assert [job.batch for job in large] == [2, 2, 1]


def test_an_owner_has_one_turn_and_one_bound_however_many_clients() -> None:
    jobs = Jobs(Limits(client_queue=2))
    for client, owner in ((b"1", "alice"), (b"2", "alice"), (b"3", "bob")):
        jobs.add(replace(new_job(client), owner=owner))
    assert "of this client" in jobs.full("alice", b"4", 1)
    assert jobs.full("bob", b"4", 1) == ""
    assert [job.owner for job in taken(jobs)] == ["alice", "bob", "alice"]


def test_a_job_that_has_killed_a_worker_runs_alone() -> None:
    jobs = Jobs()
    made = added(jobs, b"a", b"b", b"c")
    [first] = jobs.take(1, 0.0)
    first.deaths = 1
    jobs.retry(first)
    assert jobs.take(3, 0.0) == [first]
    assert jobs.take(3, 0.0) == made[1:]


# --- bounds ---


def test_the_queue_is_bounded_as_a_whole_and_for_each_client() -> None:
    jobs = Jobs(Limits(queue=3, client_queue=2))
    added(jobs, b"a", b"a")
    assert "of this client" in jobs.full("", b"a", 1)
    assert jobs.full("", b"b", 1) == ""
    added(jobs, b"b")
    assert "queue is full" in jobs.full("", b"c", 1)
    jobs.take(1, 0.0)
    assert jobs.full("", b"c", 1) == ""


def test_the_queue_is_bounded_in_bytes_but_takes_one_job_of_any_size() -> None:
    jobs = Jobs(queue_bytes=100)
    assert jobs.full("", b"a", 1000) == ""
    jobs.add(new_job(size=60))
    assert "MiB" in jobs.full("", b"a", 41)
    assert jobs.full("", b"a", 40) == ""
    jobs.take(1, 0.0)
    assert jobs.full("", b"a", 1000) == ""


def test_fetched_results_are_forgotten_before_others_and_the_newest_never() -> None:
    jobs = Jobs(result_bytes=100)
    fetched, waiting, newest = added(jobs, b"a", b"a", b"a")
    ended(jobs, waiting, size=40, delivered=False)
    ended(jobs, fetched, size=40)
    ended(jobs, newest, size=1000)
    assert list(jobs) == [newest]
    jobs = Jobs(result_bytes=100)
    fetched, waiting, newest = added(jobs, b"a", b"a", b"a")
    ended(jobs, waiting, size=40, delivered=False)
    ended(jobs, fetched, size=40)
    ended(jobs, newest, size=40)
    assert set(jobs) == {waiting, newest}
    assert jobs._result_bytes == 80


def test_the_number_of_remembered_jobs_is_bounded() -> None:
    jobs = Jobs(remembered=3)
    made = added(jobs, *[b"a"] * 5)
    for job in made:
        ended(jobs, job, size=0)
    assert list(jobs) == made[2:]


def test_a_finished_job_gives_its_submission_back() -> None:
    jobs = Jobs()
    [job] = added(jobs, b"a")
    ended(jobs, job)
    assert job.request_bytes == 0


# --- owners and clients ---


def test_the_same_name_of_two_owners_is_two_jobs() -> None:
    jobs = Jobs()
    mine, theirs = new_job(), new_job()
    mine.owner, theirs.owner, theirs.name = "me", "them", mine.name
    jobs.add(mine)
    jobs.add(theirs)
    assert jobs.find("me", mine.name) is mine
    assert jobs.find("them", mine.name) is theirs
    assert jobs.find("", mine.name) is None
    with pytest.raises(ValueError, match="already"):
        jobs.add(mine)


def test_a_job_that_is_fetched_by_another_client_takes_that_client_s_turns() -> None:
    jobs = Jobs()
    a1, a2, b1 = added(jobs, b"a", b"a", b"b")
    jobs.attach(a1, b"b")
    assert taken(jobs) == [a2, b1, a1]


def test_a_client_that_left_loses_its_jobs_after_their_time() -> None:
    jobs = Jobs()
    running, finished, waiting = added(jobs, b"a", b"a", b"a")
    jobs.take(1, 0.0)
    ended(jobs, finished, now=1.0, delivered=False)
    [other] = added(jobs, b"b")
    assert jobs.expired(1e9) == []  # it is there, and a result that it has not got yet is kept for it
    jobs.client_left(b"a", 5.0)
    jobs.client_left(b"a", 7.0)  # is no later departure
    assert jobs.expired(14.9) == []
    assert set(jobs.expired(15.0)) == {running, finished, waiting}
    assert jobs.client_is_back(b"a") == [finished]
    assert jobs.expired(1e9) == []
    assert other.absent_since is None


def test_a_delivered_result_is_kept_for_its_time_after_the_end_and_after_the_client_left() -> None:
    jobs = Jobs()
    [job] = added(jobs, b"a")
    ended(jobs, job, now=100.0)
    assert jobs.expired(109.0) == []
    jobs.client_left(b"a", 105.0)
    assert jobs.expired(114.0) == []
    assert jobs.expired(115.0) == [job]
    jobs.forget(job)
    assert (len(jobs), jobs._result_bytes, jobs.find("", job.name)) == (0, 0, None)


# --- everything at once ---


class JobsMachine(RuleBasedStateMachine):
    """Random operations; what must hold after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(queue=6, client_queue=3)
        self.jobs = Jobs(self.limits, queue_bytes=100, result_bytes=60, remembered=4)
        self.now = 0.0
        self.accepted = 0

    def some(self, state: State, choice: int) -> Job | None:
        found = [job for job in self.jobs if job.state is state]
        return found[choice % len(found)] if found else None

    @rule(client=st.sampled_from([b"a", b"b", b"c"]), size=st.integers(0, 60))
    def submit(self, client: bytes, size: int) -> None:
        if not self.jobs.full("", client, size):
            self.jobs.add(new_job(client, size=size, now=self.now))
            self.accepted += 1

    @rule(most=st.integers(1, 3))
    def take(self, most: int) -> None:
        expected = min((job for job in self.jobs.waiting), key=self.jobs.position, default=None)
        batch = self.jobs.take(most, self.now)
        assert (batch[0] if batch else None) is expected
        assert len(batch) <= most

    @rule(choice=st.integers(0, 9))
    def retry(self, choice: int) -> None:
        if job := self.some(State.RUNNING, choice):
            job.deaths += 1
            self.jobs.retry(job)

    @rule(choice=st.integers(0, 9), size=st.integers(0, 40), delivered=st.booleans(), state=st.sampled_from(State))
    def finish(self, choice: int, size: int, delivered: bool, state: State) -> None:
        job = self.some(state, choice)
        if job and job.state is not State.FINISHED:
            ended(self.jobs, job, size=size, now=self.now, delivered=delivered)
            assert job in list(self.jobs)

    @rule(choice=st.integers(0, 9), client=st.sampled_from([b"a", b"b", b"c"]), state=st.sampled_from(State))
    def attach(self, choice: int, client: bytes, state: State) -> None:
        if job := self.some(state, choice):
            self.jobs.attach(job, client)
            assert job.client == client

    @rule(client=st.sampled_from([b"a", b"b", b"c"]), there=st.booleans())
    def come_and_go(self, client: bytes, there: bool) -> None:
        if there:
            self.jobs.client_is_back(client)
        else:
            self.jobs.client_left(client, self.now)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for job in self.jobs.expired(self.now):
            if job.state is not State.FINISHED:
                self.jobs.finish(job, Outcome.CANCELLED, [], self.now)
        for job in self.jobs.expired(self.now):
            if job.state is State.FINISHED:
                self.jobs.forget(job)
        assert self.jobs.expired(self.now) == []

    @precondition(lambda self: self.jobs.queued)
    @rule()
    def drain(self) -> None:
        order = [(self.jobs.position(job), job) for job in self.jobs.waiting]
        assert [job for _, job in sorted(order, key=lambda pair: pair[0])] == taken(self.jobs)

    @invariant()
    def counts_agree(self) -> None:
        everything = list(self.jobs)
        waiting, running = self.jobs.waiting, self.jobs.running
        finished = [job for job in everything if job.state is State.FINISHED]
        assert len(waiting) + len(running) + len(finished) == len(everything) <= self.accepted
        assert self.jobs.queued == len(waiting)
        assert sorted(map(self.jobs.position, waiting)) == list(range(len(waiting)))
        assert self.jobs._waiting_bytes == sum(job.request_bytes for job in waiting)
        assert self.jobs._result_bytes == sum(size_of(job.last) for job in finished)

    @invariant()
    def bounds_hold(self) -> None:
        finished = [job for job in self.jobs if job.state is State.FINISHED]
        assert len(finished) <= 4
        assert self.jobs._result_bytes <= 60 or len(finished) == 1


TestJobsMachine = JobsMachine.TestCase
TestJobsMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
