"""Machines that join a server, as clients and operators see them: real processes, keys and sockets."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from backend_process import (
    PATIENCE,
    ROOT,
    Backend,
    Listener,
    complete,
    hear,
    is_there,
    long_job,
    status_json,
    until,
    until_logged,
)
from ports import reserve_port

from sdf_backend.model.store import load_model, save_model
from sdf_backend.serving.server_keys import MACHINES, make_keys
from sdf_backend.wire.messages import Accepted, Progress, Result, Source

SILENCE = 2.0


class WorkProcess:
    """`python -m sdf_backend work` in a process of its own."""

    def __init__(self, folder: Path, name: str, address: str, *options: str | Path, program: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.errors = name, folder / f"{name}.txt"
        start = ["-c", program] if program else ["-m", "sdf_backend"]
        command = [sys.executable, *start, "work", "--join", address, "--name", name, "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [*command, "--cache-mib", "0", "--silence", str(SILENCE), *map(str, options)],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd=ROOT,
                preexec_fn=hear,
            )

    def log(self) -> str:
        return self.errors.read_text()

    def until_logged(self, *parts: str) -> None:
        until(lambda: any(all(p in line for p in parts) for line in self.log().splitlines()), f"{parts}: {self.log()}")

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class Head(Backend):
    """A server with keys and without workers of its own, which machines join."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.machines = folder / "keys", f"tcp://127.0.0.1:{reserve_port()}"
        make_keys(self.keys, "artist")
        for name in ("one", "two"):
            make_keys(self.keys, name, MACHINES)
        super().__init__(
            folder, "--workers", "0", "--machines", self.machines, "--keys", self.keys, "--silence", str(SILENCE)
        )
        self.key = self.keys / "artist.key_secret"
        self.folder = folder
        self.running: dict[str, WorkProcess] = {}

    def machine(self, name: str, models: Path) -> WorkProcess:
        """The machine of that name, which is started if it does not run."""
        machine = self.running.get(name)
        if machine is None or machine.process.poll() is not None:
            key = self.keys / f"{name}.key_secret"
            machine = WorkProcess(self.folder, name, self.machines, "--key", key, "--models", models)
            self.running[name] = machine
        self.until_state(name, "idle")
        return machine

    def until_state(self, name: str, state: str) -> None:
        def has_it() -> bool:
            return any(one.name.startswith(f"{name}/") and one.state == state for one in self.status().workers)

        until(has_it, f"{name} is not {state}: {self.log()}")

    def stop(self) -> None:
        for machine in self.running.values():
            machine.stop()
        super().stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with Head(tmp_path_factory.mktemp("head")) as head:
        yield head
    assert "Traceback" not in head.log()
    for machine in head.running.values():
        assert "Traceback" not in machine.log()


@pytest.fixture
def head(served: Head, models_folder: Path) -> Head:
    """A server that the machine `one` has joined, and no other."""
    for name, machine in served.running.items():
        if name != "one":
            machine.stop()
    served.machine("one", models_folder)
    return served


@pytest.fixture
def client(head: Head) -> Iterator[Listener]:
    with head.client() as client:
        yield client


def until_heard_running(client: Listener, job: str) -> None:
    client.until_heard(Progress, f"{job} runs", job=job)


def answers(client: Listener, job: str) -> int:
    """How many results of a job have come, a while after the first."""
    client.run(complete())
    return sum(isinstance(event, Result) and event.job == job for event in client.heard)


def test_clients_do_not_notice_where_their_jobs_run(head: Head, client: Listener) -> None:
    [shape] = client.run(complete()).shapes
    assert np.abs(np.linalg.norm(shape.vertices, axis=1) - 0.5).max() < 0.1
    [worker] = head.status().workers
    assert worker.name == "one/worker-0"
    assert worker.pid in head.running["one"].workers()
    assert client.welcome
    assert "spheres" in [model.name for model in client.welcome.models]
    state = status_json("--address", head.address, "--key", str(head.key))
    assert [worker["name"] for worker in state["workers"]] == ["one/worker-0"]
    assert client.run(complete(task="echo", model="")).sources
    job = client.send(complete(model="unheard-of"))
    assert client.end(job).code == "unknown_model"


def test_a_job_is_cancelled_where_it_runs(head: Head, client: Listener) -> None:
    job = client.send(long_job())
    until_heard_running(client, job)
    worker = head.running["one"].workers()
    client.cancel(job)
    assert client.end(job).code == "cancelled"
    assert isinstance(client.run(complete()), Result)
    assert head.running["one"].workers() == worker


def test_a_killed_worker_process_costs_its_job_one_retry(head: Head, client: Listener) -> None:
    job = client.send(long_job(count=8))
    until_heard_running(client, job)
    os.kill(head.running["one"].workers()[0], signal.SIGKILL)
    until_logged(head, "worker lost", "worker=one/worker-0", "signal 9")
    assert isinstance(client.end(job), Result)
    assert answers(client, job) == 1


def test_a_killed_machine_costs_its_job_one_retry(head: Head, client: Listener, models_folder: Path) -> None:
    head.machine("two", models_folder)
    jobs = [client.send(long_job(count=8)) for _ in range(2)]
    for job in jobs:
        until_heard_running(client, job)
    lost = head.running["two"]
    workers = lost.workers()
    lost.process.kill()
    assert all(isinstance(end, Result) for end in client.ends(jobs))
    assert [answers(client, job) for job in jobs] == [1, 1]
    until(lambda: not any(map(is_there, workers)), "its workers are gone")
    lines = head.log().splitlines()
    assert sum("job retried" in line and any(job in line for job in jobs) for line in lines) == 1
    assert "lost" in [worker.state for worker in head.status().workers]


def test_a_machine_whose_link_was_cut_comes_back_and_works(head: Head, client: Listener) -> None:
    """A stopped process is as silent as one behind a cut link; its worker goes on, and its connection stays."""
    job, machine = client.send(long_job(count=16)), head.running["one"]
    until_heard_running(client, job)
    workers = machine.workers()
    client.heard.clear()
    machine.process.send_signal(signal.SIGSTOP)
    client.until_heard(Accepted, "the job is queued again", job=job)
    assert isinstance(client.wait_status().uptime, float)
    machine.process.send_signal(signal.SIGCONT)
    machine.until_logged("server not reached")
    assert isinstance(client.end(job), Result)
    assert answers(client, job) == 1
    assert machine.workers() == workers


def test_a_machine_waits_for_a_server_that_is_started_again(head: Head) -> None:
    head.signal(signal.SIGTERM)
    assert head.ended() == 0
    head.running["one"].until_logged("server not reached", "no server listens")
    head.start()
    head.until_state("one", "idle")
    with head.client() as client:
        assert isinstance(client.run(complete()), Result)


def test_a_stopped_machine_ends_its_job_and_leaves(head: Head, client: Listener) -> None:
    job = client.send(long_job(count=2))
    until_heard_running(client, job)
    lost = head.status().workers_lost
    machine = head.running["one"]
    machine.process.terminate()
    assert isinstance(client.end(job), Result)
    assert machine.ended() == 0
    until(lambda: not head.status().workers, "the machine has left")
    assert head.status().workers_lost == lost
    assert not [line for line in head.log().splitlines() if "job retried" in line and job in line]


def test_machines_with_other_models_work_together(
    head: Head, client: Listener, models_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(models_folder / "spheres.safetensors", tmp_path / "balls.safetensors")
    model = load_model(models_folder / "spheres.safetensors")
    save_model(tmp_path / "spheres.safetensors", replace(model, codes=0.9 * model.codes))
    two = head.machine("two", tmp_path)
    two.until_logged("notice of the server", "the model spheres of this machine is not used", "copy that one")
    until_logged(head, "model not used", "machine=two", "model=spheres")
    assert {"balls", "spheres"} <= {model.name for model in head.status().models}
    jobs = [client.send(complete(model=name)) for name in 4 * ("balls", "spheres")]
    assert all(isinstance(end, Result) for end in client.ends(jobs))
    for number, job in enumerate(jobs):
        until_logged(head, "job started", f"job={job}", f"worker={('two', 'one')[number % 2]}/worker-0")


def test_data_of_a_job_travels_once_over_the_network(head: Head, client: Listener) -> None:
    points = np.random.default_rng(1).normal(size=(200_000, 3))
    before, sizes = received(head.running["one"]), []
    for _ in range(2):
        client.run(complete(task="echo", model="", sources=(Source(points),)))
        now = received(head.running["one"])
        sizes.append(now - before)
        before = now
    assert sizes[0] > points.nbytes
    assert sizes[1] < points.nbytes / 10


def received(machine: WorkProcess) -> int:
    """Bytes that a machine has received from its server."""
    command = ["ss", "-tinpH", "state", "established"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    own = next(n for n, line in enumerate(lines) if f"pid={machine.process.pid}," in line)
    return int(lines[own + 1].partition("bytes_received:")[2].split()[0])


# --- who is refused ---


def refused(*arguments: str | Path, program: str = "") -> str:
    """The one line on stderr of a machine that cannot join."""
    start = ["-c", program] if program else ["-m", "sdf_backend"]
    command = [sys.executable, *start, "work", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert finished.returncode == 1, finished.stderr
    *_, line = finished.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_machine_with_an_unknown_key_is_refused(head: Head, client: Listener, tmp_path: Path) -> None:
    job = client.send(long_job(count=2))
    make_keys(tmp_path, "three", MACHINES)
    stranger = tmp_path / "three.key_secret"
    text = stranger.read_text().replace(server_key(stranger), server_key(head.keys / "one.key_secret"))
    stranger.write_text(text)
    assert "does not know the key" in refused("--join", head.machines, "--key", stranger)
    until_logged(head, "machine refused", "address=127.0.0.1", "not among the authorised machines")
    assert "requires a key" in refused("--join", head.machines)
    # The key of a client is none of a machine.
    assert "does not know the key" in refused("--join", head.machines, "--key", head.key)
    assert isinstance(client.end(job), Result)


def server_key(path: Path) -> str:
    return next(line for line in path.read_text().splitlines() if "server-key" in line)


def test_a_machine_of_another_version_is_refused(head: Head) -> None:
    program = (
        "import sys, sdf_backend.serving.software as software; software.SOFTWARE = 'sdf-shapes 9.9'; "
        "sys.argv[0] = 'sdf_backend'; from sdf_backend.cli import app; app()"
    )
    line = refused("--join", head.machines, "--key", head.keys / "two.key_secret", "--name", "two", program=program)
    assert "this machine runs sdf-shapes 9.9, but the server sdf-shapes" in line
    assert "install the same version on both" in line


def test_a_machine_whose_key_was_removed_is_out(head: Head, models_folder: Path) -> None:
    machine = head.machine("two", models_folder)
    public = head.keys / "machines" / "two.key"
    content = public.read_bytes()
    public.unlink()
    assert machine.ended() == 1
    assert "does not know the key" in machine.log()
    until_logged(head, "machine lost", "machine=two", "its key was removed")
    public.write_bytes(content)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--join", "5578"), "is not an address"),
        (("--join", "tcp://127.0.0.1:1", "--name", "a/b"), "cannot be the name of a machine"),
        (("--join", "tcp://127.0.0.1:1", "--key", "nowhere"), "key file"),
        (("--join", "tcp://127.0.0.1:1", "--device", "abacus"), "unknown device"),
        (("--join", "tcp://127.0.0.1:1", "--workers", "0"), "use 1 or more"),
    ],
)
def test_wrong_options_are_one_clear_line(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments)
