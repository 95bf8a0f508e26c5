"""The network: a latent code and a point to a signed distance (Park et al., DeepSDF, CVPR 2019, section 4).

`Decoder` is what is trained. `FoldedDecoder` is the same function with weight normalisation multiplied out, for
evaluation and fitting: since the code is constant over a shape's points, its part of the first and of the skip layer
is a bias; and since the network is piecewise linear, one backward sweep gives the derivative of every point's distance
with respect to the code and to the point.
"""

import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


@dataclass(frozen=True)
class DecoderSettings:
    """The shape of the network; the defaults are the paper's."""

    code_length: int = 256
    """length of the latent code"""
    width: int = 512
    """units in a hidden layer"""
    layers: int = 8
    """hidden layers; one linear layer more gives the distance"""
    skip_at: int = 4
    """the hidden layer before which code and point are concatenated again"""
    dropout: float = 0.2
    """share of units dropped in training, every hidden layer"""
    mirror_axis: int | None = None
    """axis across which the category is symmetric: its coordinate enters as its absolute value; None: not symmetric"""


class Decoder(nn.Module):
    """f(code, point) -> signed distance in canonical units, negative inside."""

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.settings = settings
        inputs = settings.code_length + 3
        hidden = []
        for index in range(settings.layers):
            # The layer before the skip is narrower, so that the concatenation is as wide as the others.
            width = settings.width - inputs if index + 1 == settings.skip_at else settings.width
            hidden.append(weight_norm(nn.Linear(inputs if index == 0 else settings.width, width)))
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Linear(settings.width, 1)

    def forward(self, codes: Tensor, points: Tensor) -> Tensor:
        """Distances, (s, n), of points (s, n, 3) under codes (s, code_length)."""
        settings = self.settings
        points = _mirrored(points, settings.mirror_axis)
        x = points
        for index, (weight, bias) in enumerate(self._matrices()):
            if index in (0, settings.skip_at):
                x = _with_code(weight, bias, x if index else None, codes, points)
            else:
                x = functional.linear(x, weight, bias)
            x = functional.relu(x)
            if settings.dropout:
                x = functional.dropout(x, settings.dropout, self.training)
        return torch.tanh(self.last(x).squeeze(-1).float())

    def folded(self, dtype: torch.dtype = torch.float32) -> "FoldedDecoder":
        """The same function for evaluation, computed in `dtype`, on the device where the weights are."""
        matrices = [*self._matrices(), (self.last.weight, self.last.bias)]
        weights = [weight.detach() for weight, _ in matrices]
        biases = [bias.detach() for _, bias in matrices]
        return FoldedDecoder(self.settings, weights, biases, dtype)

    def _matrices(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Weight and bias of each hidden layer, weight normalisation multiplied out once."""
        for layer in self.hidden:
            weight, bias = layer.weight, layer.bias
            assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
            yield weight, bias


def _with_code(weight: Tensor, bias: Tensor, x: Tensor | None, codes: Tensor, points: Tensor) -> Tensor:
    """A layer over [x, code, point] whose code part is computed once a shape instead of once a point."""
    before = weight.shape[1] - codes.shape[-1] - 3
    of_x, of_code, of_point = weight.split([before, codes.shape[-1], 3], dim=1)
    shared = functional.linear(codes, of_code, bias)[:, None, :]
    if x is None:
        return functional.linear(points, of_point) + shared
    return functional.linear(torch.cat([x, points.to(x.dtype)], -1), torch.cat([of_x, of_point], 1)) + shared


def _mirrored(points: Tensor, axis: int | None) -> Tensor:
    if axis is None:
        return points
    return torch.cat([part.abs() if index == axis else part for index, part in enumerate(points.split(1, -1))], -1)


class FoldedDecoder:
    """A decoder's function without its training: plain matrices, no autograd."""

    def __init__(self, settings: DecoderSettings, weights: list[Tensor], biases: list[Tensor], dtype: torch.dtype):
        self.settings = settings
        self.dtype = dtype
        self.device = weights[0].device
        code, skip = settings.code_length, settings.skip_at
        before = settings.width - code - 3
        _, first_code, self.first_point = weights[0].split([0, code, 3], dim=1)
        skip_x, skip_code, self.skip_point = weights[skip].split([before, code, 3], dim=1)
        self.code_weight = torch.cat([first_code, skip_code])
        self.code_bias = torch.cat([biases[0], biases[skip]])
        self.weights = [weight.to(dtype) for weight in weights[1:-1]]
        self.weights[skip - 1] = skip_x.to(dtype)
        self.biases = [bias.to(dtype) for bias in biases[1:-1]]
        self.last_weight, self.last_bias = weights[-1][0], biases[-1]

    def distances(self, codes: Tensor, points: Tensor) -> Tensor:
        """Distances, (s, n) float32, of points (s, n, 3) under codes (s, code_length)."""
        return self._sweep(codes, points, keep=False)[0]

    def in_basis(self, mean: Tensor, root: Tensor) -> "FoldedDecoder":
        """The same function of u, where the code is mean + root @ u: the change of basis folded into the weights."""
        changed = copy(self)
        changed.code_bias = self.code_bias + self.code_weight @ mean
        changed.code_weight = self.code_weight @ root
        return changed

    def gradients(self, codes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (s, n), their derivatives by the code (s, n, code_length) and by the point (s, n, 3); float32."""
        distance, layers = self._sweep(codes, points, keep=True)
        inner = self._back(distance, layers)
        by_code = inner @ self.code_weight.to(self.dtype)
        by_point = (inner @ torch.cat([self.first_point, self.skip_point]).to(self.dtype)).float()
        if self.settings.mirror_axis is not None:
            axis = self.settings.mirror_axis
            by_point[..., axis] *= torch.where(points[..., axis] < 0, -1.0, 1.0)
        return distance, by_code.float(), by_point

    def pull_back(self, codes: Tensor, points: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        """Derivative by the code, (s, code_length), of a sum over points whose derivative by the distance is `slope`.

        What an automatic backward pass would give, without the derivative of every single point.
        """
        distance, layers = self._sweep(codes, points, keep=True)
        inner = self._back(distance, layers, slope(distance))
        return inner.sum(1, dtype=torch.float32) @ self.code_weight

    def _back(self, distance: Tensor, layers: list[Tensor], weight: Tensor | None = None) -> Tensor:
        """Derivative of each distance by the inputs of the first and the skip layer's activations, (s, n, 2 width)."""
        # d tanh(u) = 1 - tanh(u)^2
        outer = 1 - distance.square()
        if weight is not None:
            outer = outer * weight
        slope = _through_relu(outer[..., None].to(self.dtype) * self.last_weight.to(self.dtype), layers[-1])
        at_skip = slope
        for index in range(len(self.weights) - 1, -1, -1):
            if index == self.settings.skip_at - 1:
                at_skip = slope
            slope = _through_relu(slope @ self.weights[index], layers[index])
        return torch.cat([slope, at_skip], -1)

    def _sweep(self, codes: Tensor, points: Tensor, keep: bool) -> tuple[Tensor, list[Tensor]]:
        points = _mirrored(points.float(), self.settings.mirror_axis)
        width = self.first_point.shape[0]
        shared = functional.linear(codes.float(), self.code_weight, self.code_bias)[:, None, :]
        # Coordinates need more than bfloat16's 8 bits, so the two layers that see them add them in float32.
        x = (points @ self.first_point.T).add_(shared[..., :width]).relu_().to(self.dtype)
        layers = [x] if keep else []
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if index == self.settings.skip_at - 1:
                seen = (points @ self.skip_point.T).add_(shared[..., width:])
                x = functional.linear(x, weight).add_(seen.to(self.dtype)).relu_()
            else:
                x = functional.linear(x, weight, bias).relu_()
            if keep:
                layers.append(x)
        return torch.tanh((x.float() @ self.last_weight) + self.last_bias), layers


def _through_relu(slope: Tensor, output: Tensor) -> Tensor:
    """The slope where the layer's output is above zero, and zero elsewhere.

    What autograd itself calls: one pass over both, where a mask and a product with it take nine times as long.
    """
    return torch.ops.aten.threshold_backward(slope, output, 0)


def initial_codes(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Codes to start training from, (count, length): N(0, 1 / length), norm about 1, as in the released code."""
    return torch.randn(count, length, generator=generator) / math.sqrt(length)
