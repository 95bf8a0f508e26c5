"""Category models on disk: one `.safetensors` file holds the decoder, its codes, and the model card.

Nothing is ever unpickled. Half-precision codes and single-precision weights keep a `small` model near 2 MB.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_file
from sdf_backend.log import line, logger
from sdf_backend.model.card import ModelCard, parse_card
from sdf_backend.model.decoder import Decoder, DecoderSettings, FoldedDecoder, weight_shapes
from sdf_backend.model.devices import padded_chunks
from sdf_backend.model.encoder import Encoder, EncoderSettings, encoder_shapes
from sdf_backend.wire.messages import AUTO_MODEL

FORMAT = "sdf-shapes-model-1"
STARTER_MODELS = Path(__file__).parents[1] / "starter_models"
MODELS_VARIABLE = "SDF_BACKEND_MODELS"
SUFFIX = ".safetensors"
# Begin the names of the tensors of decoder and encoder.
WEIGHTS, ENCODER_WEIGHTS = "decoder.", "encoder."
FLOATS = ("F16", "BF16", "F32", "F64")
# A model of the paper's size takes 10 MB, and its header less than one.
LARGEST_FILE, LARGEST_HEADER = 1 << 30, 1 << 24


@dataclass(frozen=True)
class CovarianceSettings:
    """How the covariance of the training codes is regularised."""

    relative_floor: float = 1e-3
    """variance added in all directions, as a share of the mean variance, so that the covariance is invertible; chosen
    small beside the variance of the main directions, not tuned"""


@dataclass(frozen=True, eq=False)  # models are compared by identity
class Model:
    """A decoder with its training codes, (n, code_length) float32, and an encoder, if it has one."""

    card: ModelCard
    decoder: Decoder
    codes: Tensor
    encoder: Encoder | None = None

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the training codes, (code_length,)."""
        return self.codes.mean(0)

    @cached_property
    def spread(self) -> Tensor:
        """Root of the total variance of the training codes, (): the length of a typical deviation from their mean."""
        return (self.codes - self.mean).square().sum(1).mean().sqrt()

    @cached_property
    def covariance(self) -> Tensor:
        """Covariance of the training codes, (code_length, code_length) float32, regularised to be invertible."""
        centred = (self.codes - self.mean).double()
        covariance = centred.T @ centred / max(len(centred) - 1, 1)
        floor = CovarianceSettings().relative_floor * covariance.diagonal().mean().clamp_min(1e-12)
        return (covariance + floor * torch.eye(len(covariance), dtype=torch.float64, device=centred.device)).float()

    def unlikeliness(self, code: Tensor) -> float:
        """Squared Mahalanobis distance of a code, (code_length,), from the mean of the training codes."""
        deviation = (code - self.mean).double()
        return float(deviation @ torch.linalg.solve(self.covariance.double(), deviation))

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
        networks = [self.decoder] if self.encoder is None else [self.decoder, self.encoder]
        return self.codes.nbytes + sum(weights.nbytes for network in networks for weights in network.parameters())

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
    """Write a model, whole or not at all; codes and encoder are rounded to half precision.

    Raises `InputError` for a card that could not be read again, and where the file cannot be written.
    """
    encoder = {} if model.encoder is None else asdict(model.encoder.settings)
    card = json.dumps(asdict(replace(model.card, encoder=encoder)))
    try:
        parse_card(card)
    except ValueError as error:
        raise InputError(f"{path} would have a card that cannot be read: {error}") from error
    tensors = {
        f"{WEIGHTS}{name}": value.detach().cpu().contiguous() for name, value in model.decoder.state_dict().items()
    }
    tensors["codes"] = model.codes.detach().cpu().half()
    if model.encoder is not None:
        weights = model.encoder.state_dict().items()
        tensors |= {f"{ENCODER_WEIGHTS}{name}": value.detach().cpu().half() for name, value in weights}
    with atomic_write(Path(path)) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "card": card})


def read_card(path: Path) -> ModelCard:
    """Read the card of a model without its weights; raises `InputError` for a file that is no model or unlike its card.

    Also for a pipe, a device or a file too large, none of which it opens.
    """
    with _opened(path) as file:
        return _card(file, path)


def load_model(path: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model; raises `InputError` if the file is missing, damaged, of a newer version, or unlike its card.

    Files of version 0.1 also hold the mean and the covariance of the codes, which are not used.
    """
    with _opened(path, device) as file:
        card = _card(file, path)
        tensors = {name: file.get_tensor(name) for name in _expected_shapes(card)}
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise InputError(f"the model {path} has weights or codes that are not finite; fetch it again")
    codes = tensors.pop("codes").float()
    decoder = Decoder(DecoderSettings(**card.decoder))
    decoder.load_state_dict(_named(tensors, WEIGHTS))
    encoder = None
    if card.encoder:
        encoder = Encoder(_encoder_settings(card))
        encoder.load_state_dict(_named(tensors, ENCODER_WEIGHTS))
        encoder.to(device).eval().requires_grad_(False)
    return Model(card, decoder.to(device).eval().requires_grad_(False), codes, encoder)


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _encoder_settings(card: ModelCard) -> EncoderSettings:
    settings: dict[str, Any] = {**card.encoder, "point_widths": tuple(card.encoder["point_widths"])}
    return EncoderSettings(**settings)


class ModelStore:
    """The known models: those that ship, those in the folder of `SDF_BACKEND_MODELS`, those in a given folder."""

    def __init__(self, folder: Path | None = None, may_be_missing: bool = False) -> None:
        """Raises `InputError` for a folder that does not exist, unless it may be missing: then it is logged.

        A folder that is made later is found.
        """
        self.folders = [STARTER_MODELS]
        self._digests: dict[Path, tuple[int, int, str]] = {}  # time of the last change, bytes, digest
        if os.environ.get(MODELS_VARIABLE):
            self.folders.append(Path(os.environ[MODELS_VARIABLE]))
        if folder:
            self.folders.append(Path(folder))
        for extra in self.folders[1:]:
            if not extra.is_dir() and may_be_missing:
                logger.warning(line("models folder missing", folder=extra))
            elif not extra.is_dir():
                raise InputError(f"the models folder {extra} does not exist; correct --models or SDF_BACKEND_MODELS")

    def paths(self) -> dict[str, Path]:
        """Name and file of every model, of unusable ones too; later folders take precedence."""
        files = (path for folder in self.folders for path in sorted(folder.glob(f"*{SUFFIX}")))
        # Hidden files are left by writers that were killed.
        return {path.stem: path for path in files if not path.name.startswith(".")}

    def cards(self) -> dict[Path, ModelCard | InputError]:
        """The card of every model by its file, sorted by name; or why the model cannot be used."""
        return {path: _card_or_reason(path) for _, path in sorted(self.paths().items())}

    def digest(self, name: str) -> str:
        """Hash of the file of a model, computed again if it has changed; raises `InputError` for a missing file."""
        path = self.find(name)
        status = check_model_file(path)
        modified, size, digest = self._digests.get(path, (0, 0, ""))
        if (modified, size) != (status.st_mtime_ns, status.st_size):
            digest = file_digest(path)
            self._digests[path] = status.st_mtime_ns, status.st_size, digest
        return digest

    def find(self, name: str) -> Path:
        """The file of a model, by its name or path; raises `InputError` that lists the known names."""
        if name.endswith(SUFFIX):
            return Path(name)
        paths = self.paths()
        if name == AUTO_MODEL:
            raise InputError(
                f"without an input {name} has nothing to choose by; name one of {', '.join(sorted(paths))}"
            )
        if name not in paths:
            raise InputError(f"unknown model {name!r}; known models: {', '.join(sorted(paths)) or 'none'}")
        return paths[name]


def file_digest(path: Path) -> str:
    """Hash of a file, 40 hexadecimal digits; raises `InputError` if it cannot be read."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=20).hexdigest()
    except OSError as error:
        raise InputError(f"the file {path} cannot be read: {error.strerror}") from error


def check_model_file(path: Path) -> os.stat_result:
    """The status of a model file; `InputError` for what is no file or too large, without opening it."""
    return check_file(path, "give the name or the file of a model", LARGEST_FILE)


@contextmanager
def _opened(path: Path, device: torch.device | str = "cpu") -> Iterator[safe_open]:
    """An open model file; `InputError` for a file that is damaged, and for what goes wrong with it in the block."""
    check_model_file(path)
    try:
        with Path(path).open("rb") as start:
            header_bytes = int.from_bytes(start.read(8), "little")
        if header_bytes > LARGEST_HEADER:
            raise InputError(f"the file {path} is damaged or not a model: its header has {header_bytes} bytes")
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(f"the file {path} is damaged or not a model: {error}") from error


def _card_or_reason(path: Path) -> ModelCard | InputError:
    if path.stem == AUTO_MODEL:
        return InputError(f"the name {AUTO_MODEL} stands for any model; rename the file")
    try:
        return read_card(path)
    except InputError as error:
        return error


def _card(file: safe_open, path: Path) -> ModelCard:
    """The card of an open file, which describes its tensors."""
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a model of this project (format {metadata.get('format')!r}, not {FORMAT!r})")
    try:
        card = parse_card(metadata.get("card", ""))
    except ValueError as error:
        raise InputError(f"the model {path} has an unreadable card: {error}") from error
    if reason := _difference(file, _expected_shapes(card)):
        raise InputError(f"the model {path} does not match its own card: {reason}; fetch it again")
    return card


def _expected_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a model file, by its card."""
    shapes = {f"{WEIGHTS}{name}": shape for name, shape in weight_shapes(DecoderSettings(**card.decoder)).items()}
    if card.encoder:
        of_encoder = encoder_shapes(_encoder_settings(card))
        shapes |= {f"{ENCODER_WEIGHTS}{name}": shape for name, shape in of_encoder.items()}
    return {**shapes, "codes": (len(card.shapes), card.decoder["code_length"])}


def _difference(file: safe_open, expected: Mapping[str, tuple[int, ...]]) -> str:
    """How the tensors of a file, by its header alone, differ from those of its card; empty if they do not."""
    names = {name for name in file.keys() if name in expected or name.startswith(WEIGHTS)}  # noqa: SIM118  no mapping
    for name in sorted(expected.keys() ^ names):
        return f"{name} is {'missing' if name in expected else 'unknown'}"
    for name, shape in expected.items():
        found = file.get_slice(name)
        if (kind := found.get_dtype()) not in FLOATS or tuple(found.get_shape()) != shape:
            return f"{name} is {kind} of shape {tuple(found.get_shape())}, not {shape}"
    return ""
