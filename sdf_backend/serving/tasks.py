"""A job of the wire done by the engine: a `Submit` in, a `Result` out. Importing this loads torch."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import torch

from sdf_backend import engine as engines
from sdf_backend.engine import Engine
from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import ModelStore, read_card
from sdf_backend.serving.conversion import shape_to_wire, similarity_of, source_from_wire
from sdf_backend.settings import TaskSettings
from sdf_backend.wire import messages as wire
from sdf_backend.wire.codec import WireError

# Hears of a coarse mesh of a job, by the job's name.
Preview = Callable[[str, wire.Preview], None]
OUT_OF_MEMORY = "the device ran out of memory; lower the resolution, or give fewer shapes or smaller inputs at once"


class Tasks:
    """Does jobs on one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.loaded: tuple[str, ...] = ()
        """the models in memory after the last job; any thread may read it"""

    def models(self) -> tuple[wire.ModelInfo, ...]:
        """The models that can be named; a damaged one says what is wrong with it."""
        return tuple(_model_info(name, self.engine.store) for name in sorted(self.engine.store.paths()))

    def run(self, jobs: Sequence[wire.Submit], progress: engines.Progress, preview: Preview) -> list[wire.Result]:
        """Do a job, or several of one model, task and settings that have one shape a source: those as one batch.

        Raises `InputError` for what cannot be used, `WireError` for an unknown model, and whatever `progress` raises.
        """
        if jobs[0].task == "echo":
            return [wire.Result(job.job, sources=job.sources) for job in jobs]
        job = _joined(jobs)
        if job.model not in self.engine.store.paths():
            known = ", ".join(sorted(self.engine.store.paths())) or "none"
            raise WireError("unknown_model", f"unknown model {job.model!r}; known models: {known}", job.job)
        try:
            shapes = self._shapes(job, job.settings, progress, _coarse(jobs, preview))
        finally:
            self.loaded = tuple(self.engine.loaded_models())
        if len(jobs) == 1:
            return [_result(job, shapes)]
        each = iter(shapes)
        return [_result(job, list(islice(each, len(job.sources) * job.settings.candidates))) for job in jobs]

    def _shapes(
        self, job: wire.Submit, settings: TaskSettings, progress: engines.Progress, preview: engines.Preview
    ) -> list[engines.Shape]:
        sources = [source_from_wire(source, f"input {index}") for index, source in enumerate(job.sources)]
        match job.task:
            case "complete":
                return self.engine.complete(job.model, sources, settings, progress, preview)
            case "reconstruct":
                return self.engine.reconstruct(job.model, sources, settings, progress, preview)
            case "encode":
                return self.engine.encode(job.model, sources, settings, progress)
            case "interpolate" if job.codes is not None:
                codes = _codes(job)
                poses = _poses(job, len(codes))
                return self.engine.interpolate_codes(
                    job.model, codes, poses, job.count, settings, progress, _refinements(job)
                )
            case "interpolate":
                return self.engine.interpolate(job.model, sources, job.count, settings, progress)
            case "sample" if job.codes is not None:
                [code], [pose] = _codes(job), _poses(job, 1)
                return self.engine.vary(job.model, code, pose, job.count, job.spread, settings, progress)
            case "sample":
                return self.engine.sample(job.model, job.count, settings, progress, *_poses(job, 1))
            case "decode":
                codes = self._moved_codes(job, progress)
                poses = _poses(job, len(codes))
                return self.engine.decode(job.model, codes, poses, settings, progress, _refinements(job))
        raise InputError(f"the task {job.task!r} is not known here")

    def _moved_codes(self, job: wire.Submit, progress: engines.Progress) -> np.ndarray:
        """The codes of a job, (n, code_length) float32, moved by its weights where it has some."""
        if job.weights is None:
            return _codes(job)
        codes = None if job.codes is None else _codes(job)
        return self.engine.move_codes(job.model, np.array(job.weights), codes, progress)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device, or this computer, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_device_lost(error: Exception) -> bool:
    """Whether an error leaves the device unusable for this process."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def free_memory(device: torch.device) -> None:
    """Give back what a job that ran out of memory has left."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_bytes(device: torch.device) -> int:
    """Bytes that torch has reserved on the device; 0 on a CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _model_info(name: str, store: ModelStore) -> wire.ModelInfo:
    try:
        card = read_card(store.paths()[name])
    except (InputError, KeyError) as error:
        return wire.ModelInfo(name, problem=str(error))
    return wire.ModelInfo(
        name,
        card.front,
        int(card.decoder["code_length"]),
        len(card.shapes),
        tuple(sorted({str(source["licence"]) for source in card.sources})),
    )


def _codes(job: wire.Submit) -> np.ndarray:
    """Codes, (n, code_length) float32; copied, so that they are aligned and writable."""
    return np.array(job.codes, dtype=np.float32)


def _refinements(job: wire.Submit) -> list[np.ndarray]:
    """One for each code, (m, 2) float32, or none; copied as the codes are."""
    return [np.array(refinement, dtype=np.float32) for refinement in job.refinements]


def _poses(job: wire.Submit, count: int) -> list[Similarity]:
    """Where the shapes of `count` codes stand: in the canonical frame where nothing else is said."""
    if job.poses is None:
        return [Similarity.identity()] * count
    return [similarity_of(matrix, f"pose {index}") for index, matrix in enumerate(job.poses)]


def _coarse(jobs: Sequence[wire.Submit], preview: Preview) -> engines.Preview:
    """Previews by job, in the wire's types; single precision will do."""
    owners = [(job.job, number) for job in jobs for number in range(len(job.sources))]

    def show(index: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        job, number = owners[index]
        preview(job, wire.Preview(vertices.astype(np.float32), faces.astype(np.int32), number))

    return show


def _was_computed(shape: engines.Shape) -> bool:
    return shape.evaluations > 0 or engines.Phase.FITTING in shape.seconds


def _joined(jobs: Sequence[wire.Submit]) -> wire.Submit:
    """The sources of all jobs, as one job."""
    return jobs[0] if len(jobs) == 1 else replace(jobs[0], sources=tuple(chain(*(job.sources for job in jobs))))


def _result(job: wire.Submit, shapes: list[engines.Shape]) -> wire.Result:
    dtype, cached = _precision(job), not any(map(_was_computed, shapes))
    return wire.Result(job.job, tuple(shape_to_wire(shape, dtype) for shape in shapes), cached=cached)


def _precision(job: wire.Submit) -> np.dtype:
    """Results come as precise as the inputs did, or where there are none as the poses; float64 without either."""
    given = [source.vertices.dtype for source in job.sources]
    if not given and job.poses is not None:
        given = [job.poses.dtype]
    return np.result_type(*given) if given else np.dtype(np.float64)
