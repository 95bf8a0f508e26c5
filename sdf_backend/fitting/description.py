"""What a fit says of its shape: which vertices were observed, and how certain each is."""

from dataclasses import replace

import numpy as np
import torch

from sdf_backend.fitting.assessment import surface_deviation
from sdf_backend.fitting.encoding import Encoding
from sdf_backend.model.store import Model
from sdf_backend.observation.sources import observed_weights
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.remeshing import remesh_shape
from sdf_backend.shapes.residual_field import scale_residual_field
from sdf_backend.shapes.shape import SCRAP_SIZE, Shape, without_floaters


def describe_shape(model: Model, shape: Shape, encoding: Encoding, settings: TaskSettings) -> Shape:
    """The shape of an encoding without floaters, with the faces that the settings ask for, and with the figures of its
    fit, `observed` and `deviation`."""
    scale = encoding.pose.scale
    shape = without_floaters(shape, _supporting_points(model, encoding), np.inf if encoding.solid else SCRAP_SIZE)
    shape = remesh_shape(shape, settings)
    code, covariance_root, points = (
        torch.from_numpy(array).float().to(model.device)
        for array in (encoding.code, encoding.covariance_root, encoding.pose.inverse().apply(shape.vertices))
    )
    deviation = surface_deviation(model, code, covariance_root, points) * scale
    return replace(
        shape.with_notes(*encoding.notes),
        observed=observed_weights(shape.vertices, encoding.surface, scale),
        deviation=deviation.detach().float().cpu().numpy(),
        residual=encoding.residual,
        explained=encoding.explained,
        confidence=encoding.confidence,
        steps=encoding.steps,
    )


def _supporting_points(model: Model, encoding: Encoding) -> np.ndarray:
    """The observed surface points, (n, 3), of a symmetric category with their mirror images."""
    axis = model.decoder.settings.mirror_axis
    if axis is None or encoding.solid:
        return encoding.surface
    mirrored = encoding.pose.inverse().apply(encoding.surface)
    mirrored[:, axis] *= -1
    return np.concatenate([encoding.surface, encoding.pose.apply(mirrored)])


def shape_without_mesh(model: str, encoding: Encoding, settings: TaskSettings, seconds: dict[str, float]) -> Shape:
    """An encoding as a shape without vertices and faces."""
    return Shape(
        model,
        np.zeros((0, 3)),
        np.zeros((0, 3), dtype=np.int64),
        encoding.code,
        encoding.pose,
        refinement=scale_residual_field(encoding.refinement, settings.refine),
        residual=encoding.residual,
        explained=encoding.explained,
        confidence=encoding.confidence,
        steps=encoding.steps,
        seconds=seconds,
        note=" ".join(encoding.notes),
    )
