"""The arguments of a call of the engine, converted from a job of the wire. Importing this loads torch."""

from dataclasses import dataclass

import numpy as np

from sdf_backend import engine as engines
from sdf_backend.engine import Engine
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.serving.conversion import similarity_of, source_from_wire
from sdf_backend.settings import TaskSettings
from sdf_backend.wire.messages import Submit


@dataclass(frozen=True)
class EngineCall:
    """What the tasks of `task_table.py` pass to the engine; arrays are converted when they are needed."""

    engine: Engine
    job: Submit
    progress: engines.Progress
    preview: engines.Preview

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.job.model

    @property
    def settings(self) -> TaskSettings:
        """The settings that the user requested."""
        return self.job.settings

    @property
    def count(self) -> int:
        """Number of shapes, of a task that leaves it to the user."""
        return self.job.count

    @property
    def spread(self) -> float:
        """Distance of new samples from a code, as a share of the spread of the training codes."""
        return self.job.spread

    @property
    def has_codes(self) -> bool:
        """Whether the job has codes."""
        return self.job.codes is not None

    def sources(self) -> list[engines.Source]:
        """The inputs; raises `InputError` with the index of one that cannot be used."""
        return [source_from_wire(source, f"input {index}") for index, source in enumerate(self.job.sources)]

    def codes(self) -> np.ndarray:
        """The codes, (n, code_length) float32; a copy, which is aligned and writable."""
        return np.array(self.job.codes, dtype=np.float32)

    def move_codes(self) -> np.ndarray:
        """The codes, (n, code_length) float32, moved along the principal directions by any weights."""
        if self.job.weights is None:
            return self.codes()
        codes = self.codes() if self.has_codes else None
        return self.engine.move_codes(self.model, np.array(self.job.weights), codes, self.progress)

    def poses(self, count: int) -> list[Similarity]:
        """The poses of `count` shapes: the identity if the job has none."""
        if self.job.poses is None:
            return [Similarity.identity()] * count
        return [similarity_of(matrix, f"pose {index}") for index, matrix in enumerate(self.job.poses)]

    def refinements(self) -> list[np.ndarray]:
        """The residual field of each code, (m, 2) float32, or an empty list."""
        return [np.array(refinement, dtype=np.float32) for refinement in self.job.refinements]
