"""Procedural training meshes: seeds to files with credits, in parallel, resumable, nothing lost silently.

    generate("chairs", Path("data/meshes/chairs"), GenerateSettings(count=400))

Piece i depends on the category, the seed and i alone. What is there already is kept, so that a killed run goes on.
"""

import json
import queue
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_folder
from sdf_backend.wire.settings import Settings, option
from training.bodies import write_bodies
from training.generators.credits import add_credits
from training.generators.finish import ImplausibleMeshError, Reason, finish
from training.generators.infinigen_factories import CATEGORIES
from training.generators.infinigen_process import InfinigenProcess, PieceError
from training.generators.recipe import CategoryRecipes, InfinigenFactory, Recipe

HUMANS = "humans"
LEFT_OUT_FILE = "left_out.json"
INFINIGEN = {"licence": "BSD-3-Clause", "creator": "Infinigen 1.15.5 (Princeton Vision & Learning Lab), procedural"}
# What a program draws is no copy of the program: the pieces are free of its licence.
OWN = {"licence": "CC0-1.0", "creator": "sdf-shapes, procedural"}


@dataclass(frozen=True)
class GenerateSettings(Settings):
    """What is generated, and with what: the options of `generate`.

    Pieces that are left out are not replaced, and each of the workers has an Infinigen process of its own.
    """

    count: int = option(400, "number of pieces to draw", 1, 100_000)
    seed: int = option(0, "seed of all draws", 0, 2**32 - 1)
    workers: int = option(1, "pieces made in parallel; not used for humans", 1, 64)
    environment: Path = option(Path(".venv-infinigen"), "virtual environment with Infinigen; `make generator` makes it")


@dataclass(frozen=True)
class Piece:
    """What became of one piece: its reason is None where it was written."""

    name: str
    reason: Reason | None = None
    detail: str = ""
    resumed: bool = False


@dataclass(frozen=True)
class _Job:
    number: int
    name: str
    recipe: Recipe
    category: str
    seed: int

    def generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.category.encode()), self.number, purpose])


def generate(
    category: str,
    output: Path,
    settings: GenerateSettings,
    report: Callable[[Piece], None] = lambda piece: None,
) -> list[Piece]:
    """Write the pieces of one category into `output`, one PLY file each, and their rows into `sources.json`.

    `report` is called once a piece, as they come. Returns one `Piece` each, in order.

    Raises
    ------
    InputError
        For an unknown category, an environment that is missing or does not fit, and a folder that cannot be written.
    """
    if category == HUMANS:
        return _generate_humans(output, settings, report)
    recipes = find_category(category)
    check_folder(output)
    jobs = _jobs(category, recipes, settings)
    if any(isinstance(job.recipe, InfinigenFactory) for job in jobs):
        _check_environment(settings.environment)
    # First: of a run that is killed, meshes that nothing is known of would be of an unknown licence.
    add_credits(output, [_credit(job) for job in jobs])
    before = _read_left_out(output)
    pieces: dict[str, Piece] = {}
    todo = []
    for job in jobs:
        if _path(output, job).exists():
            pieces[job.name] = Piece(job.name, resumed=True)
        elif job.name in before:
            pieces[job.name] = before[job.name]
        else:
            todo.append(job)
            continue
        report(pieces[job.name])
    for piece in _run(todo, output, recipes, settings):
        pieces[piece.name] = piece
        if piece.reason not in (None, Reason.CRASH):  # a crash may have been the machine's
            before[piece.name] = piece
            _write_left_out(output, before)
        report(piece)
    return [pieces[job.name] for job in jobs]


def _generate_humans(output: Path, settings: GenerateSettings, report: Callable[[Piece], None]) -> list[Piece]:
    pieces = []

    def keep(name: str, resumed: bool) -> None:
        pieces.append(Piece(name, resumed=resumed))
        report(pieces[-1])

    write_bodies(output, settings.count, settings.seed, keep)
    return pieces


def find_category(name: str) -> CategoryRecipes:
    """The recipes of a category; raises `InputError` for one that is not in the table."""
    if name not in CATEGORIES:
        raise InputError(f"there is no generator for {name!r}; use one of {', '.join(sorted([*CATEGORIES, HUMANS]))}")
    return CATEGORIES[name]


def _jobs(category: str, recipes: CategoryRecipes, settings: GenerateSettings) -> list[_Job]:
    jobs = []
    for number in range(settings.count):
        rng = np.random.default_rng([settings.seed, zlib.crc32(category.encode()), number])
        recipe = recipes.choose(rng)
        jobs.append(
            _Job(number, f"{category}-{recipe.label}-{settings.seed}-{number:05d}", recipe, category, settings.seed)
        )
    return jobs


def _check_environment(environment: Path) -> None:
    if not (environment / "bin" / "python").exists():
        raise InputError(
            f"there is no Infinigen environment at {environment}; run `make generator`, or name it with --environment"
        )


def _credit(job: _Job) -> dict:
    source = INFINIGEN if isinstance(job.recipe, InfinigenFactory) else OWN
    # Never a test shape: models are judged on real pieces alone.
    family = f"procedural-{job.recipe.label}"
    return {"name": job.name, "split": "train", **source, "family": family, "procedural": True}


def _path(output: Path, job: _Job) -> Path:
    return output / f"{job.name}.ply"


def _run(jobs: list[_Job], output: Path, recipes: CategoryRecipes, settings: GenerateSettings) -> Iterator[Piece]:
    """Make the pieces in `settings.workers` threads, each of which owns a process; the first error ends all."""
    if not jobs:
        return
    waiting: queue.SimpleQueue[_Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    done: queue.SimpleQueue[Piece | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()
    processes = [InfinigenProcess(settings.environment) for _ in range(min(settings.workers, len(jobs)))]

    def work(process: InfinigenProcess) -> None:
        try:
            while not stop.is_set():
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    break
                done.put(_make(job, process, output, recipes))
        except BaseException as error:
            done.put(error)
        finally:
            process.close()
            done.put(None)

    with ThreadPoolExecutor(len(processes)) as pool:
        for process in processes:
            pool.submit(work, process)
        running = len(processes)
        try:
            while running:
                item = done.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            stop.set()
            for process in processes:
                process.kill()


def _make(job: _Job, process: InfinigenProcess, output: Path, recipes: CategoryRecipes) -> Piece:
    rng, recipe = job.generator(1), job.recipe
    try:
        if isinstance(recipe, InfinigenFactory):
            mesh, up, front = process.make(recipe.draw(rng)), recipe.up, recipe.front
        else:
            mesh, up, front = recipe.build(rng), "+y", "+z"
        vertices, faces = finish(mesh, up, front, recipes.longest, recipe.deform, job.generator(2))
    except PieceError as error:
        return Piece(job.name, Reason.CRASH if error.retry else Reason.FACTORY, str(error))
    except ImplausibleMeshError as error:
        return Piece(job.name, error.reason, str(error))
    with atomic_write(_path(output, job)) as temporary:
        trimesh.Trimesh(vertices, faces, process=False).export(temporary, file_type="ply")
    return Piece(job.name)


def _read_left_out(output: Path) -> dict[str, Piece]:
    try:
        rows = json.loads((output / LEFT_OUT_FILE).read_text())
        return {row["name"]: Piece(row["name"], Reason(row["reason"]), row["detail"], resumed=True) for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{output / LEFT_OUT_FILE} is damaged ({error}); delete it") from error


def _write_left_out(output: Path, pieces: dict[str, Piece]) -> None:
    rows = [{"name": piece.name, "reason": piece.reason, "detail": piece.detail} for piece in pieces.values()]
    with atomic_write(output / LEFT_OUT_FILE) as temporary:
        temporary.write_text(json.dumps(rows, indent=1))
