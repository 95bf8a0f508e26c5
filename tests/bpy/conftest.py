"""What the tests in a real Blender share: an empty scene, the add-on, and a scripted backend in a thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import bpy
import numpy as np
import pytest
import zmq
from fake_server import FakeServer

from sdf_backend.wire.messages import Accepted, Cancel, ModelInfo, Progress, Result, Shape, Submit, Welcome

ADDON = "blender_addon"
Answer = Callable[[Submit], list[Any]]


def exact(submit: Submit) -> list[Any]:
    """The answer of a model that is exact: the source itself comes back."""
    source = submit.sources[0]
    faces = np.zeros((1, 3), "<i4") if source.faces is None else source.faces
    observed = np.linspace(0, 1, len(source.vertices), dtype="<f4")
    shape = Shape(source.vertices, faces, np.ones((1, 4), "<f4"), np.eye(4)[None], observed)
    return [Accepted(submit.job), Progress(submit.job, "fitting", 0.5), Result(submit.job, (shape,))]


class Backend:
    """Answers each submission as it was told to. Its thread never touches bpy."""

    def __init__(self) -> None:
        self.answer: Answer = exact
        self.requests: list[Any] = []
        self._stopped, self._unasked = False, []
        self._server = FakeServer()
        self._server.welcome = Welcome("fake 1.0", models=(ModelInfo("cubes"), ModelInfo("bad", problem="damaged")))
        self.address = self._server.address
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            self._server.step()
            while self._unasked:
                self._server.send(self._unasked.pop(0))
            while self._server.requests:
                request = self._server.requests.pop(0)
                self.requests.append(request)
                if isinstance(request, Submit):
                    with suppress(zmq.ZMQError):  # the add-on may have been switched off meanwhile
                        self._server.send(*self.answer(request))
            time.sleep(0.002)

    def say(self, *messages: Any) -> None:
        """Send something that nobody has just asked for."""
        self._unasked += messages

    @property
    def cancelled(self) -> list[str]:
        return [request.job for request in self.requests if isinstance(request, Cancel)]

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self._server.close()


@pytest.fixture(autouse=True)
def empty_scene() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.close()


@pytest.fixture
def addon() -> Iterator[Any]:
    """The add-on, switched on as a user does it."""
    bpy.ops.preferences.addon_enable(module=ADDON)
    yield bpy.context.preferences.addons[ADDON].preferences
    bpy.ops.preferences.addon_disable(module=ADDON)
