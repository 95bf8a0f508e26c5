"""The epochs of a training run as scalars for TensorBoard, an optional extra."""

from dataclasses import asdict
from pathlib import Path

from sdf_backend.errors import InputError
from training.history import EpochReport


class TensorboardLog:
    """Writes event files into a folder, for `tensorboard --logdir`.

    Parameters
    ----------
    folder : of the event files, new or to be continued
    epoch : the last one that is done; TensorBoard forgets later ones, which a killed run has logged and then lost

    Raises
    ------
    InputError : the package tensorboard is not installed, or `folder` cannot be written
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "--tensorboard needs a package that is not installed; pip install 'sdf-shapes[tensorboard]'"
            ) from error
        try:
            self._writer = SummaryWriter(str(folder), purge_step=epoch + 1)
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error

    def write(self, report: EpochReport) -> None:
        """Add the figures of an epoch, under the names of the fields of `EpochReport`."""
        for name, value in asdict(report).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, report.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Complete the event file."""
        self._writer.close()
