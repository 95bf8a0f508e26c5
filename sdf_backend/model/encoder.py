"""The encoder: bare points to guesses of a code and of a pose, at which a fit begins.

A network over points (PointNet; Qi et al., CVPR 2017): the same layers for every point, the maximum over all points,
and layers on that. It does not turn with its input; it is given the points in every orientation in question, and says
of each whether it is right.

It sees the points in their *box frame*: the centre of their bounding box at the origin, the farthest point at distance
1. Shapes: b is the number of clouds, n of points a cloud, k of codes that are guessed.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class EncoderSettings:
    """The architecture; chosen for its size, 0.6 MB in half precision, and for its time."""

    code_length: int
    """length of the decoder's codes"""
    points: int = 256
    """points of a cloud that it is shown"""
    point_widths: tuple[int, ...] = (64, 128, 256)
    """units of the layers over single points"""
    width: int = 256
    """units of the two layers over the whole cloud"""
    codes: int = 4
    """codes that it guesses, since what one view hides may be one of several shapes"""


@dataclass(frozen=True)
class Guesses:
    """What an encoder says of b clouds, each in its box frame.

    codes : (b, k, code_length), in units of the spread of the training codes about their mean
    code_weights : (b, k), probabilities of these
    log_scale : (b,), log of the scale of canonical frame -> box frame
    shift : (b, 3), its translation
    turn : (b, 3), its rotation vector, small
    right : (b,), log odds that the orientation is right, but for that turn
    """

    codes: Tensor
    code_weights: Tensor
    log_scale: Tensor
    shift: Tensor
    turn: Tensor
    right: Tensor


class Encoder(nn.Module):
    """Points, (b, n, 3), to `Guesses`."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = (3, *settings.point_widths)
        self.over_points = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.over_cloud = nn.ModuleList(
            nn.Linear(before, settings.width) for before in (settings.point_widths[-1], settings.width)
        )
        self.codes = nn.Linear(settings.width, settings.codes * settings.code_length)
        self.code_weights = nn.Linear(settings.width, settings.codes)
        self.pose = nn.Linear(settings.width, 8)

    def forward(self, points: Tensor) -> Guesses:
        """Guesses about clouds, (b, n, 3), each in its box frame."""
        x = points
        for layer in self.over_points:
            x = functional.relu(layer(x))
        x = x.amax(1)
        for layer in self.over_cloud:
            x = functional.relu(layer(x))
        codes = self.codes(x).unflatten(1, (self.settings.codes, self.settings.code_length)).float()
        log_scale, shift, turn, right = self.pose(x).float().split([1, 3, 3, 1], dim=1)
        return Guesses(codes, self.code_weights(x).float().softmax(1), log_scale[:, 0], shift, turn, right[:, 0])


def encoder_shapes(settings: EncoderSettings) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of an encoder's state, without allocating one."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in Encoder(settings).state_dict().items()}


def box_frame(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clouds, (b, n, 3), moved into their box frames; the centres, (b, 3), and sizes, (b,), that they had before."""
    centre = (points.amin(1) + points.amax(1)) / 2
    points = points - centre[:, None]
    size = points.norm(dim=2).amax(1)
    return points / size[:, None, None], centre, size
