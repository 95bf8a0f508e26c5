"""The server as clients see it: real processes, real sockets, and what can go wrong with either."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import zmq
from backend_process import (
    FEW_POINTS,
    PATIENCE,
    QUICK,
    ROOT,
    Backend,
    Listener,
    complete,
    half_sphere,
    is_there,
    long_job,
    until,
    until_logged,
)

from sdf_backend import engine as engines
from sdf_backend.engine import Engine
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.model.store import STARTER_MODELS, ModelStore
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.client import ClientError, State, new_job
from sdf_backend.wire.codec import FIRST_FRAME, decode, encode
from sdf_backend.wire.messages import (
    REPLIES,
    Accepted,
    Busy,
    Cancelling,
    Error,
    Hello,
    Limits,
    Progress,
    Result,
    Source,
    StatusRequest,
    Submit,
    Welcome,
)

SILENCE, STALL = 2.0, 5.0
# A bound on a time holds if it holds once in so many attempts: on a busy machine some are late.
ATTEMPTS = 5
QUEUE, CLIENT_QUEUE = 24, 16
FRAME_BYTES, MESSAGE_BYTES = 4_000_000, 16_000_000


@pytest.fixture(scope="module")
def models(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good and a damaged model."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(models_folder / "spheres.safetensors", folder)
    (folder / "damaged.safetensors").write_bytes((folder / "spheres.safetensors").read_bytes()[:1000])
    return folder


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One backend for most tests. Each leaves it with an idle worker."""
    options = ["--models", models, "--silence", SILENCE, "--stall-seconds", STALL]
    limits = {"queue": QUEUE, "client_queue": CLIENT_QUEUE, "frame_bytes": FRAME_BYTES, "message_bytes": MESSAGE_BYTES}
    for name, value in limits.items():
        options += ["--limit", f"{name}={value}"]
    with Backend(tmp_path_factory.mktemp("backend"), *map(str, options)) as backend:
        yield backend
    assert "Traceback" not in backend.log()
    assert " internal error " not in backend.log()


@pytest.fixture
def backend(served: Backend) -> Backend:
    """The shared backend with an idle worker."""
    served.until_idle()
    return served


@pytest.fixture
def client(backend: Backend) -> Iterator[Listener]:
    with backend.client() as client:
        yield client


# --- tasks ---


def test_the_server_answers_after_three_seconds_of_work_and_never_loads_torch(tmp_path: Path) -> None:
    """Seconds of its process, which on a busy machine take longer."""
    with Backend(tmp_path) as backend:
        state = backend.status()
        assert backend.process
        used = psutil.Process(backend.process.pid).cpu_times()
        assert used.user + used.system < 3
        assert [worker.state for worker in state.workers] == ["starting"]
        maps = Path(f"/proc/{backend.process.pid}/maps")
        assert "torch" not in maps.read_text()


def test_a_completed_mesh_equals_that_of_the_engine(client: Listener, models_folder: Path) -> None:
    settings = TaskSettings(32, Pose.KNOWN, quality=Quality.PREVIEW)
    source = engines.Source(Geometry(FEW_POINTS, np.zeros((0, 3), dtype=np.int64)))
    [expected] = Engine(ModelStore(models_folder), "cpu").complete("spheres", [source], settings)
    [shape] = client.run(complete()).shapes
    np.testing.assert_array_equal(shape.vertices, expected.vertices)
    np.testing.assert_array_equal(shape.faces, expected.faces)
    np.testing.assert_array_equal(shape.observed, expected.observed)
    np.testing.assert_array_equal(shape.code, expected.code[None])
    np.testing.assert_array_equal(shape.pose, np.eye(4)[None])
    assert (shape.residual, shape.explained, shape.steps) == (expected.residual, expected.explained, expected.steps)


def test_a_hundred_jobs_of_eight_clients_give_the_meshes_of_the_engine(models_folder: Path, tmp_path: Path) -> None:
    """With the default limits, and four different jobs."""
    engine, expected, submissions = Engine(ModelStore(models_folder), "cpu"), [], []
    for radius, seed in ((0.4, 0), (0.5, 0), (0.5, 1), (0.6, 2)):
        points = half_sphere(400, radius)
        submissions.append({"sources": (Source(points),), "settings": replace(QUICK, seed=seed)})
        source = engines.Source(Geometry(points, np.zeros((0, 3), dtype=np.int64)))
        settings = TaskSettings(32, Pose.KNOWN, quality=Quality.PREVIEW, seed=seed)
        expected += engine.complete("spheres", [source], settings)
    # With as many threads as the backend: the order of summation changes the last bits.
    with Backend(tmp_path, "--models", models_folder, "--device", "cpu") as backend:
        clients = [backend.client(f"artist {number}", secret=str(number)) for number in range(8)]
        jobs = [(clients[index % 8], index % 4) for index in range(100)]
        names = [client.send(complete(**submissions[which])) for client, which in jobs]
        for (client, which), name in zip(jobs, names, strict=True):
            [shape] = client.end(name).shapes
            np.testing.assert_array_equal(shape.vertices, expected[which].vertices)
            np.testing.assert_array_equal(shape.faces, expected[which].faces)
        for client in clients:
            client.close()


def test_progress_comes_at_least_twice_a_second_with_a_phase_and_a_fraction(client: Listener) -> None:
    job, heard = client.send(long_job()), []

    def often_enough() -> bool:
        """Whether any six in a row did; on a busy machine some are late."""
        heard.extend((time.monotonic(), event) for event in client.poll() if isinstance(event, Progress))
        return any(last[0] - first[0] < 5 * 0.5 for first, last in zip(heard, heard[5:], strict=False))

    until(often_enough, "progress")
    client.cancel(job)
    assert heard[-1][1].phase == "extracting"
    assert 0 < heard[-1][1].fraction < 1
    assert client.end(job).code == "cancelled"


def test_a_preview_comes_before_the_result(client: Listener) -> None:
    previews = []
    [shape] = client.run(complete(), lambda event: previews.append(getattr(event, "preview", None))).shapes
    [preview] = [preview for preview in previews if preview is not None]
    assert preview.source == 0
    assert len(preview.faces) > 100
    assert np.abs(np.linalg.norm(preview.vertices, axis=1) - 0.5).max() < 0.1
    assert len(shape.faces) > 100


def test_every_task_returns_what_the_protocol_promises(client: Listener) -> None:
    sources = tuple(Source(half_sphere(400, radius).astype("<f4")) for radius in (0.45, 0.55))
    ends_of_walk = client.run(complete(sources=sources)).shapes
    assert all(shape.vertices.dtype == np.float32 for shape in ends_of_walk)  # as precise as the input
    codes = np.concatenate([shape.code for shape in ends_of_walk])
    poses = np.concatenate([shape.pose for shape in ends_of_walk])
    ends = {"codes": codes, "refinements": tuple(shape.refinement for shape in ends_of_walk)}
    walk = client.run(complete(task="interpolate", sources=sources, count=3)).shapes
    again = client.run(complete(task="interpolate", sources=(), poses=poses, count=3, **ends)).shapes
    for one, other in zip(walk, again, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-5)
    for one, end in zip((walk[0], walk[2]), ends_of_walk, strict=True):
        np.testing.assert_array_equal(one.refinement, end.refinement)
    assert walk[1].refinement is None
    decoded = client.run(complete(task="decode", sources=(), poses=poses * [[[2], [2], [2], [1]]], **ends)).shapes
    np.testing.assert_allclose(decoded[1].vertices, 2 * walk[2].vertices, atol=1e-5)
    assert len(client.run(complete(task="sample", sources=(), count=2)).shapes) == 2
    for shape, whole in zip(client.run(complete(task="encode", sources=sources)).shapes, ends_of_walk, strict=True):
        np.testing.assert_array_equal(shape.code, whole.code)
        assert shape.vertices.shape == shape.faces.shape == (0, 3)
    moved = client.run(complete(task="decode", sources=(), codes=codes, weights=np.zeros((2, 1)))).shapes
    np.testing.assert_array_equal([shape.code[0] for shape in moved], codes)
    near = client.run(complete(task="sample", sources=(), codes=codes[:1], poses=poses[:1], spread=0.1, count=2)).shapes
    assert len(near) == 2 and all(len(shape.faces) for shape in near)
    ball = Source(np.array(walk[0].vertices), np.array(walk[0].faces))
    [rebuilt] = client.run(complete(task="reconstruct", sources=(ball,))).shapes
    assert np.abs(np.linalg.norm(rebuilt.vertices, axis=1) - 0.45).max() < 0.04
    [echo] = client.run(Submit(new_job(), "echo", sources=(ball,))).sources
    np.testing.assert_array_equal(echo.vertices, ball.vertices)
    assert echo.faces.dtype == ball.faces.dtype


def test_the_same_submission_twice_is_one_job(backend: Backend, client: Listener) -> None:
    before, submit = backend.status().done, complete()
    client.send(submit)
    with backend.client("again") as other:
        other.send(submit)
        assert isinstance(other.end(submit.job), Result)
        assert isinstance(other.run(submit), Result)
    assert backend.status().done == before + 1


def test_another_job_of_the_same_name_is_refused_and_the_first_goes_on(backend: Backend, client: Listener) -> None:
    submit, points = complete(), np.array(FEW_POINTS)
    points[200, 1] += 1e-3
    client.send(submit)
    with backend.client("other") as other:
        other.send(replace(submit, sources=(Source(points),)))
        error = other.end(submit.job)
        assert (error.code, error.job) == ("bad_value", submit.job)
        assert "another job of the name" in error.message
    assert isinstance(client.end(submit.job), Result)


def test_a_client_whose_job_is_taken_over_is_told(backend: Backend, client: Listener) -> None:
    job = client.send(long_job())
    backend.until_running(job)
    with backend.client("other") as other:
        other.fetch(job)
        other.until_heard(Progress, "its messages", job=job)
        assert client.end(job).code == "taken_over"
        other.cancel(job)
        assert other.end(job).code == "cancelled"


def test_the_jobs_of_a_client_are_its_own_without_keys_too(backend: Backend) -> None:
    with backend.client("owner", secret="7f3a") as owner, backend.client("other", secret="") as other:
        done, running = owner.run(complete(keep=60)).job, owner.send(long_job())
        until(lambda: owner.wait_status().workers[0].job == running, "the job runs")
        for job in (done, running):
            other.fetch(job)
            assert other.end(job).code == "unknown_job"
        other.cancel(running)
        assert other.wait_status().workers[0].job is None
        owner.cancel(running)
        assert owner.end(running).code == "cancelled"
    with backend.client("owner, again", secret="7f3a") as owner:
        owner.fetch(done)
        assert isinstance(owner.end(done), Result)


def test_a_name_may_be_that_of_another_owner_s_job(backend: Backend) -> None:
    submit = complete()
    with backend.client(secret="one") as one, backend.client(secret="two") as two:
        for client in (one, two):
            client.send(submit)
        assert all(isinstance(client.end(submit.job), Result) for client in (one, two))


def test_a_client_without_a_secret_has_one_of_its_own(backend: Backend) -> None:
    with Listener(backend.address) as one, Listener(backend.address) as two:
        assert one.secret != two.secret
        job = one.run(complete(keep=60)).job
        two.fetch(job)
        assert two.end(job).code == "unknown_job"


@pytest.mark.parametrize("later", ["another", ""])
def test_the_first_secret_of_a_connection_holds(backend: Backend, later: str) -> None:
    with Raw(backend) as raw:
        submit = complete(keep=60)
        for message in (Hello("raw", secret="first"), Hello("raw", secret=later), submit):
            raw.send(*encode(message))
        until(lambda: any(isinstance(reply, Result) for reply in raw.replies()), "the result")
        with backend.client(secret="first") as client:
            client.fetch(submit.job)
            assert isinstance(client.end(submit.job), Result)


def test_status_shows_devices_memory_models_and_jobs(backend: Backend, client: Listener) -> None:
    client.run(complete())
    state = until(lambda: state if (state := backend.status()).workers[0].models else None, "a loaded model")
    assert state.workers[0].models == ("spheres",)
    assert state.workers[0].device == "cpu"
    assert state.workers[0].memory_bytes > 1 << 26
    assert state.memory_bytes > 1 << 24
    assert state.clients >= 1
    assert state.done >= 1
    spheres = next(model for model in state.models if model.name == "spheres")
    assert (spheres.front, spheres.code_length, spheres.shapes, spheres.licences) == ("-z", 3, 12, ("CC0-1.0",))


# --- queue and cancellation ---


def test_a_full_queue_answers_busy_at_once_and_has_room_for_another(backend: Backend, client: Listener) -> None:
    running = client.send(long_job())
    backend.until_running(running)
    clients = [backend.client(name, secret=name) for name in ("greedy", "also greedy", "third")]
    waiting: list[str] = []
    for each in clients:
        times = []
        while True:
            job = each.send(complete())
            if isinstance(busy := each.until_heard(Accepted | Busy, "an answer", job=job), Busy):  # type: ignore[arg-type]
                break
            waiting.append(job)
        for _ in range(5):
            start = time.monotonic()
            with pytest.raises(ClientError, match="jobs of this client are queued") as refusal:
                each.run(complete())
            times.append(time.monotonic() - start)
            assert refusal.value.code == "busy"
        assert min(times) < 0.1
        assert busy.limit == QUEUE
    assert len(waiting) == QUEUE // 2 + QUEUE // 4 + QUEUE // 8
    assert backend.status().refused >= 18
    for each in clients:
        own = [job for job in each.jobs if job in waiting]
        for job in own:
            each.cancel(job)
        assert {event.code for event in each.ends(own)} == {"cancelled"}
        each.close()
    client.cancel(running)
    assert client.end(running).code == "cancelled"


def test_a_cancelled_job_frees_its_worker_within_two_seconds(backend: Backend, client: Listener) -> None:
    pid, confirmed, freed = backend.worker().pid, [], []
    for _ in range(ATTEMPTS):
        job = client.send(long_job())
        backend.until_running(job)
        start = time.monotonic()
        client.cancel(job)
        assert client.until_heard(Cancelling, "a confirmation", job=job).state == "running"
        confirmed.append(time.monotonic() - start)
        assert client.end(job).code == "cancelled"
        backend.until_idle()
        freed.append(time.monotonic() - start)
        assert backend.worker().pid == pid
        if confirmed[-1] < 0.5 and freed[-1] < 2:
            break
    assert min(confirmed) < 0.5
    assert min(freed) < 2


def test_a_worker_that_does_not_stop_a_cancelled_job_is_replaced(backend: Backend, client: Listener) -> None:
    ended = []
    for _ in range(ATTEMPTS):
        job = client.send(long_job())
        pid = backend.until_running(job)
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        client.cancel(job)
        assert client.end(job).code == "cancelled"
        ended.append(time.monotonic() - start)
        until(lambda gone=pid: not is_there(gone), "its end")
        assert backend.until_idle().pid != pid
        assert isinstance(client.run(complete()), Result)
        if ended[-1] < 2:
            break
    assert min(ended) < 2


# --- clients that reconnect ---


def test_a_result_is_kept_for_an_absent_client(backend: Backend) -> None:
    submit = complete(keep=60)
    with backend.client("restless") as client:
        client.submit(submit)
        client.until_heard(Accepted, "the job is accepted")
    backend.until_idle()
    with backend.client("restless") as client:
        client.fetch(submit.job)
        assert len(client.end(submit.job).shapes) == 1


def test_a_running_job_can_be_taken_over(backend: Backend) -> None:
    submit = long_job(keep=60)
    with backend.client() as client:
        client.send(submit)
        backend.until_running(submit.job)
    with backend.client() as client:
        client.fetch(submit.job)
        client.until_heard(Progress, "progress")
        client.cancel(submit.job)
        assert client.end(submit.job).code == "cancelled"


KILLED_CLIENT = """
import sys
from backend_process import SECRET, long_job
from sdf_backend.wire.client import Client
client = Client(sys.argv[1], name="doomed", secret=SECRET)
client.wait_connected()
job = long_job(job=sys.argv[2], keep=0)
client.run(job)
"""


def test_a_job_of_a_killed_client_is_cancelled(backend: Backend) -> None:
    cancelled, job = backend.status().cancelled, new_job()  # counted before: a lost connection ends its job at once
    command = [sys.executable, "-c", KILLED_CLIENT, backend.address, job]
    doomed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])})
    try:
        backend.until_running(job)
    finally:
        doomed.kill()
        doomed.wait()
    until(lambda: backend.status().cancelled > cancelled, "the end of the job")
    backend.until_idle()


def test_jobs_of_a_silent_client_are_cancelled_after_their_keep_time(backend: Backend) -> None:
    with Raw(backend) as raw:
        raw.send(*encode(Hello("silent")))
        submit = long_job(keep=1)
        start = time.monotonic()
        raw.send(*encode(submit))
        until(lambda: any(isinstance(reply, Error) for reply in raw.replies()), "the end of the job")
        assert time.monotonic() - start > SILENCE + 1
    until_logged(backend, submit.job, "absent for too long")


def test_a_client_that_does_not_read_delays_no_other(backend: Backend, client: Listener) -> None:
    with Raw(backend) as raw:
        raw.socket.set(zmq.RCVHWM, 1)
        source = Source(np.zeros((100_000, 3), dtype="<f4"))
        for _ in range(12):
            raw.send(*encode(Submit(new_job(), "echo", sources=(source,), keep=0)))
        for _ in range(2000):
            raw.send(*encode(StatusRequest()))
        assert isinstance(client.run(complete()), Result)


# --- workers that end ---


def test_a_job_whose_worker_is_killed_is_retried(backend: Backend, client: Listener) -> None:
    lost, job = backend.status().workers_lost, client.send(long_job(count=12))
    pid = backend.until_running(job)
    os.kill(pid, signal.SIGKILL)
    result = client.end(job)
    assert isinstance(result, Result), result
    assert len(result.shapes) == 12
    assert backend.worker().pid != pid
    assert backend.status().workers_lost == lost + 1
    until_logged(backend, "job retried", job, "signal 9")


def test_a_job_that_has_lost_two_workers_fails(backend: Backend, client: Listener) -> None:
    job = client.send(long_job())
    first = backend.until_running(job)
    os.kill(first, signal.SIGKILL)
    second = until(lambda: pid if (pid := backend.until_running(job)) != first else None, "the second try")
    os.kill(second, signal.SIGKILL)
    error = client.end(job)
    assert error.code == "worker_lost"
    assert "two workers" in error.message
    assert "memory" in error.message
    assert backend.until_idle().pid not in (first, second)
    assert isinstance(client.run(complete()), Result)


def test_a_stalled_worker_is_replaced_and_its_job_retried(backend: Backend, client: Listener) -> None:
    job = client.send(long_job(count=12))
    pid = backend.until_running(job)
    os.kill(pid, signal.SIGSTOP)
    assert isinstance(client.end(job), Result)
    assert not is_there(pid)
    until_logged(backend, "worker lost", "stalled")


# --- requests that are refused ---


def refused(client: Listener, submit: Submit) -> tuple[str, str]:
    with pytest.raises(ClientError) as refusal:
        client.run(submit)
    return refusal.value.code, str(refusal.value)


def test_a_damaged_model_is_reported_and_fails_only_its_own_jobs(backend: Backend, client: Listener) -> None:
    [damaged] = [model for model in backend.status().models if model.name == "damaged"]
    assert "damaged" in damaged.problem
    code, message = refused(client, complete(model="damaged"))
    assert code == "bad_input"
    assert "damaged" in message
    until_logged(backend, "model unusable", "model=damaged")
    assert isinstance(client.run(complete()), Result)


def test_models_are_known_by_name_and_not_by_path(client: Listener, models: Path) -> None:
    known = sorted({"damaged", "spheres", *(path.stem for path in STARTER_MODELS.glob("*.safetensors"))})
    for name in ("boats", str(models / "spheres.safetensors"), "../spheres"):
        code, message = refused(client, complete(model=name))
        assert code == "unknown_model"
        assert f"known models: {', '.join(known)}" in message


def test_a_model_added_later_is_found(backend: Backend, client: Listener, models: Path) -> None:
    shutil.copy(models / "spheres.safetensors", models / "balls.safetensors")
    try:
        until(lambda: any(model.name == "balls" for model in backend.status().models), "the new model")
        assert isinstance(client.run(complete(model="balls")), Result)
    finally:
        (models / "balls.safetensors").unlink()


CLOUD = half_sphere(200)
ENORMOUS = np.diag([1e200, 1e200, 1e200, 1])


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"settings": TaskSettings(1024)}, "limit", "at most 512"),
        ({"sources": (Source(CLOUD),) * 17}, "limit", "at most 16"),
        ({"task": "sample", "count": 65}, "limit", "at most 64"),
        ({"task": "interpolate", "count": 4}, "bad_value", "two or more"),
        ({"task": "decode", "sources": ()}, "bad_value", "at least one code"),
        ({"task": "decode", "sources": (), "codes": np.zeros((1, 5), "<f4")}, "bad_input", "3 finite numbers"),
        ({"task": "decode", "sources": (), "weights": np.zeros((1, 4), "<f4")}, "bad_input", "at most 3"),
        ({"task": "sample", "sources": (), "codes": np.zeros((1, 3), "<f4")}, "bad_value", "a spread above 0"),
        (
            {"task": "decode", "sources": (), "codes": np.zeros((1, 3), "<f4"), "poses": np.ones((1, 4, 4))},
            "bad_input",
            "pose 0",
        ),
        (
            {"task": "decode", "sources": (), "codes": np.full((1, 3), 1e30, "<f4")},
            "bad_input",
            "3 finite numbers; it has NaN or numbers above 1e+06",
        ),
        (
            {"task": "decode", "sources": (), "codes": np.zeros((1, 3), "<f4"), "poses": ENORMOUS[None]},
            "bad_input",
            "pose 0 has numbers that are not finite or above 1e+15",
        ),
        ({"sources": (Source(CLOUD, sensor=(1e300, 0, 0)),)}, "bad_input", "the sensor position is [1e+300"),
        ({"sources": ()}, "bad_value", "at least one input"),
        ({"sources": (Source(np.zeros((0, 3))),)}, "bad_input", "no vertices"),
        ({"sources": (Source(np.zeros((500, 3))),)}, "bad_input", ""),
        ({"sources": (Source(CLOUD * 1e16),)}, "bad_input", "scale it down"),
        ({"model": ""}, "bad_value", "name of a model"),
        ({"model": "m" * 4000}, "unknown_model", "unknown model"),
        ({"task": "reconstruct"}, "bad_input", "no inside"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_with_a_reason(
    backend: Backend, changes: dict, code: str, words: str
) -> None:
    with Raw(backend) as raw:  # a client that checks nothing itself
        submit = complete(**changes)
        raw.send(*encode(submit))
        error = until(lambda: next((r for r in raw.replies() if isinstance(r, Error)), None), "an answer")
    assert (error.job, error.code) == (submit.job, code)
    assert words in error.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": 8}, "submit.settings: resolution is 8; use 16 to 1024"),
        ({"pose": "sideways"}, "submit.settings.pose is 'sideways'; it must be one of known, aligned"),
        ({"up": "w"}, "submit.settings.up is 'w'; it must be one of +x, -x"),
        ({"seed": -1}, "submit.settings: seed is -1; use 0 to 9223372036854775807"),
        ({"candidates": 0}, "submit.settings: candidates is 0; use 1 to 16"),
        ({"refine": 1.5}, "submit.settings: refine is 1.5; use 0 to 1"),
        ({"quality": 7}, "submit.settings.quality is 7"),
        ({"pose": "aligned", "up": "+y", "front": "-y"}, "are parallel"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(backend: Backend, settings: dict, words: str) -> None:
    job = new_job()
    with Raw(backend) as raw:
        header = {"kind": "submit", "job": job, "task": "sample", "model": "spheres", "settings": settings}
        raw.send(FIRST_FRAME, json.dumps(header).encode())
        error = raw.reply()
    assert isinstance(error, Error)
    assert (error.job, error.code) == (job, "bad_value")
    assert words in error.message


def test_a_result_that_is_too_large_is_an_error_that_says_what_to_lower(client: Listener) -> None:
    code, message = refused(client, complete(task="sample", sources=(), count=1, settings=TaskSettings(400)))
    assert code == "too_large"
    assert "lower the resolution" in message


# --- malformed messages ---


class Raw:
    """A DEALER that sends any frames."""

    def __init__(self, backend: Backend) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(backend.address)

    def send(self, *frames: bytes | memoryview) -> None:
        self.socket.send_multipart(frames)

    def replies(self) -> list:
        """Messages received within a tenth of a second."""
        found = []
        while self.socket.poll(0 if found else 100):
            found.append(decode(self.socket.recv_multipart(), REPLIES, Limits()))
        return found

    def reply(self) -> object:
        return until(lambda: next(iter(self.replies()), None), "an answer")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


WRONG_FACES = encode(complete(sources=(Source(half_sphere(200), np.zeros((1, 3), "<i4")),)))
WRONG_FACES[3] = np.array([0, 1, 200], "<i4").tobytes()
NOT_FINITE = encode(complete(sources=(Source(np.full((200, 3), np.nan)),)))
TOO_DEEP = b'{"kind":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([b""], "bad_magic"),
        ([b"", b""], "bad_magic"),
        ([b"GET / HTTP/1.1"], "bad_magic"),
        ([b"SDF2", b'{"kind":"hello"}'], "version"),
        ([b"SDF\n\x00\xff"], "bad_magic"),
        ([FIRST_FRAME], "bad_header"),
        ([FIRST_FRAME, b""], "bad_header"),
        ([FIRST_FRAME, b"\xff\xfe"], "bad_header"),
        ([FIRST_FRAME, b"[]"], "bad_header"),
        ([FIRST_FRAME, b"{}"], "bad_header"),
        ([FIRST_FRAME, b'{"kind":7}'], "bad_header"),
        ([FIRST_FRAME, TOO_DEEP], "bad_header"),
        ([FIRST_FRAME, b'{"kind":"hello","client":NaN}'], "bad_header"),
        ([FIRST_FRAME, b'{"kind":"' + b"9" * 5000 + b'"}'], "bad_kind"),
        ([FIRST_FRAME, b'{"kind":"result","job":"0123456789"}'], "bad_kind"),
        ([FIRST_FRAME, b'{"kind":"hello","client":7}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"hello","client":"\\ud800"}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"submit"}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"submit","job":"../../etc/passwd","task":"echo"}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"submit","job":"0123456789","task":"' + b"x" * 4000 + b'"}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"submit","job":"0123456789","task":"echo","keep":-1}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"submit","job":"0123456789","task":"echo","keep":1e999}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"cancel","job":"' + b"a" * 60_000 + b'"}'], "bad_value"),
        ([FIRST_FRAME, b'{"kind":"cancel","job":"nosuchjob"}'], "unknown_job"),
        ([FIRST_FRAME, b'{"kind":"status","job":"nosuchjob"}'], "unknown_job"),
        ([FIRST_FRAME, b'{"kind":"hello","arrays":[{}]}'], "bad_array"),
        ([FIRST_FRAME, b'{"kind":"hello"}', b"unannounced"], "bad_array"),
        ([FIRST_FRAME, b'{"kind":"hello","arrays":[{"dtype":"|O","shape":[1]}]}', b"12345678"], "bad_array"),
        ([FIRST_FRAME, b'{"kind":"hello","arrays":[{"dtype":"<f4","shape":[3]}]}', b"1234"], "bad_array"),
        ([FIRST_FRAME, b'{"kind":"hello","arrays":[{"dtype":"<f4","shape":[-1]}]}', b"1234"], "bad_array"),
        ([FIRST_FRAME, b" " * (1 << 20) + b"{}"], "too_large"),
        ([FIRST_FRAME, b"{}", *[b""] * 1025], "too_large"),
        ([FIRST_FRAME, b"{}", *[b""] * 30_000], "too_large"),
        ([FIRST_FRAME, b"{}", *[bytes(FRAME_BYTES)] * 5], "too_large"),
        # Values of arrays are checked by the worker.
        (NOT_FINITE, "not_finite"),
        (WRONG_FACES, "bad_value"),
    ],
)
def test_a_malformed_message_is_answered_with_a_code(backend: Backend, frames: list, code: str) -> None:
    with Raw(backend) as raw:
        raw.send(*frames)
        error = until(lambda: next((r for r in raw.replies() if isinstance(r, Error)), None), "an answer")
        assert error.code == code
        assert 0 < len(error.message) <= 1000
        raw.send(*encode(Hello()))  # the same connection goes on
        assert isinstance(raw.reply(), Welcome)


def test_malformed_messages_are_counted_and_logged_once(backend: Backend) -> None:
    before = backend.status().malformed
    with Raw(backend) as raw:
        for _ in range(500):
            raw.send(b"nonsense", b"\n\n forged line")
        until(lambda: backend.status().malformed >= before + 500, "the count")
    assert sum("code=bad_magic" in line for line in backend.log().splitlines()) < 10


def test_a_message_of_another_version_is_answered_with_both_versions(backend: Backend) -> None:
    with Raw(backend) as raw:
        raw.send(b"SDF7", b"{}")
        error = raw.reply()
    assert isinstance(error, Error)
    assert "version 1" in error.message
    assert "version 7" in error.message


def test_an_oversized_frame_closes_only_its_own_connection(backend: Backend, client: Listener) -> None:
    with Raw(backend) as raw:
        raw.send(FIRST_FRAME, b"{}", bytes(FRAME_BYTES + 1))
        assert raw.replies() == []
        assert isinstance(client.run(complete()), Result)


def test_a_peer_that_does_not_speak_zeromq_has_no_effect(backend: Backend, client: Listener) -> None:
    import socket

    host, _, port = backend.address.removeprefix("tcp://").rpartition(":")
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f" + os.urandom(200), os.urandom(5000)):
        with socket.create_connection((host, int(port))) as stream:
            stream.sendall(nonsense)
    assert isinstance(client.run(Submit(new_job(), "echo")), Result)


# --- shutting down ---


def test_workers_end_with_a_killed_server_and_clients_reconnect_to_the_next(models: Path, tmp_path: Path) -> None:
    with Backend(tmp_path, "--models", models) as backend, backend.client() as client:
        job = client.send(long_job(count=8))
        pid = backend.until_running(job)
        backend.signal(signal.SIGKILL)
        backend.ended()
        until(lambda: not is_there(pid), "the worker's end")
        until(lambda: client.poll() and client.state is State.LOST, "the client notices")
        backend.start()
        until(lambda: client.poll() and client.state is State.CONNECTED, "the client is back")
        assert "again" in client.reason
        assert len(client.end(job).shapes) == 8


def test_sigterm_returns_queued_jobs_and_lets_running_ones_end(models: Path, tmp_path: Path) -> None:
    with Backend(tmp_path, "--models", models, "--grace", "60") as backend, backend.client() as client:
        backend.until_idle()
        running, waiting = client.send(long_job(count=12)), client.send(complete())
        backend.until_running(running)
        backend.signal(signal.SIGTERM)
        assert client.end(waiting).code == "stopping"
        assert refused(client, complete())[0] == "stopping"
        assert isinstance(client.end(running), Result)
        assert backend.ended() == 0
        assert "server stopped" in backend.log()


def test_a_job_has_a_time_limit(models: Path, tmp_path: Path) -> None:
    options = ("--models", models, "--limit", "job_seconds=1.5")
    with Backend(tmp_path, *options) as backend, backend.client() as client:
        code, message = refused(client, long_job())
        assert code == "timed_out"
        assert "1.5 s" in message


def test_a_second_signal_stops_the_server_at_once(models: Path, tmp_path: Path) -> None:
    options = ("--models", models, "--grace", "600")
    with Backend(tmp_path, *options) as backend, backend.client() as client:
        running = client.send(long_job())
        pid = backend.until_running(running)
        backend.signal(signal.SIGINT)
        until(lambda: "server stopping" in backend.log(), "the first signal is handled")
        backend.signal(signal.SIGINT)
        assert client.end(running).code == "stopping"
        assert backend.ended() == 0  # long before the grace of ten minutes
        until(lambda: not is_there(pid), "the worker's end")


# --- failures of the system ---


def limit_files() -> None:
    """Limit files to 50 kB: writing more fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_full_disk_loses_cache_entries_but_no_job(models: Path, tmp_path: Path) -> None:
    options = ("--models", models, "--cache", tmp_path / "cache")
    with Backend(tmp_path / "backend", *options).start(preexec_fn=limit_files) as backend, backend.client() as client:
        for _ in range(2):
            result = client.run(complete(settings=TaskSettings(64, Pose.KNOWN, quality=Quality.PREVIEW)))
            assert not result.cached
        until_logged(backend, "cache write failed", "File too large")


def test_a_log_that_cannot_be_written_has_no_effect(models: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        backend = Backend(tmp_path, "--models", models).start(stderr=full)
    with backend, backend.client() as client:
        assert isinstance(client.run(complete()), Result)
        assert refused(client, complete(model="boats"))[0] == "unknown_model"


def test_a_repeated_job_is_answered_from_the_cache(models: Path, tmp_path: Path) -> None:
    options = ("--models", models, "--cache", tmp_path / "cache")
    with Backend(tmp_path / "backend", *options) as backend, backend.client() as client:
        first, second = client.run(complete()), client.run(complete())
        finer = client.run(complete(settings=TaskSettings(40, Pose.KNOWN, quality=Quality.PREVIEW)))
        assert (first.cached, second.cached, finer.cached) == (False, True, False)
        np.testing.assert_array_equal(first.shapes[0].vertices, second.shapes[0].vertices)
        assert "fitting" not in finer.shapes[0].seconds  # only the resolution differs
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_workers_that_cannot_start_fail_jobs_with_the_reason(models: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('this torch is broken')")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with Backend(tmp_path / "backend", environment=environment) as backend, backend.client() as client:
        for _ in range(2):  # the first was queued, the second is refused at once
            code, message = refused(client, complete())
            assert code == "worker_lost"
            assert "this torch is broken" in message
        assert backend.status().workers[0].state == "starting"  # it is started again


def test_a_device_that_is_not_there_is_one_clear_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "-m", "sdf_backend", "serve", "--bind", "tcp://127.0.0.1:*", "--device", "cuda:0"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert finished.returncode == 1
    [line] = [line for line in finished.stderr.splitlines() if not line.startswith("20")]  # the others are log lines
    assert line.startswith("error: there is no device cuda:0")
