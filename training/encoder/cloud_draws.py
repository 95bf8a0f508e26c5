"""Random clouds, as users have them, of decoded scans: several views, noise, a part cut off, turned.

Shapes: b is the number of clouds, n of points a cloud.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdf_backend.model.encoder import box_frame
from training.encoder.decoded_scans import DecodedScans


@dataclass(frozen=True)
class CloudSettings:
    """What users' clouds are taken to be like; lengths in canonical units. None of this was tuned."""

    one_view: float = 0.65
    """share of clouds of one view"""
    most_views: int = 4
    """views of the others, at most"""
    noise: float = 0.012
    """largest standard deviation of the noise; half of the clouds have less than a quarter"""
    cut: float = 0.2
    """share of clouds that end at a plane, beyond which less than half was"""
    right: float = 0.7
    """share of clouds in the right orientation"""
    right_turn: float = 18.0
    """degrees; up to here a turn counts as right, and is to be told"""
    tilted: float = 0.3
    """share of clouds that are turned about any axis, not only the up axis"""


@dataclass(frozen=True)
class Clouds:
    """Clouds in their box frames, and what an encoder should say of them.

    points : (b, n, 3)
    shapes : (b,), which of the scanned shapes each is
    log_scale, shift, turn : (b,), (b, 3) and (b, 3); see `Guesses`
    right : (b,) bool
    """

    points: Tensor
    shapes: Tensor
    log_scale: Tensor
    shift: Tensor
    turn: Tensor
    right: Tensor


def draw_clouds(
    scans: DecodedScans,
    count: int,
    points: int,
    generator: torch.Generator,
    settings: CloudSettings = CloudSettings(),
) -> Clouds:
    """Draw `count` clouds of `points` points each."""
    shapes = torch.randint(len(scans.points), (count,), generator=generator)
    clouds = _merged_views(scans, shapes, points, generator, settings)
    noise = settings.noise * torch.rand(count, 1, 1, generator=generator).square()
    clouds = clouds + noise * torch.randn(clouds.shape, generator=generator)
    clouds = _without_part(clouds, generator, settings)
    turn, right = _turns(count, generator, settings)
    rotation = torch.linalg.matrix_exp(_cross_matrix(turn))  # (b, 3, 3)
    clouds, centre, size = box_frame(clouds @ rotation.mT)
    return Clouds(clouds, shapes, -size.log(), -centre / size[:, None], turn, right)


def _merged_views(
    scans: DecodedScans, shapes: Tensor, points: int, generator: torch.Generator, settings: CloudSettings
) -> Tensor:
    """Points, (b, n, 3), of one or several views of each of the shapes, (b,)."""
    count, (_, all_views, all_points, _) = len(shapes), scans.points.shape
    many = torch.randint(2, settings.most_views + 1, (count,), generator=generator)
    views = torch.where(torch.rand(count, generator=generator) < settings.one_view, 1, many)  # (b,)
    chosen = torch.randint(all_views, (count, settings.most_views), generator=generator)
    which = (torch.rand(count, points, generator=generator) * views[:, None]).long()
    point = torch.randint(all_points, (count, points), generator=generator)
    return scans.points[shapes[:, None], chosen.gather(1, which), point].float()


def _without_part(clouds: Tensor, generator: torch.Generator, settings: CloudSettings) -> Tensor:
    """Some of the clouds, (b, n, 3), with all points beyond a random plane put to random places of the others."""
    count, points, _ = clouds.shape
    along = (clouds * _directions(count, generator)[:, None]).sum(2)  # (b, n)
    middle, last = along.median(1).values, along.amax(1)
    plane = torch.lerp(middle, last, torch.rand(count, generator=generator))
    cut = torch.rand(count, generator=generator) < settings.cut
    gone = cut[:, None] & (along > plane[:, None])
    left_first = gone.float().argsort(dim=1, stable=True)  # what is left comes first
    other = (torch.rand(count, points, generator=generator) * (~gone).sum(1, keepdim=True)).long()
    source = torch.where(gone, left_first.gather(1, other), torch.arange(points))
    return clouds.gather(1, source[..., None].expand(-1, -1, 3))


def _turns(count: int, generator: torch.Generator, settings: CloudSettings) -> tuple[Tensor, Tensor]:
    """Rotation vectors, (b, 3), and which of them are small enough to be right, (b,)."""
    right = torch.rand(count, generator=generator) < settings.right
    limit = math.radians(settings.right_turn)
    small = limit * torch.rand(count, generator=generator)
    large = limit + (math.pi - limit) * torch.rand(count, generator=generator)
    sign = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    up = torch.tensor([0.0, 1.0, 0.0]).expand(count, 3)
    tilted = torch.rand(count, generator=generator) < settings.tilted
    axis = torch.where(tilted[:, None], _directions(count, generator), up)
    return axis * (sign * torch.where(right, small, large))[:, None], right


def _directions(count: int, generator: torch.Generator) -> Tensor:
    """Random unit vectors, (b, 3)."""
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


def _cross_matrix(vectors: Tensor) -> Tensor:
    """The matrices, (b, 3, 3), of the cross products with vectors, (b, 3), from the left."""
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
