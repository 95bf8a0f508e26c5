"""Interpolation between selected objects; those that store no shape are fitted first."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import bpy
import numpy as np

from .blending import blend_along_path, blend_on_grid
from .geometry import GeometryError, ObjectGeometry, read_objects
from .result_handlers import Animation, Blend, Placement, Rows
from .session import KEEP_SECONDS, NO_MORE_STEPS, Job, ResultHandler, Steps, session
from .shapes import Asked, bounding_box, source_name, stored_shape, unpack_refinement, world_pose
from .wire.client import new_job
from .wire.messages import Preview, Result, Shape, Source, Submit
from .wire.settings import Choice, TaskSettings

GRID_CORNERS = 4
NO_REFINEMENT = np.zeros((0, 2), dtype="<f4")
# From the objects to the row of results in front of them, relative to the largest depth of the objects.
ROW_SPACING = 1.25


class Arrangement(Choice):
    """How the shapes are added to the scene."""

    ROW = "row", "Side by side in front of the objects"
    ANIMATION = "animation", "One object per step, each visible during its own frames only"
    BLEND = "blend", "One object with a slider"


class Traversal(Choice):
    """The path of the interpolation through the objects."""

    PATH = "path", "From object to object, from left to right along X"
    GRID = "grid", "Between four objects, one at each corner"


@dataclass(frozen=True)
class InterpolationRequest:
    """What the user requests.

    model : its name; settings : of the fit, and the resolution; steps : shapes along the path, or along each side of
    the grid; hold : frames per step of an animation; frame : its first frame; asked : where
    """

    model: str
    settings: TaskSettings
    arrangement: Arrangement
    through: Traversal
    steps: int
    hold: int
    frame: int
    asked: Asked


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A selected object: its geometry until it is fitted, otherwise its code and its pose in the world.

    corner, size : (3,), lowest corner and size of the bounding box in the world
    code : (code_length,); pose : (4, 4); refinement : the residual field, (m, 2), or None
    """

    name: str
    corner: np.ndarray
    size: np.ndarray
    geometry: ObjectGeometry | None = None
    code: np.ndarray | None = None
    pose: np.ndarray | None = None
    refinement: np.ndarray | None = None


def start_interpolation(
    objects: Sequence[bpy.types.Object], depsgraph: bpy.types.Depsgraph, request: InterpolationRequest
) -> None:
    """Submit the interpolation, or first the fit of those objects that store no shape.

    Raises
    ------
    GeometryError : for a selection that cannot be interpolated as requested
    WireError : as `Session.submit` does
    """
    _check(len(objects), request)
    keyframes = _sort([_read_keyframe(item, depsgraph, request.model) for item in objects], request.through)
    unknown = [keyframe.geometry for keyframe in keyframes if keyframe.geometry is not None]
    if not unknown:
        _submit_interpolation(keyframes, request)
        return
    sources = tuple(Source(geometry.vertices, geometry.faces) for geometry in unknown)
    submit = Submit(new_job(), "encode", request.model, request.settings, sources, keep=KEEP_SECONDS)
    session.submit(submit, Job(submit.job, _label(keyframes), _Encoding(keyframes, request)))


class _Encoding:
    """Handles the result of the fit: submits the interpolation."""

    undoable = False

    def __init__(self, keyframes: Sequence[Keyframe], request: InterpolationRequest) -> None:
        self._keyframes, self._request = keyframes, request

    def preview(self, preview: Preview) -> Steps:
        """Ignore it; a fit of several objects displays nothing."""
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Submit the interpolation between the fitted codes."""
        shapes = iter(result.shapes)
        keyframes = [
            keyframe if keyframe.geometry is None else _fitted(keyframe, keyframe.geometry, next(shapes))
            for keyframe in self._keyframes
        ]
        model = result.shapes[0].model or self._request.model
        _submit_interpolation(keyframes, replace(self._request, model=model))
        return NO_MORE_STEPS

    def fail(self) -> Steps:
        """Nothing to remove."""
        return NO_MORE_STEPS


def _check(selected: int, request: InterpolationRequest) -> None:
    """Raise `GeometryError` if this number of selected objects cannot be interpolated as requested."""
    grid = request.through is Traversal.GRID
    if selected < 2:
        raise GeometryError("Interpolation needs two or more objects; select another one")
    if grid and selected != GRID_CORNERS:
        raise GeometryError(f"A grid has four corners, but {selected} objects are selected; select four")
    if grid and request.arrangement is Arrangement.ANIMATION:
        raise GeometryError("A grid cannot be an animation; choose Path, or choose Row or Blend for a grid")
    count = request.steps**2 if grid else request.steps
    most = session.limits.shapes
    if request.arrangement is not Arrangement.BLEND and not selected <= count <= most:
        raise GeometryError(f"{count} steps were requested for {selected} objects; use {selected} to {most} steps")


def _fitted(keyframe: Keyframe, geometry: ObjectGeometry, shape: Shape) -> Keyframe:
    world = np.eye(4)
    world[:3, 3] = geometry.centre
    pose = world @ shape.pose[0]
    return replace(keyframe, geometry=None, code=shape.code[0], pose=pose, refinement=shape.refinement)


def _read_keyframe(item: bpy.types.Object, depsgraph: bpy.types.Depsgraph, model: str) -> Keyframe:
    corner, size = bounding_box(item)
    shape = stored_shape(item)
    if shape is None:
        return Keyframe(source_name(item), corner, size, geometry=read_objects([item], depsgraph))
    if shape.model != model:
        raise GeometryError(
            f"{item.name} is a shape of the model {shape.model}, not of {model}; select shapes of one model"
        )
    refinement = unpack_refinement(shape.refinement) if len(shape.codes) == 1 else None
    pose = world_pose(item, shape.pose)
    return Keyframe(source_name(item), corner, size, code=shape.code, pose=pose, refinement=refinement)


def _sort(keyframes: list[Keyframe], through: Traversal) -> list[Keyframe]:
    """Along a path in order of world x; on a grid row by row, with the row nearest to the viewer first."""
    by_x = sorted(keyframes, key=lambda keyframe: (keyframe.corner[0] + keyframe.size[0] / 2, keyframe.name))
    if through is Traversal.PATH:
        return by_x
    by_y = sorted(by_x, key=lambda keyframe: keyframe.corner[1] + keyframe.size[1] / 2)
    return [keyframe for row in (by_y[:2], by_y[2:]) for keyframe in sorted(row, key=by_x.index)]


def _submit_interpolation(keyframes: Sequence[Keyframe], request: InterpolationRequest) -> None:
    codes = np.stack([np.asarray(keyframe.code, dtype=np.float64) for keyframe in keyframes])  # (k, code_length)
    poses = np.stack([np.asarray(keyframe.pose, dtype=np.float64) for keyframe in keyframes])  # (k, 4, 4)
    blended = _blended(codes, poses, request)
    placements = [Placement.from_pose(pose) for _, pose in blended]
    handler = _handler(keyframes, codes, poses, placements, request)
    if request.through is Traversal.PATH and request.arrangement is not Arrangement.BLEND:
        submit = _interpolate_message(keyframes, codes, poses, request)
    else:
        # Sliders and grids blend codes linearly; the interpolation of part transitions needs the order of a path.
        submit = Submit(
            new_job(),
            "decode",
            request.model,
            request.settings,
            codes=np.stack([code for code, _ in blended]),
            poses=np.stack([placement.orientation for placement in placements]),
            keep=KEEP_SECONDS,
        )
    session.submit(submit, Job(submit.job, _label(keyframes), handler))


def _interpolate_message(
    keyframes: Sequence[Keyframe], codes: np.ndarray, poses: np.ndarray, request: InterpolationRequest
) -> Submit:
    """The job for evenly spaced steps along a path, each about its own origin."""
    return Submit(
        new_job(),
        "interpolate",
        request.model,
        request.settings,
        codes=codes,
        poses=np.stack([Placement.from_pose(pose).orientation for pose in poses]),
        refinements=tuple(
            NO_REFINEMENT if keyframe.refinement is None else keyframe.refinement for keyframe in keyframes
        ),
        count=request.steps,
        keep=KEEP_SECONDS,
    )


def _blended(
    codes: np.ndarray, poses: np.ndarray, request: InterpolationRequest
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Code and pose of each step; of the middle only for a blend."""
    positions = np.linspace(0, 1, request.steps) if request.arrangement is not Arrangement.BLEND else [0.5]
    if request.through is Traversal.GRID:
        return [blend_on_grid(codes, poses, x, y) for y in positions for x in positions]
    return [blend_along_path(codes, poses, position) for position in positions]


def _handler(
    keyframes: Sequence[Keyframe],
    codes: np.ndarray,
    poses: np.ndarray,
    placements: Sequence[Placement],
    request: InterpolationRequest,
) -> ResultHandler:
    name, settings = f"{keyframes[0].name} to {keyframes[-1].name}", {"task": "interpolate", **asdict(request.settings)}
    common = (name, request.model, placements, settings, request.asked)
    match request.arrangement:
        case Arrangement.BLEND:
            return Blend(*common, codes, poses, request.through is Traversal.GRID)
        case Arrangement.ANIMATION:
            return Animation(*common, request.hold, request.frame)
        case _:
            depth = max(keyframe.size[1] for keyframe in keyframes)
            front = min(keyframe.corner[1] for keyframe in keyframes)
            first = placements[0].position
            return Rows(*common, request.steps, np.array([first[0], front - ROW_SPACING * depth, first[2]]))


def _label(keyframes: Sequence[Keyframe]) -> str:
    return ", ".join(keyframe.name for keyframe in keyframes)
