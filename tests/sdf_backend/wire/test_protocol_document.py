"""PROTOCOL.md is complete: it lists what the code has, and its example runs against a real server."""

import itertools
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import zmq

from sdf_backend.wire import messages
from sdf_backend.wire.codec import KNOWN_DTYPES, LARGEST_INTEGER, LONGEST_TEXT, VERSION, _hints
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.keys import SERVER_KEY
from sdf_backend.wire.messages import FLOATS, REPLIES, REQUESTS, ArraySpec, Task

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
PARTS = ("TaskSettings", "Source", "Limits", "ModelInfo", "Preview", "Shape", "WorkerInfo")

# --- the document agrees with the code ------------------------------------------------------------------------


def section(heading: str) -> str:
    """The text under a heading."""
    [found] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return found


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose first heading is `first`."""
    lines = text[text.index(f"| {first} |") :].splitlines()
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table][2:]


def type_name(hint: Any) -> str:
    """The name of a type in the document."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        [name] = {type_name(option) for option in arguments if option is not NoneType}
        return f"{name} or null" if NoneType in arguments else name
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, ArraySpec):
            lengths = ", ".join("*" if length is None else str(length) for length in extra.shape)
            return f"{'floats' if extra.dtypes == FLOATS else 'integers'} ({lengths})"
    if origin is tuple:
        return f"list of {type_name(arguments[0])}" if Ellipsis in arguments else "three numbers"
    if origin is dict:
        return "object of numbers"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return "text"
    return {str: "text", int: "integer", float: "number", bool: "boolean"}.get(hint) or hint.__name__


def default_of(field: Field[Any]) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "required"
    value = field.default if field.default_factory is MISSING else {}
    return f"`{json.dumps({} if is_dataclass(value) else value)}`"


HEADINGS = {
    **{f"`{kind}`, to the server": REQUESTS[kind] for kind in REQUESTS},
    **{f"`{kind}`, from the server": REPLIES[kind] for kind in REPLIES},
    **{name: getattr(messages, name) for name in PARTS},
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_each_message_is_listed_with_fields_types_and_defaults(heading: str) -> None:
    kind = HEADINGS[heading]
    listed = [(name, of, default) for name, of, default, *_ in rows(section(heading), "field")]
    assert listed == [
        (f"`{field.name}`", type_name(_hints(kind)[field.name]), default_of(field)) for field in fields(kind)
    ]


def test_nothing_is_listed_that_the_code_does_not_have() -> None:
    headings = re.findall(r"^####? (.+)$", TEXT, re.MULTILINE)
    assert sorted(headings) == sorted(HEADINGS)
    dataclasses = {name for name, thing in vars(messages).items() if is_dataclass(thing) and isinstance(thing, type)}
    messages_and_parts = {kind.__name__ for kind in HEADINGS.values()}
    assert dataclasses - messages_and_parts == {"ArraySpec"}


def test_each_error_code_and_task_is_listed() -> None:
    table = rows(section("`error`, from the server"), "code")
    assert tuple(code.strip("`") for code, *_ in table) == tuple(ErrorCode)
    assert all(meaning for _, meaning, *_ in table)
    assert tuple(task.strip("`") for task, *_ in rows(section("`submit`, to the server"), "task")) == tuple(Task)


def test_the_backend_uses_error_codes_by_their_enum() -> None:
    literals = [
        f"{path.name}: {call}"
        for path in (ROOT / "sdf_backend").rglob("*.py")
        for call in re.findall(
            r"""\b(?:WireError|Error|encode_error|ClientError|Termination)\(\s*"\w+""", path.read_text(encoding="utf-8")
        )
    ]
    assert literals == []


def test_each_limit_of_the_format_is_listed() -> None:
    assert all(f"`{dtype}`" in TEXT for dtype in KNOWN_DTYPES)
    assert f"at most {LONGEST_TEXT} characters" in TEXT
    assert LARGEST_INTEGER == 2**53 and "2^53" in TEXT
    assert f"`SDF{VERSION}`" in TEXT and f"version {VERSION}" in TEXT
    assert messages.JOB_PATTERN.pattern == "[A-Za-z0-9_-]{8,64}"
    assert "8 to 64 letters, digits, hyphens and underscores" in TEXT
    assert f"{SERVER_KEY} = " in section("Keys")


# --- a client of another make: zmq and json only -------------------------------------------------

# A loaded computer may take long to start a worker, which loads torch.
SECONDS = 120.0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as an operator starts it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "sdf_backend", "serve", "--bind", f"tcp://127.0.0.1:{port}", "--device", "cpu"]
    command += ["--cache", str(folder / "cache")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield f"tcp://127.0.0.1:{port}"
        assert server.poll() is None, (folder / "log").read_text()
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


class Stranger:
    """A client as PROTOCOL.md describes it."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(address)

    def send(self, header: Any, *arrays: bytes, first: bytes = b"SDF1") -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.socket.send_multipart([first, text, *arrays])

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        give_up = time.monotonic() + SECONDS
        while not self.socket.poll(2000):
            assert time.monotonic() < give_up, "no answer"
            self.send({"kind": "hello"})
        first, header, *arrays = self.socket.recv_multipart()
        assert first == b"SDF1"
        return json.loads(header), arrays

    def next_of(self, *kinds: str) -> tuple[dict[str, Any], list[bytes]]:
        """The next message of one of the kinds; others are ignored."""
        while True:
            header, arrays = self.receive()
            if header["kind"] in kinds:
                return header, arrays

    def submit(self, job: str, **content: Any) -> None:
        header = {"kind": "submit", "job": job, "task": "echo", "sources": [{"vertices": {"array": 0}}], **content}
        self.send({**header, "arrays": [{"dtype": "<f4", "shape": [3, 3]}]}, TRIANGLE)


TRIANGLE = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)


@pytest.fixture
def stranger(address: str) -> Iterator[Stranger]:
    with zmq.Context() as context:
        stranger = Stranger(context, address)
        yield stranger
        stranger.socket.close()


def test_the_example_of_the_document_runs(address: str, stranger: Stranger) -> None:
    stranger.submit("warm-up-0001")
    stranger.next_of("result")  # a worker is there
    [example] = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert "sdf_backend" not in example
    finished = subprocess.run(
        [sys.executable, "-c", example.replace("tcp://127.0.0.1:5577", address)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert finished.returncode == 0, finished.stderr
    *_, last = finished.stdout.splitlines()
    assert "hello" in finished.stdout and "(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)" in last


def test_a_greeting_announces_limits_and_silence(stranger: Stranger) -> None:
    stranger.send({"kind": "hello", "client": "stranger", "a field of a later version": [1, 2, 3]})
    header, arrays = stranger.next_of("hello")
    assert set(header["limits"]) == set(asdict(messages.Limits())) and header["silence"] > 0 and arrays == []


def test_a_repeated_submission_is_one_job_which_another_client_can_request(stranger: Stranger, address: str) -> None:
    stranger.submit("stranger-0001")
    assert stranger.receive()[0]["kind"] == "accepted"
    header, [vertices] = stranger.next_of("result")
    assert header["job"] == "stranger-0001" and vertices == TRIANGLE
    assert header["arrays"] == [{"dtype": "<f4", "shape": [3, 3]}]
    stranger.submit("stranger-0001")
    assert stranger.next_of("accepted", "result")[0]["kind"] == "result"
    with zmq.Context() as context:
        other = Stranger(context, address)
        other.send({"kind": "status", "job": "stranger-0001"})
        assert other.receive()[0]["kind"] == "result"
        other.socket.close()


def test_status_counts_finished_jobs(stranger: Stranger) -> None:
    stranger.submit("stranger-0002")
    stranger.next_of("result")
    stranger.send({"kind": "status"})
    header, _ = stranger.next_of("status")
    assert header["done"] >= 1 and header["workers"][0]["state"] in ("idle", "running")


@pytest.mark.parametrize(
    ("frames", "code", "job"),
    [
        ([b"SDF2", b"{}"], "version", None),
        ([b"HELLO"], "bad_magic", None),
        ([b"SDF1"], "bad_header", None),
        ([b"SDF1", b"{"], "bad_header", None),
        ([b"SDF1", b'{"kind":"dance"}'], "bad_kind", None),
        ([b"SDF1", b'{"kind":"submit","job":"stranger-0003"}'], "bad_value", "stranger-0003"),
        ([b"SDF1", b'{"kind":"hello"}', b"array"], "bad_array", None),
        ([b"SDF1", b'{"kind":"cancel","job":"stranger-9999"}'], "unknown_job", "stranger-9999"),
        ([b"SDF1", b'{"kind":"status","job":"stranger-9999"}'], "unknown_job", "stranger-9999"),
        ([b"SDF1", b" " * (2 << 20)], "too_large", None),
    ],
)
def test_an_invalid_message_is_answered_with_a_code_and_a_sentence(
    stranger: Stranger, frames: list[bytes], code: str, job: str | None
) -> None:
    stranger.socket.send_multipart(frames)
    header, _ = stranger.next_of("error")
    assert (header["code"], header["job"]) == (code, job)
    assert " " in header["message"] and header["message"].isprintable()


def test_nan_and_unknown_models_are_refused(stranger: Stranger) -> None:
    header = {"kind": "submit", "job": "stranger-0004", "task": "echo", "sources": [{"vertices": {"array": 0}}]}
    stranger.send({**header, "arrays": [{"dtype": "<f4", "shape": [1, 3]}]}, struct.pack("<3f", 0, float("nan"), 0))
    assert stranger.next_of("error")[0]["code"] == "not_finite"
    stranger.submit("stranger-0005", task="complete", model="unicorns")
    error, _ = stranger.next_of("error")
    assert error["code"] == "unknown_model" and "unicorns" in error["message"]
    stranger.submit("stranger-0006", task="sample", model="airplanes", sources=[], count=10**6)
    assert stranger.next_of("error")[0]["code"] == "limit"


def test_a_cancelled_job_ends_as_cancelled(stranger: Stranger) -> None:
    """Sixty-four fine shapes take long enough."""
    job = "stranger-0007"
    settings = {"resolution": 256}
    stranger.send(
        {"kind": "submit", "job": job, "task": "sample", "model": "airplanes", "count": 64, "settings": settings}
    )
    header, _ = stranger.next_of("progress", "error")
    assert header["kind"] == "progress", header
    stranger.send({"kind": "cancel", "job": job})
    header, _ = stranger.next_of("cancel")
    assert header["job"] == job and header["state"] in ("running", "finished")
    error, _ = stranger.next_of("error")
    assert (error["job"], error["code"]) == (job, "cancelled")
