"""Ray-cast pictures against analytic surfaces, and against the silhouette of the extracted mesh."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import binary_dilation, binary_erosion

from sdf_backend.geometry.camera import BACKGROUND
from sdf_backend.geometry.isosurface import ExtractSettings, Field, extract_surface
from sdf_backend.geometry.ray_casting import View, cast_rays, render_field

VIEWS = [View((160, 120), azimuth, elevation) for azimuth, elevation in ((0, 0), (-38, 24), (130, -50), (90, 90))]
EXACT = ExtractSettings(clamp=math.inf, lipschitz=1.0)


def ball(points: torch.Tensor) -> torch.Tensor:
    return (points - torch.tensor([0.2, -0.1, 0.3])).norm(dim=1) - 0.5


def torus(points: torch.Tensor) -> torch.Tensor:
    return torch.stack([points[:, :2].norm(dim=1) - 0.6, points[:, 2]], 1).norm(dim=1) - 0.15


def chair(points: torch.Tensor) -> torch.Tensor:
    """A seat, a back and four legs three hundredths thick."""
    parts = [((0, 0, 0), (0.4, 0.03, 0.4)), ((0, 0.3, -0.38), (0.4, 0.3, 0.02))]
    parts += [((x, -0.3, z), (0.015, 0.3, 0.015)) for x in (-0.35, 0.35) for z in (-0.35, 0.35)]
    distances = []
    for centre, half in parts:
        q = (points - torch.tensor(centre)).abs() - torch.tensor(half)
        distances.append(q.clamp(min=0).norm(dim=1) + q.amax(1).clamp(max=0))
    return torch.stack(distances).amin(0)


def saturating(field: Field) -> Field:
    """As a trained field: steeper than a distance, and flat beyond its clamp."""
    return lambda points: 0.1 * torch.tanh(field(points) * 13)


@pytest.mark.parametrize("view", VIEWS)
def test_points_and_normals_are_those_of_the_ball(view: View) -> None:
    camera = view.camera(1)
    hits = cast_rays(ball, camera, EXACT)
    outward = hits.points - [0.2, -0.1, 0.3]
    assert np.abs(np.linalg.norm(outward, axis=1) - 0.5).max() < 1e-4
    assert np.abs(hits.normals - outward / 0.5).max() < 1e-3
    assert (hits.normals @ camera.basis[2] > 0).all()  # the near side
    # The picture's disc has the area of the ball's.
    assert len(hits.pixels) == pytest.approx(math.pi * (0.5 * camera.scale) ** 2, rel=0.02)
    # Each point lies in its pixel.
    pixels = camera.to_pixels(hits.points)
    assert np.abs(pixels[:, 0] - hits.pixels % camera.width - 0.5).max() < 0.01
    assert np.abs(pixels[:, 1] - hits.pixels // camera.width - 0.5).max() < 0.01


def silhouette_of_mesh(field: Field, settings: ExtractSettings, view: View) -> np.ndarray:
    mesh = extract_surface(field, replace(settings, resolution=256))
    camera = view.camera(1)
    centres = camera.pixel_centres()
    caster = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).ray
    hit = caster.intersects_any(centres + 2 * camera.basis[2], np.tile(-camera.basis[2], (len(centres), 1)))
    return hit.reshape(camera.height, camera.width)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("field", "settings"),
    [(torus, EXACT), (chair, EXACT), (saturating(chair), ExtractSettings(clamp=0.1))],
    ids=["torus", "chair", "saturating chair"],
)
def test_the_silhouette_is_that_of_the_mesh_to_a_pixel(field: Field, settings: ExtractSettings, view: View) -> None:
    mesh = silhouette_of_mesh(field, settings, view)
    camera = view.camera(1)
    cast = np.zeros(mesh.size, dtype=bool)
    cast[cast_rays(field, camera, settings).pixels] = True
    cast = cast.reshape(mesh.shape)
    around = np.ones((3, 3), bool)
    assert mesh.any()
    assert not (cast & ~binary_dilation(mesh, around)).any()
    assert not (binary_erosion(mesh, around) & ~cast).any()
    # And no thin part is lost: nearly all pixels agree.
    assert np.mean(mesh != cast) < 0.005


def test_the_field_ends_where_extraction_ends() -> None:
    hits = cast_rays(lambda points: -torch.ones(len(points)) + 0 * points[:, 0], VIEWS[0].camera(1), EXACT)
    assert np.abs(np.linalg.norm(hits.points, axis=1) - EXACT.domain_radius).max() < 1e-3


def test_an_empty_field_gives_an_empty_picture_and_progress_reaches_the_end() -> None:
    shares: list[float] = []
    image = render_field(lambda points: points.norm(dim=1) + 1, View((40, 30)), EXACT, progress=shares.append)
    assert image.shape == (30, 40, 3)
    assert (image == np.array(BACKGROUND, np.uint8)).all()
    assert shares[-1] == 1
    assert shares == sorted(shares)


def test_a_ball_is_lit_from_above_and_left() -> None:
    image = render_field(lambda points: points.norm(dim=1) - 0.8, View((100, 100), 0, 0), EXACT).astype(int).sum(2)
    assert image[25, 35] > image[75, 65] + 60
