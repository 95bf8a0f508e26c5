"""Clients of version 0.1 with the present server: their messages, byte for byte, and the fields of the replies."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from backend_process import Backend, half_sphere, until

# As the clients of version 0.1.0 send them: all fields, in their order, without spaces.
HELLO = b'{"kind":"hello","client":"old","software":"sdf-shapes 0.1.0","arrays":[]}'
SETTINGS = (
    '{"resolution":32,"pose":"known","up":"+z","front":"-y","quality":"preview","seed":0,"refine":1.0,"candidates":1}'
)
SUBMIT = (
    '{"kind":"submit","job":"%s","task":"%s","model":"spheres","settings":%s,'
    '"sources":%s,"codes":null,"poses":null,"weights":null,"refinements":[],"count":%d,"spread":0.0,"keep":600.0,'
    '"arrays":%s}'
)
SOURCE = '[{"vertices":{"array":0},"faces":null,"normals":null,"sensor":null}]'
STATUS = b'{"kind":"status","job":null,"arrays":[]}'


@pytest.fixture(scope="module")
def backend(models_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with Backend(tmp_path_factory.mktemp("old"), "--models", models_folder, "--device", "cpu") as backend:
        yield backend
    assert "Traceback" not in backend.log()


class OldClient:
    """Sends recorded frames, and parses replies as plain JSON."""

    def __init__(self, backend: Backend) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(backend.address)
        self.received: list[tuple[dict[str, Any], list[bytes]]] = []

    def send(self, header: bytes, *arrays: bytes) -> None:
        self.socket.send_multipart([b"SDF1", header, *arrays])

    def reply(self, *kinds: str) -> tuple[dict[str, Any], list[bytes]]:
        """Wait for the next reply of one of these kinds."""

        def found() -> tuple[dict[str, Any], list[bytes]] | None:
            while self.socket.poll(20):
                first, header, *arrays = self.socket.recv_multipart()
                assert first == b"SDF1"
                content = json.loads(header)
                if content["kind"] in kinds:
                    return content, arrays
            return None

        return until(found, f"a reply of kind {kinds}")


@pytest.fixture
def client(backend: Backend) -> Iterator[OldClient]:
    client = OldClient(backend)
    yield client
    client.socket.close()


def submission(
    job: str, task: str, *, settings: str = SETTINGS, sources: str = "[]", count: int = 1, arrays="[]"
) -> bytes:
    return (SUBMIT % (job, task, settings, sources, count, arrays)).encode()


def test_an_old_greeting_is_answered_with_the_same_fields(client: OldClient) -> None:
    client.send(HELLO)
    hello, arrays = client.reply("hello")
    assert set(hello) >= {"kind", "software", "limits", "models", "devices", "silence", "arrays"}
    assert set(hello["limits"]) >= {"header_bytes", "frame_bytes", "message_bytes", "frames", "sources", "points"}
    assert set(hello["limits"]) >= {"faces", "resolution", "shapes", "queue", "client_queue", "job_seconds"}
    assert arrays == []


def test_an_old_job_is_completed_with_the_same_fields(client: OldClient) -> None:
    points = half_sphere(500).astype("<f8")
    arrays = json.dumps([{"dtype": "<f8", "shape": list(points.shape)}])
    client.send(submission("old-job-0001", "complete", sources=SOURCE, arrays=arrays), points.tobytes())
    accepted, _ = client.reply("accepted", "error")
    assert accepted == {"kind": "accepted", "job": "old-job-0001", "position": 0, "arrays": []}
    progress, _ = client.reply("progress")
    assert set(progress) == {"kind", "job", "phase", "fraction", "preview", "arrays"}
    result, frames = client.reply("result", "error")
    assert set(result) == {"kind", "job", "shapes", "sources", "cached", "arrays"}, result
    [shape] = result["shapes"]
    assert set(shape) >= {"vertices", "faces", "code", "pose", "observed", "refinement", "deviation", "residual"}
    assert set(shape) >= {"explained", "confidence", "steps", "seconds"}
    vertices = shape["vertices"]["array"]
    assert result["arrays"][vertices]["dtype"] == "<f8"
    count, columns = result["arrays"][vertices]["shape"]
    coordinates = struct.unpack(f"<{count * columns}d", frames[vertices])
    assert max(map(abs, coordinates)) == pytest.approx(0.5, abs=0.06)


def test_an_old_client_sees_the_status(client: OldClient) -> None:
    client.send(STATUS)
    status, _ = client.reply("status")
    counts = {"queued", "running", "done", "failed", "cancelled", "refused", "malformed", "workers_lost", "clients"}
    assert set(status) >= counts | {"software", "uptime", "workers", "models", "memory_bytes", "limits"}
    [worker] = status["workers"]
    assert set(worker) >= {"name", "device", "state", "pid", "job", "models", "memory_bytes", "device_bytes"}
    assert worker["state"] in ("starting", "idle", "running")


def test_an_old_client_cancels_a_job(client: OldClient) -> None:
    settings = SETTINGS.replace('"resolution":32', '"resolution":96')
    client.send(submission("old-job-0002", "sample", settings=settings, count=64))
    client.reply("progress")
    client.send(b'{"kind":"cancel","job":"old-job-0002","arrays":[]}')
    cancelling, _ = client.reply("cancel")
    assert cancelling == {"kind": "cancel", "job": "old-job-0002", "state": "running", "arrays": []}
    error, _ = client.reply("error")
    assert (error["job"], error["code"]) == ("old-job-0002", "cancelled")
    assert set(error) == {"kind", "code", "message", "job", "arrays"}
    client.send(b'{"kind":"status","job":"old-job-0002","arrays":[]}')
    assert client.reply("error")[0]["code"] == "cancelled"


@pytest.mark.parametrize(
    ("job", "change", "code"),
    [
        ("old-job-0003", ('"resolution":32', '"resolution":8'), "bad_value"),
        ("old-job-0004", ('"resolution":32', '"resolution":600'), "limit"),
        ("old-job-0005", ('"seed":0', '"seed":-1'), "bad_value"),
        ("old-job-0006", ('"pose":"known"', '"pose":"sideways"'), "bad_value"),
    ],
)
def test_bad_settings_of_an_old_client_get_the_codes_of_the_protocol(
    client: OldClient, job: str, change: tuple[str, str], code: str
) -> None:
    client.send(submission(job, "sample", settings=SETTINGS.replace(*change)))
    error, _ = client.reply("error")
    assert (error["job"], error["code"]) == (job, code)
