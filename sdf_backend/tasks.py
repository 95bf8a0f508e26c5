"""A job of the wire done by the engine: a `Submit` in, a `Result` out. Importing this loads torch."""

import gc
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import numpy as np
import torch

from sdf_backend import engine as engines
from sdf_backend.engine import Engine, Quality, TaskSettings
from sdf_backend.errors import InputError
from sdf_backend.mesh_files import Geometry, check_vertices
from sdf_backend.model_store import ModelStore, read_card
from sdf_backend.pose import Freedom, Similarity
from sdf_backend.wire import messages as wire
from sdf_backend.wire.codec import WireError

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

    def run(self, job: wire.Submit, progress: engines.Progress, preview: Callable[[wire.Preview], None]) -> wire.Result:
        """Do a job.

        Raises `InputError` for what cannot be used, `WireError` for an unknown model, and whatever `progress` raises.
        """
        if job.task == "echo":
            return wire.Result(job.job, sources=job.sources)
        if job.model not in self.engine.store.paths():
            known = ", ".join(sorted(self.engine.store.paths())) or "none"
            raise WireError("unknown_model", f"unknown model {job.model!r}; known models: {known}", job.job)
        try:
            shapes = self._shapes(job, _settings(job.settings), progress, _coarse(preview))
        finally:
            self.loaded = tuple(self.engine.loaded_models())
        dtype, cached = _precision(job), not any(map(_was_computed, shapes))
        return wire.Result(job.job, tuple(_shape(shape, dtype) for shape in shapes), cached=cached)

    def _shapes(
        self, job: wire.Submit, settings: TaskSettings, progress: engines.Progress, preview: engines.Preview
    ) -> list[engines.Shape]:
        sources = [_source(source, f"input {index}") for index, source in enumerate(job.sources)]
        match job.task:
            case "complete":
                return self.engine.complete(job.model, sources, settings, progress, preview)
            case "reconstruct":
                return self.engine.reconstruct(job.model, sources, settings, progress, preview)
            case "interpolate" if job.codes is not None:
                return self.engine.interpolate_codes(job.model, *_codes(job), job.count, settings, progress)
            case "interpolate":
                return self.engine.interpolate(job.model, sources, job.count, settings, progress)
            case "sample":
                return self.engine.sample(job.model, job.count, settings, progress)
            case "decode":
                return self.engine.decode(job.model, *_codes(job), settings, progress)
        raise InputError(f"the task {job.task!r} is not known here")


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


def _settings(settings: wire.JobSettings) -> TaskSettings:
    return TaskSettings(
        settings.resolution,
        _choice(Freedom, "pose", settings.pose),
        settings.up,
        settings.front,
        _choice(Quality, "quality", settings.quality),
        settings.seed,
    )


Choice = TypeVar("Choice", bound=StrEnum)


def _choice(kind: type[Choice], what: str, value: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"unknown {what} {value!r}; use one of {', '.join(kind)}") from None


def _source(source: wire.Source, name: str) -> engines.Source:
    """The engine's input; the arrays are copied, so that they are aligned, writable and in the engine's own types."""
    vertices = np.array(source.vertices, dtype=np.float64)
    check_vertices(vertices, name)
    faces = np.zeros((0, 3), dtype=np.int64) if source.faces is None else np.array(source.faces, dtype=np.int64)
    normals = None if source.normals is None else np.array(source.normals, dtype=np.float64)
    sensor = None if source.sensor is None else np.array(source.sensor)
    return engines.Source(Geometry(vertices, faces, normals), sensor)


def _codes(job: wire.Submit) -> tuple[np.ndarray, list[Similarity]]:
    """Codes, (k, code_length) float32, and where they stand: in the canonical frame where nothing else is said."""
    codes = np.array(job.codes, dtype=np.float32)
    if job.poses is None:
        return codes, [Similarity.identity()] * len(codes)
    return codes, [_similarity(matrix, f"pose {index}") for index, matrix in enumerate(job.poses)]


def _similarity(matrix: np.ndarray, name: str) -> Similarity:
    """The inverse of `_matrix`; raises `InputError` for a matrix that shears, mirrors, or scales one axis more."""
    linear = matrix[:3, :3].astype(np.float64)
    determinant = float(np.linalg.det(linear))
    scale = abs(determinant) ** (1 / 3)
    upright = np.abs(linear.T @ linear - scale**2 * np.eye(3)).max() <= 1e-4 * scale**2
    if determinant <= 0 or not upright or np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise InputError(f"{name} is no turn, shift and one scale for all axes; apply other transforms to the result")
    return Similarity(scale, linear / scale, matrix[:3, 3].astype(np.float64))


def _coarse(preview: Callable[[wire.Preview], None]) -> engines.Preview:
    """Previews in the wire's types; single precision will do."""
    return lambda source, vertices, faces: preview(
        wire.Preview(vertices.astype(np.float32), faces.astype(np.int32), source)
    )


def _was_computed(shape: engines.Shape) -> bool:
    return shape.evaluations > 0 or engines.Phase.FITTING in shape.seconds


def _precision(job: wire.Submit) -> np.dtype:
    """Results come as precise as the inputs did; float64 where there are none."""
    given = [source.vertices.dtype for source in job.sources]
    return np.result_type(*given) if given else np.dtype(np.float64)


def _shape(shape: engines.Shape, dtype: np.dtype) -> wire.Shape:
    return wire.Shape(
        shape.vertices.astype(dtype),
        shape.faces.astype(np.int32),
        np.atleast_2d(shape.code),
        _matrix(shape.pose)[None],
        shape.observed,
        float(shape.residual),
        float(shape.explained),
        shape.steps,
        {str(phase): seconds for phase, seconds in shape.seconds.items()},
    )


def _matrix(pose: Similarity) -> np.ndarray:
    """A similarity as a (4, 4) matrix for column vectors."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = pose.scale * pose.rotation, pose.translation
    return matrix
