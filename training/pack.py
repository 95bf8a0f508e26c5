"""Moves the sample files of a dataset, one a shape, into the large files of its store."""

from collections.abc import Callable, Iterator
from pathlib import Path

from training.dataset import Dataset
from training.store import new_part, remove_leftovers

# Both the sample files and their part are on the disk until the part is complete, so it must not be too large.
PART_BYTES = 4 << 30


def pack_dataset(folder: Path, progress: Callable[[int, int], None] | None = None, part_bytes: int = PART_BYTES) -> int:
    """Pack all shapes of a dataset that have a file of their own; interrupted, it continues when called again.

    Parameters
    ----------
    progress : called as `progress(done, total)` after each shape
    part_bytes : about the size of a part

    Returns
    -------
    The number of shapes that were packed.

    Raises
    ------
    InputError : the folder is no dataset or cannot be written, or a sample file is damaged
    """
    dataset = Dataset.open(folder)
    remove_leftovers(dataset.store.folder)
    loose = [record.name for record in dataset.records if dataset.path(record.name).exists()]
    done = 0
    for names in _groups(dataset, loose, part_bytes):
        with new_part(dataset.store.folder) as part:
            for name in names:
                part.add(name, dataset.load(name), dataset.path(name).stat().st_mtime_ns)
                done += 1
                if progress:
                    progress(done, len(loose))
        for name in names:
            dataset.path(name).unlink()
    return len(loose)


def _groups(dataset: Dataset, names: list[str], part_bytes: int) -> Iterator[list[str]]:
    """Runs of names whose sample files are of `part_bytes` together, or just more."""
    group, size = [], 0
    for name in names:
        group.append(name)
        size += dataset.path(name).stat().st_size
        if size >= part_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group
