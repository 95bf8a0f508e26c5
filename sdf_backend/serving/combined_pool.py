"""The worker pool of a server that machines may join: the workers of this machine, if it has any, and theirs.

A model is the content of its file. Machines may have files of the same name that differ; the server's own file, or that
of the machine that has joined first, is the model of that name, and other files are not used.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import zmq

from sdf_backend.log import line, logger
from sdf_backend.serving.joined_machines import REJOIN_SECONDS, SEPARATOR, JoinedMachines
from sdf_backend.serving.local_workers import LocalWorkerPool
from sdf_backend.serving.worker_pool import WorkerEvent
from sdf_backend.wire.codec import Frame
from sdf_backend.wire.messages import AUTO_MODEL, ModelInfo, WorkerInfo

# How a difference is told apart from others that are in the log already.
Difference = tuple[str, str, str]


class CombinedPool:
    """Implements the interface `WorkerPool` by the local workers and those of joined machines."""

    def __init__(self, local: LocalWorkerPool | None, joined: JoinedMachines) -> None:
        self._local, self._joined = local, joined
        self._logged: set[Difference] = set()
        self._started = self._now = 0.0

    def start(self, now: float) -> None:
        """Start the local workers, and begin to admit machines."""
        self._started = self._now = now
        self._joined.start()
        if self._local:
            self._local.start(now)

    def sockets(self) -> Sequence[zmq.Socket]:
        """Those of both."""
        return [*(self._local.sockets() if self._local else ()), *self._joined.sockets()]

    def poll(self, now: float) -> Iterator[WorkerEvent]:
        """The events of both."""
        self._now = now
        if self._local:
            yield from self._local.poll(now)
        yield from self._joined.poll(now)
        self._log_differences()

    def submit(self, worker: str, jobs: Sequence[Sequence[Frame]]) -> bool:
        """Send jobs to a worker, wherever it is."""
        return self._pool_of(worker).submit(worker, jobs)

    def cancel(self, worker: str, job: str) -> None:
        """Ask a worker to stop a job, wherever it is."""
        self._pool_of(worker).cancel(worker, job)

    def kill(self, worker: str, reason: str) -> None:
        """Kill a worker, wherever it is."""
        self._pool_of(worker).kill(worker, reason)

    def extend_deadlines(self, seconds: float) -> None:
        """Do not count a time in which the server itself was suspended."""
        self._joined.extend_deadlines(seconds)
        if self._local:
            self._local.extend_deadlines(seconds)

    def capacity(self, worker: str) -> int:
        """Most jobs of one batch."""
        return self._pool_of(worker).capacity(worker)

    def can_run(self, worker: str, model: str) -> bool:
        """Whether a worker has the file that is the model of that name.

        A model is chosen by those workers that have the most to choose from. A model that nobody has may be that of a
        machine that is expected back. After that any worker answers.
        """
        if model == AUTO_MODEL:
            return self._choices(self._digests_of(worker)) == max(map(self._choices, self._all_digests()), default=0)
        known = self._digest(model)
        if known is None:
            return not model or self._all_are_known()
        return self._digests_of(worker).get(model) == known

    def loaded_models(self, worker: str) -> Sequence[str]:
        """Names of the models that a worker has in memory."""
        return self._pool_of(worker).loaded_models(worker)

    def describe(self) -> tuple[WorkerInfo, ...]:
        """All workers, the local ones first."""
        return (*(self._local.describe() if self._local else ()), *self._joined.describe())

    def models(self) -> tuple[ModelInfo, ...]:
        """Each model once: as the first that has it describes it, or the first that can use it."""
        found: dict[str, ModelInfo] = {}
        for model in chain(self._local.models() if self._local else (), self._joined.models()):
            if model.name not in found or (found[model.name].problem and not model.problem):
                found[model.name] = model
        return tuple(found.values())

    def unavailable_reason(self) -> str:
        """Why no local worker can start, if no machine has joined."""
        return self._local.unavailable_reason() if self._local and not self._joined.describe() else ""

    def configuration_error(self) -> str:
        """Why the settings of the local workers are wrong."""
        return self._local.configuration_error() if self._local else ""

    def stop(self) -> None:
        """End the local workers, and the connections to the machines."""
        self._joined.stop()
        if self._local:
            self._local.stop()

    def _pool_of(self, worker: str) -> LocalWorkerPool | JoinedMachines:
        return self._joined if self._local is None or SEPARATOR in worker else self._local

    def _digest(self, model: str) -> str | None:
        """The digest of the file that is the model of that name; None if nobody has one."""
        return next((digests[model] for digests in self._all_digests() if model in digests), None)

    def _all_digests(self) -> Sequence[Mapping[str, str]]:
        """The digest of each model, on this machine and on each joined one."""
        return [self._local.digests if self._local else {}, *self._joined.digests().values()]

    def _choices(self, digests: Mapping[str, str]) -> int:
        """How many models there are to choose from; none where a file differs, since it would be one of them."""
        return len(digests) if all(self._digest(model) == digest for model, digest in digests.items()) else 0

    def _digests_of(self, worker: str) -> Mapping[str, str]:
        machine, _, name = worker.rpartition(SEPARATOR)
        if machine:
            return self._joined.digests().get(machine, {})
        return self._local.digests if self._local and name else {}

    def _all_are_known(self) -> bool:
        """Whether all workers that are expected have told which models they have."""
        starting = self._local and not (self._local.has_been_ready or self._local.unavailable_reason())
        return not starting and self._now - self._started > REJOIN_SECONDS

    def _log_differences(self) -> None:
        """Say once, here and there, which files of a machine are not used."""
        for machine, digests in self._joined.digests().items():
            for model, digest in digests.items():
                difference = machine, model, digest
                if digest != self._digest(model) and difference not in self._logged:
                    self._logged.add(difference)
                    reason = "its file differs from that of the server or an earlier machine; copy that one to use it"
                    logger.warning(line("model not used", machine=machine, model=model, reason=reason))
                    self._joined.notify(machine, f"the model {model} of this machine is not used: {reason}")
