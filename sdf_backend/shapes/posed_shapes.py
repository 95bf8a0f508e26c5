"""Shapes of codes at poses: canonical meshes, extracted or interpolated, in the frames of their inputs."""

from collections.abc import Sequence

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.geometry.isosurface import Extraction
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.codes import checked_codes
from sdf_backend.progress import Clock, Phase, Progress, of_phase, parts
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.interpolation import ImplicitShape
from sdf_backend.shapes.mesher import Mesher
from sdf_backend.shapes.residual_field import check_residual_field
from sdf_backend.shapes.shape import Shape

MAXIMUM_STEPS = 1000


def extract_shape(
    mesher: Mesher,
    code: np.ndarray,
    pose: Similarity,
    settings: TaskSettings,
    progress: Progress,
    refinement: np.ndarray | None,
) -> Shape:
    """The shape of a code, (code_length,), at a pose, corrected by a refinement, (m, 2).

    Raises `InputError` for a code that is not the model's, and `EmptySurfaceError` where there is no surface.
    """
    clock, latent = Clock(), checked_codes(mesher.model, np.asarray(code)[None])
    mesh = mesher.mesh_code(latent, settings.resolution, of_phase(progress, Phase.EXTRACTING), refinement)
    return _posed_shape(mesher, mesh, np.asarray(code, dtype=np.float32), pose, refinement, clock)


def _posed_shape(
    mesher: Mesher,
    mesh: Extraction,
    code: np.ndarray,
    pose: Similarity,
    refinement: np.ndarray | None,
    clock: Clock,
) -> Shape:
    """The shape of a canonical mesh."""
    clock.lap(Phase.EXTRACTING)
    return Shape(
        mesher.model.card.name,
        pose.apply(mesh.vertices),
        mesh.faces,
        code,
        pose,
        refinement=refinement,
        evaluations=mesh.evaluations,
        seconds=clock.seconds,
    )


def interpolate_shapes(
    mesher: Mesher,
    keyframes: Sequence[ImplicitShape],
    poses: Sequence[Similarity],
    steps: int,
    settings: TaskSettings,
    progress: Progress,
) -> list[Shape]:
    """`steps` shapes at equal intervals through keyframes, each of which has a pose.

    Raises `EmptySurfaceError` where no code on the line between two has a surface.
    """
    times, shapes = np.linspace(0, len(keyframes) - 1, steps), []
    legs = np.minimum(times.astype(int), len(keyframes) - 2)
    for leg, share in enumerate(parts(progress, len(keyframes) - 1)):
        fractions = (times[legs == leg] - leg).tolist()
        posed = [(fraction, poses[leg].interpolate(poses[leg + 1], fraction)) for fraction in fractions]
        shapes += _shapes_between(mesher, keyframes[leg], keyframes[leg + 1], posed, settings, share)
    return shapes


def _shapes_between(
    mesher: Mesher,
    first: ImplicitShape,
    last: ImplicitShape,
    posed: Sequence[tuple[float, Similarity]],
    settings: TaskSettings,
    progress: Progress,
) -> list[Shape]:
    """The shapes between two keyframes, at fractions, 0 to 1, with the pose of each."""
    clock, shapes = Clock(), []
    found = mesher.interpolate(first, last, [fraction for fraction, _ in posed], settings.resolution, progress)
    for (fraction, pose), (mesh, code) in zip(posed, found, strict=True):
        refinement = (first, last)[int(fraction)].refinement if fraction in (0, 1) else None
        shapes.append(_posed_shape(mesher, mesh, code, pose, refinement, clock))
        clock = Clock()
    return shapes


def check_steps(keyframes: int, steps: int) -> None:
    """Raise `InputError` unless `steps` shapes can include that many keyframes."""
    if keyframes < 2:
        raise InputError(f"interpolation needs at least two shapes, not {keyframes}")
    if not keyframes <= steps <= MAXIMUM_STEPS:
        raise InputError(f"{steps} steps were requested for {keyframes} shapes; use {keyframes} to {MAXIMUM_STEPS}")


def checked_refinements(refinements: Sequence[np.ndarray | None], count: int) -> Sequence[np.ndarray | None]:
    """One refinement, (m, 2) float32 or None, for each of `count` codes, of which all or none are given.

    Raises `InputError` for another number of refinements, and for an array that is not a refinement.
    """
    if refinements and len(refinements) != count:
        raise InputError(f"{len(refinements)} refinements were given for {count} codes; give one each, or none")
    checked: list[np.ndarray | None] = []
    for refinement in refinements:
        if refinement is not None:
            refinement = np.asarray(refinement, dtype=np.float32)
            check_residual_field(refinement)
        checked.append(refinement)
    return checked or [None] * count
