"""Category models on disk: one `.safetensors` file holds the decoder, its codes, and all that must be said of it.

Nothing is ever unpickled. Half-precision codes and single-precision weights keep a `small` model near 2 MB.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.similarity import axis_rotation
from sdf_backend.model.decoder import Decoder, DecoderSettings, FoldedDecoder

FORMAT = "sdf-shapes-model-1"
STARTER_MODELS = Path(__file__).parents[1] / "starter_models"
MODELS_VARIABLE = "SDF_BACKEND_MODELS"
SUFFIX = ".safetensors"
# A code's variance along directions that no training code used is not zero but this share of the mean variance.
VARIANCE_FLOOR = 1e-3


@dataclass(frozen=True)
class ModelCard:
    """What a model says of itself."""

    name: str
    """the category, lower-case plural"""
    up: str
    """canonical axis that points up"""
    front: str
    """canonical axis that points ahead"""
    clamp: float
    """distances beyond this are not learnt, canonical units"""
    decoder: dict
    """DecoderSettings as a dictionary"""
    reach: float = 1 / 1.03
    """how far shapes reach from the middle of their box, canonical units; prepared shapes fill that sphere"""
    training: dict = field(default_factory=dict)
    """the settings that it was trained with"""
    shapes: list[str] = field(default_factory=list)
    """names of the training shapes, one a code"""
    sources: list[dict] = field(default_factory=list)
    """licence, creator and number of shapes, one entry a source"""
    accuracy: dict = field(default_factory=dict)
    """measured on the test split, one entry a task"""


@dataclass(frozen=True, eq=False)  # one loaded model is itself and no other
class Model:
    """A decoder with the codes it was trained with.

    codes : (n, code_length) float32; mean : (code_length,); covariance : (code_length, code_length)
    """

    card: ModelCard
    decoder: Decoder
    codes: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the training codes, (code_length,)."""
        return self.codes.mean(0)

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance of the training codes, (code_length, code_length), with a floor that makes it invertible."""
        centred = (self.codes - self.mean).double()
        covariance = centred.T @ centred / max(len(centred) - 1, 1)
        floor = VARIANCE_FLOOR * covariance.diagonal().mean().clamp_min(1e-12)
        return (covariance + floor * torch.eye(len(covariance), dtype=torch.float64, device=centred.device)).float()

    @cached_property
    def directions(self) -> Tensor:
        """Main directions of variation, (code_length, code_length): row j is sqrt(lambda_j) v_j, a standard deviation.

        lambda_j are the eigenvalues of the covariance, the largest first, and v_j its eigenvectors. An eigenvector's
        sign is arbitrary; here its component of largest magnitude is positive, so that it is the same everywhere.
        """
        values, vectors = torch.linalg.eigh(self.covariance.double().cpu())
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        columns = vectors * largest.sign() * values.clamp_min(0).sqrt()
        return columns.T.flip(0).float().to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """Bytes of weights and codes."""
        return self.codes.nbytes + sum(parameter.nbytes for parameter in self.decoder.parameters())

    def folded(self, dtype: torch.dtype) -> FoldedDecoder:
        """The decoder for evaluation in `dtype`; made once, since a finished model's weights do not change."""
        if dtype not in self._folds:
            self._folds[dtype] = self.decoder.folded(dtype)
        return self._folds[dtype]

    @cached_property
    def _folds(self) -> dict[torch.dtype, FoldedDecoder]:
        return {}


def save_model(path: Path, model: Model) -> None:
    """Write a model, whole or not at all."""
    tensors = {
        f"decoder.{name}": value.detach().cpu().contiguous() for name, value in model.decoder.state_dict().items()
    }
    tensors["codes"] = model.codes.detach().cpu().half()
    tensors["mean"], tensors["covariance"] = model.mean.cpu().contiguous(), model.covariance.cpu().contiguous()
    with atomic_write(Path(path)) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "card": json.dumps(asdict(model.card))})


def read_card(path: Path) -> ModelCard:
    """Read what a model says of itself, without its weights; raises `InputError` where the file is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return _card(file.metadata() or {}, path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"the model {path} is damaged or no model: {error}") from error


def load_model(path: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model; raises `InputError` where the file is missing, damaged, or does not fit its own description."""
    card = read_card(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
        decoder = Decoder(DecoderSettings(**card.decoder))
        weights = {
            name.removeprefix("decoder."): value for name, value in tensors.items() if name.startswith("decoder.")
        }
        decoder.load_state_dict(weights)
        codes = tensors["codes"].float()
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the model {path} does not fit its own description: {reason}; fetch it again") from error
    finite = all(bool(torch.isfinite(value).all()) for value in tensors.values())
    if (
        not finite
        or len(codes) == 0
        or codes.shape[1:] != (card.decoder["code_length"],)
        or len(codes) != len(card.shapes)
    ):
        raise InputError(f"the model {path} holds unusable weights or codes; fetch it again")
    return Model(card, decoder.to(device).eval().requires_grad_(False), codes)


class ModelStore:
    """The models that can be named: those that ship, those in `SDF_BACKEND_MODELS`, those in a given folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folders = [STARTER_MODELS]
        if os.environ.get(MODELS_VARIABLE):
            self.folders.append(Path(os.environ[MODELS_VARIABLE]))
        if folder:
            self.folders.append(Path(folder))
        for extra in self.folders[1:]:
            if not extra.is_dir():
                raise InputError(f"the models' folder {extra} does not exist")

    def paths(self) -> dict[str, Path]:
        """Name and file of every model; a later folder's model replaces an earlier one's of the same name."""
        files = (path for folder in self.folders for path in sorted(folder.glob(f"*{SUFFIX}")))
        # A hidden one is what a killed writer left.
        return {path.stem: path for path in files if not path.name.startswith(".")}

    def find(self, name: str) -> Path:
        """The file of a model, by its name or by its own path; raises `InputError` that lists the known names."""
        if name.endswith(SUFFIX) and Path(name).is_file():
            return Path(name)
        paths = self.paths()
        if name not in paths:
            raise InputError(f"unknown model {name!r}; known models: {', '.join(sorted(paths)) or 'none'}")
        return paths[name]


def _card(metadata: dict[str, str], path: Path) -> ModelCard:
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a model of this project (format {metadata.get('format')!r}, not {FORMAT!r})")
    try:
        card = ModelCard(**json.loads(metadata["card"]))
        _check_card(card)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"the model {path} has an unreadable description: {error}") from error
    return card


def _check_card(card: ModelCard) -> None:
    """Raise `ValueError` or `TypeError` where a field is not what the other parts rely on."""
    axis_rotation(card.up, card.front, "-z")
    if not (card.clamp > 0 and card.reach > 0 and isinstance(card.decoder, dict) and isinstance(card.shapes, list)):
        raise ValueError(
            f"clamp {card.clamp!r}, reach {card.reach!r}, decoder {card.decoder!r}, {len(card.shapes)} shapes"
        )
    for source in card.sources:
        if not (isinstance(source["licence"], str) and isinstance(source["shapes"], int)):
            raise TypeError(f"source {source!r}")
