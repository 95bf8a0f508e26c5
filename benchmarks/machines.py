"""A server and two joined machines in network namespaces of their own, for root on Linux.

    python -m benchmarks.machines

200 jobs from 8 clients, while the link of one machine is cut, its process killed, and it comes back: counts the jobs
that were lost or answered twice. Then the jobs a second with one, two and three workers.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.backend import START_SECONDS, connected
from benchmarks.shared import console, show
from sdf_backend.serving.server_keys import MACHINES, make_keys
from sdf_backend.settings import TaskSettings
from sdf_backend.wire.client import Client, new_job
from sdf_backend.wire.messages import Error, Result, Submit

CLIENTS = 8
# Jobs of about half a second, since some hundred of them run.
RESOLUTION = 32
HEAD, NAMES = "sdf-head", ("one", "two", "three")
# Seconds after which a silent machine is lost.
SILENCE = 3.0
# A busy machine may take long to start a process that loads torch.
PATIENCE = 5 * START_SECONDS


def main(
    jobs: Annotated[int, typer.Option(help="number of jobs during the faults")] = 200,
    timed: Annotated[int, typer.Option(help="number of jobs for each number of workers")] = 48,
    model: Annotated[str, typer.Option(help="name of a model")] = "airplanes",
) -> None:
    """Print the tables."""
    seeds = count()

    def submission() -> Submit:
        return Submit(new_job(), "sample", model, TaskSettings(RESOLUTION, seed=next(seeds)), keep=600)

    with tempfile.TemporaryDirectory() as folder, networks(), Server(Path(folder)) as server:
        machines = [Machine(server, number) for number in range(3)]
        rates = []
        with stopped_at_end(machines):
            for workers, machine in enumerate(machines, 1):
                machine.start()
                server.wait(lambda workers=workers: len(server.workers("idle")) == workers, f"{workers} are ready")
                _run(server, submission, 2 * workers)  # each worker loads the model
                rates.append(timed / _run(server, submission, timed)[0])
            machines[2].stop()
            seconds, outcomes = _run(server, submission, jobs, _faults(server, machines[0]))
        _report(rates, jobs, seconds, outcomes, server.log())


# --- the machines, each in a network namespace ---------------------------------------------------------------------


@contextmanager
def networks() -> Iterator[None]:
    """Namespaces of the server and of each machine: 10.77.0.2 is the server for clients, 10.77.N.1 for machine N."""
    if os.geteuid():
        console.print("error: network namespaces are for root; run this as root")
        raise typer.Exit(1)
    try:
        for name in (HEAD, *map(_namespace, NAMES)):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", "sdf-clients", "type", "veth", "peer", "name", "clients", "netns", HEAD)
        _ip("address", "add", "10.77.0.1/24", "dev", "sdf-clients")
        _ip("link", "set", "sdf-clients", "up")
        _ip("-n", HEAD, "address", "add", "10.77.0.2/24", "dev", "clients")
        _ip("-n", HEAD, "link", "set", "clients", "up")
        for number, name in enumerate(NAMES, 1):
            _ip("-n", HEAD, "link", "add", name, "type", "veth", "peer", "name", "head", "netns", _namespace(name))
            _ip("-n", HEAD, "address", "add", f"10.77.{number}.1/24", "dev", name)
            _ip("-n", HEAD, "link", "set", name, "up")
            _ip("-n", _namespace(name), "address", "add", f"10.77.{number}.2/24", "dev", "head")
            _ip("-n", _namespace(name), "link", "set", "head", "up")
        yield
    finally:
        for name in (HEAD, *map(_namespace, NAMES)):  # what lies in them goes with them
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


def _namespace(name: str) -> str:
    return f"sdf-{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _start(namespace: str, log: Path, *arguments: str | Path) -> subprocess.Popen:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "sdf_backend", *map(str, arguments)]
    with log.open("a") as errors:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)


class Server:
    """The server, without workers of its own."""

    def __init__(self, folder: Path) -> None:
        self.keys, self._log = folder / "keys", folder / "head.txt"
        make_keys(self.keys, "clients")
        for name in NAMES:
            make_keys(self.keys, name, MACHINES)
        options = ("--workers", "0", "--machines", "tcp://*:5578", "--keys", self.keys, "--silence", str(SILENCE))
        self._process = _start(HEAD, self._log, "serve", "--bind", "tcp://*:5577", *options, "--cache-mib", "0")
        self._observer = self.client("observer")

    def client(self, name: str) -> Client:
        """A connected client."""
        return connected("tcp://10.77.0.2:5577", self.keys / "clients.key_secret", name)

    def workers(self, state: str) -> list[str]:
        """Names of the workers in a state."""
        return [worker.name for worker in self._observer.wait_status().workers if worker.state == state]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {PATIENCE:g} s in vain: {what}\n{self.log()[-2000:]}")
            time.sleep(0.1)

    def log(self) -> str:
        """The log so far."""
        return self._log.read_text()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._observer.close()
        self._process.terminate()
        self._process.wait(30)


class Machine:
    """A machine with one worker."""

    def __init__(self, server: Server, number: int) -> None:
        self.name = NAMES[number]
        self._address = f"tcp://10.77.{number + 1}.1:5578"
        self._key, self._log = server.keys / f"{self.name}.key_secret", server.keys / f"{self.name}.txt"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start its process."""
        options = ("--key", self._key, "--name", self.name, "--device", "cpu", "--silence", str(SILENCE))
        options += ("--cache-mib", "0")
        self._process = _start(_namespace(self.name), self._log, "work", "--join", self._address, *options)

    def link(self, state: str) -> None:
        """Set its link `up` or `down`."""
        _ip("-n", HEAD, "link", "set", self.name, state)

    def stop(self) -> None:
        """Let it leave."""
        if self._process:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Kill its process."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def stopped_at_end(machines: list[Machine]) -> Iterator[None]:
    """Kill the machines that are left."""
    try:
        yield
    finally:
        for machine in machines:
            machine.kill()


# --- jobs ----------------------------------------------------------------------------------------------------------


def _faults(server: Server, machine: Machine) -> Iterator[tuple[float, str, str]]:
    """What is done to a machine while jobs run: after which share of them, in which state of its worker, and what."""
    yield 0.15, "running", "the link is cut"
    machine.link("down")
    yield 0.3, "lost", "the link is back"
    machine.link("up")
    yield 0.4, "running", "the process is killed"
    machine.kill()
    yield 0.5, "lost", "it is started again"
    machine.start()
    yield float("inf"), "", ""


def _run(
    server: Server, submission: Callable[[], Submit], jobs: int, faults: Iterator[tuple[float, str, str]] | None = None
) -> tuple[float, list[Counter[str]]]:
    """Run jobs, of which each client always has two; returns the seconds, and of each job how often it ended how."""
    clients, ends, sent = [server.client(f"client {n}") for n in range(CLIENTS)], dict[str, Counter[str]](), 0
    start = time.monotonic()
    due, state, what = next(faults) if faults else (float("inf"), "", "")
    while sum(map(bool, ends.values())) < jobs:
        for client in clients:
            while len(client.jobs) < 2 and sent < jobs:
                submit = submission()
                ends[submit.job] = Counter()
                client.submit(submit)
                sent += 1
            for event in client.poll():
                if isinstance(event, Result | Error) and event.job:
                    ends[event.job][str(getattr(event, "code", event.kind))] += 1
        done = sum(map(bool, ends.values()))
        if faults and done >= due * jobs and f"{NAMES[0]}/worker-0" in server.workers(state):
            console.print(f"{done} jobs done: {what}")
            due, state, what = next(faults)
        time.sleep(0.005)
    seconds = time.monotonic() - start
    for client in clients:
        client.close()
    return seconds, list(ends.values())


def _report(rates: list[float], jobs: int, seconds: float, outcomes: list[Counter[str]], log: str) -> None:
    after_return = log.rpartition(f" machine joined machine={NAMES[0]} ")[2]
    answered = Counter(re.findall(r" job done job=(\w+)", log))
    row = {
        "jobs": jobs,
        "done": sum(bool(outcome["result"]) for outcome in outcomes),
        "failed": sum(not outcome["result"] for outcome in outcomes),
        "answered twice": sum(outcome.total() > 1 for outcome in outcomes) + sum(n > 1 for n in answered.values()),
        "retried": log.count(" job retried "),
        "machines lost": log.count(" machine lost "),
        "started after its return": after_return.count(f" worker={NAMES[0]}/worker-0 waited="),
        "seconds": round(seconds, 1),
    }
    table = Table(*row, title=f"{CLIENTS} clients, 2 machines, one cut off, killed and back")
    table.add_row(*map(str, row.values()))
    show(table, [row], "machines-faults")
    table = Table("workers", "jobs a second", "ratio")
    rows = []
    for workers, rate in enumerate(rates, 1):
        rows.append({"workers": workers, "rate": rate, "ratio": rate / rates[0]})
        table.add_row(str(workers), f"{rate:.2f}", f"{rate / rates[0]:.2f}")
    show(table, rows, "machines-throughput")


if __name__ == "__main__":
    typer.run(main)
