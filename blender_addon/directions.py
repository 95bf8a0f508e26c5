"""The main directions of variation of a model: which way they lead, and what each does to a shape, in words.

Both come from one job, asked for once: the model's mean shape, moved a standard deviation each way along each.
"""

from dataclasses import dataclass

import bpy
import numpy as np

from .session import NO_MORE_STEPS, Job, Steps, session
from .shapes import MODEL, StoredShape, stored_shape
from .translations import translated
from .wire.client import new_job
from .wire.codec import WireError
from .wire.messages import Preview, Result, Shape, Submit
from .wire.settings import TaskSettings

DIRECTIONS = 8
# Resolution of the shapes; only their codes, boxes and volumes are used.
DIRECTIONS_RESOLUTION = 32
# What grows along a direction, and what shrinks: width, height, depth, and the thickness in a box of the same size.
GROWING, SHRINKING = ("Wider", "Taller", "Deeper", "Fuller"), ("Narrower", "Lower", "Shallower", "Thinner")


@dataclass(frozen=True)
class NamingSettings:
    """Which changes from one end of a direction to the other give it its name; chosen on the models that ship."""

    least: float = 0.05
    """relative change of what is named"""
    second: float = 0.6
    """relative to the greatest change, that of a second word"""


NAMING = NamingSettings()


@dataclass(frozen=True)
class Directions:
    """The directions of a model.

    steps : (k, code_length), one standard deviation along each
    changes : (k, 4), relative growth of width, height, depth and thickness, from end to end
    """

    steps: np.ndarray
    changes: np.ndarray

    def name(self, index: int) -> str:
        """What a shape becomes along a direction, in a word or two; empty where its box hardly changes."""
        changes = self.changes[index]
        greatest, second = np.argsort(-np.abs(changes))[:2]
        limit = NAMING.least
        words = []
        for one in (greatest, second):
            if abs(changes[one]) >= limit:
                words.append(translated((GROWING if changes[one] > 0 else SHRINKING)[one]))
            limit = max(limit, NAMING.second * abs(changes[greatest]))
        return ", ".join(words)


def ask_for_directions(shape: StoredShape) -> None:
    """Ask for the directions of a shape's model, unless that was done before.

    Raises
    ------
    WireError : as `Session.submit` does
    """
    if shape.model in session.sliders.asked:
        return
    count = min(DIRECTIONS, len(shape.code))
    weights = np.concatenate([np.eye(count), -np.eye(count)])
    submit = Submit(new_job(), "decode", shape.model, TaskSettings(resolution=DIRECTIONS_RESOLUTION), weights=weights)
    handler = _DirectionsHandler(shape.model)
    session.submit(submit, Job(submit.job, f"Directions of {shape.model}", handler, hidden=True))
    session.sliders.asked.add(shape.model)


def prepare_directions() -> None:
    """Ask for the directions of the active shape, so that its sliders have names; while there is nothing else to do."""
    item = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    unknown = set(session.models) - session.sliders.asked
    if session.jobs or item is None or item.get(MODEL) not in unknown:
        return
    if shape := stored_shape(item):
        try:
            ask_for_directions(shape)
        except WireError:
            session.sliders.asked.add(shape.model)  # the sliders have numbers in place of names


class _DirectionsHandler:
    """Remembers the directions of a model."""

    undoable = False

    def __init__(self, model: str) -> None:
        self._model = model

    def preview(self, preview: Preview) -> Steps:
        """Ignore it."""
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Remember them."""
        codes = np.concatenate([shape.code for shape in result.shapes])
        sizes = np.array([_sizes(shape, session.front(self._model)) for shape in result.shapes])
        (above, below), (larger, smaller) = np.split(codes, 2), np.split(np.log(sizes), 2)
        session.sliders.directions[self._model] = Directions((above - below) / 2, larger - smaller)
        return NO_MORE_STEPS

    def fail(self) -> Steps:
        """Do without: shapes that are moved lose their residual field, and their sliders have no names."""
        session.sliders.directions[self._model] = None
        return NO_MORE_STEPS


def _sizes(shape: Shape, front: str) -> tuple[float, float, float, float]:
    """Width, height and depth of a shape in its canonical frame, and its thickness, relative to its box."""
    corners = np.asarray(shape.vertices, dtype=np.float64)
    x, height, z = np.maximum(np.ptp(corners, axis=0), 1e-9)
    width, depth = (z, x) if front[-1] == "x" else (x, z)
    a, b, c = (corners[shape.faces[:, corner]] for corner in range(3))
    volume = abs(float(np.einsum("ij,ij->", a, np.cross(b, c)))) / 6
    return width, height, depth, (max(volume, 1e-9) / (width * height * depth)) ** (1 / 3)
