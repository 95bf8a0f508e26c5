"""Runs jobs of the wire on an engine: a `Submit` in, a `Result` out. Importing this loads torch."""

import gc
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import accumulate, chain, islice

import numpy as np
import torch

from sdf_backend import engine as engines
from sdf_backend.engine import Engine
from sdf_backend.errors import InputError
from sdf_backend.model.card import ModelCard
from sdf_backend.serving.conversion import shape_to_wire
from sdf_backend.serving.engine_call import EngineCall
from sdf_backend.serving.task_table import TASKS
from sdf_backend.wire import messages as wire
from sdf_backend.wire.codec import WireError
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import AUTO_MODEL

# Receives a coarse mesh of a job, with the name of the job.
Preview = Callable[[str, wire.Preview], None]
# A header holds a megabyte. Of the descriptions of models it has to hold all, however many files there are.
MODELS_BYTES, MOST_LICENCES, LONGEST_PROBLEM = 1 << 19, 32, 300
OUT_OF_MEMORY = "the device ran out of memory; lower the resolution, or use fewer shapes or smaller inputs at once"


class TaskRunner:
    """Runs jobs on one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.loaded: tuple[str, ...] = ()
        """names of the models in memory after the last job; any thread may read it"""

    def models(self) -> tuple[wire.ModelInfo, ...]:
        """Descriptions of all models, as many as a message holds; unusable ones come last and have a `problem`."""
        infos = [_model_info(path.stem, card) for path, card in self.engine.store.cards().items()]
        infos.sort(key=lambda info: bool(info.problem))
        sizes = accumulate(len(json.dumps(asdict(info))) for info in infos)
        return tuple(info for info, size in zip(infos, sizes, strict=True) if size <= MODELS_BYTES)

    def digests(self, models: Iterable[wire.ModelInfo]) -> dict[str, str]:
        """The digest of the file of each of these models that can be used, by name."""
        found: dict[str, str] = {}
        for model in models:
            with suppress(InputError):  # the file has just been removed
                found |= {} if model.problem else {model.name: self.engine.store.digest(model.name)}
        return found

    def run(self, jobs: Sequence[wire.Submit], progress: engines.Progress, preview: Preview) -> list[wire.Result]:
        """Run one job, or several of a batched task with the same model and settings as one batch.

        Parameters
        ----------
        jobs : the submissions
        progress : called with each step; its exceptions end the jobs
        preview : called with the name of a job and a coarse mesh of one of its sources

        Returns
        -------
        One result for each job.

        Raises
        ------
        InputError : for an input that cannot be used
        WireError : for an unknown model
        """
        run = TASKS[wire.Task(jobs[0].task)].run
        if run is None:
            return [wire.Result(job.job, sources=job.sources) for job in jobs]
        job = _merge(jobs)
        if job.model not in (AUTO_MODEL, *self.engine.store.paths()):
            known = ", ".join(sorted(self.engine.store.paths())) or "none"
            raise WireError(ErrorCode.UNKNOWN_MODEL, f"unknown model {job.model!r}; known models: {known}", job.job)
        try:
            shapes = run(EngineCall(self.engine, job, progress, _preview_by_job(jobs, preview)))
        finally:
            self.loaded = tuple(self.engine.loaded_models())
        if len(jobs) == 1:
            return [_result(job, shapes)]
        remaining = iter(shapes)
        shape_count = TASKS[wire.Task(job.task)].shape_count
        return [_result(job, list(islice(remaining, shape_count(job)))) for job in jobs]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device, or this computer, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_device_lost(error: Exception) -> bool:
    """Whether an error leaves the device unusable for this process."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def free_memory(device: torch.device) -> None:
    """Release the memory that a failed job has left allocated."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_bytes(device: torch.device) -> int:
    """Bytes that torch has reserved on the device; 0 on a CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _model_info(name: str, card: ModelCard | InputError) -> wire.ModelInfo:
    if isinstance(card, InputError):
        return wire.ModelInfo(name, problem=str(card)[:LONGEST_PROBLEM])
    licences = sorted({source["licence"] for source in card.sources})
    return wire.ModelInfo(
        name, card.front, card.decoder["code_length"], len(card.shapes), tuple(licences[:MOST_LICENCES])
    )


def _preview_by_job(jobs: Sequence[wire.Submit], preview: Preview) -> engines.Preview:
    """Convert previews to the types of the wire, in single precision, and assign each to its job."""
    owners = [(job.job, index) for job in jobs for index in range(len(job.sources))]

    def show(index: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        job, source = owners[index]
        preview(job, wire.Preview(vertices.astype(np.float32), faces.astype(np.int32), source))

    return show


def _is_uncached(shape: engines.Shape) -> bool:
    return shape.evaluations > 0 or engines.Phase.FITTING in shape.seconds


def _merge(jobs: Sequence[wire.Submit]) -> wire.Submit:
    """One job with the sources of all."""
    return jobs[0] if len(jobs) == 1 else replace(jobs[0], sources=tuple(chain(*(job.sources for job in jobs))))


def _result(job: wire.Submit, shapes: list[engines.Shape]) -> wire.Result:
    dtype, cached = _precision(job), not any(map(_is_uncached, shapes))
    is_chosen = job.model == AUTO_MODEL
    return wire.Result(job.job, tuple(shape_to_wire(shape, dtype, is_chosen) for shape in shapes), cached=cached)


def _precision(job: wire.Submit) -> np.dtype:
    """The dtype of the vertices of a result: that of the inputs, else of the poses, else float64."""
    given = [source.vertices.dtype for source in job.sources]
    if not given and job.poses is not None:
        given = [job.poses.dtype]
    return np.result_type(*given) if given else np.dtype(np.float64)
