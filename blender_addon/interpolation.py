"""From selected objects to the shapes between them: what is no shape of a model yet becomes one by a fit first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np

from .arrangements import Animation, Blend, Rows, Standing
from .between import on_grid, on_path
from .geometry import GeometryError, Seen, read_objects
from .session import KEEP_SECONDS, Job, Purpose, session
from .shapes import extent, remembered, title, unpacked, world_pose
from .wire.client import new_job
from .wire.messages import Preview, Result, Shape, Source, Submit
from .wire.settings import TaskSettings

CORNERS = 4
UNREFINED = np.zeros((0, 2), dtype="<f4")
# How far a row stands before the objects between which it is, as a share of their own depth.
BEFORE = 1.25


@dataclass(frozen=True)
class Wish:
    """What is wanted between the objects.

    arrangement : row, animation or blend; through : path or grid; steps : along each of a grid's sides too
    """

    model: str
    settings: TaskSettings
    arrangement: str
    through: str
    steps: int
    hold: int
    frame: int
    scene: int


@dataclass(frozen=True, eq=False)
class End:
    """A selected object; what was read of it where it is no shape of a model, otherwise its code and world pose.

    refinement : (m, 2), by what its shape was corrected, or None
    """

    name: str
    corner: np.ndarray
    size: np.ndarray
    seen: Seen | None = None
    code: np.ndarray | None = None
    pose: np.ndarray | None = None
    refinement: np.ndarray | None = None


def begin(objects: Sequence[bpy.types.Object], depsgraph: bpy.types.Depsgraph, wish: Wish) -> None:
    """Submit the job. Raises `GeometryError` for what cannot be interpolated, `WireError` as `session.submit` does."""
    if len(objects) < 2:
        raise GeometryError("Interpolation needs two or more objects; select another one")
    if wish.through == "grid" and len(objects) != CORNERS:
        raise GeometryError(f"A grid has four corners, and {len(objects)} objects are selected; select four")
    if wish.through == "grid" and wish.arrangement == "animation":
        raise GeometryError("An animation has no two directions; choose Path, or a row or a blend for a grid")
    count = _count(wish)
    if wish.arrangement != "blend" and not len(objects) <= count <= session.limits.shapes:
        raise GeometryError(
            f"{count} steps between {len(objects)} objects; use {len(objects)} to {session.limits.shapes} in all"
        )
    ends = _in_order([_read(item, depsgraph, wish.model) for item in objects], wish.through)
    unknown = [end.seen for end in ends if end.seen is not None]
    if not unknown:
        return _ask(ends, wish)
    sources = tuple(Source(seen.vertices, seen.faces) for seen in unknown)
    submit = Submit(new_job(), "encode", wish.model, wish.settings, sources, keep=KEEP_SECONDS)
    return session.submit(submit, Job(submit.job, _label(ends), _Encoding(ends, wish)))


class _Encoding:
    """The purpose of the fit that comes before."""

    undoable = False

    def __init__(self, ends: Sequence[End], wish: Wish) -> None:
        self._ends, self._wish = ends, wish

    def preview(self, preview: Preview) -> Iterator[None]:
        """Objects that are interpolated are there already."""
        yield

    def finish(self, result: Result) -> Iterator[None]:
        """Go on with what was found."""
        found = iter(result.shapes)
        _ask([end if end.seen is None else _encoded(end, next(found)) for end in self._ends], self._wish)
        yield

    def fail(self) -> Iterator[None]:
        """Nothing was shown."""
        yield


def _encoded(end: End, shape: Shape) -> End:
    assert end.seen is not None
    world = np.eye(4)
    world[:3, 3] = end.seen.centre
    return replace(end, seen=None, code=shape.code[0], pose=world @ shape.pose[0], refinement=shape.refinement)


def _read(item: bpy.types.Object, depsgraph: bpy.types.Depsgraph, model: str) -> End:
    low, size = extent(item)
    shape = remembered(item)
    if shape is None:
        return End(title(item), low, size, seen=read_objects([item], depsgraph))
    if shape.model != model:
        raise GeometryError(f"{item.name} is one of {shape.model}, and the model is {model}; choose one for all")
    own = unpacked(shape.refinement) if len(shape.codes) == 1 else None
    return End(title(item), low, size, code=shape.code, pose=world_pose(item, shape.pose), refinement=own)


def _in_order(ends: list[End], through: str) -> list[End]:
    """A path goes from left to right as the world's x does; a grid's corners come row by row, the nearer one first."""
    by_x = sorted(ends, key=lambda end: (end.corner[0] + end.size[0] / 2, end.name))
    if through == "path":
        return by_x
    by_y = sorted(by_x, key=lambda end: end.corner[1] + end.size[1] / 2)
    return [end for row in (by_y[:2], by_y[2:]) for end in sorted(row, key=by_x.index)]


def _count(wish: Wish) -> int:
    return wish.steps**2 if wish.through == "grid" else wish.steps


def _ask(ends: Sequence[End], wish: Wish) -> None:
    """Submit the job that makes the shapes."""
    codes = np.stack([np.asarray(end.code, dtype=np.float64) for end in ends])
    poses = np.stack([np.asarray(end.pose, dtype=np.float64) for end in ends])
    wanted = _between(codes, poses, wish)
    standings = [Standing.of(pose) for _, pose in wanted]
    name, settings = f"{ends[0].name} to {ends[-1].name}", {"task": "interpolate", **vars(wish.settings)}
    purpose = _purpose(name, standings, settings, wish, codes, poses, ends)
    if wish.through == "path" and wish.arrangement != "blend":
        asked = _along(ends, codes, poses, wish)
    else:
        # A slider and a grid go straight: on them no order says what recedes before what grows.
        middles = np.stack([standing.pose for standing in standings])
        between = np.stack([code for code, _ in wanted])
        asked = Submit(new_job(), "decode", wish.model, wish.settings, codes=between, poses=middles, keep=KEEP_SECONDS)
    session.submit(asked, Job(asked.job, _label(ends), purpose))


def _along(ends: Sequence[End], codes: np.ndarray, poses: np.ndarray, wish: Wish) -> Submit:
    """The job that goes the way from the first to the last in even steps, each shape about its own middle."""
    return Submit(
        new_job(),
        "interpolate",
        wish.model,
        wish.settings,
        codes=codes,
        poses=np.stack([Standing.of(pose).pose for pose in poses]),
        refinements=tuple(UNREFINED if end.refinement is None else end.refinement for end in ends),
        count=wish.steps,
        keep=KEEP_SECONDS,
    )


def _between(codes: np.ndarray, poses: np.ndarray, wish: Wish) -> list[tuple[np.ndarray, np.ndarray]]:
    places = np.linspace(0, 1, wish.steps) if wish.arrangement != "blend" else [0.5]
    if wish.through == "grid":
        return [on_grid(codes, poses, across, along) for along in places for across in places]
    return [on_path(codes, poses, place) for place in places]


def _purpose(
    name: str,
    standings: Sequence[Standing],
    settings: Mapping[str, Any],
    wish: Wish,
    codes: np.ndarray,
    poses: np.ndarray,
    ends: Sequence[End],
) -> Purpose:
    if wish.arrangement == "blend":
        return Blend(name, wish.model, standings, settings, wish.scene, codes, poses, wish.through == "grid")
    if wish.arrangement == "animation":
        return Animation(name, wish.model, standings, settings, wish.scene, wish.hold, wish.frame)
    depth = max(end.size[1] for end in ends)
    start = standings[0].place - (0, standings[0].place[1] - min(end.corner[1] for end in ends) + BEFORE * depth, 0)
    return Rows(name, wish.model, standings, settings, wish.scene, wish.steps, start)


def _label(ends: Sequence[End]) -> str:
    return ", ".join(end.name for end in ends)
