"""The tasks: reconstruct, complete, interpolate, sample; and their halves, encode and decode.

The one Python API; command line and workers call only this.

    engine = Engine(ModelStore())
    [shape] = engine.complete("airplanes", [Source(read_geometry(Path("scan.ply")))], TaskSettings(pose=Pose.KNOWN))

The data's way is short: mesh or points -> observations -> code and pose -> mesh in the input's own frame and scale.
Every task takes a batch and a `progress` callback, which hears of every step and may raise `Cancelled` to end the task.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from sdf_backend.content_cache import ContentCache, content_key
from sdf_backend.errors import InputError
from sdf_backend.fitting.assessment import assess_surface, surface_deviation
from sdf_backend.fitting.fit import StageWatch
from sdf_backend.fitting.fit_cache import Encoded, recall, remember
from sdf_backend.fitting.hypotheses import Question, explain
from sdf_backend.geometry.isosurface import EmptySurfaceError, Extraction
from sdf_backend.geometry.similarity import Similarity, axis_rotation, axis_vector
from sdf_backend.model.devices import choose_device
from sdf_backend.model.store import Model, ModelCard, ModelStore, load_model, read_card
from sdf_backend.observation.observations import Observations, observe_surface_points
from sdf_backend.observation.sources import Observe, Source, observe_solid_or_surface, observe_solid, observe_surface, observed_weights
from sdf_backend.progress import Clock, Phase, Progress, only, parts, silent
from sdf_backend.settings import Pose, TaskSettings
from sdf_backend.shapes.interpolation import ImplicitShape
from sdf_backend.shapes.mesher import Mesher
from sdf_backend.shapes.residual_field import check_residual_field, fit_residual_field, scale_residual_field

MAXIMUM_STEPS, MAXIMUM_SAMPLES = 1000, 1000
# How far a candidate goes from the best, where farther there is no surface.
NEARER = (1.0, 0.5, 0.25)
# Cells an axis of a mesh that is shown while the real one is computed: a tenth of a second on two cores.
PREVIEW_RESOLUTION = 48


# Hears of a coarse mesh of one source: its number, vertices (n, 3) in the input's frame, and faces (m, 3).
Preview = Callable[[int, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Shape:
    """A finished shape and what a user wants to know of it.

    vertices : (n, 3) float64 in the input's frame and units; faces : (m, 3) int64, outward; none of an encoded shape
    observed : (n,) float32 in 0..1, how near the input was to each vertex; None without input or without vertices
    code : (code_length,) float32; pose : canonical frame -> the input's frame
    refinement : (m, 2) float32, corrections by what was seen, which with the code make the shape again (`decode`)
    deviation : (n,) float32, the standard deviation of each vertex along the normal, in the input's units, as far as
    the code is uncertain; None where nothing was fitted
    residual : mean absolute residual of the fit, canonical units; explained : share of the input within 0.02 of it
    confidence : 1 where nothing else explains the input as well, to 0 where something that stands elsewhere does
    seconds : time of each phase
    """

    model: str
    vertices: np.ndarray
    faces: np.ndarray
    code: np.ndarray
    pose: Similarity
    observed: np.ndarray | None = None
    refinement: np.ndarray | None = None
    deviation: np.ndarray | None = None
    residual: float = 0.0
    explained: float = 0.0
    confidence: float = 1.0
    steps: int = 0
    evaluations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Engine:
    """Holds loaded models on one device and does the tasks.

    With a `cache` the same content is neither fitted nor extracted twice. Models that together take more than
    `model_bytes` are let go, the least recently used first.
    """

    def __init__(
        self,
        store: ModelStore | None = None,
        device: str = "auto",
        cache: ContentCache | None = None,
        model_bytes: int = 4 << 30,
    ) -> None:
        self.store = store or ModelStore()
        self.device = choose_device(device)
        self.cache, self.model_bytes = cache, model_bytes
        self._models: dict[Path, _Loaded] = {}

    def models(self) -> list[ModelCard]:
        """What every known model says of itself, sorted by name."""
        return [read_card(path) for _, path in sorted(self.store.paths().items())]

    def loaded_models(self) -> list[str]:
        """Names of the models in memory, the least recently used first."""
        return [loaded.model.card.name for loaded in self._models.values()]

    def model(self, name: str, progress: Progress = silent) -> Model:
        """A model by name, loaded once; raises `InputError` that lists the known ones."""
        return self._loaded(name, progress).model

    def complete(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        preview: Preview | None = None,
    ) -> list[Shape]:
        """Complete partial meshes or point clouds: whole, closed meshes in their own frames.

        With several candidates those of a source follow one another, the best first.
        Raises `InputError` for input that no shape can be fitted to, and for an unknown model.
        """
        return self._fit_and_extract(model, sources, settings, observe_surface, progress, preview)

    def reconstruct(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        preview: Preview | None = None,
    ) -> list[Shape]:
        """Explain whole meshes, inside and outside, by the model.

        Raises `InputError` for meshes that enclose nothing.
        """
        return self._fit_and_extract(model, sources, settings, observe_solid, progress, preview)

    def encode(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
    ) -> list[Shape]:
        """The fit alone: code and pose of each source, without a mesh; `decode` makes that afterwards.

        A source counts as a solid where it encloses something, and as part of a surface otherwise.
        Raises `InputError` for input that no shape can be fitted to, and for an unknown model.
        """
        if not sources:
            return []
        loaded, clock = self._loaded(model, progress), Clock()
        encoded = self._encode(loaded, sources, settings, observe_solid_or_surface, progress, None, clock)
        shared = clock.shared(len(sources))
        return [_without_mesh(loaded.model.card.name, one, settings, shared) for one in encoded]

    def interpolate(
        self,
        model: str,
        sources: Sequence[Source],
        steps: int,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
    ) -> list[Shape]:
        """Shapes on the ways between two or more inputs, the inputs' own shapes included; poses go along.

        Each step goes about as far as the others, and what one input has and the next lacks recedes; see `way`.
        Raises `InputError` for fewer than two inputs or steps.
        """
        _check_steps(len(sources), steps)
        found = self.encode(model, sources, settings, progress)
        codes, poses, refinements = ([getattr(one, name) for one in found] for name in ("code", "pose", "refinement"))
        return self.interpolate_codes(model, np.stack(codes), poses, steps, settings, progress, refinements)

    def interpolate_codes(
        self,
        model: str,
        codes: np.ndarray,
        poses: Sequence[Similarity],
        steps: int,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        refinements: Sequence[np.ndarray | None] = (),
    ) -> list[Shape]:
        """Shapes on the ways between codes, (k, code_length), with their refinements, at k poses; see `interpolate`.

        refinements : (m, 2) or None for each code, or none at all
        The shapes between them carry codes and no refinements, of which each has several megabytes of its own; so
        `decode` makes of their codes what the category knows, and neither the inputs' detail nor what has receded.
        Raises `InputError` for fewer than two codes or steps, and where a line between two leaves all surfaces.
        """
        _check_steps(len(codes), steps)
        loaded = self._loaded(model, progress)
        latents = _array(_latents(loaded.model, codes))
        for refinement in refinements:
            if refinement is not None:
                check_residual_field(refinement)
        stops = [ImplicitShape(*pair) for pair in zip(latents, _one_each(refinements, len(codes)), strict=True)]
        places, shapes = np.linspace(0, len(codes) - 1, steps), []
        legs = np.minimum(places.astype(int), len(codes) - 2)
        for leg, share in enumerate(parts(progress, len(codes) - 1)):
            along = (places[legs == leg] - leg).tolist()
            there = [(one, poses[leg].towards(poses[leg + 1], one)) for one in along]
            shapes += self._between(loaded, stops[leg], stops[leg + 1], there, settings.resolution, share)
        return shapes

    def sample(
        self,
        model: str,
        count: int,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        pose: Similarity | None = None,
    ) -> list[Shape]:
        """New shapes, in the canonical frame or at `pose`, from the normal distribution of the training codes.

        Raises `InputError` for a count out of range.
        """
        loaded = self.model(model, progress)
        codes = loaded.mean + _deviations(loaded, count, settings.seed)
        return self.decode(model, _array(codes), [pose or Similarity.identity()] * count, settings, progress)

    def vary(
        self,
        model: str,
        code: np.ndarray,
        pose: Similarity,
        count: int,
        spread: float,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
    ) -> list[Shape]:
        """New shapes near the code, (code_length,), that stand at `pose`.

        They deviate from it as the training codes do from their mean, times `spread`, above 0 and at most 1.
        Raises `InputError` for a count or spread out of range, and for a code that is none of the model's.
        """
        if not 0 < spread <= 1:
            raise InputError(f"the spread is {spread}; use one above 0 and at most 1")
        loaded = self.model(model, progress)
        centre = _latents(loaded, np.asarray(code)[None])
        codes = centre + spread * _deviations(loaded, count, settings.seed)
        return self.decode(model, _array(codes), [pose] * count, settings, progress)

    def moved_codes(
        self, model: str, weights: np.ndarray, codes: np.ndarray | None = None, progress: Progress = silent
    ) -> np.ndarray:
        """Codes, (n, code_length) float32, after moves along the model's main directions of variation.

        weights : (n, k), standard deviations along the first k of `Model.principal_components`; k is at most the code length
        codes : (n, code_length), whence they move; the mean of the training codes where None
        Raises `InputError` for weights and codes that do not fit each other or the model, or are not finite.
        """
        loaded = self.model(model, progress)
        length, moves = len(loaded.mean), torch.as_tensor(weights, dtype=torch.float32, device=self.device)
        if moves.ndim != 2 or moves.shape[1] > length or not bool(torch.isfinite(moves).all()):
            raise InputError(f"weights of {model} are rows of at most {length} finite numbers, not {np.shape(weights)}")
        starts = loaded.mean.expand(len(moves), length) if codes is None else _latents(loaded, codes)
        if len(starts) != len(moves):
            raise InputError(f"{len(starts)} codes and {len(moves)} rows of weights; each code needs its row")
        return _array(starts + moves @ loaded.principal_components[: moves.shape[1]])

    def decode(
        self,
        model: str,
        codes: np.ndarray,
        poses: Sequence[Similarity],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        refinements: Sequence[np.ndarray | None] = (),
    ) -> list[Shape]:
        """The shapes of codes, (k, code_length), that stand at k poses, with k refinements, (m, 2) or None, or none."""
        if len(codes) != len(poses):
            raise InputError(f"{len(codes)} codes and {len(poses)} poses were given; each code needs one pose")
        each = zip(codes, poses, _one_each(refinements, len(codes)), parts(progress, len(codes)), strict=True)
        return [self.shape_of(model, code, pose, settings, share, refinement) for code, pose, refinement, share in each]

    def shape_of(
        self,
        model: str,
        code: np.ndarray,
        pose: Similarity,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        refinement: np.ndarray | None = None,
    ) -> Shape:
        """The shape of a code, (code_length,), that stands at `pose`, corrected by a refinement, (m, 2), of its fit."""
        if refinement is not None:
            refinement = np.asarray(refinement, dtype=np.float32)
            check_residual_field(refinement)
        return self._shape(self._loaded(model, progress), code, pose, settings, progress, refinement)

    def _shape(
        self,
        loaded: "_Loaded",
        code: np.ndarray,
        pose: Similarity,
        settings: TaskSettings,
        progress: Progress,
        refinement: np.ndarray | None,
    ) -> Shape:
        clock = Clock()
        latent = _latents(loaded.model, np.asarray(code)[None])
        heard = only(progress, Phase.EXTRACTING)
        mesh = self._meshes(loaded).mesh_code(latent, settings.resolution, heard, refinement)
        clock.lap(Phase.EXTRACTING)
        return Shape(
            loaded.model.card.name,
            pose.apply(mesh.vertices),
            mesh.faces,
            np.asarray(code, dtype=np.float32),
            pose,
            refinement=refinement,
            evaluations=mesh.evaluations,
            seconds=clock.seconds,
        )

    def _fit_and_extract(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings,
        observe: Observe,
        progress: Progress,
        preview: Preview | None,
    ) -> list[Shape]:
        if not sources:
            return []
        loaded, clock = self._loaded(model, progress), Clock()
        encoded = self._encode(loaded, sources, settings, observe, progress, preview, clock)
        shared = clock.shared(len(encoded) * settings.candidates)
        shares, shapes = iter(parts(progress, len(encoded) * settings.candidates)), []
        for best in encoded:
            clock = Clock()
            for one in self._candidates(loaded.model, best, settings):
                clock.lap(Phase.REFINING)
                shape, found = self._nearest_shape(loaded, one, best, settings, next(shares))
                seconds = shared | shape.seconds
                seconds[Phase.REFINING] = shared.get(Phase.REFINING, 0.0) + clock.seconds[Phase.REFINING]
                shapes.append(self._described(loaded.model, replace(shape, seconds=seconds), found))
                clock = Clock()
        return shapes

    def _nearest_shape(
        self, loaded: "_Loaded", one: Encoded, best: Encoded, settings: TaskSettings, progress: Progress
    ) -> tuple[Shape, Encoded]:
        """The shape of a candidate; where its code has no surface, of one nearer to the best, or the best's own."""
        for share in NEARER if one is not best else ():
            code = best.code + share * (one.code - best.code)
            near = one if share == 1 else self._moved_to(loaded.model, best, code, settings)
            with suppress(EmptySurfaceError):
                return self._refined_shape(loaded, near, settings, progress), near
        return self._refined_shape(loaded, best, settings, progress), best

    def _between(
        self,
        loaded: "_Loaded",
        first: ImplicitShape,
        last: ImplicitShape,
        there: Sequence[tuple[float, Similarity]],
        resolution: int,
        progress: Progress,
    ) -> list[Shape]:
        """The shapes at shares, 0 to 1, of the way between two, each with the pose at which it stands."""
        clock, shapes = Clock(), []
        found = self._meshes(loaded).interpolate(first, last, [share for share, _ in there], resolution, progress)
        for (share, pose), (mesh, code) in zip(there, found, strict=True):
            clock.lap(Phase.EXTRACTING)
            own = (first, last)[int(share)].refinement if share in (0, 1) else None
            shape = Shape(loaded.model.card.name, pose.apply(mesh.vertices), mesh.faces, code, pose, refinement=own)
            shapes.append(replace(shape, evaluations=mesh.evaluations, seconds=clock.seconds))
            clock = Clock()
        return shapes

    def _refined_shape(self, loaded: "_Loaded", one: Encoded, settings: TaskSettings, progress: Progress) -> Shape:
        """The shape of a fit, as far refined as the settings say."""
        return self._shape(loaded, one.code, one.pose, settings, progress, scale_residual_field(one.refinement, settings.refine))

    def _described(self, model: Model, shape: Shape, encoded: Encoded) -> Shape:
        """The shape with what its fit says, how near the input was to each vertex, and how sure each is."""
        scale = encoded.pose.scale
        if encoded.solid:
            shape = without_flakes(shape, encoded.surface)
        code, deviations, canonical = (
            torch.from_numpy(array).float().to(self.device)
            for array in (encoded.code, encoded.deviations, encoded.pose.inverse().apply(shape.vertices))
        )
        return replace(
            shape,
            observed=observed_weights(shape.vertices, encoded.surface, scale),
            deviation=_array(surface_deviation(model, code, deviations, canonical) * scale),
            residual=encoded.residual,
            explained=encoded.explained,
            confidence=encoded.confidence,
            steps=encoded.steps,
        )

    def _moved_to(self, model: Model, best: Encoded, code: np.ndarray, settings: TaskSettings) -> Encoded:
        """Another code for what was fitted, with what it explains and leaves over of the surface."""
        latent = torch.as_tensor(code, dtype=torch.float32, device=self.device)
        found = assess_surface(model, latent, best.surface, best.pose, torch.float32)
        seen = replace(observe_surface_points(best.surface), solid=best.solid)
        refinement = fit_residual_field(model, latent, seen, best.pose) if settings.refine else best.refinement[:0]
        return replace(best, code=code, residual=found[0], explained=found[1], refinement=refinement)

    def _candidates(self, model: Model, best: Encoded, settings: TaskSettings) -> Iterator[Encoded]:
        """The fit, its rivals that stand elsewhere, and codes drawn from the posterior about it, where it stands.

        One by one: each of the latter takes as long as a refinement, and in between a task may be cancelled.
        """
        found = [best, *best.rivals][: settings.candidates]
        yield from found
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn(settings.candidates - len(found), len(best.code), generator=generator).numpy()
        for code in best.code + noise @ best.deviations.T:
            yield self._moved_to(model, best, code, settings)

    def _encode(
        self,
        loaded: "_Loaded",
        sources: Sequence[Source],
        settings: TaskSettings,
        observe: Observe,
        progress: Progress,
        preview: Preview | None,
        clock: Clock,
    ) -> list[Encoded]:
        """Fit all sources that the cache does not know: solids as one batch, surfaces as another."""
        keys = [self._fit_key(loaded, observe, source, settings) for source in sources]
        found = [recall(self.cache, key) for key in keys]
        missing = [index for index, one in enumerate(found) if one is None]
        if missing:
            observed = _observe_all([sources[index] for index in missing], settings, observe, progress)
            clock.lap(Phase.OBSERVING)
            alike = _alike(missing, observed)
            question = _question(loaded.model, settings)
            for (numbers, batch), share in zip(alike, parts(progress, len(alike)), strict=True):
                coarse = None if preview is None else self._coarse_preview(loaded, numbers, preview)
                fits = explain(loaded.model, batch, question, share, clock, coarse)
                for index, one in zip(numbers, fits, strict=True):
                    remember(self.cache, keys[index], one)
                    found[index] = one
        return [one for one in found if one is not None]

    def _coarse_preview(self, loaded: "_Loaded", numbers: list[int], preview: Preview) -> StageWatch:
        """What to do after the first stage of a fit: show what there is so far of the sources `numbers`."""

        def show(stage: int, codes: torch.Tensor, poses: list[Similarity]) -> None:
            if stage:
                return
            for number, code, pose in zip(numbers, codes, poses, strict=True):
                with suppress(EmptySurfaceError):  # a code may pass through shapes too thin for coarse cells
                    mesh = self._meshes(loaded).mesh_code(code[None], PREVIEW_RESOLUTION, lambda share: None)
                    preview(number, pose.apply(mesh.vertices), mesh.faces)

        return show

    def _meshes(self, loaded: "_Loaded") -> Mesher:
        return Mesher(loaded.model, loaded.digest, self.cache)

    def _loaded(self, name: str, progress: Progress) -> "_Loaded":
        path = self.store.find(name)
        written = path.stat().st_mtime_ns
        loaded = self._models.pop(path, None)
        if loaded is None or loaded.written != written:
            progress(Phase.LOADING, 0.0)
            digest = hashlib.blake2b(path.read_bytes(), digest_size=20).hexdigest()
            loaded = _Loaded(load_model(path, self.device), digest, written)
            progress(Phase.LOADING, 1.0)
        self._models[path] = loaded  # the last is the most recently used
        while len(self._models) > 1 and sum(one.model.nbytes for one in self._models.values()) > self.model_bytes:
            del self._models[next(iter(self._models))]
        return loaded

    def _fit_key(self, loaded: "_Loaded", observe: Observe, source: Source, settings: TaskSettings) -> str:
        """All that a fit depends on; the resolution is not of it."""
        if self.cache is None:
            return ""
        geometry = source.geometry
        return content_key(
            "answers 8",  # another number for another way to fit or to keep
            loaded.digest,
            str(self.device.type),
            observe.__name__,
            [settings.pose, settings.up, settings.front, settings.quality],
            geometry.vertices,
            geometry.faces,
            geometry.normals,
            source.sensor,
        )


@dataclass(frozen=True)
class _Loaded:
    """A model in memory: a digest of its file, and when that was written."""

    model: Model
    digest: str
    written: int


def without_flakes(shape: Shape, surface: np.ndarray) -> Shape:
    """The shape of a solid less what its fit has left in the air: pieces nowhere near its surface, (m, 3), all of which
    is known.
    """
    near = observed_weights(shape.vertices, surface, shape.pose.scale) > 0
    mesh = Extraction(shape.vertices, shape.faces, shape.evaluations).keep_components(near)
    return replace(shape, vertices=mesh.vertices, faces=mesh.faces)


def _without_mesh(model: str, encoded: Encoded, settings: TaskSettings, shared: dict[str, float]) -> Shape:
    """What a fit found, as a shape without vertices and faces."""
    return Shape(
        model,
        np.zeros((0, 3)),
        np.zeros((0, 3), dtype=np.int64),
        encoded.code,
        encoded.pose,
        refinement=scale_residual_field(encoded.refinement, settings.refine),
        residual=encoded.residual,
        explained=encoded.explained,
        confidence=encoded.confidence,
        steps=encoded.steps,
        seconds=shared,
    )


def _latents(model: Model, codes: np.ndarray) -> torch.Tensor:
    """Codes, (k, code_length), on the model's device; raises `InputError` where they are none of that model's."""
    latents = torch.as_tensor(codes, dtype=torch.float32, device=model.device)
    length = model.codes.shape[1]
    if latents.ndim != 2 or latents.shape[1] != length or not bool(torch.isfinite(latents).all()):
        raise InputError(f"a code of {model.card.name} is {length} finite numbers, not {np.shape(codes)[1:]}")
    return latents


def _deviations(model: Model, count: int, seed: int) -> torch.Tensor:
    """Random deviations, (count, code_length), distributed as those of the training codes from their mean.

    Raises `InputError` for a count out of range.
    """
    if not 1 <= count <= MAXIMUM_SAMPLES:
        raise InputError(f"{count} samples asked for; use 1 to {MAXIMUM_SAMPLES}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, model.codes.shape[1], generator=generator).to(model.device)
    return noise @ torch.linalg.cholesky(model.covariance).T


def _one_each(refinements: Sequence[np.ndarray | None], count: int) -> Sequence[np.ndarray | None]:
    """The refinements of so many codes; None for each where none are given."""
    if refinements and len(refinements) != count:
        raise InputError(f"{len(refinements)} refinements were given for {count} codes; give one each, or none")
    return refinements or [None] * count


def _check_steps(shapes: int, steps: int) -> None:
    """Raise `InputError` unless `steps` shapes can be laid through `shapes`."""
    if shapes < 2:
        raise InputError(f"interpolation needs at least two shapes; {shapes} given")
    if not shapes <= steps <= MAXIMUM_STEPS:
        raise InputError(f"{steps} steps between {shapes} shapes; use {shapes} to {MAXIMUM_STEPS}")


def _observe_all(
    sources: Sequence[Source],
    settings: TaskSettings,
    observe: Observe,
    progress: Progress,
) -> list[Observations]:
    observed = []
    for index, source in enumerate(sources):
        progress(Phase.OBSERVING, index / len(sources))
        observed.append(observe(source, _up(settings)))
    return observed


def _up(settings: TaskSettings) -> np.ndarray | None:
    """The inputs' axis that points up, (3,), where it is known; canonical frames are y up."""
    if settings.pose is Pose.FREE:
        return None
    return axis_vector("+y" if settings.pose is Pose.KNOWN else settings.up)


def _question(model: Model, settings: TaskSettings) -> Question:
    known = settings.pose is Pose.KNOWN
    axes = np.eye(3) if known else axis_rotation(settings.up, settings.front, model.card.front)
    return Question(settings.pose, axes, settings.quality)


def _alike(numbers: Sequence[int], observed: Sequence[Observations]) -> list[tuple[list[int], list[Observations]]]:
    """The numbered observations as a group of solids and one of surfaces, those that are not empty.

    Each kind has its own settings of a fit; so a code does not depend on what else is fitted with it, but for rounding.
    """
    pairs = list(zip(numbers, observed, strict=True))
    groups = [[pair for pair in pairs if pair[1].solid is solid] for solid in (True, False)]
    return [([number for number, _ in group], [seen for _, seen in group]) for group in groups if group]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
