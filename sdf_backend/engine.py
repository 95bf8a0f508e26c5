"""The tasks: reconstruct, complete, interpolate, sample. The one Python API; command line and workers call only this.

    engine = Engine(ModelStore())
    [shape] = engine.complete("airplanes", [Source(read_geometry(Path("scan.ply")))], TaskSettings(pose=Freedom.NONE))

The data's way is short: mesh or points -> observations -> code and pose -> mesh in the input's own frame and scale.
Every task takes a batch and a `progress` callback, which hears of every step and may raise `Cancelled` to end the task.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from scipy.spatial import KDTree

from sdf_backend.devices import choose_device
from sdf_backend.errors import InputError
from sdf_backend.extract import ExtractSettings, extract_surface
from sdf_backend.fit import Fit, FitSettings, fit_codes, same_length
from sdf_backend.mesh_files import Geometry
from sdf_backend.model_store import Model, ModelCard, ModelStore, load_model, read_card
from sdf_backend.observations import Observations, ObservationSettings, check_cloud, observe_points, observe_whole_mesh
from sdf_backend.pose import Freedom, Similarity, axis_rotation
from sdf_backend.pose_search import PoseSearchSettings, search_poses
from sdf_backend.signed_distance import surface_points

RESOLUTIONS = (16, 1024)
# Weights of the prior, chosen by comparison on the test split, for want of a third one; see benchmarks/fit.
SOLID_PRIOR, SURFACE_PRIOR = 1e-6, 3e-5
# A vertex counts as observed up to the first distance from the input, not at all from the second; canonical units.
OBSERVED_NEAR, OBSERVED_FAR = 0.02, 0.05
# On a CPU the activations of a batch should stay in its cache; a GPU wants to be kept busy.
EXTRACTION_BATCH = {"cpu": 4096, "cuda": 1 << 18}
MAXIMUM_STEPS, MAXIMUM_SAMPLES = 1000, 1000


class Phase(StrEnum):
    """What a task is doing."""

    LOADING = "loading"
    OBSERVING = "observing"
    POSING = "posing"
    FITTING = "fitting"
    EXTRACTING = "extracting"


Progress = Callable[[Phase, float], None]


def _silent(phase: Phase, fraction: float) -> None:
    """Progress that nobody watches."""


class Quality(StrEnum):
    """How long a fit may take: `benchmarks/fit` says what each costs and gives."""

    PREVIEW = "preview"
    STANDARD = "standard"
    FINE = "fine"


STAGES = {
    Quality.PREVIEW: ((10, 1_800), (5, 5_000)),
    Quality.STANDARD: ((10, 4_000), (8, 8_000), (4, 16_000)),
    Quality.FINE: ((10, 4_000), (10, 16_000), (8, 40_000)),
}


def solid_settings(quality: Quality, seed: int, dtype: torch.dtype = torch.bfloat16) -> FitSettings:
    """How a code is fitted to signed distances: they leave little open, so the prior hardly speaks."""
    return FitSettings(stages=STAGES[quality], prior=SOLID_PRIOR, seed=seed, dtype=dtype)


def surface_settings(quality: Quality, seed: int, dtype: torch.dtype = torch.bfloat16) -> FitSettings:
    """How a code is fitted to part of a surface: what was not seen is left to the prior."""
    return FitSettings(stages=STAGES[quality], prior=SURFACE_PRIOR, seed=seed, dtype=dtype)


@dataclass(frozen=True)
class TaskSettings:
    """What a user may ask of a task."""

    resolution: int = 256
    """cells per axis of the canonical cube, 16 to 1024"""
    pose: Freedom = Freedom.UPRIGHT
    """what is not known of where the input stands"""
    up: str = "+z"
    """the input's axis that points up; not used where the pose is known"""
    front: str = "-y"
    """the input's axis that points ahead; used where the pose is aligned"""
    quality: Quality = Quality.STANDARD
    """how long the fit may take"""
    seed: int = 0
    """the same seed gives the same mesh"""

    def __post_init__(self) -> None:
        low, high = RESOLUTIONS
        if not low <= self.resolution <= high:
            raise InputError(f"the resolution {self.resolution} is out of range; use {low} to {high}")
        if self.pose is not Freedom.NONE:
            axis_rotation(self.up, self.front, "-z")


@dataclass(frozen=True)
class Source:
    """One input: a mesh or a point cloud, and from where it was seen, (3,), in its own frame, where that is known."""

    geometry: Geometry
    sensor: np.ndarray | None = None


@dataclass(frozen=True)
class Shape:
    """A finished shape and what a user wants to know of it.

    vertices : (n, 3) float64 in the input's frame and units; faces : (m, 3) int64, outward
    observed : (n,) float32 in 0..1, how near the input was to each vertex; None where there was no input
    code : (code_length,) float32; pose : canonical frame -> the input's frame
    residual : mean absolute residual of the fit, canonical units; explained : share of the input within 0.02 of it
    seconds : time of each phase
    """

    model: str
    vertices: np.ndarray
    faces: np.ndarray
    code: np.ndarray
    pose: Similarity
    observed: np.ndarray | None = None
    residual: float = 0.0
    explained: float = 0.0
    steps: int = 0
    evaluations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Engine:
    """Holds loaded models on one device and does the tasks."""

    def __init__(self, store: ModelStore | None = None, device: str = "auto") -> None:
        self.store = store or ModelStore()
        self.device = choose_device(device)
        self._models: dict[str, Model] = {}

    def models(self) -> list[ModelCard]:
        """What every known model says of itself, sorted by name."""
        return [read_card(path) for _, path in sorted(self.store.paths().items())]

    def model(self, name: str, progress: Progress = _silent) -> Model:
        """A model by name, loaded once; raises `InputError` that lists the known ones."""
        if name not in self._models:
            progress(Phase.LOADING, 0.0)
            self._models[name] = load_model(self.store.find(name), self.device)
            progress(Phase.LOADING, 1.0)
        return self._models[name]

    def complete(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = _silent,
    ) -> list[Shape]:
        """Complete partial meshes or point clouds: whole, closed meshes in their own frames.

        Raises `InputError` for input that no shape can be fitted to, and for an unknown model.
        """
        return self._fit_and_extract(model, sources, settings, _observe_surface, progress)

    def reconstruct(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = _silent,
    ) -> list[Shape]:
        """Explain whole meshes, inside and outside, by the model.

        Raises `InputError` for meshes that enclose nothing.
        """
        return self._fit_and_extract(model, sources, settings, _observe_solid, progress)

    def interpolate(
        self,
        model: str,
        sources: Sequence[Source],
        steps: int,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = _silent,
    ) -> list[Shape]:
        """Shapes on the straight lines between the codes of two or more inputs, the ends included; poses go along.

        Raises `InputError` for fewer than two inputs or steps.
        """
        if len(sources) < 2:
            raise InputError(f"interpolation needs at least two shapes; {len(sources)} given")
        if not len(sources) <= steps <= MAXIMUM_STEPS:
            raise InputError(f"{steps} steps between {len(sources)} shapes; use {len(sources)} to {MAXIMUM_STEPS}")
        loaded = self.model(model, progress)
        clock = _Clock()
        observed = _observe_all(sources, settings, _observe_any, progress)
        fits = self._fit(loaded, observed, settings, progress, clock)
        codes = np.stack([_array(fit.code) for fit in fits])
        places = np.linspace(0, len(fits) - 1, steps)
        shapes = []
        for index, place in enumerate(places):
            left = min(int(place), len(fits) - 2)
            share = place - left
            code = (1 - share) * codes[left] + share * codes[left + 1]
            pose = fits[left].pose.towards(fits[left + 1].pose, share)
            shapes.append(self.shape_of(model, code, pose, settings, _slice(progress, index, steps)))
        return shapes

    def sample(
        self, model: str, count: int, settings: TaskSettings = TaskSettings(), progress: Progress = _silent
    ) -> list[Shape]:
        """New shapes, in the canonical frame, from the normal distribution of the training codes.

        Raises `InputError` for a count out of range.
        """
        if not 1 <= count <= MAXIMUM_SAMPLES:
            raise InputError(f"{count} samples asked for; use 1 to {MAXIMUM_SAMPLES}")
        loaded = self.model(model, progress)
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn(count, loaded.codes.shape[1], generator=generator).to(self.device)
        codes = loaded.mean + noise @ torch.linalg.cholesky(loaded.covariance).T
        identity = Similarity.identity()
        return [
            self.shape_of(model, _array(code), identity, settings, _slice(progress, index, count))
            for index, code in enumerate(codes)
        ]

    def shape_of(
        self,
        model: str,
        code: np.ndarray,
        pose: Similarity,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = _silent,
    ) -> Shape:
        """The shape of a code, (code_length,), that stands at `pose`."""
        loaded = self.model(model, progress)
        clock = _Clock()
        decoder = loaded.folded(torch.float32)
        latent = torch.as_tensor(code, dtype=torch.float32, device=self.device)[None]
        if latent.shape != (1, loaded.codes.shape[1]) or not bool(torch.isfinite(latent).all()):
            raise InputError(f"a code of {model} is {loaded.codes.shape[1]} finite numbers, not {np.shape(code)}")
        mesh = extract_surface(
            lambda points: decoder.distances(latent, points[None])[0],
            ExtractSettings(settings.resolution, clamp=loaded.card.clamp, batch=EXTRACTION_BATCH[self.device.type]),
            self.device,
            lambda fraction: progress(Phase.EXTRACTING, fraction),
        )
        clock.lap(Phase.EXTRACTING)
        return Shape(
            loaded.card.name,
            pose.apply(mesh.vertices),
            mesh.faces,
            np.asarray(code, dtype=np.float32),
            pose,
            evaluations=mesh.evaluations,
            seconds=clock.seconds,
        )

    def _fit_and_extract(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings,
        observe: Callable[[Source, int], Observations],
        progress: Progress,
    ) -> list[Shape]:
        if not sources:
            return []
        loaded = self.model(model, progress)
        clock = _Clock()
        observed = _observe_all(sources, settings, observe, progress)
        clock.lap(Phase.OBSERVING)
        fits = self._fit(loaded, observed, settings, progress, clock)
        shared = {phase: seconds / len(sources) for phase, seconds in clock.seconds.items()}
        shapes = []
        for index, (fit, seen) in enumerate(zip(fits, observed, strict=True)):
            part = _slice(progress, index, len(fits))
            shape = self.shape_of(model, _array(fit.code), fit.pose, settings, part)
            shapes.append(_described(shape, fit, seen, shared))
        return shapes

    def _fit(
        self,
        model: Model,
        observed: list[Observations],
        settings: TaskSettings,
        progress: Progress,
        clock: "_Clock",
    ) -> list[Fit]:
        """Codes and poses of a batch; where the pose is not known it is searched for shape by shape first."""
        choose = solid_settings if all(seen.solid for seen in observed) else surface_settings
        fitting = choose(settings.quality, settings.seed)
        poses = None
        if settings.pose is not Freedom.NONE:
            turn = axis_rotation(settings.up, settings.front, model.card.front)
            search = PoseSearchSettings(seed=settings.seed)
            poses = [
                search_poses(model, seen, settings.pose, turn, search, _phase(part, Phase.POSING))[0]
                for seen, part in zip(observed, _slices(progress, len(observed)), strict=True)
            ]
            clock.lap(Phase.POSING)
        fits = fit_codes(model, same_length(observed), fitting, poses, settings.pose, _phase(progress, Phase.FITTING))
        clock.lap(Phase.FITTING)
        return fits


class _Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


def _described(shape: Shape, fit: Fit, seen: Observations, shared: dict[str, float]) -> Shape:
    """The shape with what its fit says, and how near the input was to each vertex."""
    return Shape(
        shape.model,
        shape.vertices,
        shape.faces,
        shape.code,
        shape.pose,
        observed_share(shape.vertices, seen.surface, fit.pose.scale),
        fit.residual,
        fit.explained,
        fit.steps,
        shape.evaluations,
        shared | shape.seconds,
    )


def observed_share(vertices: np.ndarray, surface: np.ndarray, scale: float) -> np.ndarray:
    """How far each vertex, (n, 3), was observed by surface points, (m, 3): (n,) float32, 1 near to 0 far.

    A sparse cloud stretches the distances to twice its own spacing.
    """
    tree = KDTree(surface)
    spacing = float(np.median(tree.query(surface[:2000], k=2)[0][:, 1]))
    near, far = OBSERVED_NEAR * scale, OBSERVED_FAR * scale
    stretch = max(1.0, 2 * spacing / near)
    distance, _ = tree.query(vertices)
    return np.clip((far * stretch - distance) / ((far - near) * stretch), 0, 1).astype(np.float32)


def _observe_all(
    sources: Sequence[Source],
    settings: TaskSettings,
    observe: Callable[[Source, int], Observations],
    progress: Progress,
) -> list[Observations]:
    observed = []
    for index, source in enumerate(sources):
        progress(Phase.OBSERVING, index / len(sources))
        observed.append(observe(source, settings.seed))
    return observed


def _observe_surface(source: Source, seed: int) -> Observations:
    """Points on the surface: the cloud's own, or drawn from the mesh, whose normals are not to be trusted."""
    geometry = source.geometry
    if len(geometry.faces) == 0:
        return observe_points(geometry.vertices, geometry.normals, source.sensor, seed=seed)
    check_cloud(geometry.vertices)
    rng = np.random.default_rng(seed)
    points, _ = surface_points(geometry.vertices[geometry.faces], ObservationSettings().surface_points, rng)
    return observe_points(points, None, source.sensor, seed=seed)


def _observe_solid(source: Source, seed: int) -> Observations:
    if len(source.geometry.faces) == 0:
        raise InputError("a point cloud has no inside; use complete, which needs surfaces only")
    return observe_whole_mesh(source.geometry.vertices, source.geometry.faces, seed=seed)


def _observe_any(source: Source, seed: int) -> Observations:
    """A solid where it encloses something, a surface otherwise."""
    if len(source.geometry.faces):
        try:
            return _observe_solid(source, seed)
        except InputError:
            pass
    return _observe_surface(source, seed)


def _slice(progress: Progress, index: int, count: int) -> Progress:
    """The progress of one of `count` equal parts."""
    return lambda phase, fraction: progress(phase, (index + fraction) / count)


def _slices(progress: Progress, count: int) -> list[Progress]:
    return [_slice(progress, index, count) for index in range(count)]


def _phase(progress: Progress, phase: Phase) -> Callable[[float], None]:
    return lambda fraction: progress(phase, fraction)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
