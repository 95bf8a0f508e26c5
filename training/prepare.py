"""Prepares a dataset: samples the signed distances of a list of meshes, in parallel and resumably.

Every mesh yields one sample file or one reason for its rejection; at the end the files are packed.
"""

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
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
from training.catalog import CatalogEntry, read_noted_mesh
from training.contact_sheet import write_contact_sheet
from training.dataset import DESCRIPTION_FILE, Dataset, ShapeRecord, load_samples, samples_path, save_samples
from training.deepsdf_samples import read_deepsdf_samples, rotated
from training.pack import pack_dataset
from training.rendering import render_points, signed_slice
from training.sampling import SampleSettings, ShapeSamples, sample_mesh


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
    notes : sentences about what was left out of its file, of the run that prepared it
    """

    name: str
    reason: str
    seconds: float
    uncertain: float = 0.0
    resumed: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def rejected(self) -> bool:
        """Whether the mesh could not be used."""
        return bool(self.reason)


@dataclass(frozen=True)
class Job:
    """One mesh to sample, or one of its deformed copies, numbered from 1; 0 is the original."""

    entry: CatalogEntry
    copy: int
    target: Path
    settings: PrepareSettings

    @property
    def name(self) -> str:
        """The name of the shape."""
        return f"{self.entry.name}~{self.copy}" if self.copy else self.entry.name


# Samples jobs somewhere, one or more of them; yields the outcome of each as it comes.
Runner = Callable[[list[Job]], Iterator[MeshOutcome]]


def prepare_dataset(
    entries: list[CatalogEntry],
    output: Path,
    settings: PrepareSettings,
    jobs: int | None = None,
    progress: Callable[[MeshOutcome, int], None] | None = None,
) -> list[MeshOutcome]:
    """Sample every mesh into `output`, and pack. Samples of an earlier run are kept, so that a killed run continues.

    Parameters
    ----------
    entries : meshes with their splits and credits
    jobs : worker processes, 1 or more; None for one per core
    progress : called as `progress(outcome, total)` for each mesh

    Returns
    -------
    outcomes : one per mesh and copy, also written to `report.json`

    Raises
    ------
    InputError : `jobs` is out of range, `output` was prepared with other settings, two meshes have the same name, or no
        mesh could be used
    """
    return finish_dataset(output, sample_meshes(entries, output, settings, in_processes(jobs), progress))


def list_work(entries: list[CatalogEntry], output: Path, settings: PrepareSettings) -> list["Job"]:
    """What is to be sampled: every mesh, and the deformed copies of those that get some.

    Raises `InputError` where samples without meshes should get copies.
    """
    if settings.copies and not all(entry.has_mesh for entry in entries):
        raise InputError(
            f"copies is {settings.copies}, but samples without their meshes cannot be deformed; leave it out"
        )
    return [
        Job(entry, copy, output, settings)
        for entry in entries
        for copy in range(1 + (settings.copies if entry.split == "train" and not entry.procedural else 0))
    ]


def sample_meshes(
    entries: list[CatalogEntry],
    output: Path,
    settings: PrepareSettings,
    run: Runner,
    progress: Callable[[MeshOutcome, int], None] | None = None,
    part: slice = slice(None),
) -> list[MeshOutcome]:
    """Describe a dataset, and sample part of its meshes; as `prepare_dataset`, whose first half it is."""
    work = list_work(entries, output, settings)
    write_description(work, output, settings)
    work = work[part]
    outcomes = {}
    for outcome in _run_jobs(work, Dataset.open(output), run):
        outcomes[outcome.name] = outcome
        if progress:
            progress(outcome, len(work))
    return [outcomes[job.name] for job in work]


def finish_dataset(output: Path, outcomes: list[MeshOutcome]) -> list[MeshOutcome]:
    """Write the report, pack the samples and draw the contact sheet of a dataset whose meshes are sampled.

    Raises `InputError` where no mesh could be used, and where `output` cannot be written.
    """
    write_report(output / "report.json", outcomes)
    if all(outcome.rejected for outcome in outcomes):
        raise InputError(f"none of the {len(outcomes)} meshes could be used; the first reason: {outcomes[0].reason}")
    pack_dataset(output)
    draw_contact_sheet(Dataset.open(output), output / "contact_sheet.png")
    return outcomes


def write_report(path: Path, outcomes: list[MeshOutcome]) -> None:
    """Write outcomes as JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))


def draw_contact_sheet(dataset: Dataset, path: Path, most: int = 40) -> None:
    """Draw up to `most` originals: surface points shaded by their normals, and a slice of the signed samples."""
    prepared = dataset.prepared()
    names = [record.name for record in dataset.records if not record.copy_of and record.name in prepared]
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


def write_description(work: list[Job], output: Path, settings: PrepareSettings) -> None:
    """Write `dataset.json`; where there is one, check that it was written with the same settings.

    Raises `InputError` where it was not, for parallel axes, and for two meshes of one name.
    """
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
            str(job.entry.path.resolve()) if job.entry.has_mesh else "",
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
    Dataset(output, settings.category, front, recorded, records).save()


def _canonical_front(settings: PrepareSettings) -> str:
    """The front axis of the dataset, after the rotation that makes y the up axis."""
    if axis_vector(settings.up)[1] == 1:
        return settings.front
    return "+z"


def _run_jobs(work: list[Job], dataset: Dataset, run: Runner) -> Iterator[MeshOutcome]:
    """The outcomes of all jobs: first those of earlier runs, then those of what remains."""
    remaining = []
    for job in work:
        done = find_outcome(job, dataset)
        if done:
            yield done
        else:
            remaining.append(job)
    if remaining:
        yield from run(remaining)


def in_processes(jobs: int | None) -> Runner:
    """A runner in `jobs` worker processes, None for one per core; one that dies or hangs rejects its own mesh.

    Such a rejection holds until the next run. Raises `InputError` where `jobs` is out of range.
    """
    if jobs is not None:
        Bounds(1).check("jobs", jobs)

    def run(work: list[Job]) -> Iterator[MeshOutcome]:
        # Otherwise libigl and BLAS start one thread per core in every worker.
        for variable in ("IGL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        with ProcessPool(max_workers=min(jobs or os.cpu_count() or 1, len(work))) as pool:
            results = pool.map(prepare_mesh, work, timeout=work[0].settings.timeout).result()
            for job in work:
                yield _next_outcome(job, results)

    return run


def _next_outcome(job: Job, results: Iterator[MeshOutcome]) -> MeshOutcome:
    """The next result of the pool, that of `job`; a time-out or a dead worker rejects the mesh."""
    try:
        return next(results)
    except TimeoutError:
        return MeshOutcome(job.name, f"took longer than {job.settings.timeout:g} s", job.settings.timeout)
    except ProcessExpired as error:
        return MeshOutcome(job.name, f"its worker process died ({error})", 0.0)


def find_outcome(job: Job, dataset: Dataset) -> MeshOutcome | None:
    """The outcome of an earlier run; None where there is none, or the mesh has changed since."""
    if not (stored := dataset.stored(job.name)):
        return find_unpacked(job)
    return _rejected(job) or _sampled(job, stored[1].prepared, stored[1].uncertain)


def find_unpacked(job: Job) -> MeshOutcome | None:
    """As `find_outcome`, of a run that has not packed its samples yet."""
    if rejected := _rejected(job):
        return rejected
    path = samples_path(job.target, job.name)
    try:
        return _sampled(job, path.stat().st_mtime_ns, load_samples(path).uncertain)
    except (OSError, InputError):
        return None


def _rejected(job: Job) -> MeshOutcome | None:
    path = _rejection_path(job)
    if path.exists() and _is_current(path.stat().st_mtime_ns, job):
        return replace(MeshOutcome(**json.loads(path.read_text())), resumed=True)
    return None


def _sampled(job: Job, prepared: int, uncertain: int) -> MeshOutcome | None:
    """The outcome of a mesh that was sampled at a time, in nanoseconds since 1970; None if it has changed since."""
    if not _is_current(prepared, job):
        return None
    return MeshOutcome(job.name, "", 0.0, uncertain / job.settings.sampling.count, resumed=True)


def _is_current(time_ns: int, job: Job) -> bool:
    """Whether the mesh of a job is no newer than what was made of it at a time."""
    mesh = job.entry.path
    return not mesh.exists() or mesh.stat().st_mtime_ns <= time_ns


def prepare_mesh(job: Job) -> MeshOutcome:
    """Sample one mesh into its file, or reject it. Runs in a worker process."""
    start = time.perf_counter()
    settings = job.settings
    rng = np.random.default_rng([settings.seed, job.copy, zlib.crc32(job.entry.name.encode())])
    try:
        samples, notes = _sample(job, rng)
    except InputError as error:
        return _reject(job, str(error), time.perf_counter() - start)
    except Exception as error:  # one damaged mesh must not end the run, whatever its reader raises
        return _reject(job, f"{type(error).__name__}: {error}", time.perf_counter() - start)
    _rejection_path(job).unlink(missing_ok=True)
    save_samples(samples_path(job.target, job.name), samples)
    seconds, uncertain = time.perf_counter() - start, samples.uncertain / settings.sampling.count
    return MeshOutcome(job.name, "", seconds, uncertain, notes=notes)


def _sample(job: Job, rng: np.random.Generator) -> tuple[ShapeSamples, list[str]]:
    """The samples of a mesh or a copy of it, or those that the released DeepSDF code has made; notes on its file."""
    settings, front = job.settings, _canonical_front(job.settings)
    rotation = axis_rotation(settings.up, settings.front, front)
    if not job.entry.has_mesh:
        return rotated(read_deepsdf_samples(job.entry.path, settings.sampling, rng), rotation), []
    read = read_noted_mesh(job.entry.path)
    vertices, faces = clean_mesh(read.vertices, read.faces)
    vertices = vertices @ rotation.T
    if job.copy:
        vertices = deform(vertices, front, settings.augment, rng)
    return sample_mesh(vertices, faces, settings.sampling, rng), list(read.notes)


def _reject(job: Job, reason: str, seconds: float) -> MeshOutcome:
    """Record a rejection, so that the next run does not try the mesh again."""
    outcome = MeshOutcome(job.name, reason, seconds)
    with atomic_write(_rejection_path(job)) as temporary:
        temporary.write_text(json.dumps(asdict(outcome)))
    samples_path(job.target, job.name).unlink(missing_ok=True)
    return outcome


def _rejection_path(job: Job) -> Path:
    return job.target / "rejected" / f"{job.name}.json"
