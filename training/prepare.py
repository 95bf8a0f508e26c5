"""Prepares a dataset: samples the signed distances of a list of meshes, in parallel and resumably.

Every mesh yields one sample file or one reason for its rejection.
"""

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from pebble import ProcessExpired, ProcessPool

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.signed_distance import clean_mesh
from sdf_backend.geometry.similarity import axis_rotation, axis_vector
from sdf_backend.wire.settings import LARGEST_SEED, Bounds, Settings, option
from training.augment import AugmentSettings, deform
from training.catalog import CatalogEntry, read_mesh
from training.contact_sheet import write_contact_sheet
from training.dataset import DESCRIPTION_FILE, Dataset, ShapeRecord, load_samples, samples_path, save_samples
from training.rendering import render_points, signed_slice
from training.sampling import SampleSettings, sample_mesh


@dataclass(frozen=True)
class PrepareSettings(Settings):
    """How meshes become a dataset: options of `prepare`, and keys of `dataset.json`."""

    category: str = option(
        "", "ShapeNet synset, or sub-folder of the source; names the dataset; default: the name of the source folder"
    )
    up: str = option("+y", "up axis of the source meshes")
    front: str = option("-z", "front axis of the source meshes; ShapeNet: -z")
    copies: int = option(
        0, "deformed copies of each training mesh, for small collections; procedural meshes get none", 0
    )
    sampling: SampleSettings = field(default_factory=SampleSettings)
    """sampling of each mesh"""
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """deformation of the copies"""
    timeout: float = option(300.0, "seconds after which a mesh is rejected", 1)
    seed: int = option(
        0, "seed of all sampling; the samples of a mesh depend on it and on the name of the mesh alone", 0, LARGEST_SEED
    )


@dataclass(frozen=True)
class MeshOutcome:
    """The outcome of one mesh. Field names are keys of `report.json`.

    reason : of its rejection; empty where it was sampled
    seconds : of its preparation
    uncertain : share of the samples that were dropped, since their sign is uncertain
    resumed : whether an earlier run prepared it
    """

    name: str
    reason: str
    seconds: float
    uncertain: float = 0.0
    resumed: bool = False

    @property
    def rejected(self) -> bool:
        """Whether the mesh could not be used."""
        return bool(self.reason)


@dataclass(frozen=True)
class _Job:
    """One mesh to sample, or one of its deformed copies, numbered from 1; 0 is the original."""

    entry: CatalogEntry
    copy: int
    target: Path
    settings: PrepareSettings

    @property
    def name(self) -> str:
        return f"{self.entry.name}~{self.copy}" if self.copy else self.entry.name


def prepare_dataset(
    entries: list[CatalogEntry],
    output: Path,
    settings: PrepareSettings,
    jobs: int | None = None,
    progress: Callable[[MeshOutcome, int], None] | None = None,
    absent: Sequence[str] = (),
) -> list[MeshOutcome]:
    """Sample every mesh into `output`. Samples of an earlier run are kept, so that a killed run continues.

    Parameters
    ----------
    entries : meshes with their splits and credits
    jobs : worker processes, 1 or more; None for one per core
    progress : called as `progress(outcome, total)` for each mesh
    absent : names that a split file lists and no mesh has; they are reported as rejected

    Returns
    -------
    outcomes : one per mesh and copy, also written to `report.json`

    Raises
    ------
    InputError : `jobs` is out of range, `output` was prepared with other settings, two meshes have the same name, or no
        mesh could be used
    """
    if jobs is not None:
        Bounds(1).check("jobs", jobs)
    work = [
        _Job(entry, copy, output, settings)
        for entry in entries
        for copy in range(1 + (settings.copies if entry.split == "train" and not entry.procedural else 0))
    ]
    dataset = _write_description(work, output, settings)
    outcomes = []
    for outcome in _run_jobs(work, jobs or os.cpu_count() or 1):
        outcomes.append(outcome)
        if progress:
            progress(outcome, len(work))
    outcomes += [
        MeshOutcome(name, "the split file lists it, and there is no mesh of that name", 0.0) for name in absent
    ]
    with atomic_write(output / "report.json") as temporary:
        temporary.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    if all(outcome.rejected for outcome in outcomes):
        raise InputError(f"none of the {len(outcomes)} meshes could be used; the first reason: {outcomes[0].reason}")
    draw_contact_sheet(dataset, output / "contact_sheet.png")
    return outcomes


def draw_contact_sheet(dataset: Dataset, path: Path, most: int = 40) -> None:
    """Draw up to `most` originals: surface points shaded by their normals, and a slice of the signed samples."""
    names = [record.name for record in dataset.records if not record.copy_of and dataset.path(record.name).exists()]
    names = names[:: max(1, -(-len(names) // most))]
    # The slice is the plane spanned by up and front, in which signs are easiest to judge.
    side = int(np.argmax(np.abs(np.cross(axis_vector("+y"), axis_vector(dataset.front)))))
    images, labels = [], []
    for name in names:
        samples = dataset.load(name)
        images += [
            render_points(samples.surface, size=(240, 180), normals=samples.normals),
            signed_slice(samples.points, samples.distances, axis=side, size=(180, 180)),
        ]
        labels += [name[:30], f"inside {np.mean(samples.distances < 0):.0%}"]
    write_contact_sheet(images, labels, columns=8, path=path)


def _write_description(work: list[_Job], output: Path, settings: PrepareSettings) -> Dataset:
    """Write `dataset.json`; where there is one, check that it was written with the same settings."""
    front = _canonical_front(settings)
    axis_rotation(settings.up, settings.front, front)  # raises for parallel axes, before anything is written
    # The timeout may differ between runs, so it is not recorded.
    recorded = json.loads(json.dumps(asdict(settings) | {"timeout": 0.0}))
    records = [
        ShapeRecord(
            job.name,
            job.entry.split,
            job.entry.licence,
            job.entry.creator,
            job.entry.family,
            job.entry.name if job.copy else "",
            str(job.entry.path.resolve()),
        )
        for job in work
    ]
    name, times = Counter(record.name for record in records).most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} meshes are named {name}; names must be unique, across splits too")
    if (output / DESCRIPTION_FILE).exists():
        before = Dataset.open(output)
        # Deformations that are newer than the dataset are off in it.
        began = before.settings | {"augment": asdict(AugmentSettings()) | before.settings.get("augment", {})}
        if began != recorded:
            changed = [key for key in recorded if recorded[key] != began.get(key)]
            raise InputError(f"{output} was started with other settings ({', '.join(changed)}); use another folder")
    dataset = Dataset(output, settings.category, front, recorded, records)
    dataset.save()
    return dataset


def _canonical_front(settings: PrepareSettings) -> str:
    """The front axis of the dataset, after the rotation that makes y the up axis."""
    if axis_vector(settings.up)[1] == 1:
        return settings.front
    return "+z"


def _run_jobs(work: list[_Job], jobs: int) -> Iterator[MeshOutcome]:
    """Run the remaining jobs in worker processes; one that dies or hangs rejects its own mesh, until the next run."""
    remaining = []
    for job in work:
        done = _resumed(job)
        if done:
            yield done
        else:
            remaining.append(job)
    if not remaining:
        return
    # Otherwise libigl and BLAS start one thread per core in every worker.
    for variable in ("IGL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    with ProcessPool(max_workers=min(jobs, len(remaining))) as pool:
        results = pool.map(_prepare_mesh, remaining, timeout=remaining[0].settings.timeout).result()
        for job in remaining:
            yield _next_outcome(job, results)


def _next_outcome(job: _Job, results: Iterator[MeshOutcome]) -> MeshOutcome:
    """The next result of the pool, that of `job`; a time-out or a dead worker rejects the mesh."""
    try:
        return next(results)
    except TimeoutError:
        return MeshOutcome(job.name, f"took longer than {job.settings.timeout:g} s", job.settings.timeout)
    except ProcessExpired as error:
        return MeshOutcome(job.name, f"its worker process died ({error})", 0.0)


def _resumed(job: _Job) -> MeshOutcome | None:
    """The outcome of an earlier run; None where there is none, or the mesh has changed since."""
    rejected = _rejection_path(job)
    if _is_current(rejected, job.entry.path):
        return replace(MeshOutcome(**json.loads(rejected.read_text())), resumed=True)
    if not _is_current(samples_path(job.target, job.name), job.entry.path):
        return None
    try:
        samples = load_samples(samples_path(job.target, job.name))
    except InputError:
        return None
    return MeshOutcome(job.name, "", 0.0, samples.uncertain / job.settings.sampling.count, resumed=True)


def _is_current(output: Path, mesh: Path) -> bool:
    """Whether a file derived from a mesh exists and is not older than the mesh."""
    return output.exists() and (not mesh.exists() or mesh.stat().st_mtime_ns <= output.stat().st_mtime_ns)


def _prepare_mesh(job: _Job) -> MeshOutcome:
    """Sample one mesh into its file. Runs in a worker process."""
    start = time.perf_counter()
    settings = job.settings
    rng = np.random.default_rng([settings.seed, job.copy, zlib.crc32(job.entry.name.encode())])
    try:
        vertices, faces = clean_mesh(*read_mesh(job.entry.path))
        front = _canonical_front(settings)
        vertices = vertices @ axis_rotation(settings.up, settings.front, front).T
        if job.copy:
            vertices = deform(vertices, front, settings.augment, rng)
        samples = sample_mesh(vertices, faces, settings.sampling, rng)
    except InputError as error:
        return _reject(job, str(error), time.perf_counter() - start)
    except Exception as error:  # one damaged mesh must not end the run, whatever its reader raises
        return _reject(job, f"{type(error).__name__}: {error}", time.perf_counter() - start)
    save_samples(samples_path(job.target, job.name), samples)
    _rejection_path(job).unlink(missing_ok=True)
    return MeshOutcome(job.name, "", time.perf_counter() - start, samples.uncertain / settings.sampling.count)


def _reject(job: _Job, reason: str, seconds: float) -> MeshOutcome:
    """Record a rejection, so that the next run does not try the mesh again."""
    outcome = MeshOutcome(job.name, reason, seconds)
    with atomic_write(_rejection_path(job)) as temporary:
        temporary.write_text(json.dumps(asdict(outcome)))
    samples_path(job.target, job.name).unlink(missing_ok=True)
    return outcome


def _rejection_path(job: _Job) -> Path:
    return job.target / "rejected" / f"{job.name}.json"
