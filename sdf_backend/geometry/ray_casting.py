"""Pictures of a signed distance field itself, without a mesh: sphere tracing (Hart 1996), shaded by its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdf_backend.geometry.camera import AZIMUTH, CLAY, ELEVATION, Camera, downsampled, shaded, unit, view_basis
from sdf_backend.geometry.isosurface import ExtractSettings, Field

SUPERSAMPLING = 2
BISECTIONS = 12


@dataclass(frozen=True)
class View:
    """What is seen: the unit ball from a direction; angles in degrees, as in `view_basis`. size : width and height."""

    size: tuple[int, int] = (480, 480)
    azimuth: float = AZIMUTH
    elevation: float = ELEVATION

    def camera(self, supersampling: int = SUPERSAMPLING) -> Camera:
        """Its camera; the framing is the same from all sides."""
        width, height = (supersampling * side for side in self.size)
        axes = ExtractSettings.domain_radius * view_basis(self.azimuth, self.elevation, "y")
        return Camera.framing(np.concatenate([axes, -axes]), (width, height), self.azimuth, self.elevation, "y")


@dataclass(frozen=True)
class Hits:
    """Where rays meet the surface.

    pixels : (n,) int64, row by row; points, normals : (n, 3) float64, canonical; the normals are the field's gradients
    """

    pixels: np.ndarray
    points: np.ndarray
    normals: np.ndarray


def render_field(
    field: Field,
    view: View,
    settings: ExtractSettings,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Render the zero level set of a field that `extract_surface` could extract, with the same settings.

    Returns
    -------
    image : (height, width, 3) uint8
    """
    camera = view.camera()
    hits = cast_rays(field, camera, settings, device, progress)
    canvas = camera.canvas().reshape(-1, 3)
    canvas[hits.pixels] = shaded(np.array([CLAY]), hits.normals @ camera.basis.T)
    return downsampled(canvas.reshape(camera.height, camera.width, 3), SUPERSAMPLING)


def cast_rays(
    field: Field,
    camera: Camera,
    settings: ExtractSettings,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] = lambda share: None,
) -> Hits:
    """Meet the surface with a ray through the centre of each pixel.

    A ray advances by the distance over the bound of the field's slope, at most to where the field saturates, and by a
    fifth of a pixel at least; so parts thinner than that may be missed. The crossing is then found by bisection.

    progress : called with the share of the rays that have ended; an exception it raises ends the work
    """
    centres = camera.pixel_centres()
    half = settings.domain_radius**2 - (centres**2).sum(1)
    pixels = np.flatnonzero(half > 0)
    toward = torch.from_numpy(camera.basis[2]).float().to(device)
    origins = torch.from_numpy(centres[pixels]).float().to(device)
    end = torch.from_numpy(np.sqrt(half[pixels])).float().to(device)

    def distance(rays: Tensor, heights: Tensor) -> Tensor:
        """The field at heights above the plane through the origin."""
        points = origins[rays] + heights[:, None] * toward
        return torch.cat([field(part) for part in points.split(settings.batch)]) if len(points) else heights

    with torch.inference_mode():
        height, above = end.clone(), end.clone()
        hit = torch.zeros(len(end), dtype=torch.bool, device=end.device)
        alive = torch.arange(len(end), device=end.device)
        while len(alive):
            value = distance(alive, height[alive])
            inside = value <= 0
            hit[alive[inside]] = True
            alive, value = alive[~inside], value[~inside]
            above[alive] = height[alive]
            furthest = settings.clamp_share * settings.clamp
            height[alive] -= (value.clamp(max=furthest) / settings.lipschitz).clamp(min=0.2 / camera.scale)
            alive = alive[height[alive] > -end[alive]]
            progress(1 - len(alive) / len(end))
        rays = hit.nonzero()[:, 0]
        below, above = height[rays], above[rays]
        for _ in range(BISECTIONS):
            middle = (below + above) / 2
            inside = distance(rays, middle) <= 0
            below, above = torch.where(inside, middle, below), torch.where(inside, above, middle)
        points = origins[rays] + ((below + above) / 2)[:, None] * toward
    gradients = [_gradient(field, part.clone()) for part in points.split(settings.batch)]
    normals = torch.cat(gradients) if gradients else points
    return Hits(
        pixels[rays.cpu().numpy()], points.cpu().numpy().astype(np.float64), unit(normals.cpu().numpy().astype(float))
    )


def _gradient(field: Field, points: Tensor) -> Tensor:
    """The gradient of the field at points, both (n, 3)."""
    with torch.enable_grad():
        points = points.requires_grad_()
        return torch.autograd.grad(field(points).sum(), points)[0]
