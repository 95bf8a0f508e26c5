"""Overhead of the wire: the round trip of an echo job, compared to a bare ZeroMQ echo of the same bytes.

    python -m benchmarks.wire

A job goes client -> server -> worker and back, is validated on the way (sizes, types, NaN, faces) and answered with the
same arrays. The bare echo is a ROUTER in another process that returns all frames unread. The two alternate, so that a
busy machine slows both.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import zmq
from rich.table import Table

from benchmarks.backend import connected, running_backend
from benchmarks.shared import show
from benchmarks.square import wavy_square
from sdf_backend.serving.server_keys import load_keys, make_keys
from sdf_backend.wire.client import Client, new_job
from sdf_backend.wire.codec import encode
from sdf_backend.wire.messages import Source, Submit

# Vertices along each side of the mesh.
SIDE = 1000


def main(
    empty: Annotated[int, typer.Option(help="round trips of an empty job")] = 300,
    large: Annotated[int, typer.Option(help="round trips of the mesh")] = 20,
) -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        server, own = make_keys(Path(folder) / "keys")
        for keys, key in ((None, None), (server.parent, own)):
            options = ("--keys", keys) if keys else ()
            with (
                running_backend("--device", "cpu", "--cache-mib", "0", *options) as address,
                connected(address, key) as client,
                _bare_echo(keys) as bare,
            ):
                for name, sources, count in (
                    ("empty job", (), empty),
                    ("1,000,000 vertices", (Source(*wavy_square(SIDE)),), large),
                ):
                    row = {"message": name, "curve": bool(keys), **_compare(client, bare, sources, count)}
                    rows.append(row)
    table = Table("message", "CURVE", "bytes each way", "bare echo", "echo job", "overhead", "ratio")
    for row in rows:
        bare_ms, job_ms = 1000 * row["bare"], 1000 * row["job"]
        texts = [f"{bare_ms:.2f} ms", f"{job_ms:.2f} ms", f"{job_ms - bare_ms:.2f} ms", f"{job_ms / bare_ms:.2f}"]
        table.add_row(row["message"], "yes" if row["curve"] else "no", f"{row['bytes']:,}", *texts)
    show(table, rows, "wire")


def _compare(client: Client, bare: zmq.Socket, sources: tuple[Source, ...], count: int) -> dict:
    """Median seconds of a round trip of each kind, measured alternately; the first of each is a warm-up."""
    frames = encode(Submit(new_job(), "echo", sources=sources))

    def job() -> None:
        result = client.run(Submit(new_job(), "echo", sources=sources))
        assert len(result.sources) == len(sources)

    def echo() -> None:
        bare.send_multipart(frames, copy=False)
        assert len(bare.recv_multipart(copy=False)) == len(frames)

    times = np.array([(_seconds(echo), _seconds(job)) for _ in range(count + 1)])[1:]
    bare_seconds, job_seconds = np.median(times, axis=0).tolist()
    return {"bytes": sum(memoryview(frame).nbytes for frame in frames), "bare": bare_seconds, "job": job_seconds}


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@contextmanager
def _bare_echo(keys: Path | None) -> Iterator[zmq.Socket]:
    """Yield a DEALER connected to the bare echo, encrypted if there are keys."""
    mine, theirs = multiprocessing.Pipe()
    pair = load_keys(keys) if keys else None
    process = multiprocessing.get_context("spawn").Process(target=_echo, args=(theirs, pair.secret if pair else None))
    process.start()
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    if pair:
        public, secret = zmq.curve_keypair()
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = pair.public, public, secret
    socket.connect(mine.recv())
    try:
        yield socket
    finally:
        process.kill()
        process.join()
        context.destroy(linger=0)


def _echo(announce: Connection, secret: bytes | None) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    if secret:
        socket.curve_server, socket.curve_secretkey = True, secret
    announce.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    while True:
        socket.send_multipart(socket.recv_multipart(copy=False), copy=False)


if __name__ == "__main__":
    typer.run(main)
