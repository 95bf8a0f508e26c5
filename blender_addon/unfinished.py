"""Jobs that outlive Blender: a backend elsewhere goes on with them when Blender closes, and keeps their results.

What it takes to display such a result is kept in a file for each job, in the add-on's own folder until the job has
ended. Not in the .blend file: that may be closed without saving, and a crash saves nothing. A Blender that runs touches
its files; one that nobody touches is of a Blender that has closed, and its result is offered, never displayed unasked.
The jobs of a local backend have no file, since it ends with Blender.
"""

import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from .completions import InPlace
from .fit_request import FitRequest
from .geometry import GeometryError, ObjectGeometry, read_objects
from .preferences import user_folder
from .session import LEFT_SECONDS, Job, session
from .shapes import Asked
from .wire.client import State
from .wire.settings import TaskSettings

# Seconds between two looks at the files, and without a touch until a file is taken to be of a Blender that has closed.
TOUCH_SECONDS, ORPHANED_SECONDS = 5.0, 20.0


@dataclass(frozen=True)
class Record:
    """A job of Complete or Reconstruct, as a file holds it."""

    job: str
    address: str
    task: str
    model: str
    settings: dict[str, Any]
    names: list[str]
    source: str
    digest: str
    """of the geometry that was sent"""
    centre: list[float]
    result_matrix: list[list[float]]


def keep_records() -> None:
    """Have a file for each running job that outlives Blender, and for no other; look for those left by others."""
    running = {job.name: job for job in _running()}
    with suppress(OSError):  # a full disk must not stop the timer
        for name in running.keys() - session.recorded:
            _path(name).write_text(json.dumps(asdict(_record(running[name]))), encoding="utf-8")
        for name in session.recorded - running.keys():
            _path(name).unlink(missing_ok=True)
    session.recorded = set(running)
    if time.monotonic() - session.looked_at >= TOUCH_SECONDS:
        session.looked_at = time.monotonic()
        for name in session.recorded:
            with suppress(OSError):
                os.utime(_path(name))
        session.offered = list(_orphans()) if session.state is State.CONNECTED else []


def fetch(record: Record) -> None:
    """Take over a job of a Blender that has closed: its result is displayed as if it had been asked for here.

    Raises
    ------
    WireError : as `Session.fetch` does
    """
    request = _request(record)
    session.fetch(Job(record.job, request.source, InPlace(record.job, request)))
    session.recorded.add(record.job)
    session.offered.remove(record)


def forget(record: Record) -> None:
    """Offer a job no more; the backend removes its result after a while."""
    _path(record.job).unlink(missing_ok=True)
    session.offered.remove(record)


def is_blender_closing() -> bool:
    """Whether the add-on is disabled because Blender closes: then it disables all. It has no other sign of it."""
    return any(frame.f_code.co_name == "disable_all" for frame, _ in traceback.walk_stack(None))


def _running() -> Iterator[Job]:
    """The jobs that outlive Blender."""
    delivered = (one.job for one in session.deliveries)
    for job in () if session.is_local else chain(session.jobs.values(), delivered):
        if isinstance(job.handler, InPlace):
            yield job


def _orphans() -> Iterator[Record]:
    """The records of this backend that no Blender touches. Those whose result is gone are removed."""
    now = time.time()
    for path in sorted(_folder().glob("*.json")):
        with suppress(OSError, TypeError, ValueError):  # another Blender may have removed it; it may be damaged
            age = now - path.stat().st_mtime
            if age > LEFT_SECONDS:
                path.unlink()
            elif age > ORPHANED_SECONDS:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
                TaskSettings(**record.settings)  # another version of the add-on may have others
                if record.address == session.address and record.job not in session.jobs:
                    yield record


def _record(job: Job) -> Record:
    assert isinstance(job.handler, InPlace)
    request = job.handler.request
    seen = request.observation
    return Record(
        job.name,
        session.address,
        request.task,
        request.model,
        asdict(request.settings),
        list(request.names),
        request.source,
        _digest(seen),
        seen.centre.tolist(),
        seen.result_matrix.tolist(),
    )


def _request(record: Record) -> FitRequest:
    """The request of a record; with the geometry that was sent, if the scene still has it."""
    place = ObjectGeometry(
        np.zeros((0, 3), "<f4"), None, np.array(record.centre), np.array(record.result_matrix, dtype=np.float64)
    )
    settings = TaskSettings(**record.settings)
    request = FitRequest(record.task, record.model, settings, tuple(record.names), record.source, place, Asked.now())
    scene = bpy.context.scene
    with suppress(GeometryError, KeyError):
        objects = [scene.objects[name] for name in record.names] if scene else []
        seen = read_objects(objects, bpy.context.evaluated_depsgraph_get())
        if _digest(seen) == record.digest:
            return replace(request, observation=seen, kept_uid=objects[0].session_uid)
    return request


def _digest(geometry: ObjectGeometry) -> str:
    """Tells whether geometry, and where it stands, is that which was sent."""
    arrays = (geometry.vertices, geometry.faces, geometry.centre, geometry.result_matrix)
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(b"-" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _folder() -> Path:
    return user_folder("jobs")


def _path(job: str) -> Path:
    return _folder() / f"{job}.json"
