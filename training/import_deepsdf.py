"""Converts an experiment of the released DeepSDF code to a model that computes the same distances.

The folder of an experiment holds `specs.json`, `ModelParameters/CHECKPOINT.pth` and `LatentCodes/CHECKPOINT.pth`. Its
decoder has the architecture of ours: input [code, point], the same input again at the layer in `latent_in`, tanh at the
end. Its normalisation is also the same: bounding box centred at the origin, radius 1 / 1.03.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.files import check_file
from sdf_backend.geometry.similarity import axis_rotation
from sdf_backend.model.card import (
    ModelCard,
    check_decoder,
    check_fields,
    list_of,
    mapping,
    number,
    one_of,
    parse_object,
    share,
    text,
    whole_number,
)
from sdf_backend.model.decoder import Decoder, DecoderSettings, weight_shapes
from sdf_backend.model.store import Model

# A specification takes a kilobyte, the checkpoint of the paper's network 15 MB.
LARGEST_SPECS, LARGEST_CHECKPOINT = 1 << 20, 1 << 32
SPECS_RULES = {
    "CodeLength": whole_number(1, 4096),
    "ClampingDistance": number(10).or_missing(),
    "NetworkArch": text(200).or_missing(),
    "NetworkSpecs": mapping(),
}
LAYERS = list_of(0, 64, whole_number(0, 64)).or_null()
NETWORK_RULES = {
    "dims": list_of(1, 64, whole_number(1, 16384)),
    "dropout": LAYERS,
    "dropout_prob": share().or_missing(),
    "norm_layers": LAYERS,
    "latent_in": LAYERS,
    "xyz_in_all": one_of(True, False, None).or_missing(),
    "use_tanh": one_of(True, False, None).or_missing(),
    "weight_norm": one_of(True, False, None).or_missing(),
}


def import_deepsdf(
    experiment: Path,
    category: str,
    names: list[str] | None = None,
    checkpoint: str = "latest",
    up: str = "+y",
    front: str = "-z",
    licence: str = "unknown",
    creator: str = "unknown",
) -> Model:
    """Read the decoder and the latent codes of an experiment.

    Parameters
    ----------
    category : name of the model, lower-case plural
    names : of the training shapes, in the order of the training split; None for numbers
    checkpoint : name of the checkpoint
    up, front : axes of the training data; the defaults are those of ShapeNet
    licence, creator : of the training data

    Raises
    ------
    InputError : a file is missing or damaged, the architecture differs in more than its size (other inputs, another
        normalisation, a second tanh), or the numbers of names and codes differ
    """
    axis_rotation(up, front, "-z")  # raises for parallel axes
    specs = _specs(experiment / "specs.json")
    settings = _settings(specs)
    codes = _codes(_loaded(experiment / "LatentCodes" / f"{checkpoint}.pth", "latent_codes"), settings.code_length)
    decoder = _decoder(settings, _loaded(experiment / "ModelParameters" / f"{checkpoint}.pth", "model_state_dict"))
    with torch.inference_mode():
        distances = decoder(codes, torch.zeros(len(codes), 1, 3))
    if not torch.isfinite(distances).all():
        raise InputError(f"{experiment} contains weights or codes that are not finite; import an earlier checkpoint")
    names = names or [f"shape-{index:05d}" for index in range(len(codes))]
    if len(names) != len(codes):
        raise InputError(
            f"the split names {len(names)} shapes, but {experiment} has {len(codes)} codes; use its own split"
        )
    card = ModelCard(
        category,
        up,
        front,
        float(specs.get("ClampingDistance", 0.1)),
        asdict(settings),
        training={"imported": experiment.resolve().name, "checkpoint": checkpoint, "specs": specs},
        shapes=names,
        sources=[{"licence": licence, "creator": creator, "shapes": len(codes)}],
    )
    return Model(card, decoder.eval().requires_grad_(False), codes)


def _specs(path: Path) -> dict[str, Any]:
    """The specification of an experiment, each field of which has its type and size."""
    advice = "give the folder of a DeepSDF experiment"
    check_file(path, advice, LARGEST_SPECS)
    try:
        specs = parse_object(path.read_text())
        check_fields(specs, SPECS_RULES, "")
        check_fields(specs["NetworkSpecs"], NETWORK_RULES, "NetworkSpecs.")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot use {path}: {error}; {advice}") from error
    return specs


def _settings(specs: dict[str, Any]) -> DecoderSettings:
    """The size of the network. Raises `InputError` where its architecture differs from ours."""
    network = specs["NetworkSpecs"]
    dims, skips = network["dims"], network.get("latent_in") or []
    plain = not network.get("norm_layers") or network.get("weight_norm")
    known = {
        "dims": len(set(dims)) == 1,
        "latent_in": len(skips) == 1 and 0 < skips[0] < len(dims),
        "xyz_in_all": not network.get("xyz_in_all"),
        "use_tanh": not network.get("use_tanh"),
        "norm_layers": plain,
        "NetworkArch": specs.get("NetworkArch", "deep_sdf_decoder") == "deep_sdf_decoder",
    }
    for key, usable in known.items():
        if not usable:
            value = network.get(key, specs.get(key))
            raise InputError(
                f"a network with {key} = {value} cannot be imported: its architecture differs from the paper's"
            )
    dropout = float(network.get("dropout_prob", 0.0)) if network.get("dropout") else 0.0
    settings = DecoderSettings(specs["CodeLength"], dims[0], len(dims), skips[0], dropout)
    try:
        check_decoder(asdict(settings))
    except ValueError as error:
        raise InputError(f"the network of specs.json cannot be made: {error}") from error
    return settings


def _loaded(path: Path, key: str) -> object:
    """The entry `key` of a checkpoint; only tensors and plain containers are unpickled."""
    advice = "choose another --checkpoint"
    check_file(path, advice, LARGEST_CHECKPOINT)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, some with advice to run what the file holds
        raise InputError(
            f"cannot read {path}: it is damaged, or holds more than tensors, which could run code; {advice}"
        ) from error
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"cannot read {path}: it has no {key}; {advice}")
    return content[key]


def _codes(stored: object, length: int) -> Tensor:
    """Codes, (n, code_length), from the state of an embedding layer, or (n, 1, code_length) as in the first release."""
    codes = _numbers(stored.get("weight") if isinstance(stored, dict) else stored, "codes")
    if codes.numel() == 0 or codes.shape[1:] not in ((length,), (1, length)):
        raise InputError(f"the codes have the shape {tuple(codes.shape)}, but specs.json has {length} numbers per code")
    return codes.reshape(-1, length)


def _decoder(settings: DecoderSettings, stored: object) -> Decoder:
    """Our decoder with the imported weights, with or without weight normalisation."""
    if not isinstance(stored, dict):
        raise InputError("the checkpoint has no weights by name; choose another --checkpoint")
    imported = {str(name).removeprefix("module."): value for name, value in stored.items()}
    state = {}
    for index in range(settings.layers):
        length, direction = _magnitude_and_direction(imported, f"lin{index}")
        state[f"hidden.{index}.parametrizations.weight.original0"] = length
        state[f"hidden.{index}.parametrizations.weight.original1"] = direction
        state[f"hidden.{index}.bias"] = _numbers(imported.get(f"lin{index}.bias"), f"lin{index}.bias")
    length, direction = _magnitude_and_direction(imported, f"lin{settings.layers}")
    state["last.weight"] = length * direction / direction.norm(dim=1, keepdim=True)
    state["last.bias"] = _numbers(imported.get(f"lin{settings.layers}.bias"), f"lin{settings.layers}.bias")
    for name, shape in weight_shapes(settings).items():  # before a network is made
        if tuple(state[name].shape) != shape:
            raise InputError(
                f"the checkpoint is not of the network that specs.json describes: {name} has the shape "
                f"{tuple(state[name].shape)}, not {shape}"
            )
    decoder = Decoder(settings)
    decoder.load_state_dict(state)
    return decoder


def _magnitude_and_direction(state: dict[str, object], layer: str) -> tuple[Tensor, Tensor]:
    """The rows of a weight matrix: their norms, (n, 1), and their directions, (n, k), of any length."""
    if f"{layer}.weight" in state:
        weight = _matrix(state, f"{layer}.weight")
        length = weight.norm(dim=1, keepdim=True)
        # The direction of a zero row is arbitrary, but must not be zero: it is normalised.
        return length, torch.where(length > 0, weight, 1.0)
    # Weight normalisation by the names of torch before version 2.1, or after.
    names = ("weight_g", "weight_v")
    if f"{layer}.weight_g" not in state:
        names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    length, direction = (_matrix(state, f"{layer}.{name}") for name in names)
    if length.shape != (len(direction), 1):
        raise InputError(f"{layer} has {tuple(length.shape)} lengths for {len(direction)} rows")
    return length, direction


def _matrix(state: dict[str, object], name: str) -> Tensor:
    matrix = _numbers(state.get(name), name)
    if matrix.ndim != 2:
        raise InputError(f"{name} has the shape {tuple(matrix.shape)}, which is not that of a matrix")
    return matrix


def _numbers(value: object, name: str) -> Tensor:
    """A tensor of a checkpoint in single precision; `InputError` for what is no dense tensor of real numbers."""
    if value is None:
        raise InputError(f"the checkpoint is not of the network that specs.json describes: it has no {name}")
    if not (isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided):
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} of the checkpoint is {kind}, not a dense tensor of floating-point numbers")
    # A tensor of a few bytes may be expanded to any size.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f"{name} of the checkpoint has the shape {tuple(value.shape)}, but not as many numbers")
    return value.float()
