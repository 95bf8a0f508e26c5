"""An engine that is elsewhere: the tasks of `engine.py`, done by a backend that is reached over the wire.

with RemoteEngine("tcp://127.0.0.1:5577") as engine:
    [shape] = engine.complete("airplanes", [Source(geometry)], TaskSettings())
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdf_backend.engine import Shape, Source
from sdf_backend.errors import InputError
from sdf_backend.progress import Progress
from sdf_backend.serving.conversion import shape_from_wire, source_to_wire
from sdf_backend.settings import TaskSettings
from sdf_backend.wire import messages as wire
from sdf_backend.wire.client import Client, Event, StateChanged, new_job
from sdf_backend.wire.codec import WireError

# How long a backend is waited for that does not answer, perhaps because it is just being started.
CONNECT_SECONDS = 5.0
WAITING = "waiting"


class RemoteEngine:
    """A connection to a backend, with the tasks of an `Engine` as far as files need them.

    Everything raises `InputError`: for what the backend refuses, and where there is no backend or no answer. Whatever
    else ends a task early, Ctrl-C or an exception of `progress`, cancels its job.
    """

    def __init__(self, address: str, key_file: Path | None = None) -> None:
        with _explained():
            self._client = Client(address, key_file, name="command line")

    def __enter__(self) -> "RemoteEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def complete(
        self, model: str, sources: Sequence[Source], settings: TaskSettings, progress: Progress
    ) -> list[Shape]:
        """See `Engine.complete`."""
        return self._run("complete", model, settings, progress, sources)

    def reconstruct(
        self, model: str, sources: Sequence[Source], settings: TaskSettings, progress: Progress
    ) -> list[Shape]:
        """See `Engine.reconstruct`."""
        return self._run("reconstruct", model, settings, progress, sources)

    def interpolate(
        self, model: str, sources: Sequence[Source], steps: int, settings: TaskSettings, progress: Progress
    ) -> list[Shape]:
        """See `Engine.interpolate`."""
        return self._run("interpolate", model, settings, progress, sources, steps)

    def sample(self, model: str, count: int, settings: TaskSettings, progress: Progress) -> list[Shape]:
        """See `Engine.sample`."""
        return self._run("sample", model, settings, progress, count=count)

    def _run(
        self,
        task: str,
        model: str,
        settings: TaskSettings,
        progress: Progress,
        sources: Sequence[Source] = (),
        count: int = 1,
    ) -> list[Shape]:
        with _explained():
            sent = tuple(map(source_to_wire, sources))
            submit = wire.Submit(new_job(), task, model, settings, sent, count=count)
            self._client.wait_connected(CONNECT_SECONDS)
            result = self._client.run(submit, lambda event: _tell(event, progress))
        return [shape_from_wire(shape, model) for shape in result.shapes]


@contextmanager
def _explained() -> Iterator[None]:
    """What the wire has to complain of as the user's error that it is."""
    try:
        yield
    except InputError:
        raise
    except (WireError, ValueError) as error:
        raise InputError(str(error)) from error


def _tell(event: Event, progress: Progress) -> None:
    match event:
        case wire.Accepted(position=position):
            progress(f"{WAITING}, {position} before" if position else WAITING, 0.0)
        case wire.Progress(phase=phase, fraction=fraction):
            progress(phase, fraction)
        case StateChanged(state=state):
            progress(str(state), 0.0)
