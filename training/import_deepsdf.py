"""Converts an experiment of the released DeepSDF code to a model that computes the same distances.

The folder of an experiment holds `specs.json`, `ModelParameters/CHECKPOINT.pth` and `LatentCodes/CHECKPOINT.pth`. Its
decoder has the architecture of ours: input [code, point], the same input again at the layer in `latent_in`, tanh at the
end. Its normalisation is also the same: bounding box centred at the origin, radius 1 / 1.03.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import axis_rotation
from sdf_backend.model.card import ModelCard
from sdf_backend.model.decoder import Decoder, DecoderSettings
from sdf_backend.model.store import Model


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
    weights = _loaded(experiment / "ModelParameters" / f"{checkpoint}.pth", "model_state_dict")
    codes = _codes(_loaded(experiment / "LatentCodes" / f"{checkpoint}.pth", "latent_codes"), settings.code_length)
    decoder = _decoder(settings, weights)
    if not (torch.isfinite(codes).all() and all(torch.isfinite(value).all() for value in decoder.parameters())):
        raise InputError(f"{experiment} contains weights or codes that are not finite; import an earlier checkpoint")
    names = names or [f"shape-{number:05d}" for number in range(len(codes))]
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


def _specs(path: Path) -> dict:
    try:
        specs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; give the folder of a DeepSDF experiment") from error
    if not isinstance(specs, dict) or not isinstance(specs.get("NetworkSpecs"), dict) or "CodeLength" not in specs:
        raise InputError(f"{path} lacks NetworkSpecs or CodeLength; give the folder of a DeepSDF experiment")
    return specs


def _settings(specs: dict) -> DecoderSettings:
    """The size of the network. Raises `InputError` where its architecture differs from ours."""
    network = specs["NetworkSpecs"]
    dims, skips = network.get("dims") or [0], network.get("latent_in") or []
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
    return DecoderSettings(int(specs["CodeLength"]), dims[0], len(dims), skips[0], dropout)


def _loaded(path: Path, key: str) -> dict | Tensor:
    """The entry `key` of a checkpoint; only tensors and plain containers are unpickled."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)[key]
    except Exception as error:  # torch raises many types for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path}: {reason}; choose another --checkpoint") from error


def _codes(stored: dict | Tensor, length: int) -> Tensor:
    """Codes, (n, code_length), from the state of an embedding layer, or (n, 1, code_length) as in the first release."""
    codes = stored if isinstance(stored, Tensor) else stored.get("weight", torch.zeros(0))
    if codes.numel() == 0 or codes.shape[-1] != length:
        raise InputError(f"the codes have the shape {tuple(codes.shape)}, but specs.json has {length} numbers per code")
    return codes.reshape(-1, length).float()


def _decoder(settings: DecoderSettings, stored: dict | Tensor) -> Decoder:
    """Our decoder with the imported weights, with or without weight normalisation."""
    imported = {}
    if not isinstance(stored, Tensor):
        imported = {name.removeprefix("module."): value for name, value in stored.items()}
    decoder = Decoder(settings)
    try:
        state = {}
        for number in range(settings.layers):
            length, direction = _magnitude_and_direction(imported, f"lin{number}")
            state[f"hidden.{number}.parametrizations.weight.original0"] = length
            state[f"hidden.{number}.parametrizations.weight.original1"] = direction
            state[f"hidden.{number}.bias"] = imported[f"lin{number}.bias"]
        length, direction = _magnitude_and_direction(imported, f"lin{settings.layers}")
        state["last.weight"] = length * direction / direction.norm(dim=1, keepdim=True)
        state["last.bias"] = imported[f"lin{settings.layers}.bias"]
        decoder.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the checkpoint is not of the network that specs.json describes: {reason}") from error
    return decoder


def _magnitude_and_direction(state: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """The rows of a weight matrix: their norms, (n, 1), and their directions, (n, k), of any length."""
    if f"{layer}.weight" in state:
        weight = state[f"{layer}.weight"]
        length = weight.norm(dim=1, keepdim=True)
        # The direction of a zero row is arbitrary, but must not be zero: it is normalised.
        return length, torch.where(length > 0, weight, 1.0)
    return state[f"{layer}.weight_g"], state[f"{layer}.weight_v"]
