"""The commands of an operator: serve, work, status, keygen."""

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated

import typer
import zmq
from rich.table import Table

from sdf_backend import log
from sdf_backend.console import print_json, report_errors, stdout
from sdf_backend.errors import InputError
from sdf_backend.files import check_folder
from sdf_backend.serving.addresses import is_loopback
from sdf_backend.serving.authenticator import Authenticator
from sdf_backend.serving.combined_pool import CombinedPool
from sdf_backend.serving.joined_machines import SEPARATOR, JoinedMachines
from sdf_backend.serving.local_workers import LocalWorkerPool, WorkerSettings
from sdf_backend.serving.machine import Machine, MachineSettings
from sdf_backend.serving.server import DEFAULT_ADDRESS, Server, ServerSettings
from sdf_backend.serving.server_keys import (
    CLIENTS,
    DEFAULT_CLIENT,
    MACHINES,
    SECRET,
    SERVER,
    ServerKeys,
    load_keys,
    make_keys,
)
from sdf_backend.serving.software import SOFTWARE
from sdf_backend.serving.worker_messages import STOP_SIGNALS
from sdf_backend.serving.worker_pool import WorkerPool
from sdf_backend.wire.client import Client, ClientError
from sdf_backend.wire.messages import Limits, Status

# Timeout of `status`.
STATUS_SECONDS = 3.0
# Time that a server whose standard input is closed may take beyond its grace.
LIFELINE_SECONDS = 5.0
STOP_HELP = "Ctrl-C; twice to stop at once"
LIMITS_HELP = "change a limit, NAME=VALUE; may be repeated; " + ", ".join(
    f"{limit.name} ({limit.default:g})" for limit in fields(Limits)
)

Bind = Annotated[str, typer.Option(help="address to listen on; one that other computers can reach requires --keys")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Machines = Annotated[
    str | None,
    typer.Option(
        help="address at which other machines join with `work`, for example tcp://*:5578; by default none can"
    ),
]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="number of worker processes; default: one per GPU; 0 needs --machines"),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="maximum number of jobs in a batch; default: 8 on a GPU, otherwise 1",
    ),
]
Models = Annotated[Path | None, typer.Option(help="folder of further models; also SDF_BACKEND_MODELS")]
Keys = Annotated[Path | None, typer.Option(help="folder made by `keygen`; only its clients may connect")]
Cache = Annotated[Path | None, typer.Option(help="folder of the result cache; default: in your cache folder")]
CacheSize = Annotated[int, typer.Option("--cache-mib", min=0, help="maximum size of the cache; 0 disables it")]
WorkerMemory = Annotated[
    int | None,
    typer.Option(min=512, help="memory of each worker on a CPU; default: their share of three quarters of all"),
]
LimitTexts = Annotated[list[str] | None, typer.Option("--limit", help=LIMITS_HELP)]
Grace = Annotated[
    float, typer.Option(min=0, help="seconds that running jobs are given to finish when the server is stopped")
]
Stall = Annotated[float, typer.Option("--stall-seconds", min=1, help="seconds after which a silent worker is replaced")]
Silence = Annotated[float, typer.Option(min=1, help="seconds after which a silent client is treated as disconnected")]
Lifeline = Annotated[
    bool,
    typer.Option("--lifeline", help="stop when standard input is closed, which happens when the parent process ends"),
]
Join = Annotated[str, typer.Option(help="where the server listens for machines, tcp://HOST:PORT")]
MachineKey = Annotated[Path | None, typer.Option("--key", help="key file of this machine, for a server with keys")]
MachineName = Annotated[str | None, typer.Option("--name", help="name of this machine; default: that of the computer")]
ServerSilence = Annotated[
    float, typer.Option("--silence", min=1, help="seconds after which a silent server counts as lost")
]
KeyFolder = Annotated[Path, typer.Argument(help="folder for the keys; created if necessary")]
ClientName = Annotated[str | None, typer.Option("--client", help="name of the client")]
KeyOfMachine = Annotated[str | None, typer.Option("--machine", help="name of a machine that is to work for the server")]
Address = Annotated[str, typer.Option(help="address of the backend")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="your key file, for a backend with keys")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    for command in (serve, work, status, keygen):
        app.command()(command)


def serve(
    bind: Bind = DEFAULT_ADDRESS,
    device: Device = "auto",
    workers: WorkerCount = None,
    batch: BatchSize = None,
    models: Models = None,
    keys: Keys = None,
    machines: Machines = None,
    cache: Cache = None,
    cache_mib: CacheSize = 4096,
    worker_memory_mib: WorkerMemory = None,
    limit: LimitTexts = None,
    grace: Grace = 10.0,
    stall_seconds: Stall = 30.0,
    silence: Silence = 10.0,
    lifeline: Lifeline = False,
) -> None:
    """Run a backend until Ctrl-C; its log goes to stderr."""
    with report_errors():
        if lifeline and sys.stdin is None:  # its descriptor may belong to another file by now
            raise InputError("--lifeline requires a standard input; start the backend with a pipe as its input")
        if workers == 0 and not machines:
            raise InputError("--workers 0 leaves nobody to work; let machines join with --machines ADDRESS")
        limits = _limits(limit or [])
        settings = ServerSettings(bind, limits, silence, grace)
        local = replace(
            _worker_settings(device, workers, batch, models, cache, cache_mib, worker_memory_mib, stall_seconds),
            limits=limits,
        )
        pairs = load_keys(keys) if keys else None

        listening: list[str] = []

        def make_pool(context: zmq.Context, authenticator: Authenticator) -> WorkerPool:
            if not machines:
                return LocalWorkerPool(context, authenticator, local)
            joined = JoinedMachines(context, authenticator, machines, limits, silence, pairs)
            listening.append(joined.address)
            return CombinedPool(LocalWorkerPool(context, authenticator, local) if workers != 0 else None, joined)

        server = Server(settings, make_pool, pairs)
        log.configure()
        _raise_open_file_limit()
        _print_start(server.address, keys, pairs, *listening)
        if lifeline:
            threading.Thread(target=_stop_on_closed_stdin, args=(server,), name="lifeline", daemon=True).start()
        with _stopped_by_signals(server):
            server.run(_print_ready)


def work(
    join: Join,
    key: MachineKey = None,
    name: MachineName = None,
    device: Device = "auto",
    workers: WorkerCount = None,
    batch: BatchSize = None,
    models: Models = None,
    cache: Cache = None,
    cache_mib: CacheSize = 4096,
    worker_memory_mib: WorkerMemory = None,
    grace: Grace = 10.0,
    stall_seconds: Stall = 30.0,
    silence: ServerSilence = 30.0,
) -> None:
    """Let the devices of this machine work for a server elsewhere, until Ctrl-C; the log goes to stderr."""
    with report_errors():
        if workers == 0:
            raise InputError("--workers 0 leaves nobody to work; use 1 or more")
        local = _worker_settings(device, workers, batch, models, cache, cache_mib, worker_memory_mib, stall_seconds)
        settings = MachineSettings(join, name or platform.node(), key, silence, grace)
        machine = Machine(settings, local)
        log.configure()
        _print_rows([("SDF Shapes", SOFTWARE), ("machine", settings.name), ("joins", join), ("stop", STOP_HELP)])
        with _stopped_by_signals(machine):
            machine.run()


def status(address: Address = DEFAULT_ADDRESS, key: KeyFile = None, as_json: AsJson = False) -> None:
    """Show the status of a backend: workers, devices, memory, models, queue and jobs."""
    with report_errors():
        content = _ask_status(address, key)
        if as_json:
            print_json(asdict(content))
        else:
            _print_status(content)


def keygen(folder: KeyFolder, client: ClientName = None, machine: KeyOfMachine = None) -> None:
    """Make the key file of a client or a machine, and the keys of the server if there are none yet."""
    with report_errors():
        if client and machine:
            raise InputError("--client and --machine make different keys; call keygen once for each")
        name = client or machine or DEFAULT_CLIENT
        server, own = make_keys(folder, name, MACHINES if machine else CLIENTS)
        stdout.print(f"{server}: keys of the server; keep them here, and serve with --keys {folder}", soft_wrap=True)
        stdout.print(f"{own}: for {name}; send them this one file, over a private channel", soft_wrap=True)


# --- serve -------------------------------------------------------------------------------------------------------


def _worker_settings(
    device: str,
    workers: int | None,
    batch: int | None,
    models: Path | None,
    cache: Path | None,
    cache_mib: int,
    worker_memory_mib: int | None,
    stall_seconds: float,
) -> WorkerSettings:
    folder = _cache_folder(cache) if cache_mib else None
    memory = worker_memory_mib and worker_memory_mib << 20
    return WorkerSettings(device, workers, models, folder, cache_mib << 20, batch, memory, stall_seconds)


def _limits(texts: list[str]) -> Limits:
    """The default limits, with the changes given as NAME=VALUE."""
    known = {name: type(value) for name, value in asdict(Limits()).items()}
    values: dict[str, int | float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError(f"unknown limit {name!r}; use one of {', '.join(known)}")
        try:
            values[name] = known[name](value)
        except ValueError:
            raise InputError(f"the limit {text!r} must have the form {name}=NUMBER") from None
        if not 0 < values[name] < 2**53:
            raise InputError(f"the limit {name} is {value}; use a positive number")
    return replace(Limits(), **values)


def _raise_open_file_limit() -> None:
    """Raise the number of open files to its maximum: each connection takes two."""
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource

        _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _cache_folder(given: Path | None) -> Path:
    """The folder of the content cache, private because it holds shapes of users."""
    homes = (os.environ.get("XDG_CACHE_HOME"), os.environ.get("LOCALAPPDATA"), Path.home() / ".cache")
    folder = given or Path(next(home for home in homes if home)) / "sdf-shapes"
    check_folder(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the cache folder {folder}: {error.strerror}; see --cache") from error
    return folder


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def _stopped_by_signals(server: Server | Machine) -> Iterator[None]:
    """Let SIGTERM, Ctrl-C and a closed terminal stop a server or machine, after its grace or, the second time, at once.

    A hangup that is ignored stays ignored: nohup lets a server outlive its terminal.
    """
    outlives = {number for number in STOP_SIGNALS if number.name == "SIGHUP" and _is_ignored(number)}
    heard = [number for number in STOP_SIGNALS if number not in outlives]
    before = {number: signal.signal(number, lambda *_: server.stop()) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_on_closed_stdin(server: Server) -> None:
    """Stop the server when standard input is closed, and end the process if that takes too long.

    The program that could stop it a second time has ended.
    """
    with suppress(OSError):
        while os.read(sys.stdin.fileno(), 1024):
            pass
    server.stop()
    time.sleep(server.settings.grace + LIFELINE_SECONDS)
    os._exit(1)  # its workers end too


def _reachable(address: str) -> str:
    """The address at which others reach one that this server listens on."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return address if is_loopback(host) else f"tcp://THIS-COMPUTER:{port}"


def _print_start(address: str, folder: Path | None, keys: ServerKeys | None, machines: str = "") -> None:
    """Print the addresses and how to connect."""
    reachable = _reachable(address)
    rows = [("SDF Shapes", SOFTWARE), ("address", address)]
    if keys and folder:
        files = sorted(path.stem for path in keys.clients.glob("*.key"))
        named = [f"{folder / name}{SECRET}" for name in files if name != SERVER] or [f"none yet; keygen {folder}"]
        rows += [("clients", ", ".join(files) or "none"), ("key files", "one for each person: " + ", ".join(named))]
    else:
        rows.append(("clients", "programs on this computer only; to allow other computers, see `keygen` and --keys"))
    key = " --key FILE" if keys else ""
    rows += [
        ("connect", f"Blender: address {reachable}{' and your key file' if keys else ''}"),
        ("", f"shell:   python -m sdf_backend status --address {reachable}{key}"),
        ("stop", STOP_HELP),
    ]
    if machines:
        rows.insert(-1, ("machines", f"python -m sdf_backend work --join {_reachable(machines)}{key}"))
    _print_rows(rows)


def _print_ready(state: Status) -> None:
    models = [f"{model.name} (unusable: {model.problem})" if model.problem else model.name for model in state.models]
    devices = sorted({worker.device for worker in state.workers})
    _print_rows([("devices", ", ".join(devices)), ("models", ", ".join(models) or "none; see --models")])


def _print_rows(rows: list[tuple[str, str]]) -> None:
    for name, text in rows:
        stdout.print(f"{name:<10} {text}", soft_wrap=True)
    stdout.file.flush()


# --- status ------------------------------------------------------------------------------------------------------


def _ask_status(address: str, key: Path | None) -> Status:
    try:
        with Client(address, key, name="status") as client:
            return client.wait_status(STATUS_SECONDS)
    except ClientError as error:
        raise InputError(f"{error}") from None


def _print_status(state: Status) -> None:
    stdout.print(
        f"{state.software}, up {_duration(state.uptime)}, {_size(state.memory_bytes)}; "
        f"{state.clients} clients, {state.queued} jobs queued, {state.running} running; since the start "
        f"{state.done} done, {state.failed} failed, {state.cancelled} cancelled, {state.refused} answered busy, "
        f"{state.malformed} invalid messages, {state.workers_lost} workers lost",
        soft_wrap=True,
    )
    if machines := sorted({worker.name.rpartition(SEPARATOR)[0] for worker in state.workers} - {""}):
        stdout.print(f"joined machines: {', '.join(machines)}", soft_wrap=True)
    workers = Table("worker", "device", "state", "process", "job", "models in memory", "memory", "device memory")
    for worker in state.workers:
        sizes = _size(worker.memory_bytes), _size(worker.device_bytes)
        loaded = ", ".join(worker.models)
        workers.add_row(worker.name, worker.device, worker.state, str(worker.pid), worker.job or "", loaded, *sizes)
    stdout.print(workers)
    models = Table("model", "shapes", "code", "front", "licences", "problem")
    for model in state.models:
        row = model.name, str(model.shapes), str(model.code_length), model.front, ", ".join(model.licences)
        models.add_row(*row, model.problem)
    stdout.print(models)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count else "-"
