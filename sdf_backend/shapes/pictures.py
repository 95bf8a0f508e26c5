"""Pictures of shapes by ray casting: one shape from one side or all around, or on the way to another."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from sdf_backend.geometry.isosurface import ExtractSettings
from sdf_backend.geometry.ray_casting import View, render_field
from sdf_backend.model.devices import EXTRACTION_BATCH
from sdf_backend.model.store import Model
from sdf_backend.progress import Phase, Progress, of_phase, parts
from sdf_backend.shapes.interpolation import ImplicitShape, ShapeInterpolation


def render_shapes(
    model: Model, shapes: Sequence[ImplicitShape], view: View, frames: int, progress: Progress
) -> Iterator[np.ndarray]:
    """Render shapes of a model in the canonical frame.

    Parameters
    ----------
    shapes : one, which is turned through `frames` views; or several, between which `frames` shapes are rendered

    Returns
    -------
    Images, (height, width, 3) uint8.

    Raises
    ------
    EmptySurfaceError : there is no surface on the way between two shapes
    """
    # Not `Model.folded`: what was computed in inference mode, as in a fit, cannot be differentiated.
    decoder = model.decoder.folded(torch.float32)
    batch = EXTRACTION_BATCH[model.device.type]
    settings = replace(ExtractSettings(), clamp=model.card.clamp, batch=batch)
    *path, rendering = parts(progress, len(shapes))
    for (shape, seen), share in zip(_scenes(model, shapes, view, frames, path), parts(rendering, frames), strict=True):
        yield render_field(shape.field(decoder), seen, settings, model.device, of_phase(share, Phase.EXTRACTING))


def _scenes(
    model: Model, shapes: Sequence[ImplicitShape], view: View, frames: int, path: Sequence[Progress]
) -> Iterator[tuple[ImplicitShape, View]]:
    """The shape and the view of each frame."""
    if len(shapes) == 1:
        for number in range(frames):
            yield shapes[0], replace(view, azimuth=view.azimuth + 360 * number / frames)
        return
    legs = [
        ShapeInterpolation(model, first, last, of_phase(share, Phase.EXTRACTING))
        for (first, last), share in zip(pairwise(shapes), path, strict=True)
    ]
    for time in np.linspace(0, len(legs), frames):
        leg = min(int(time), len(legs) - 1)
        yield legs[leg].shape_at(float(time - leg)), view
