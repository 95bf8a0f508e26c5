"""An engine on another computer: the tasks of `engine.py`, run by a backend over the wire.

with RemoteEngine("tcp://127.0.0.1:5577") as engine:
    [shape] = engine.complete("airplanes", [Source(geometry)], TaskSettings())
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdf_backend.engine import Shape, Source
from sdf_backend.errors import InputError
from sdf_backend.progress import Progress
from sdf_backend.serving.conversion import shape_from_wire, source_to_wire
from sdf_backend.settings import TaskSettings
from sdf_backend.wire import messages as wire
from sdf_backend.wire.client import BUSY, Client, ClientError, Event, StateChanged, new_job
from sdf_backend.wire.codec import WireError

# Timeout of the connection; a backend may just be starting.
CONNECT_SECONDS = 5.0
# The phases of a job that is queued, and of one for which there is no place in the queue.
WAITING, FULL = "waiting", "waiting, the queue is full"
# Seconds until it is submitted again; shorter than the heartbeat that is due meanwhile.
BUSY_SECONDS = 1.0


class RemoteEngine:
    """A connection to a backend, with the tasks of an `Engine` that the command line needs.

    All methods raise `InputError` for what the backend refuses, and if there is no connection. Whatever else ends a
    task early, such as Ctrl-C or an exception of `progress`, cancels its job.
    """

    def __init__(self, address: str, key_file: Path | None = None) -> None:
        with _input_errors():
            self._client = Client(address, key_file, name="command line")

    def __enter__(self) -> "RemoteEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def complete(
        self, model: str, sources: Sequence[Source], settings: TaskSettings, progress: Progress
    ) -> list[Shape]:
        """See `Engine.complete`."""
        return self._run(wire.Task.COMPLETE, model, settings, progress, sources)

    def reconstruct(
        self, model: str, sources: Sequence[Source], settings: TaskSettings, progress: Progress
    ) -> list[Shape]:
        """See `Engine.reconstruct`."""
        return self._run(wire.Task.RECONSTRUCT, model, settings, progress, sources)

    def interpolate(
        self, model: str, sources: Sequence[Source], steps: int, settings: TaskSettings, progress: Progress
    ) -> list[Shape]:
        """See `Engine.interpolate`."""
        return self._run(wire.Task.INTERPOLATE, model, settings, progress, sources, steps)

    def sample(self, model: str, count: int, settings: TaskSettings, progress: Progress) -> list[Shape]:
        """See `Engine.sample`."""
        return self._run(wire.Task.SAMPLE, model, settings, progress, count=count)

    def _run(
        self,
        task: wire.Task,
        model: str,
        settings: TaskSettings,
        progress: Progress,
        sources: Sequence[Source] = (),
        count: int = 1,
    ) -> list[Shape]:
        with _input_errors():
            sent = tuple(map(source_to_wire, sources))
            submit = wire.Submit(new_job(), task, model, settings, sent, count=count)
            self._client.wait_connected(CONNECT_SECONDS)
            while (result := self._try(submit, progress)) is None:
                progress(FULL, 0.0)
                time.sleep(BUSY_SECONDS)
        shapes = [shape_from_wire(shape, model) for shape in result.shapes]
        # What the reader of a file left out is known here alone. Of several inputs the first shape tells all.
        each = len(shapes) // len(sources) if task in (wire.Task.COMPLETE, wire.Task.RECONSTRUCT) else len(shapes)
        for place, source in enumerate(sources):
            at = place * each % max(len(shapes), 1)
            shapes[at] = shapes[at].with_notes(*source.geometry.notes)
        return shapes

    def _try(self, submit: wire.Submit, progress: Progress) -> wire.Result | None:
        """Run a job; None if the queue has no place for it."""
        try:
            return self._client.run(submit, lambda event: _report(event, progress))
        except ClientError as error:
            if error.code != BUSY:
                raise
            return None


@contextmanager
def _input_errors() -> Iterator[None]:
    """Raise errors of the wire as `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (WireError, ValueError) as error:
        raise InputError(str(error)) from error


def _report(event: Event, progress: Progress) -> None:
    match event:
        case wire.Accepted(position=position):
            progress(f"{WAITING}, {position} ahead" if position else WAITING, 0.0)
        case wire.Progress(phase=phase, fraction=fraction):
            progress(phase, fraction)
        case StateChanged(state=state):
            progress(str(state), 0.0)
