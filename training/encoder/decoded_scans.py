"""Scans of a model's own shapes, from which its encoder learns.

The surfaces of the training codes, and of codes between neighbours, are decoded and scanned from all around. So the
model file alone is enough, that of an imported model too, and each scan's code is known exactly.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.geometry.isosurface import EmptySurfaceError, Extraction, ExtractSettings, extract_surface
from sdf_backend.model.store import Model
from training.evaluation.scanning import CameraSettings, camera_rays, sample_view_directions


@dataclass(frozen=True)
class DecodedScanSettings:
    """Which shapes are scanned, and how; none of this was tuned."""

    resolution: int = 48
    """cells per axis of the surfaces"""
    views: int = 10
    """scans of each shape"""
    pixels: int = 64
    """width and height of a depth image"""
    points: int = 768
    """points kept of each scan, drawn with replacement"""
    between: float = 0.0
    """number of shapes between training shapes, as a share of these"""
    neighbours: int = 12
    """a shape between is one of a training code and one of so many nearest"""


@dataclass(frozen=True)
class DecodedScans:
    """Scans of s shapes from v views, without noise: points, (s, v, n, 3) float16; codes, (s, code_length)."""

    points: Tensor
    codes: Tensor


def scan_codes(
    model: Model,
    settings: DecodedScanSettings = DecodedScanSettings(),
    progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> DecodedScans:
    """Decode and scan a model's training codes and some between them.

    progress : called with the number of shapes done and of all

    Raises `InputError` where no code has a surface.
    """
    rng = np.random.default_rng(seed)
    codes = torch.cat([model.codes, _codes_between(model.codes, settings, rng)])
    scans, kept = [], []
    for number, code in enumerate(codes):
        surface = _surface(model, code, settings.resolution)
        views = [] if surface is None else list(_scans(surface, settings, rng))
        if len(views) == settings.views:
            scans.append(np.stack(views))
            kept.append(number)
        progress(number + 1, len(codes))
    if not scans:
        raise InputError(f"no training code of {model.card.name} has a surface; train the model for longer")
    return DecodedScans(torch.from_numpy(np.stack(scans)).half(), codes[kept].cpu())


def _codes_between(codes: Tensor, settings: DecodedScanSettings, rng: np.random.Generator) -> Tensor:
    """Random points of the lines between training codes, (n, code_length), and near neighbours of theirs."""
    count = round(settings.between * len(codes)) if len(codes) > settings.neighbours else 0
    between = []
    for first in rng.integers(len(codes), size=count):
        nearest = (codes - codes[first]).norm(dim=1).argsort()[1 : settings.neighbours + 1]
        between.append(torch.lerp(codes[first], codes[nearest[rng.integers(len(nearest))]], float(rng.random())))
    return torch.stack(between) if between else codes[:0]


def _surface(model: Model, code: Tensor, resolution: int) -> Extraction | None:
    """The surface of a code, (code_length,); None where it has none, or specks: a shape that was not learnt."""
    decoder, settings = model.folded(torch.bfloat16), ExtractSettings(resolution=resolution, clamp=model.card.clamp)
    try:
        mesh = extract_surface(lambda points: decoder.distances(code[None], points[None])[0], settings, model.device)
    except EmptySurfaceError:
        return None
    return mesh if np.linalg.norm(np.ptp(mesh.vertices, axis=0)) > model.card.reach else None


def _scans(surface: Extraction, settings: DecodedScanSettings, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Points, (n, 3), of each view of a surface."""
    scene, camera = EmbreeScene(), CameraSettings(pixels=settings.pixels)
    TriangleMesh(scene, surface.vertices[surface.faces].astype(np.float32))
    for direction in sample_view_directions(settings.views, rng):
        sensor, rays = direction * camera.distance, camera_rays(-direction, camera)
        origins = np.broadcast_to(sensor, rays.shape).astype(np.float32)
        hits = scene.run(origins, rays.astype(np.float32), query="INTERSECT", output=1)
        hit = np.flatnonzero(hits["primID"] >= 0)
        if not len(hit):
            return
        chosen = hit[rng.integers(len(hit), size=settings.points)]
        yield sensor + hits["tfar"][chosen, None] * rays[chosen]
