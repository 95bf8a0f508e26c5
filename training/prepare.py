"""A catalogue of meshes -> a dataset on disk: parallel, resumable, one atomic file a mesh, nothing lost silently."""

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
from training.augment import AugmentSettings, deform
from training.catalog import CatalogEntry, read_mesh
from training.dataset import DESCRIPTION_FILE, Dataset, ShapeRecord, load_samples, samples_path, save_samples
from training.pictures import contact_sheet, render_points, signed_slice
from training.sampling import SampleSettings, sample_mesh


@dataclass(frozen=True)
class PrepareSettings:
    """How a catalogue becomes a dataset."""

    category: str
    """name of the category, lower-case plural"""
    up: str = "+y"
    """the source meshes' axis that points up; the dataset is y up"""
    front: str = "-z"
    """the source meshes' axis that points ahead"""
    copies: int = 0
    """deformed copies of each training mesh, for small collections"""
    sampling: SampleSettings = field(default_factory=SampleSettings)
    """how each mesh is sampled"""
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    """how far the copies are deformed"""
    timeout: float = 300.0
    """seconds after which one mesh is given up"""
    seed: int = 0
    """the samples of a mesh depend on this, its name, and nothing else"""


@dataclass(frozen=True)
class Outcome:
    """What became of one mesh: its reason is empty where it was used."""

    name: str
    reason: str
    seconds: float
    uncertain: float = 0.0
    resumed: bool = False


@dataclass(frozen=True)
class _Job:
    entry: CatalogEntry
    copy: int
    target: Path
    settings: PrepareSettings

    @property
    def name(self) -> str:
        return f"{self.entry.name}~{self.copy}" if self.copy else self.entry.name


def prepare(
    entries: list[CatalogEntry],
    output: Path,
    settings: PrepareSettings,
    jobs: int | None = None,
    progress: Callable[[Outcome, int], None] | None = None,
) -> list[Outcome]:
    """Sample every mesh into `output`; what is there already is kept, so that a killed run goes on where it was.

    `progress(outcome, total)` is called once a mesh. Returns one outcome a mesh; a mesh that cannot be used is
    rejected with a reason, in `report.json` too. Raises `InputError` where `output` was made with other settings or
    no mesh at all could be used.
    """
    work = [
        _Job(entry, copy, output, settings)
        for entry in entries
        for copy in range(1 + (settings.copies if entry.split == "train" else 0))
    ]
    dataset = _describe(work, output, settings)
    outcomes = []
    for outcome in _run(work, jobs or os.cpu_count() or 1):
        outcomes.append(outcome)
        if progress:
            progress(outcome, len(work))
    with atomic_write(output / "report.json") as temporary:
        temporary.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    used = [outcome.name for outcome in outcomes if not outcome.reason]
    if not used:
        raise InputError(f"none of the {len(work)} meshes could be used; the first reason: {outcomes[0].reason}")
    draw_contact_sheet(dataset, output / "contact_sheet.png")
    return outcomes


def draw_contact_sheet(dataset: Dataset, path: Path, most: int = 40) -> None:
    """Picture up to `most` originals: surface points shaded by their normals, and a slice of the signed samples."""
    names = [record.name for record in dataset.records if not record.copy_of and dataset.path(record.name).exists()]
    names = names[:: max(1, -(-len(names) // most))]
    # The slice is the plane that up and front span, where signs are easiest to judge.
    side = int(np.argmax(np.abs(np.cross(axis_vector("+y"), axis_vector(dataset.front)))))
    images, labels = [], []
    for name in names:
        samples = dataset.load(name)
        images += [
            render_points(samples.surface, size=(240, 180), normals=samples.normals),
            signed_slice(samples.points, samples.distances, axis=side, size=(180, 180)),
        ]
        labels += [name[:30], f"inside {np.mean(samples.distances < 0):.0%}"]
    contact_sheet(images, labels, columns=8, path=path)


def _describe(work: list[_Job], output: Path, settings: PrepareSettings) -> Dataset:
    """Write `dataset.json`, or check that a resumed run means the same as the one that began."""
    front = _canonical_front(settings)
    axis_rotation(settings.up, settings.front, front)  # refuses axes along one line before anything is written
    recorded = json.loads(json.dumps(asdict(replace(settings, timeout=0.0))))
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
        raise InputError(f"{times} meshes are named {name}; give each another name, in one split alone")
    if (output / DESCRIPTION_FILE).exists():
        before = Dataset.open(output)
        # What a deformation may have besides is off where a dataset was begun before there was such a thing.
        began = before.settings | {"augment": asdict(AugmentSettings()) | before.settings.get("augment", {})}
        if began != recorded:
            changed = [key for key in recorded if recorded[key] != began.get(key)]
            raise InputError(f"{output} was begun with other settings ({', '.join(changed)}); use another folder")
    dataset = Dataset(output, settings.category, front, recorded, records)
    dataset.save()
    return dataset


def _canonical_front(settings: PrepareSettings) -> str:
    """Name of the axis along which the source's front lies once up is y."""
    if axis_vector(settings.up)[1] == 1:
        return settings.front
    return "+z"


def _run(work: list[_Job], jobs: int) -> Iterator[Outcome]:
    """Do what is left to do in worker processes; one that dies or hangs costs its own mesh, until the next run."""
    rest = []
    for job in work:
        done = _resumed(job)
        if done:
            yield done
        else:
            rest.append(job)
    if not rest:
        return
    # libigl and BLAS would otherwise start a thread per core in every worker.
    for variable in ("IGL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    with ProcessPool(max_workers=min(jobs, len(rest))) as pool:
        results = pool.map(_prepare_one, rest, timeout=rest[0].settings.timeout).result()
        for job in rest:
            yield _outcome_of(job, results)


def _outcome_of(job: _Job, results: Iterator[Outcome]) -> Outcome:
    try:
        return next(results)
    except TimeoutError:
        return Outcome(job.name, f"took longer than {job.settings.timeout:g} s", job.settings.timeout)
    except ProcessExpired as error:
        return Outcome(job.name, f"its worker process died ({error})", 0.0)


def _resumed(job: _Job) -> Outcome | None:
    """What became of a mesh in an earlier run; None where nothing did, or the mesh has changed since."""
    rejected = _rejection_path(job)
    if _made_of(rejected, job.entry.path):
        return replace(Outcome(**json.loads(rejected.read_text())), resumed=True)
    if not _made_of(samples_path(job.target, job.name), job.entry.path):
        return None
    try:
        samples = load_samples(samples_path(job.target, job.name))
    except InputError:
        return None
    return Outcome(job.name, "", 0.0, samples.uncertain / job.settings.sampling.count, resumed=True)


def _made_of(made: Path, mesh: Path) -> bool:
    """Whether there is such a file, and it was written after the mesh was."""
    return made.exists() and (not mesh.exists() or mesh.stat().st_mtime_ns <= made.stat().st_mtime_ns)


def _prepare_one(job: _Job) -> Outcome:
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
    except Exception as error:  # one rotten mesh must not end the run, whatever a reader makes of it
        return _reject(job, f"{type(error).__name__}: {error}", time.perf_counter() - start)
    save_samples(samples_path(job.target, job.name), samples)
    _rejection_path(job).unlink(missing_ok=True)
    return Outcome(job.name, "", time.perf_counter() - start, samples.uncertain / settings.sampling.count)


def _reject(job: _Job, reason: str, seconds: float) -> Outcome:
    outcome = Outcome(job.name, reason, seconds)
    with atomic_write(_rejection_path(job)) as temporary:
        temporary.write_text(json.dumps(asdict(outcome)))
    samples_path(job.target, job.name).unlink(missing_ok=True)
    return outcome


def _rejection_path(job: _Job) -> Path:
    return job.target / "rejected" / f"{job.name}.json"
