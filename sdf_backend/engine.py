"""The tasks: reconstruct, complete, interpolate, sample, vary; and their halves, encode and decode.

This is the one Python API; the command line and the workers call nothing else.

    engine = Engine(ModelStore())
    [shape] = engine.complete("airplanes", [Source(read_geometry(Path("scan.ply")))], TaskSettings(pose=Pose.KNOWN))

In place of a name, `AUTO_MODEL` chooses the model by the input, in all tasks that have one.

Data takes three steps:

    source -> observations       observe_surface, observe_solid    (sdf_backend/observation)
    observations -> encoding     Engine.fit                        (sdf_backend/fitting)
    encoding -> shape            extract_shape                     (sdf_backend/shapes)

Every task takes a batch and a `progress` callback, which is called at every step and may raise `Cancelled`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from sdf_backend.content_cache import ContentCache
from sdf_backend.errors import InputError
from sdf_backend.fitting.candidates import backtrack, draw_candidates
from sdf_backend.fitting.description import describe_shape, shape_without_mesh
from sdf_backend.fitting.encoding import Encoding
from sdf_backend.fitting.fit import OnStage
from sdf_backend.fitting.fit_cache import choice_key, fit_key, load_choice, load_encoding, store_choice, store_encoding
from sdf_backend.fitting.hypotheses import encode_observations
from sdf_backend.fitting.model_choice import ModelChoice, choose_model
from sdf_backend.geometry.isosurface import EmptySurfaceError
from sdf_backend.geometry.similarity import Similarity, axis_vector
from sdf_backend.model.card import ModelCard
from sdf_backend.model.codes import checked_codes, draw_code_deviations, move_codes_along_components
from sdf_backend.model.devices import choose_device
from sdf_backend.model.model_cache import LoadedModel, ModelCache
from sdf_backend.model.store import Model, ModelStore
from sdf_backend.observation.observations import Observations
from sdf_backend.observation.sources import Observe, Source, observe_solid, observe_solid_or_surface, observe_surface
from sdf_backend.progress import Clock, Phase, Progress, of_phase, parts, silent
from sdf_backend.settings import Keep, Pose, TaskSettings
from sdf_backend.shapes.coloring import color_shape
from sdf_backend.shapes.interpolation import ImplicitShape
from sdf_backend.shapes.keep_input import keep_inputs, settings_of_faces
from sdf_backend.shapes.mesher import Mesher
from sdf_backend.shapes.posed_shapes import check_steps, checked_refinements, extract_shape, interpolate_shapes
from sdf_backend.shapes.remeshing import remesh_shape
from sdf_backend.shapes.residual_field import scale_residual_field
from sdf_backend.shapes.shape import Shape
from sdf_backend.wire.messages import AUTO_MODEL

# Cells per axis of the preview mesh after a fit's first stage: a tenth of a second on two cores.
PREVIEW_RESOLUTION = 48

# Called with a coarse mesh of one source: the source's index, vertices (n, 3) in the input's frame, faces (m, 3).
Preview = Callable[[int, np.ndarray, np.ndarray], None]


class Engine:
    """Runs the tasks on one device; models are loaded when a task names them.

    With a `cache` no content is fitted or extracted twice. Of loaded models that together take more than `model_bytes`
    the least recently used are released.
    """

    def __init__(
        self,
        store: ModelStore | None = None,
        device: str = "auto",
        cache: ContentCache | None = None,
        model_bytes: int = 4 << 30,
    ) -> None:
        self.store = store or ModelStore()
        self.device, self.cache = choose_device(device), cache
        self._models = ModelCache(self.store, self.device, model_bytes)

    def models(self) -> list[ModelCard]:
        """Cards of all usable models, sorted by name; see `ModelStore.cards` for the others."""
        return [card for card in self.store.cards().values() if isinstance(card, ModelCard)]

    def loaded_models(self) -> list[str]:
        """Names of the models in memory, the least recently used first."""
        return self._models.names()

    def model(self, name: str, progress: Progress = silent) -> Model:
        """A model by name, loaded once; raises `InputError` that lists the known names."""
        return self._models.load(name, progress).model

    def complete(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        preview: Preview | None = None,
    ) -> list[Shape]:
        """Complete partial meshes or point clouds: closed meshes in the inputs' own frames.

        Returns `settings.candidates` shapes for each source, the best first. Meshes that `settings.keep` stay as they
        are, and get what they lack (see `keep_input`).
        Raises `InputError` for input that no shape can be fitted to, and for an unknown model.
        """
        shapes = self._fit_and_extract(model, sources, settings, observe_surface, progress, preview)
        if settings.keep is Keep.NOTHING:
            return shapes
        geometries = [source.geometry for source in sources for _ in range(settings.candidates)]
        return keep_inputs(shapes, geometries, settings, progress)

    def reconstruct(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        preview: Preview | None = None,
    ) -> list[Shape]:
        """Fit whole meshes by the signed distances around them; see `complete`.

        Raises `InputError` for meshes that enclose no volume.
        """
        whole = replace(settings, keep=Keep.NOTHING)
        return self._fit_and_extract(model, sources, whole, observe_solid, progress, preview)

    def encode(
        self,
        model: str,
        sources: Sequence[Source],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
    ) -> list[Shape]:
        """Code and pose of each source, without a mesh, which `decode` makes afterwards.

        A source that encloses a volume is fitted as a solid, any other as a partial surface. `AUTO_MODEL` chooses one
        model for all, since codes of different models cannot be compared.
        Raises `InputError` for input that no shape can be fitted to, and for an unknown model.
        """
        if not sources:
            return []
        if model == AUTO_MODEL:
            choice = self._choose(sources, settings, observe_solid_or_surface, progress)
            return [_chosen(shape, choice) for shape in self.encode(choice.name, sources, settings, progress)]
        loaded, clock = self._models.load(model, progress), Clock()
        encodings = self._encode(loaded, sources, settings, observe_solid_or_surface, progress, None, clock)
        seconds = clock.seconds_each(len(sources))
        return [
            shape_without_mesh(loaded.model.card.name, encoding, settings, seconds).with_notes(*source.geometry.notes)
            for encoding, source in zip(encodings, sources, strict=True)
        ]

    def fit(
        self,
        model: str,
        observations: Sequence[Observations],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        preview: Preview | None = None,
        clock: Clock | None = None,
    ) -> list[Encoding]:
        """Fit a code and a pose to each of a batch of observations; what every task does between source and mesh.

        Parameters
        ----------
        observations : all solids, or all surfaces; each in the frame of its source
        preview : called with coarse meshes after the first stage
        clock : gets the time of each phase

        Raises `InputError` for observations without points, and for solids and surfaces in one batch.
        """
        loaded, indexed = self._models.load(model, progress), dict(enumerate(observations))
        return self._fit(loaded, indexed, settings, progress, preview, clock or Clock())

    def extract(
        self, model: str, encoding: Encoding, settings: TaskSettings = TaskSettings(), progress: Progress = silent
    ) -> Shape:
        """The shape of an encoding, as `complete` and `reconstruct` return it.

        Raises `EmptySurfaceError` where its code has no surface.
        """
        loaded = self._models.load(model, progress)
        return describe_shape(
            loaded.model, self._refined_shape(loaded, encoding, settings, progress), encoding, settings
        )

    def interpolate(
        self,
        model: str,
        sources: Sequence[Source],
        steps: int,
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
    ) -> list[Shape]:
        """Shapes between two or more inputs, the inputs' own shapes included; poses are interpolated too.

        The steps are about equally large, and parts that only one of two inputs has shrink or grow; see
        `sdf_backend.shapes.interpolation`.
        Raises `InputError` for fewer than two inputs, and for a number of steps out of range.
        """
        check_steps(len(sources), steps)
        found = self.encode(model, sources, settings, progress)
        codes, poses, refinements = ([getattr(one, name) for one in found] for name in ("code", "pose", "refinement"))
        if model == AUTO_MODEL:
            model = found[0].model
        first, *others = self.interpolate_codes(model, np.stack(codes), poses, steps, settings, progress, refinements)
        noted = [first.with_notes(*(one.note for one in found)), *others]
        return [replace(shape, model=found[0].model) for shape in noted]

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
        """Shapes between codes; see `interpolate`.

        The shapes in between carry codes but no refinements, each of which would take several megabytes. So `decode`
        gives the shapes of the category at their codes, without the inputs' detail and with the parts that have shrunk
        here.

        Parameters
        ----------
        codes : (k, code_length)
        poses : k
        refinements : (m, 2) or None for each code; or none at all

        Raises `InputError` for fewer than two codes, for a number of steps out of range, and where no code on the line
        between two has a surface.
        """
        check_steps(len(codes), steps)
        loaded = self._models.load(model, progress)
        latents, corrections = _array(checked_codes(loaded.model, codes)), checked_refinements(refinements, len(codes))
        keyframes = [ImplicitShape(*pair) for pair in zip(latents, corrections, strict=True)]
        shapes = interpolate_shapes(self._mesher(loaded), keyframes, poses, steps, settings, progress)
        return [remesh_shape(shape, settings) for shape in shapes]

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
        codes = loaded.mean + draw_code_deviations(loaded, count, settings.seed)
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
        """New shapes near a code, (code_length,), at `pose`.

        They deviate from it as the training codes do from their mean, times `spread`, above 0 and at most 1.
        Raises `InputError` for a count or spread out of range, and for a code that is not the model's.
        """
        if not 0 < spread <= 1:
            raise InputError(f"the spread is {spread}; use a number above 0 and at most 1")
        loaded = self.model(model, progress)
        centre = checked_codes(loaded, np.asarray(code)[None])
        codes = centre + spread * draw_code_deviations(loaded, count, settings.seed)
        return self.decode(model, _array(codes), [pose] * count, settings, progress)

    def move_codes(
        self, model: str, weights: np.ndarray, codes: np.ndarray | None = None, progress: Progress = silent
    ) -> np.ndarray:
        """Codes moved along the model's principal components; see `move_codes_along_components`."""
        return _array(move_codes_along_components(self.model(model, progress), weights, codes))

    def decode(
        self,
        model: str,
        codes: np.ndarray,
        poses: Sequence[Similarity],
        settings: TaskSettings = TaskSettings(),
        progress: Progress = silent,
        refinements: Sequence[np.ndarray | None] = (),
    ) -> list[Shape]:
        """Shapes of codes, (k, code_length), at k poses, with k refinements, (m, 2) or None, or with none at all."""
        if len(codes) != len(poses):
            raise InputError(f"{len(codes)} codes and {len(poses)} poses were given; each code needs one pose")
        each = zip(codes, poses, checked_refinements(refinements, len(codes)), parts(progress, len(codes)), strict=True)
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
        """The shape of one code, (code_length,), at `pose`, corrected by the refinement, (m, 2), of its fit."""
        [refinement] = checked_refinements([refinement], 1)
        mesher = self._mesher(self._models.load(model, progress))
        return remesh_shape(extract_shape(mesher, code, pose, settings, progress, refinement), settings)

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
        if model == AUTO_MODEL:
            return self._fit_each_and_extract(sources, settings, observe, progress, preview)
        loaded, clock = self._models.load(model, progress), Clock()
        encodings = self._encode(loaded, sources, settings, observe, progress, preview, clock)
        count = len(encodings) * settings.candidates
        shared, shares, shapes = clock.seconds_each(count), iter(parts(progress, count)), []
        for best, source in zip(encodings, sources, strict=True):
            clock, faces = Clock(), settings_of_faces(settings, source.geometry)
            for candidate in draw_candidates(loaded.model, best, settings):
                clock.lap(Phase.REFINING)
                shape, encoding = self._candidate_shape(loaded, candidate, best, settings, next(shares))
                seconds = shared | shape.seconds
                seconds[Phase.REFINING] = shared.get(Phase.REFINING, 0.0) + clock.seconds[Phase.REFINING]
                described = describe_shape(loaded.model, replace(shape, seconds=seconds), encoding, faces)
                shapes.append(color_shape(described, source.geometry).with_notes(*source.geometry.notes))
                clock = Clock()
        return shapes

    def _fit_each_and_extract(
        self,
        sources: Sequence[Source],
        settings: TaskSettings,
        observe: Observe,
        progress: Progress,
        preview: Preview | None,
    ) -> list[Shape]:
        """Each source with the model that explains it best; those of one model in one batch."""
        clock = Clock()
        choices = [
            self._choose([source], settings, observe, share)
            for source, share in zip(sources, parts(progress, len(sources)), strict=True)
        ]
        clock.lap(Phase.CHOOSING)
        choosing = clock.seconds_each(len(sources) * settings.candidates)
        shapes: list[list[Shape]] = [[] for _ in sources]
        names = list(dict.fromkeys(choice.name for choice in choices))
        for name, share in zip(names, parts(progress, len(names)), strict=True):
            indices = [index for index, choice in enumerate(choices) if choice.name == name]
            chosen, show = [sources[index] for index in indices], preview and _of_subset(preview, indices)
            found = self._fit_and_extract(name, chosen, settings, observe, share, show)
            for place, shape in enumerate(found):
                index = indices[place // settings.candidates]
                timed = replace(shape, seconds=choosing | shape.seconds)
                shapes[index].append(_chosen(timed, choices[index]))
        return [shape for of_source in shapes for shape in of_source]

    def _choose(
        self, sources: Sequence[Source], settings: TaskSettings, observe: Observe, progress: Progress
    ) -> ModelChoice:
        """The model that explains all sources best, from the cache if it was chosen before."""
        usable: dict[str, LoadedModel] = {}
        for path, card in self.store.cards().items():
            if isinstance(card, ModelCard):
                with suppress(InputError):  # one damaged file is no reason to choose none
                    usable[path.stem] = self._models.load(path.stem, progress)
        if not usable:
            raise InputError("there is no model to choose; add one to the folder of models")
        digests = {name: loaded.digest for name, loaded in usable.items()}
        key = choice_key(sources, settings, observe, digests, self.device.type) if self.cache else ""
        choice = load_choice(self.cache, key)
        if choice is None:
            progress(Phase.CHOOSING, 0.0)
            observed = [observe(source, _up_axis(settings)) for source in sources]
            models = {name: loaded.model for name, loaded in usable.items()}
            choice = choose_model(models, observed, settings, of_phase(progress, Phase.CHOOSING))
            store_choice(self.cache, key, choice)
        return choice

    def _encode(
        self,
        loaded: LoadedModel,
        sources: Sequence[Source],
        settings: TaskSettings,
        observe: Observe,
        progress: Progress,
        preview: Preview | None,
        clock: Clock,
    ) -> list[Encoding]:
        """Encodings from the cache; the other sources are observed and fitted, solids and surfaces in a batch each."""
        about = (settings, observe, loaded.digest, self.device.type)
        keys = [fit_key(source, *about) if self.cache else "" for source in sources]
        encodings = [load_encoding(self.cache, key) for key in keys]
        missing = [index for index, encoding in enumerate(encodings) if encoding is None]
        observed: dict[int, Observations] = {}
        for number, index in enumerate(missing):
            progress(Phase.OBSERVING, number / len(missing))
            observed[index] = observe(sources[index], _up_axis(settings))
        if missing:
            clock.lap(Phase.OBSERVING)
        batches = [[index for index in missing if observed[index].solid is solid] for solid in (True, False)]
        batches = [batch for batch in batches if batch]
        for batch, share in zip(batches, parts(progress, len(batches)), strict=True):
            chosen = {index: observed[index] for index in batch}
            fits = self._fit(loaded, chosen, settings, share, preview, clock)
            for index, encoding in zip(batch, fits, strict=True):
                store_encoding(self.cache, keys[index], encoding)
                encodings[index] = encoding
        return [encoding for encoding in encodings if encoding is not None]

    def _fit(
        self,
        loaded: LoadedModel,
        observations: Mapping[int, Observations],
        settings: TaskSettings,
        progress: Progress,
        preview: Preview | None,
        clock: Clock,
    ) -> list[Encoding]:
        """Encodings of observations by the index of their source, all solids or all surfaces."""
        on_stage = None if preview is None else self._preview_first_stage(loaded, list(observations), preview)
        return encode_observations(loaded.model, list(observations.values()), settings, progress, clock, on_stage)

    def _preview_first_stage(self, loaded: LoadedModel, indices: list[int], preview: Preview) -> OnStage:
        def show(stage: int, codes: torch.Tensor, poses: list[Similarity]) -> None:
            for index, code, pose in zip(indices, codes, poses, strict=True) if stage == 0 else ():
                with suppress(EmptySurfaceError):  # a shape may be too thin for coarse cells for a while
                    mesh = self._mesher(loaded).mesh_code(code[None], PREVIEW_RESOLUTION, silent)
                    preview(index, pose.apply(mesh.vertices), mesh.faces)

        return show

    def _candidate_shape(
        self, loaded: LoadedModel, candidate: Encoding, best: Encoding, settings: TaskSettings, progress: Progress
    ) -> tuple[Shape, Encoding]:
        """The shape of a candidate, or of the farthest encoding between it and the best that has a surface."""
        for encoding in backtrack(loaded.model, best, candidate, settings):
            with suppress(EmptySurfaceError):
                return self._refined_shape(loaded, encoding, settings, progress), encoding
        return self._refined_shape(loaded, best, settings, progress), best

    def _refined_shape(
        self, loaded: LoadedModel, encoding: Encoding, settings: TaskSettings, progress: Progress
    ) -> Shape:
        """The shape of an encoding, corrected by its residual field as far as the settings say."""
        mesher, refinement = self._mesher(loaded), scale_residual_field(encoding.refinement, settings.refine)
        return extract_shape(mesher, encoding.code, encoding.pose, settings, progress, refinement)

    def _mesher(self, loaded: LoadedModel) -> Mesher:
        return Mesher(loaded.model, loaded.digest, self.cache)


def _up_axis(settings: TaskSettings) -> np.ndarray | None:
    """The input's axis that points up, (3,), where it is known; canonical frames are y up."""
    if settings.pose is Pose.FREE:
        return None
    return axis_vector("+y" if settings.pose is Pose.KNOWN else settings.up)


def _chosen(shape: Shape, choice: ModelChoice) -> Shape:
    """A shape with what is to be said of the choice of its model."""
    return replace(shape, model=choice.name, model_confidence=choice.confidence).with_notes(choice.note)


def _of_subset(preview: Preview, indices: Sequence[int]) -> Preview:
    """The preview of some of the sources."""
    return lambda index, vertices, faces: preview(indices[index], vertices, faces)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
