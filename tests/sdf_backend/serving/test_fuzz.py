"""Fuzzing: whatever is sent, the server keeps running, its memory does not grow, and valid jobs are served.

Hypothesis makes well-framed messages with any content; a mutator damages bytes, tokens and frames of these and of
valid messages. SDF_FUZZ_MESSAGES is the number of messages; for a million:

    SDF_FUZZ_MESSAGES=1000000 python -m pytest -s tests/sdf_backend/serving/test_fuzz.py
"""

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from backend_process import PATIENCE, QUICK, Backend, complete, half_sphere
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.settings import TaskSettings
from sdf_backend.wire.codec import FIRST_FRAME, KNOWN_DTYPES, decode, encode
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import (
    REPLIES,
    Accepted,
    Cancel,
    Error,
    Hello,
    Limits,
    Result,
    Source,
    StatusRequest,
    Submit,
    Task,
)

MESSAGES = int(os.environ.get("SDF_FUZZ_MESSAGES", "20000"))
MUTANTS = 49
# Permitted growth: memory of the jobs of the last seconds varies.
GROWTH, SLACK = 1.05, 8 << 20
# Longer than the interval of the heartbeat of a worker, which reports its memory.
HEARD = 1.5
SETTINGS = settings(max_examples=MESSAGES // (1 + MUTANTS), database=None)


# --- messages ---

CODES, POSES = np.zeros((2, 3), np.float32), np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
FACES = np.array([[0, 1, 2], [2, 3, 0]], np.int32)
VALID = [
    Hello("stranger", "1.0"),
    Cancel("job-00000000"),
    StatusRequest(),
    StatusRequest("job-00000000"),
    Submit("job-00000000", "echo", sources=(Source(half_sphere(50), FACES),), keep=0.1),
    Submit("job-00000001", "sample", "spheres", QUICK, keep=0.1),
    Submit("job-00000002", "complete", "spheres", QUICK, (Source(half_sphere(150)),), keep=0.1),
    Submit("job-00000003", "decode", "spheres", QUICK, codes=CODES, poses=POSES, keep=0.1),
    Submit("job-00000004", "interpolate", "nowhere", TaskSettings(16), codes=CODES, count=2, keep=0.1),
    Submit("job-00000005", "encode", "spheres", QUICK, (Source(half_sphere(150)),), keep=0.1),
    Submit("job-00000006", "decode", "spheres", QUICK, codes=CODES, weights=CODES[:, :2], keep=0.1),
    Submit("job-00000007", "sample", "spheres", QUICK, codes=CODES[:1], poses=POSES[:1], spread=0.5, keep=0.1),
    Accepted("job-00000000"),
    Error(ErrorCode.VERSION, "an error"),
]
WORDS = ["kind", "job", "task", "model", "settings", "sources", "codes", "poses", "count", "keep", "arrays", "array"]
WORDS += ["weights", "spread"]
WORDS += ["vertices", "faces", "normals", "sensor", "dtype", "shape", "resolution", "pose", "quality", "seed", "client"]
WORDS += ["hello", "submit", "cancel", "status", "job-00000000", "spheres", *Task, *KNOWN_DTYPES]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
    | st.builds(lambda index: {"array": index}, st.integers(-1, 3)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=9), inner),
    max_leaves=12,
)
HEADERS = st.dictionaries(st.sampled_from(WORDS), JSON, max_size=8)
KINDS = st.sampled_from(["hello", "submit", "cancel", "status"])
BUILT = st.builds(
    lambda kind, header, arrays: [FIRST_FRAME, json.dumps(header | {"kind": kind}).encode(), *arrays],
    KINDS,
    HEADERS,
    st.lists(st.binary(max_size=64), max_size=3),
)
RANDOM = st.lists(st.binary(max_size=200), min_size=1, max_size=5)
TOKEN = re.compile(rb'-?[0-9.]+|"[^"]*"|true|false|null|[][{}]')
BITS = [b"NaN", b"-1", b"1e999", b"null", b"[]", b"{}", b"true", b'"\\ud800"', b"0", b"9" * 30, b'{"array":0}', b'""']


def mutated(frames: list[bytes], rng: random.Random) -> list[bytes]:
    """A damaged copy of a message."""
    copy = [bytes(frame) for frame in frames]
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        # The rest of a message with an invalid first frame is not read.
        index = rng.randrange(len(copy)) if rng.random() < 0.2 else rng.randrange(min(1, len(copy) - 1), len(copy))
        if rng.random() < 0.25:
            _damage_frames(copy, index, rng)
        elif index == 1 and rng.random() < 0.7:
            copy[index] = _other_token(copy[index], rng)
        else:
            copy[index] = _other_bytes(copy[index], rng)
    return copy


def _damage_frames(frames: list[bytes], index: int, rng: random.Random) -> None:
    match rng.randrange(4):
        case 0:
            frames.insert(index, frames[index])
        case 1 if len(frames) > 1:
            del frames[index]
        case 2:
            frames[index] = rng.choice([bytes(frame) for frame in encode(rng.choice(VALID))])
        case _:
            rng.shuffle(frames)


def _other_token(text: bytes, rng: random.Random) -> bytes:
    places = list(TOKEN.finditer(text))
    if not places:
        return rng.choice(BITS)
    place = rng.choice(places)
    word = json.dumps(rng.choice(WORDS)).encode()
    return text[: place.start()] + rng.choice([word, word, *BITS]) + text[place.end() :]


def _other_bytes(text: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.choice((0, 1, 1, 4, 40)))
    return text[:start] + rng.randbytes(rng.choice((0, 1, 1, 4, 9))) + text[end:]


# --- clients ---


class Stranger:
    """A DEALER that sends any frames, and checks that each reply is a message."""

    def __init__(self, backend: Backend) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(backend.address)
        self.sent, self.replies, self._number = 0, Counter(), 0

    def send(self, frames: list[bytes]) -> None:
        self.socket.send_multipart(frames)
        self.sent += 1

    def catch_up(self) -> None:
        """Wait until the server has dealt with all that was sent: it answers in the order in which it is asked."""
        self._number += 1
        name = f"sync{self._number:012d}"
        self.socket.send_multipart(encode(Cancel(name)))
        while True:
            assert self.socket.poll(int(1000 * PATIENCE)), "the server does not answer any more"
            reply = decode(self.socket.recv_multipart(), REPLIES, Limits())
            if isinstance(reply, Error):
                assert reply.code in list(ErrorCode)
                if reply.job == name:
                    return
            self.replies[getattr(reply, "code", reply.kind)] += 1


class Bystander:
    """A client that always waits for one job, each time checked to be done."""

    def __init__(self, backend: Backend) -> None:
        self.client, self.served, self.slowest = backend.client("bystander"), 0, 0.0
        self._submit()

    def _submit(self) -> None:
        self.job, self.since = self.client.send(complete()), time.monotonic()

    def look(self) -> None:
        ends = [event for event in self.client.poll() if isinstance(event, Result | Error)]
        waited = time.monotonic() - self.since
        assert waited < PATIENCE, "a valid job is not served any more"
        for end in ends:
            assert isinstance(end, Result), end
            assert len(end.shapes[0].vertices) > 100
            self.served, self.slowest = self.served + 1, max(self.slowest, waited)
            self._submit()


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    options = ["--models", models_folder, "--device", "cpu"]
    # A mutant that is a valid job should not keep the worker for long.
    for limit in ("resolution=40", "shapes=4", "client_queue=4", "job_seconds=20", "keep_seconds=2"):
        options += ["--limit", limit]
    with Backend(tmp_path_factory.mktemp("fuzz"), *options) as backend:
        backend.until_idle()
        yield backend
    assert "Traceback" not in backend.log()
    assert " internal error " not in backend.log()


def memory(backend: Backend) -> tuple[int, int]:
    state = backend.status()
    return state.memory_bytes, state.workers[0].memory_bytes


def memory_at_rest(backend: Backend) -> tuple[int, int]:
    """The memory of idle processes, since running jobs need memory too."""
    backend.until_idle()
    time.sleep(HEARD)
    return memory(backend)


def test_the_server_survives_any_message_and_serves_valid_jobs(backend: Backend) -> None:
    assert backend.process
    stranger, bystander = Stranger(backend), Bystander(backend)
    valid = [[bytes(frame) for frame in encode(message)] for message in VALID]
    start = time.monotonic()
    pid, history, at_rest = backend.process.pid, [], []

    @SETTINGS
    @given(BUILT | BUILT | BUILT | RANDOM, st.integers(0, 2**32))
    def tried(frames: list[bytes], seed: int) -> None:
        rng = random.Random(seed)
        stranger.send(frames)
        for _ in range(MUTANTS):
            stranger.send(mutated(rng.choice([frames, *valid]), rng))
        stranger.catch_up()
        bystander.look()
        if stranger.sent >= len(history) * MESSAGES / 20:
            history.append(memory(backend))
        # The first tenth fills buffers and caches.
        if not at_rest and stranger.sent >= MESSAGES / 10:
            at_rest.append(memory_at_rest(backend))

    tried()
    at_rest.append(memory_at_rest(backend))
    last = backend.status()
    print(f"\n{stranger.sent:,} messages in {time.monotonic() - start:.0f} s; answers: {dict(stranger.replies)}")
    print(f"{bystander.served} valid jobs served, the slowest in {bystander.slowest:.1f} s")
    print("server, worker MiB:", *(f"{server >> 20},{worker >> 20}" for server, worker in [*history, *at_rest]))
    stranger.socket.close()
    bystander.client.close()
    assert stranger.sent >= 0.9 * MESSAGES
    assert backend.process.poll() is None
    assert backend.process.pid == pid
    assert last.workers_lost == 0
    assert last.malformed > stranger.sent / 4
    assert bystander.served > 0
    for before, after in zip(*at_rest, strict=True):
        assert after < GROWTH * before + SLACK
