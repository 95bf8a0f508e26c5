"""Writes a model as an experiment of the released DeepSDF code, which computes the same distances with it.

The inverse of `training.import_deepsdf`: `specs.json`, `ModelParameters/latest.pth`, `LatentCodes/latest.pth`, and
`train.json`, the split that names the shapes of the codes.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.model.store import Model

CHECKPOINT = "latest.pth"
# Names of weight normalisation's parameters: in newer torch, and in the one that the released code is for.
PARAMETERS = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def export_deepsdf(model: Model, folder: Path) -> None:
    """Write the folder of an experiment.

    Raises `InputError` for a model with mirror symmetry, which the released network lacks, and for a folder that cannot
    be written.
    """
    settings = model.decoder.settings
    if settings.mirror_axis is not None:
        raise InputError(
            f"{model.card.name} was trained with --symmetric, which the released network cannot express; train without"
        )
    every = list(range(settings.layers))
    specs = {
        "Description": f"{model.card.name}, exported",
        "NetworkArch": "deep_sdf_decoder",
        "DataSource": "data",
        "TrainSplit": "train.json",
        "NetworkSpecs": {
            "dims": [settings.width] * settings.layers,
            "dropout": every if settings.dropout else [],
            "dropout_prob": settings.dropout,
            "norm_layers": every if settings.weight_norm else [],
            "latent_in": [settings.skip_at],
            "xyz_in_all": False,
            "use_tanh": False,
            "latent_dropout": False,
            "weight_norm": settings.weight_norm,
        },
        "CodeLength": settings.code_length,
        "ClampingDistance": model.card.clamp,
    }
    for name, content in {"specs.json": specs, "train.json": {"data": {model.card.name: model.card.shapes}}}.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=1))
    epoch = model.card.training.get("epochs", 0)
    _save(folder / "ModelParameters" / CHECKPOINT, {"epoch": epoch, "model_state_dict": _weights(model)})
    codes = {"weight": model.codes.detach().float().cpu()}
    _save(folder / "LatentCodes" / CHECKPOINT, {"epoch": epoch, "latent_codes": codes})


def _weights(model: Model) -> dict[str, Tensor]:
    """The weights under the names of the released decoder, as its data-parallel trainer writes them."""
    released = {}
    for name, value in model.decoder.state_dict().items():
        layer, _, rest = name.removeprefix("hidden.").partition(".")
        number = model.decoder.settings.layers if layer == "last" else int(layer)
        released[f"module.lin{number}.{PARAMETERS.get(rest, rest)}"] = value.detach().float().cpu()
    return released


def _save(path: Path, content: dict) -> None:
    with atomic_write(path) as temporary:
        torch.save(content, temporary)
