"""The device that computes, and in what portions of points."""

import torch
from torch import Tensor
from torch.nn import functional

from sdf_backend.errors import InputError

# Points in one call of a decoder while a mesh is extracted, by kind of device: on a CPU the activations of a batch
# should fit into its cache; on a GPU a batch must be large enough to occupy it.
EXTRACTION_BATCH = {"cpu": 8192, "cuda": 1 << 18}
# Points in one call while codes are fitted, over all shapes of a batch; the same on all devices, since the rounding
# of a sum depends on it.
CHUNK = 8192
# Points are padded to a multiple of this before a decoder sees them. torch's oneDNN keeps a kernel of about a megabyte
# for every shape of a matrix product that it meets, up to two thousand; inputs of ever new lengths would fill a
# worker's memory.
POINT_BLOCK = 1024


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: auto, cpu, cuda or cuda:N; raises `InputError` if this machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"there is no device {name}: torch finds {torch.cuda.device_count()} CUDA devices; use another, or cpu"
        )
    return device


def padded_chunks(points: Tensor) -> tuple[Tensor, ...]:
    """Points, (n, 3), padded with zeros to a multiple of `POINT_BLOCK` and split into parts of at most `CHUNK`."""
    return functional.pad(points, (0, 0, 0, -len(points) % POINT_BLOCK)).split(CHUNK)
