"""An experiment of the released DeepSDF code -> a model file of this project, which computes the same distances.

Such a folder holds `specs.json`, `ModelParameters/CHECKPOINT.pth` and `LatentCodes/CHECKPOINT.pth`. Its decoder takes
[code, point], takes both again before the layer that `latent_in` names, and ends in tanh, as ours; its shapes have the
middle of their box at the origin and reach to 1 / 1.03.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import axis_rotation
from sdf_backend.model.decoder import Decoder, DecoderSettings
from sdf_backend.model.store import Model, ModelCard


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
    """Read an experiment's decoder and codes.

    Parameters
    ----------
    category : the model's name, lower-case plural
    names : of the training shapes, in the order of the training split; numbers where None
    up, front : axes of the data that it was trained on; the defaults are ShapeNet's

    Raises `InputError` where a file is missing or damaged, for networks that differ in more than their size (other
    inputs, another normalisation, a second tanh), and where names and codes differ in number.
    """
    axis_rotation(up, front, "-z")  # refuses axes along one line
    specs = _specs(experiment / "specs.json")
    settings = _settings(specs)
    weights = _loaded(experiment / "ModelParameters" / f"{checkpoint}.pth", "model_state_dict")
    codes = _codes(_loaded(experiment / "LatentCodes" / f"{checkpoint}.pth", "latent_codes"), settings.code_length)
    decoder = _decoder(settings, weights)
    if not (torch.isfinite(codes).all() and all(torch.isfinite(value).all() for value in decoder.parameters())):
        raise InputError(f"{experiment} holds weights or codes that are no numbers; import an earlier checkpoint")
    names = names or [f"shape-{number:05d}" for number in range(len(codes))]
    if len(names) != len(codes):
        raise InputError(f"the split names {len(names)} shapes, and {experiment} has {len(codes)} codes; name another")
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
        raise InputError(f"cannot read {path}: {error}; name the folder of a DeepSDF experiment") from error
    if not isinstance(specs, dict) or not isinstance(specs.get("NetworkSpecs"), dict) or "CodeLength" not in specs:
        raise InputError(f"{path} lacks NetworkSpecs or CodeLength; name the folder of a DeepSDF experiment")
    return specs


def _settings(specs: dict) -> DecoderSettings:
    """The network's size; raises `InputError` where it is built otherwise than ours."""
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
                f"a network with {key} = {value} cannot be imported: it is built otherwise than the paper's"
            )
    dropout = float(network.get("dropout_prob", 0.0)) if network.get("dropout") else 0.0
    return DecoderSettings(int(specs["CodeLength"]), dims[0], len(dims), skips[0], dropout)


def _loaded(path: Path, key: str) -> dict | Tensor:
    """What a checkpoint holds under `key`; nothing but tensors and plain containers is ever unpickled."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)[key]
    except Exception as error:  # of a damaged file the reader says what it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path}: {reason}; choose another --checkpoint") from error


def _codes(stored: dict | Tensor, length: int) -> Tensor:
    """Codes, (n, code_length): the released code keeps a layer's state, its first version kept (n, 1, code_length)."""
    codes = stored if isinstance(stored, Tensor) else stored.get("weight", torch.zeros(0))
    if codes.numel() == 0 or codes.shape[-1] != length:
        raise InputError(f"the codes have the shape {tuple(codes.shape)}, and specs.json says {length} numbers a code")
    return codes.reshape(-1, length).float()


def _decoder(settings: DecoderSettings, stored: dict | Tensor) -> Decoder:
    """Ours with another's matrices, whose weight normalisation may be there or not."""
    theirs = {} if isinstance(stored, Tensor) else {name.removeprefix("module."): one for name, one in stored.items()}
    decoder = Decoder(settings)
    try:
        ours = {}
        for number in range(settings.layers):
            length, direction = _normalised(theirs, f"lin{number}")
            ours[f"hidden.{number}.parametrizations.weight.original0"] = length
            ours[f"hidden.{number}.parametrizations.weight.original1"] = direction
            ours[f"hidden.{number}.bias"] = theirs[f"lin{number}.bias"]
        length, direction = _normalised(theirs, f"lin{settings.layers}")
        ours["last.weight"] = length * direction / direction.norm(dim=1, keepdim=True)
        ours["last.bias"] = theirs[f"lin{settings.layers}.bias"]
        decoder.load_state_dict(ours)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the checkpoint is not of the network that specs.json describes: {reason}") from error
    return decoder


def _normalised(state: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """A layer's weights as lengths of its rows, (n, 1), and rows of any length in their directions."""
    if f"{layer}.weight" in state:
        weight = state[f"{layer}.weight"]
        length = weight.norm(dim=1, keepdim=True)
        # A unit that is switched off has no direction; any will do, and none would make it no number.
        return length, torch.where(length > 0, weight, 1.0)
    return state[f"{layer}.weight_g"], state[f"{layer}.weight_v"]
