"""Shared by the tests in a real Blender: an empty scene, the add-on, and a scripted backend in a thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
import zmq
from fake_server import FakeServer

from blender_addon import timer, unfinished
from blender_addon.blending import blend_along_path
from blender_addon.completions import submit_fit
from blender_addon.fit_request import read_request
from blender_addon.session import session
from blender_addon.shapes import Asked
from blender_addon.wire.settings import TaskSettings
from sdf_backend.wire.messages import (
    Accepted,
    Cancel,
    ModelInfo,
    Progress,
    Result,
    Shape,
    StatusRequest,
    Submit,
    Welcome,
)

ADDON = "blender_addon"
Answer = Callable[[Submit], list[Any]]


CODE = np.arange(1.0, 5.0)
# The shape of every code of the scripted model, in its canonical frame; no two of its sides are equal.
WEDGE = np.array([[-1, -1, -1], [1, -1, -1], [-1, 0.5, -1], [-1, -1, 2]], "<f4") / 3
REFINEMENT = np.array([[17, 0.25], [1_000_001, -0.5]], "<f4")
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], "<i4")


def exact(submit: Submit) -> list[Any]:
    """The answer of an exact model: a source is returned unchanged, and a code as a wedge at its pose."""
    return [Accepted(submit.job), Progress(submit.job, "fitting", 0.5), Result(submit.job, tuple(_shapes(submit)))]


def _shapes(submit: Submit) -> Iterator[Shape]:
    match submit.task:
        case "complete" | "reconstruct":
            source = submit.sources[0]
            faces = np.zeros((1, 3), "<i4") if source.faces is None else source.faces
            observed = np.linspace(0, 1, len(source.vertices), dtype="<f4")
            for number in range(submit.settings.candidates):
                code, deviation = (CODE + number)[None], observed / 4
                yield Shape(
                    source.vertices, faces, code, np.eye(4)[None], observed, REFINEMENT, deviation, explained=1.0
                )
        case "encode":
            for number, source in enumerate(submit.sources):
                pose = np.diag([*(np.ptp(source.vertices, axis=0).max(),) * 3, 1])
                yield Shape(np.zeros((0, 3)), FACES[:0], (CODE + number)[None], pose[None])
        case "interpolate":
            assert submit.codes is not None and submit.poses is not None
            for position in np.linspace(0, 1, submit.count):
                shape = wedge(*blend_along_path(submit.codes, submit.poses, position))
                yield replace(shape, refinement=REFINEMENT) if position in (0, 1) else shape
        case "decode":
            count = len(submit.weights if submit.codes is None else submit.codes)
            codes = np.tile(CODE, (count, 1)) if submit.codes is None else submit.codes
            poses = np.tile(np.eye(4), (count, 1, 1)) if submit.poses is None else submit.poses
            moves = np.zeros((count, 1)) if submit.weights is None else submit.weights
            for code, pose, move in zip(codes, poses, moves, strict=True):
                yield wedge(code + move.sum(), pose)
        case "sample":
            assert submit.poses is not None
            start = CODE if submit.codes is None else submit.codes[0]
            for number in range(submit.count):
                yield wedge(start + number, submit.poses[0])


def wedge(code: np.ndarray, pose: np.ndarray) -> Shape:
    """The shape that the scripted model makes of a code at a pose."""
    return Shape(WEDGE @ pose[:3, :3].T + pose[:3, 3], FACES, code[None], pose[None])


WELCOME = Welcome("fake 1.0", models=(ModelInfo("cubes"), ModelInfo("bad", problem="damaged")))


class Backend:
    """Answers each submission by `answer`. Its thread never touches bpy."""

    def __init__(self, welcome: Any = WELCOME) -> None:
        self.answer: Answer = exact
        self.requests: list[Any] = []
        self.kept: dict[str, Any] = {}
        """the last message of a job, for a client that asks for it"""
        self._stopped, self._unsolicited = False, []
        self._server = FakeServer()
        self._server.welcome = welcome
        self.address = self._server.address
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            self._server.step()
            while self._unsolicited:
                self._server.send(self._unsolicited.pop(0))
            while self._server.requests:
                request = self._server.requests.pop(0)
                self.requests.append(request)
                if isinstance(request, Submit):
                    with suppress(
                        zmq.ZMQError
                    ):  # the add-on may have been disabled in the meantime, or this backend stopped
                        self._server.send(*self.answer(request))
                if isinstance(request, StatusRequest) and request.job in self.kept:
                    self._server.send(self.kept[request.job])
            time.sleep(0.002)

    @property
    def secrets(self) -> set[str]:
        """Those of all greetings."""
        return set(self._server.secrets)

    def say(self, *messages: Any) -> None:
        """Send messages now."""
        self._unsolicited += messages

    @property
    def cancelled(self) -> list[str]:
        return [request.job for request in self.requests if isinstance(request, Cancel)]

    def stop(self) -> None:
        """Close the socket; an answer may call it."""
        self._stopped = True
        self._server.socket.close(0)

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self._server.close()


@pytest.fixture(autouse=True)
def empty_scene() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the records of running jobs; in a Blender that the user has, it is in that one's folder."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setattr(unfinished, "user_folder", lambda name: folder)
    return folder


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.close()


@pytest.fixture
def addon() -> Iterator[Any]:
    """The add-on, enabled as by a user."""
    bpy.ops.preferences.addon_enable(module=ADDON)
    yield bpy.context.preferences.addons[ADDON].preferences
    bpy.ops.preferences.addon_disable(module=ADDON)


@pytest.fixture
def connected(addon: Any, backend: Backend) -> Backend:
    addon.address, addon.model = backend.address, "cubes"
    assert bpy.ops.sdf.connect() == {"FINISHED"}
    return backend


def cube(**place: Any) -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add(**place)
    return bpy.context.object


def world(item: bpy.types.Object) -> np.ndarray:
    bpy.context.view_layer.update()
    return np.array([item.matrix_world @ vertex.co for vertex in item.data.vertices])


def result() -> bpy.types.Object:
    [item] = bpy.data.collections["SDF Shapes"].objects
    return item


def until(condition: Callable[[], object], step: Callable[[], object] = timer.work, seconds: float = 60.0) -> None:
    """Repeat a step until a condition holds. `seconds` is generous, since only a failing test waits for all of it."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come to hold"
        step()
        time.sleep(0.005)


def idle() -> bool:
    """Whether all jobs have ended and are displayed, and no slider is being followed."""
    return not session.jobs and not session.deliveries and not session.sliders.moved_at


def submissions(backend: Backend) -> list[Submit]:
    return [request for request in backend.requests if isinstance(request, Submit)]


def two_cubes() -> tuple[bpy.types.Object, bpy.types.Object]:
    left, right = cube(location=(-4, 0, 1)), cube(location=(4, 2, 1), scale=(2, 2, 2), rotation=(0, 0, 1))
    left.name, right.name = "Left", "Right"
    left.select_set(True)
    return left, right


def submit_completion() -> str:
    """Submit a job as the operator does, which in background mode would wait for its end; returns its name."""
    before = set(session.jobs)
    submit_fit(read_request("complete", "cubes", TaskSettings(keep="input"), [bpy.context.object], Asked.now()))
    [name] = set(session.jobs) - before
    return name
