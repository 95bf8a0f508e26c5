"""The network: a latent code and a point to a signed distance (Park et al., DeepSDF, CVPR 2019, section 4).

`Decoder` is what is trained. `FoldedDecoder` is the same function for evaluation and fitting, with weight normalisation
multiplied out. Since the code is constant over the points of a shape, its part of the first and of the skip layer is a
bias there; and since the network is piecewise linear, one backward sweep gives the gradients of all points.

Shapes: s is the number of shapes, n of points a shape, w the width of a hidden layer.
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
    """The architecture; the defaults are those of Park et al. 2019, section 5."""

    code_length: int = 256
    """length of the latent code"""
    width: int = 512
    """units in a hidden layer"""
    layers: int = 8
    """hidden layers; one more linear layer gives the distance"""
    skip_at: int = 4
    """the hidden layer whose input has code and point concatenated again"""
    dropout: float = 0.2
    """probability of dropping a unit in training, every hidden layer"""
    weight_norm: bool = True
    """whether each hidden layer's weights are a length a row and a direction; Muon wants the matrices themselves"""
    mirror_axis: int | None = None
    """axis across which the category is symmetric, whose coordinate enters as its absolute value; None if it is not"""


class Decoder(nn.Module):
    """f(code, point) -> signed distance in canonical units, negative inside.

    Fully connected layers with ReLU, weight normalisation (Salimans and Kingma 2016) and dropout, and tanh at the end,
    as in the released code: distances lie in (-1, 1).
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.settings = settings
        layers = [nn.Linear(inputs, outputs) for inputs, outputs in _layer_sizes(settings)]
        self.hidden = nn.ModuleList([weight_norm(layer) for layer in layers] if settings.weight_norm else layers)
        self.last = nn.Linear(settings.width, 1)

    def forward(self, codes: Tensor, points: Tensor) -> Tensor:
        """Signed distances of points under codes, with the graph for automatic differentiation.

        Parameters
        ----------
        codes : (s, code_length); points : (s, n, 3), canonical

        Returns
        -------
        (s, n) float32, canonical units.
        """
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
        """The same function for evaluation; hidden layers are computed in `dtype`, on the device of the weights."""
        matrices = [*self._matrices(), (self.last.weight, self.last.bias)]
        weights = [weight.detach() for weight, _ in matrices]
        biases = [bias.detach() for _, bias in matrices]
        return FoldedDecoder(self.settings, weights, biases, dtype)

    def _matrices(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Weight and bias of each hidden layer, with weight normalisation multiplied out."""
        for layer in self.hidden:
            weight, bias = layer.weight, layer.bias
            assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
            yield weight, bias


def _layer_sizes(settings: DecoderSettings) -> list[tuple[int, int]]:
    """Inputs and outputs of each hidden layer."""
    inputs = settings.code_length + 3
    # The layer before the skip is narrower, so that the concatenation is as wide as the other layers.
    outputs = [settings.width - inputs * (index + 1 == settings.skip_at) for index in range(settings.layers)]
    return list(zip([inputs, *[settings.width] * (settings.layers - 1)], outputs, strict=True))


def weight_shapes(settings: DecoderSettings) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a decoder's state, without making one."""
    shapes: dict[str, tuple[int, ...]] = {"last.weight": (1, settings.width), "last.bias": (1,)}
    for index, (inputs, outputs) in enumerate(_layer_sizes(settings)):
        shapes[f"hidden.{index}.bias"] = (outputs,)
        if settings.weight_norm:
            shapes[f"hidden.{index}.parametrizations.weight.original0"] = outputs, 1
            shapes[f"hidden.{index}.parametrizations.weight.original1"] = outputs, inputs
        else:
            shapes[f"hidden.{index}.weight"] = outputs, inputs
    return shapes


def _with_code(weight: Tensor, bias: Tensor, x: Tensor | None, codes: Tensor, points: Tensor) -> Tensor:
    """A linear layer over [x, code, point], whose code part is computed once a shape instead of once a point.

    x : (s, n, .), None in the first layer; codes : (s, code_length); points : (s, n, 3)
    """
    before = weight.shape[1] - codes.shape[-1] - 3
    of_x, of_code, of_point = weight.split([before, codes.shape[-1], 3], dim=1)
    shared = functional.linear(codes, of_code, bias)[:, None, :]  # (s, 1, w)
    if x is None:
        return functional.linear(points, of_point) + shared
    return functional.linear(torch.cat([x, points.to(x.dtype)], -1), torch.cat([of_x, of_point], 1)) + shared


def _mirrored(points: Tensor, axis: int | None) -> Tensor:
    """Points, (s, n, 3), folded onto the positive side of the plane of symmetry, if there is one."""
    if axis is None:
        return points
    return torch.cat([part.abs() if index == axis else part for index, part in enumerate(points.split(1, -1))], -1)


class FoldedDecoder:
    """A decoder for evaluation: plain matrices, no automatic differentiation.

    weights, biases : of all linear layers, the last one included, weight normalisation multiplied out
    dtype : precision of the hidden layers; the code's part, the coordinates' part and the last layer stay float32
    """

    def __init__(self, settings: DecoderSettings, weights: list[Tensor], biases: list[Tensor], dtype: torch.dtype):
        self.settings = settings
        self.dtype = dtype
        self.device = weights[0].device
        code, skip = settings.code_length, settings.skip_at
        before = settings.width - code - 3
        _, first_code, self.first_point = weights[0].split([0, code, 3], dim=1)
        skip_x, skip_code, self.skip_point = weights[skip].split([before, code, 3], dim=1)
        self.code_weight = torch.cat([first_code, skip_code])  # (2 w, code_length): first layer, then skip layer
        self.code_bias = torch.cat([biases[0], biases[skip]])
        self.weights = [weight.to(dtype) for weight in weights[1:-1]]
        self.weights[skip - 1] = skip_x.to(dtype)
        self.biases = [bias.to(dtype) for bias in biases[1:-1]]
        self.last_weight, self.last_bias = weights[-1][0], biases[-1]

    def distances(self, codes: Tensor, points: Tensor) -> Tensor:
        """Signed distances, (s, n) float32, of canonical points (s, n, 3) under codes (s, code_length)."""
        return self._forward(codes, points, keep=False)[0]

    def in_basis(self, mean: Tensor, root: Tensor) -> "FoldedDecoder":
        """The same function of u, (s, k), where the code is mean + root @ u, folded into the weights.

        mean : (code_length,); root : (code_length, k)
        """
        changed = copy(self)
        changed.code_bias = self.code_bias + self.code_weight @ mean
        changed.code_weight = self.code_weight @ root
        return changed

    def gradients(self, codes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Signed distances and their gradients.

        Parameters
        ----------
        codes : (s, code_length); points : (s, n, 3), canonical

        Returns
        -------
        Distances, (s, n); gradients by the code, (s, n, code_length); gradients by the point, (s, n, 3); all float32.
        """
        distance, layers = self._forward(codes, points, keep=True)
        inner = self._backward(distance, layers)
        by_code = inner @ self.code_weight.to(self.dtype)
        by_point = (inner @ torch.cat([self.first_point, self.skip_point]).to(self.dtype)).float()
        if self.settings.mirror_axis is not None:
            axis = self.settings.mirror_axis
            by_point[..., axis] *= torch.where(points[..., axis] < 0, -1.0, 1.0)
        return distance, by_code.float(), by_point

    def pull_back(self, codes: Tensor, points: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        """Vector-Jacobian product: the gradient by the code of a loss that is a sum over points.

        The same as automatic differentiation, without the gradients of single points.

        Parameters
        ----------
        codes : (s, code_length); points : (s, n, 3), canonical
        slope : distances, (s, n) -> derivatives of the loss by the distances, (s, n)

        Returns
        -------
        (s, code_length) float32.
        """
        distance, layers = self._forward(codes, points, keep=True)
        inner = self._backward(distance, layers, slope(distance))
        return inner.sum(1, dtype=torch.float32) @ self.code_weight

    def _backward(self, distance: Tensor, layers: list[Tensor], weight: Tensor | None = None) -> Tensor:
        """Derivative of each distance by the pre-activations of the first and of the skip layer, (s, n, 2 w).

        distance : (s, n), from `_forward` with its layers; weight : (s, n), factors of the derivatives
        """
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

    def _forward(self, codes: Tensor, points: Tensor, keep: bool) -> tuple[Tensor, list[Tensor]]:
        """Distances, (s, n), and, if they are to be kept, the activations of all hidden layers, (s, n, w) each."""
        points = _mirrored(points.float(), self.settings.mirror_axis)
        width = self.first_point.shape[0]
        shared = functional.linear(codes.float(), self.code_weight, self.code_bias)[:, None, :]
        # Coordinates need more than bfloat16's 8 bits, so the two layers that see them add them in float32.
        x = (points @ self.first_point.T).add_(shared[..., :width]).relu_().to(self.dtype)
        layers = [x] if keep else []
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if index == self.settings.skip_at - 1:
                inputs = (points @ self.skip_point.T).add_(shared[..., width:])
                x = functional.linear(x, weight).add_(inputs.to(self.dtype)).relu_()
            else:
                x = functional.linear(x, weight, bias).relu_()
            if keep:
                layers.append(x)
        return torch.tanh((x.float() @ self.last_weight) + self.last_bias), layers


def _through_relu(slope: Tensor, output: Tensor) -> Tensor:
    """The derivative through a ReLU: `slope` where the layer's output is positive, zero elsewhere.

    The operator that autograd calls: one pass over both, where a mask and a product take nine times as long.
    """
    return torch.ops.aten.threshold_backward(slope, output, 0)


def initial_codes(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Initial training codes, (count, length): N(0, 1 / length), norm about 1, as in the released code."""
    return torch.randn(count, length, generator=generator) / math.sqrt(length)
