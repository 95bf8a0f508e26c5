"""Preparing on many machines that share a folder: each samples its part, and a merge finishes the dataset.

A shard writes sample files, rejections and a report of its own, and nothing that another shard writes with another
content; so a shard may run twice, at once too. The merge packs what a single process would have packed.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sdf_backend.errors import InputError
from training.catalog import CatalogEntry
from training.dataset import DESCRIPTION_FILE, Dataset, load_samples, samples_path
from training.evaluation.selection import evenly_spaced
from training.prepare import (
    MeshOutcome,
    PrepareSettings,
    find_outcome,
    finish_dataset,
    in_processes,
    list_work,
    prepare_mesh,
    sample_meshes,
    write_description,
    write_report,
)

# What a sample takes of the disk, points and distances, and an oriented surface point.
ROW_BYTES, SURFACE_ROW_BYTES = 10, 18
# Meshes that a dry run samples: enough to see their spread, and soon done.
TRIED = 5


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of the work; `number` counts from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "I/N". Raises `InputError` where it is not that, with I of 1 to N."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise InputError(f"the shard is {text!r}; use I/N with I from 1 to N, such as 1/8")
        return cls(int(number), int(count))


@dataclass(frozen=True)
class Estimate:
    """What a dry run expects. Field names are keys of its JSON.

    seconds : of one core, for all meshes that are not sampled yet
    disk : bytes of the finished dataset; free : bytes that the disk has left
    """

    meshes: int
    remaining: int
    tried: int
    rejected: int
    seconds: float
    disk: int
    free: int


def prepare_shard(
    entries: list[CatalogEntry],
    output: Path,
    settings: PrepareSettings,
    shard: Shard,
    jobs: int | None = None,
    progress: Callable[[MeshOutcome, int], None] | None = None,
) -> list[MeshOutcome]:
    """Sample the meshes of one shard into `output`, which all shards share. As `prepare_dataset`, without its end.

    Where there are fewer meshes than shards, the last have none, and no outcome.
    """
    part = slice(shard.number - 1, None, shard.count)
    outcomes = sample_meshes(entries, output, settings, in_processes(jobs), progress, part)
    write_report(_reports(output) / f"{shard.number}-of-{shard.count}.json", outcomes)
    return outcomes


def merge_shards(entries: list[CatalogEntry], output: Path, settings: PrepareSettings) -> list[MeshOutcome]:
    """Finish a dataset whose shards have run: it becomes what a single process would have made.

    Raises
    ------
    InputError : the shards were started with other settings, or meshes have neither samples nor a reason why not
    """
    if not _reports(output).is_dir():
        raise InputError(f"{output} has no finished shard; run prepare with --shard first")
    work = list_work(entries, output, settings)
    write_description(work, output, settings)
    dataset, reported = Dataset.open(output), _read_reports(output)
    outcomes = [_merged(find_outcome(job, dataset), reported.get(job.name)) for job in work]
    missing = [job.name for job, outcome in zip(work, outcomes, strict=True) if outcome is None]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(work)} meshes are not prepared yet, the first is {missing[0]}; run their shards "
            "again, which skip what is done"
        )
    return finish_dataset(output, [outcome for outcome in outcomes if outcome])


def estimate(entries: list[CatalogEntry], output: Path, settings: PrepareSettings) -> Estimate:
    """Sample a few evenly spaced meshes elsewhere, and say what all will take; nothing is written to `output`.

    Raises `InputError` where none of the tried meshes can be used.
    """
    work = list_work(entries, output, settings)
    remaining = work
    if (output / DESCRIPTION_FILE).exists():
        dataset = Dataset.open(output)
        remaining = [job for job in work if find_outcome(job, dataset) is None]
    with tempfile.TemporaryDirectory() as folder:
        tried = [replace(job, target=Path(folder)) for job in evenly_spaced(work, TRIED)]
        outcomes = [prepare_mesh(job) for job in tried]
        used = [outcome.name for outcome in outcomes if not outcome.rejected]
        if not used:
            raise InputError(f"none of {len(tried)} tried meshes can be used; the first reason: {outcomes[0].reason}")
        shapes = [load_samples(samples_path(Path(folder), name)) for name in used]
    share = len(work) / len(tried)
    return Estimate(
        len(work),
        len(remaining),
        len(tried),
        len(tried) - len(used),
        float(np.mean([outcome.seconds for outcome in outcomes])) * len(remaining),
        round(share * sum(ROW_BYTES * len(one.points) + SURFACE_ROW_BYTES * len(one.surface) for one in shapes)),
        shutil.disk_usage(next(parent for parent in (output, *output.resolve().parents) if parent.exists())).free,
    )


def _reports(output: Path) -> Path:
    return output / "shards"


def _read_reports(output: Path) -> dict[str, MeshOutcome]:
    """The outcomes of all shards, by mesh."""
    found = {}
    for path in sorted(_reports(output).glob("[!.]*.json")):
        try:
            found |= {row["name"]: MeshOutcome(**row) for row in json.loads(path.read_text())}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it and run its shard again") from error
    return found


def _merged(found: MeshOutcome | None, reported: MeshOutcome | None) -> MeshOutcome | None:
    """The outcome of a mesh, of what is found in the folder and of its shard's report; None where it has none.

    What is found counts. Time-outs and dead workers are reported alone, since another run may do better.
    """
    if found is None:
        return reported if reported and reported.rejected else None
    return reported if reported and reported.reason == found.reason else found
