"""Latent codes of a model: checked, drawn at random, and moved along the principal components."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.model.store import Model

MAXIMUM_SAMPLES = 1000
# Codes have a norm of about 1. Far larger ones overflow in the network.
LARGEST_NUMBER = 1e6


def checked_codes(model: Model, codes: np.ndarray) -> Tensor:
    """Codes, (k, code_length), as float32 on the model's device; raises `InputError` where they are not the model's."""
    latents = torch.as_tensor(codes, dtype=torch.float32, device=model.device)
    length = model.codes.shape[1]
    fits = latents.ndim == 2 and latents.shape[1] == length
    if not fits or not bool((latents.abs() <= LARGEST_NUMBER).all()):  # NaN is not
        found = f"it has NaN or numbers above {LARGEST_NUMBER:g}" if fits else f"its shape is {np.shape(codes)[1:]}"
        raise InputError(f"a code of {model.card.name} must be {length} finite numbers; {found}")
    return latents


def training_code(model: Model, name: str) -> np.ndarray:
    """The code, (code_length,), of a shape that the model was trained on. Raises `InputError` for an unknown name."""
    names = model.card.shapes
    if name not in names:
        raise InputError(
            f"{model.card.name} was trained on no shape {name!r}, but on {', '.join(names[:8])} and others"
        )
    return model.codes[names.index(name)].cpu().numpy()


def read_code(path: Path) -> np.ndarray:
    """Read a code, (code_length,), from a JSON list of numbers. Raises `InputError` where the file is none."""
    try:
        return np.array(json.loads(path.read_text()), dtype=np.float32).reshape(-1)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read the code {path} ({error}); it must be a JSON list of numbers") from error


def draw_code_deviations(model: Model, count: int, seed: int) -> Tensor:
    """Random deviations from the mean code, (count, code_length), with the covariance of the training codes.

    Raises `InputError` for a count out of range.
    """
    if not 1 <= count <= MAXIMUM_SAMPLES:
        raise InputError(f"{count} samples were requested; use 1 to {MAXIMUM_SAMPLES}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, model.codes.shape[1], generator=generator).to(model.device)
    return noise @ torch.linalg.cholesky(model.covariance).T


def move_codes_along_components(model: Model, weights: np.ndarray, codes: np.ndarray | None = None) -> Tensor:
    """Codes moved along the model's principal components.

    Parameters
    ----------
    weights : (n, k), standard deviations along the first k of `Model.principal_components`, k up to the code length
    codes : (n, code_length), the codes to move; the mean of the training codes where None

    Returns
    -------
    (n, code_length) float32

    Raises
    ------
    InputError : weights or codes that do not fit each other or the model, or are not finite
    """
    name, length = model.card.name, len(model.mean)
    moves = torch.as_tensor(weights, dtype=torch.float32, device=model.device)
    if moves.ndim != 2 or moves.shape[1] > length or not bool(torch.isfinite(moves).all()):
        fits = moves.ndim == 2 and moves.shape[1] <= length
        found = "they have NaN or infinity" if fits else f"their shape is {np.shape(weights)}"
        raise InputError(f"weights of {name} must be rows of at most {length} finite numbers; {found}")
    starts = model.mean.expand(len(moves), length) if codes is None else checked_codes(model, codes)
    if len(starts) != len(moves):
        raise InputError(f"{len(starts)} codes and {len(moves)} rows of weights were given; give one row for each code")
    return starts + moves @ model.principal_components[: moves.shape[1]]
