"""Category models on disk: one `.safetensors` file holds the decoder, its codes, and the model card.

Nothing is ever unpickled. Half-precision codes and single-precision weights keep a `small` model near 2 MB.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields
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
from sdf_backend.model.devices import padded_chunks

FORMAT = "sdf-shapes-model-1"
STARTER_MODELS = Path(__file__).parents[1] / "starter_models"
MODELS_VARIABLE = "SDF_BACKEND_MODELS"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CovarianceSettings:
    """How the covariance of the training codes is regularised."""

    relative_floor: float = 1e-3
    """variance added in all directions, as a share of the mean variance, so that the covariance is invertible; chosen
    small beside the variance of the main directions, not tuned"""


@dataclass(frozen=True)
class ModelCard:
    """The metadata of a model file."""

    name: str
    """the category, lower-case plural"""
    up: str
    """canonical up axis"""
    front: str
    """canonical front axis"""
    clamp: float
    """training clamped distances to this magnitude, canonical units; the decoder does not know larger ones"""
    decoder: dict
    """DecoderSettings as a dictionary"""
    reach: float = 1 / 1.03
    """radius of shapes about the centre of their bounding box, canonical units; prepared shapes fill that sphere"""
    training: dict = field(default_factory=dict)
    """training settings"""
    shapes: list[str] = field(default_factory=list)
    """names of the training shapes, one for each code"""
    sources: list[dict] = field(default_factory=list)
    """licence, creator and number of shapes of each source"""
    licence: str = ""
    """the licence that the file must be passed on under, because that of its data is share-alike; empty for none"""
    accuracy: dict = field(default_factory=dict)
    """measured accuracy on the test split, by task"""


@dataclass(frozen=True, eq=False)  # models are compared by identity
class Model:
    """A decoder with its training codes, (n, code_length) float32."""

    card: ModelCard
    decoder: Decoder
    codes: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the training codes, (code_length,)."""
        return self.codes.mean(0)

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance of the training codes, (code_length, code_length) float32, regularised to be invertible."""
        centred = (self.codes - self.mean).double()
        covariance = centred.T @ centred / max(len(centred) - 1, 1)
        floor = CovarianceSettings().relative_floor * covariance.diagonal().mean().clamp_min(1e-12)
        return (covariance + floor * torch.eye(len(covariance), dtype=torch.float64, device=centred.device)).float()

    @cached_property
    def principal_components(self) -> Tensor:
        """Principal components of the training codes, (code_length, code_length): row j is sqrt(lambda_j) v_j.

        lambda_j are the eigenvalues of the covariance, the largest first, and v_j its eigenvectors, so a row is one
        standard deviation. The sign of an eigenvector is arbitrary; here its component of largest magnitude is
        positive, so that results are the same on every machine.
        """
        values, vectors = torch.linalg.eigh(self.covariance.double().cpu())
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        columns = vectors * largest.sign() * values.clamp_min(0).sqrt()
        return columns.T.flip(0).float().to(self.device)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.codes.device

    @property
    def nbytes(self) -> int:
        """Bytes of weights and codes."""
        return self.codes.nbytes + sum(parameter.nbytes for parameter in self.decoder.parameters())

    def folded(self, dtype: torch.dtype) -> FoldedDecoder:
        """The decoder for evaluation in `dtype`; computed once, since the weights of a finished model do not change."""
        if dtype not in self._folds:
            self._folds[dtype] = self.decoder.folded(dtype)
        return self._folds[dtype]

    def distances(self, code: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
        """Signed distances at canonical points, (n, 3), under a code, (code_length,): (n,) float32, canonical units.

        dtype : precision of the decoder's matrix products
        """
        decoder = self.folded(dtype)
        parts = [decoder.distances(code[None], part[None])[0] for part in padded_chunks(points)]
        return torch.cat(parts)[: len(points)]

    def point_gradients(self, code: Tensor, points: Tensor, dtype: torch.dtype) -> Tensor:
        """Gradients of the signed distance by the point, (n, 3) float32; see `distances`."""
        decoder = self.folded(dtype)
        parts = [decoder.gradients(code[None], part[None])[2][0] for part in padded_chunks(points)]
        return torch.cat(parts)[: len(points)]

    @cached_property
    def _folds(self) -> dict[torch.dtype, FoldedDecoder]:
        return {}


def save_model(path: Path, model: Model) -> None:
    """Write a model, whole or not at all; codes are rounded to half precision."""
    tensors = {
        f"decoder.{name}": value.detach().cpu().contiguous() for name, value in model.decoder.state_dict().items()
    }
    tensors["codes"] = model.codes.detach().cpu().half()
    with atomic_write(Path(path)) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "card": json.dumps(asdict(model.card))})


def read_card(path: Path) -> ModelCard:
    """Read the card of a model without its weights; raises `InputError` if the file is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return _card(file.metadata() or {}, path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"the file {path} is damaged or not a model: {error}") from error


def load_model(path: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model; raises `InputError` if the file is missing, damaged, of a newer version, or unlike its card.

    Files of version 0.1 also hold the mean and the covariance of the codes, which are not used.
    """
    card = read_card(path)
    if newer := card.decoder.keys() - {entry.name for entry in fields(DecoderSettings)}:
        raise InputError(
            f"the decoder of {path} has unknown settings ({', '.join(sorted(newer))}); update this program"
        )
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
        raise InputError(f"the model {path} does not match its own card: {reason}; fetch it again") from error
    finite = all(bool(torch.isfinite(value).all()) for value in tensors.values())
    if (
        not finite
        or len(codes) == 0
        or codes.shape[1:] != (card.decoder["code_length"],)
        or len(codes) != len(card.shapes)
    ):
        raise InputError(
            f"the model {path} has weights or codes that are not finite, or do not match its card; fetch it again"
        )
    return Model(card, decoder.to(device).eval().requires_grad_(False), codes)


class ModelStore:
    """The known models: those that ship, those in the folder of `SDF_BACKEND_MODELS`, those in a given folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folders = [STARTER_MODELS]
        if os.environ.get(MODELS_VARIABLE):
            self.folders.append(Path(os.environ[MODELS_VARIABLE]))
        if folder:
            self.folders.append(Path(folder))
        for extra in self.folders[1:]:
            if not extra.is_dir():
                raise InputError(f"the models folder {extra} does not exist; correct --models or SDF_BACKEND_MODELS")

    def paths(self) -> dict[str, Path]:
        """Name and file of every model; later folders take precedence."""
        files = (path for folder in self.folders for path in sorted(folder.glob(f"*{SUFFIX}")))
        # Hidden files are left by writers that were killed.
        return {path.stem: path for path in files if not path.name.startswith(".")}

    def find(self, name: str) -> Path:
        """The file of a model, by its name or path; raises `InputError` that lists the known names."""
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
        # A card of a newer version may say more; of the decoder all must be known, see `load_model`.
        known = {entry.name for entry in fields(ModelCard)}
        card = ModelCard(**{name: value for name, value in json.loads(metadata["card"]).items() if name in known})
        _check_card(card)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"the model {path} has an unreadable card: {error}") from error
    return card


def _check_card(card: ModelCard) -> None:
    """Raise `ValueError` or `TypeError` if a field has a value that other modules could not use."""
    axis_rotation(card.up, card.front, "-z")
    if not (card.clamp > 0 and card.reach > 0 and isinstance(card.decoder, dict) and isinstance(card.shapes, list)):
        raise ValueError(
            f"clamp {card.clamp!r}, reach {card.reach!r}, decoder {card.decoder!r}, {len(card.shapes)} shapes"
        )
    for source in card.sources:
        if not (isinstance(source["licence"], str) and isinstance(source["shapes"], int)):
            raise TypeError(f"source {source!r}")
