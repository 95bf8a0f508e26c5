"""`python -m training`: collect or generate meshes, compare splits, prepare, train, evaluate, ship, import models."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sdf_backend.console import print_json, report_errors, stderr, stdout
from sdf_backend.errors import InputError
from sdf_backend.files import check_folder, check_writable
from sdf_backend.settings_options import settings_options
from sdf_backend.wire.settings import bounds_of, help_of
from training.augment import DeformationPreset
from training.catalog import Layout, list_meshes, read_split, select_split
from training.collect import collect as collect_members
from training.dataset import Dataset
from training.evaluation.tasks import EvaluationSettings
from training.generators.generate import GenerateSettings, Piece, generate
from training.hold_out import hold_out
from training.pack import pack_dataset
from training.prepare import MeshOutcome, PrepareSettings, prepare_dataset
from training.ray_cluster import prepare_on_cluster
from training.sampling import Noise, SampleSettings
from training.shards import Estimate, Shard, estimate, merge_shards, prepare_shard
from training.train_options import TrainOptions

DEVICE_HELP = "auto, cpu, cuda or cuda:N"
SAMPLES = bounds_of("count", SampleSettings)
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="log each epoch for TensorBoard, an optional extra")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def collect(
    catalog: Annotated[Path, typer.Argument(help="CSV file with one mesh of a package per row")],
    packages: Annotated[Path, typer.Argument(help="folder with the unpacked packages (dpkg -x)")],
    output: Annotated[Path, typer.Option("-o", help="folder for the meshes, with one sub-folder per category")],
    category: Annotated[str | None, typer.Option(help="only this category")] = None,
) -> None:
    """Convert the meshes of a catalogue, members of packages, to OBJ files with their credits."""
    with report_errors():
        count = collect_members(catalog, packages, output, category, lambda line: stderr.print(line, soft_wrap=True))
        stdout.print(f"{count} meshes in {output}", soft_wrap=True)


@app.command(name="generate")
@settings_options(GenerateSettings)
def generate_command(
    category: Annotated[str, typer.Argument(help="what to generate, such as chairs; humans require the package anny")],
    output: Annotated[Path, typer.Option("-o", help="folder for the meshes, new or to be continued")],
    settings: GenerateSettings,
    as_json: Annotated[bool, typer.Option("--json", help="print the outcome of each piece as JSON")] = False,
) -> None:
    """Draw procedural meshes to train on, y up and front +z; running it again continues a killed run."""
    _generate(category, output, settings, as_json)


@app.command(name="near-duplicates")
def near_duplicates_command(
    meshes: Annotated[Path, typer.Argument(help="folder of meshes with a sources.json that gives their splits")],
    category: Annotated[str | None, typer.Option(help="only this sub-folder")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Chamfer distance x 1000 in the unit sphere; default 2")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the pairs as JSON")] = False,
) -> None:
    """List test pieces that are near-duplicates of a training piece, by shape; fails if there are any."""
    from training.near_duplicates import DuplicateSettings, near_duplicates

    with report_errors():
        settings = DuplicateSettings() if threshold is None else DuplicateSettings(threshold=threshold)
        with _bar("comparing") as bar:
            task = bar.add_task("comparing", total=None)
            pairs = near_duplicates(
                list_meshes(meshes, Layout.FOLDER, category),
                settings,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        if as_json:
            print_json(
                [{"test": pair.test.name, "train": pair.train.name, "distance": pair.distance} for pair in pairs]
            )
        for pair in () if as_json else pairs:
            stdout.print(f"{pair.distance:.2f}  {pair.test.name}  {pair.train.name}", soft_wrap=True, highlight=False)
        if pairs:
            raise InputError(
                f"{len({pair.test.name for pair in pairs})} test pieces are near-duplicates of a training piece "
                f"(Chamfer distance below {settings.threshold:g}); put both of each pair into one split"
            )


@app.command()
def humans(
    output: Annotated[Path, typer.Option("-o", help="folder for the meshes")],
    count: Annotated[int, typer.Option(help="number of bodies")] = 560,
    seed: Annotated[int, typer.Option(help="seed of age, sex, build and pose")] = 0,
) -> None:
    """Generate human bodies: the same as `generate humans`."""
    with report_errors():
        _generate("humans", output, GenerateSettings(count, seed), as_json=False)


@app.command()
@settings_options(PrepareSettings)
def prepare(
    source: Annotated[Path, typer.Argument(help="folder of meshes, or the root of ShapeNet")],
    output: Annotated[Path, typer.Option("-o", help="folder of the dataset, new or to be continued")],
    settings: PrepareSettings,
    layout: Annotated[Layout, typer.Option(help="layout of the source folder")] = Layout.FOLDER,
    train_split: Annotated[Path | None, typer.Option("--split", help="official split file of training shapes")] = None,
    test_split: Annotated[Path | None, typer.Option(help="official split file of test shapes")] = None,
    jobs: Annotated[int | None, typer.Option(help="worker processes; default: one per core; 1 or more")] = None,
    samples: Annotated[int, typer.Option(help=f"{help_of('count', SampleSettings)}; {SAMPLES}")] = SampleSettings.count,
    noise: Annotated[
        Noise, typer.Option(help="variances of the near-surface samples: of the paper, or of the released code")
    ] = SampleSettings.noise,
    deform: Annotated[DeformationPreset, typer.Option(help="deformations of the copies")] = DeformationPreset.AIRCRAFT,
    shard: Annotated[
        str | None,
        typer.Option(help="I/N: only the I-th of N parts, for N machines that share the folder; then --merge"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="sample on the nodes of a Ray cluster: HOST:PORT of its head, or auto, that of this machine"),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="finish a dataset whose shards have run")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="sample a few meshes, and say how long all take and how much disk")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the outcomes as JSON")] = False,
) -> None:
    """Sample the signed distances of every mesh; running it again continues a killed run."""
    if sum((shard is not None, ray is not None, merge, dry_run)) > 1:
        raise InputError("--shard, --ray, --merge and --dry-run are different steps; give one of them")
    if ray is not None and jobs is not None:
        raise InputError("--jobs is of one machine, and --ray uses the cores that each node offers; leave out --jobs")
    part = None if shard is None else Shard.parse(shard)
    SAMPLES.check("samples", samples)  # by the name of the option
    check_folder(output)
    entries = list_meshes(source, layout, settings.category or None)
    if train_split or test_split:
        splits = (("train", train_split), ("test", test_split))
        names = {name: read_split(path) for name, path in splits if path}
        _report_absent({name for chosen in names.values() for name in chosen} - {entry.name for entry in entries})
        entries = [entry for name, chosen in names.items() for entry in select_split(entries, chosen, name)]
    settings = replace(
        settings,
        category=settings.category or source.resolve().name,
        sampling=SampleSettings(count=samples, noise=noise),
        augment=deform.settings,
    )
    if dry_run:
        _print_estimate(estimate(entries, output, settings), jobs or os.cpu_count() or 1, as_json)
        return
    with _bar("preparing") as bar:
        task = bar.add_task("preparing", total=None)

        def show(_: MeshOutcome, total: int) -> None:
            bar.update(task, advance=1, total=total)

        if merge:
            outcomes = merge_shards(entries, output, settings)
        elif part:
            outcomes = prepare_shard(entries, output, settings, part, jobs, show)
        elif ray is not None:
            outcomes = prepare_on_cluster(entries, output, settings, ray, show)
        else:
            outcomes = prepare_dataset(entries, output, settings, jobs, show)
    if as_json:
        print_json([vars(outcome) for outcome in outcomes])
    else:
        _print_outcomes(outcomes, output)


@app.command()
def pack(dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")]) -> None:
    """Pack the samples of a dataset of an older version, one file a shape, into a few large files, as prepare does."""
    with report_errors(), _bar("packing") as bar:
        task = bar.add_task("packing", total=None)
        count = pack_dataset(dataset, lambda done, total: bar.update(task, completed=done, total=total))
        stdout.print(f"{count} shapes packed in {dataset}", soft_wrap=True)


@app.command(name="hold-out")
def hold_out_command(
    dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")],
    families: Annotated[Path, typer.Argument(help="file that names the held-out training families, one per line")],
    output: Annotated[Path, typer.Option("-o", help="folder for the new dataset")],
) -> None:
    """Make a dataset for choosing settings: held-out training families replace the test split."""
    with report_errors():
        if not families.is_file():
            raise InputError(f"{families} does not exist; name a file of families, one per line")
        held = hold_out(Dataset.open(dataset), set(families.read_text().split()), output)
        train, test = (sum(record.split == split for record in held.records) for split in ("train", "test"))
        stdout.print(f"{output}: {train} training shapes, {test} held out", soft_wrap=True)


@app.command()
@settings_options(TrainOptions)
def train(
    dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")],
    output: Annotated[Path, typer.Option("-o", help="folder for checkpoints, pictures and the finished model")],
    settings: TrainOptions,
    resume: Annotated[bool, typer.Option("--resume", help="continue a killed run")] = False,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    tensorboard: Tensorboard = False,
) -> None:
    """Train a decoder and one latent code per shape; the finished model is one .safetensors file.

    On many GPUs: torchrun --nproc-per-node 8 -m training train ...
    """
    from training.ranks import join_ranks
    from training.train_run import RunSettings, train_dataset

    with join_ranks() as ranks:
        model = train_dataset(dataset, output, RunSettings(settings, device, tensorboard, ranks), resume)
        if ranks.is_first:
            stdout.print(f"model: {model}", soft_wrap=True)


@app.command(name="train-all")
@settings_options(TrainOptions, "preset", "epochs", "halve_every", "seed")
def train_all(
    data: Annotated[Path, typer.Argument(help="folder with a dataset per category, each of which prepare wrote")],
    output: Annotated[Path, typer.Option("-o", help="folder for the runs, with one sub-folder per category")],
    settings: TrainOptions,
    symmetric: Annotated[
        list[str] | None, typer.Option(help="a category with mirror symmetry; once for each of them")
    ] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    tensorboard: Tensorboard = False,
) -> None:
    """Train all categories, one after the other, and print a table; running it again continues a killed run."""
    from training.ranks import join_ranks
    from training.train_run import RunSettings, print_runs, train_categories

    with join_ranks() as ranks:
        runs = train_categories(data, output, RunSettings(settings, device, tensorboard, ranks), symmetric or [])
        if ranks.is_first:
            print_runs(runs)
        failed = [run.category for run in runs if run.error]
        with ranks.together():
            if failed:
                raise InputError(f"{len(failed)} of {len(runs)} categories failed: {', '.join(failed)}; see above")


@app.command(name="train-encoder")
def train_encoder_command(
    model: Annotated[Path, typer.Argument(help="model file, which gets the encoder")],
    output: Annotated[Path, typer.Option("-o", help="folder for scans and checkpoint; a killed run continues there")],
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps; default 4000")] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
) -> None:
    """Train the encoder of a model, which proposes codes and poses to fits; needs nothing but the model's file."""
    from sdf_backend.model.devices import choose_device
    from training.encoder.encoder_trainer import EncoderTraining, train_encoder

    with report_errors():
        settings = EncoderTraining() if steps is None else EncoderTraining(steps=steps)
        with _bar("encoder", TextColumn("{task.description}")) as bar:
            row = bar.add_task("scanning")

            def scanned(done: int, total: int) -> None:
                bar.update(row, completed=done, total=total)

            def stepped(done: int, total: int, loss: float) -> None:
                bar.update(row, description=f"loss {loss:.3f}", completed=done, total=total)

            train_encoder(model, output, settings, choose_device(device), scanned, stepped)
        stdout.print(f"model: {model}, with its encoder", soft_wrap=True)


@app.command()
@settings_options(EvaluationSettings)
def evaluate(
    model: Annotated[str, typer.Argument(help="name of a model, or its .safetensors file")],
    dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")],
    settings: EvaluationSettings,
    output: Annotated[Path | None, typer.Option("-o", help="folder for TASK.html, TASK.json and TASK.png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
    record: Annotated[bool, typer.Option("--record", help="store the summary in the model card")] = False,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
) -> None:
    """Evaluate a model against the source meshes of a dataset, the ground truth."""
    from sdf_backend.engine import Engine
    from training.evaluation.console_report import print_report
    from training.evaluation.interpolation import InterpolationReport
    from training.evaluation.report import record_entry
    from training.evaluation.run import run_evaluation

    if output:
        check_folder(output)
    if record and not settings.task.has_entry:
        raise InputError(f"the task {settings.task} does not use --record; leave it out")
    engine = Engine(device=device)
    with _bar(settings.task.value, TextColumn("{task.description}")) as bar:
        row = bar.add_task("")

        def show(text: str, done: int, total: int) -> None:
            bar.update(row, description=text, completed=done, total=total)

        report = run_evaluation(engine, model, dataset, settings, output, show)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    if report.failure:
        raise InputError(report.failure)
    if record:
        assert not isinstance(report, InterpolationReport)  # refused above
        record_entry(engine.store.find(model), settings.task, report.to_entry())


@app.command(name="ship")
def ship_command(
    model: Annotated[Path, typer.Argument(help="model file, evaluated with --record")],
    output: Annotated[Path, typer.Option("-o", help="folder of the models that ship")],
) -> None:
    """Put a model among those that ship, with its data card; refuses what is too large or may not be passed on."""
    from training.ship import ship

    with report_errors():
        stdout.print(f"shipped: {ship(model, output)}", soft_wrap=True)


@app.command(name="import-deepsdf")
def import_deepsdf_command(
    experiment: Annotated[Path, typer.Argument(help="folder of an experiment of the released DeepSDF code")],
    output: Annotated[Path, typer.Option("-o", help="model file, CATEGORY.safetensors, lower-case plural")],
    split: Annotated[
        Path | None, typer.Option(help="training split, for the names of the shapes; default: numbers")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="name of the checkpoint")] = "latest",
    up: Annotated[str, typer.Option(help="axis of the training data that points up")] = "+y",
    front: Annotated[str, typer.Option(help="axis of the training data that points ahead")] = "-z",
    licence: Annotated[str, typer.Option(help="licence of the training data")] = "unknown",
    creator: Annotated[str, typer.Option(help="creator of the training data")] = "unknown",
) -> None:
    """Convert an experiment of the released DeepSDF code to a model for the backend."""
    from sdf_backend.model.store import SUFFIX, save_model
    from training.import_deepsdf import import_deepsdf

    with report_errors():
        if output.suffix != SUFFIX:
            raise InputError(f"{output} does not end in {SUFFIX}; name the model file, such as chairs{SUFFIX}")
        check_writable(output)
        names = None if split is None else read_split(split)
        model = import_deepsdf(experiment, output.stem, names, checkpoint, up, front, licence, creator)
        save_model(output, model)
        stdout.print(f"model: {output}, {len(model.codes)} shapes", soft_wrap=True)


@app.command(name="export-deepsdf")
def export_deepsdf_command(
    model: Annotated[str, typer.Argument(help="name of a model, or its .safetensors file")],
    output: Annotated[Path, typer.Option("-o", help="folder of the experiment")],
) -> None:
    """Write a model as an experiment of the released DeepSDF code."""
    from sdf_backend.model.store import ModelStore, load_model
    from training.export_deepsdf import export_deepsdf

    with report_errors():
        loaded = load_model(ModelStore().find(model))
        export_deepsdf(loaded, output)
        stdout.print(f"experiment: {output}, {len(loaded.codes)} shapes", soft_wrap=True)


def _generate(category: str, output: Path, settings: GenerateSettings, as_json: bool) -> None:
    """Generate pieces with a progress bar, and print what became of them."""
    with _bar(category) as bar:
        task = bar.add_task(category, total=settings.count)
        pieces = generate(category, output, settings, lambda _: bar.update(task, advance=1))
    if as_json:
        print_json([vars(piece) for piece in pieces])
    else:
        _show_pieces(pieces, output)


def _show_pieces(pieces: list[Piece], output: Path) -> None:
    """Print the number of meshes, and of the pieces left out by reason."""
    left_out = Counter(piece.reason for piece in pieces if piece.reason)
    before = sum(piece.resumed for piece in pieces)
    text = f"{len(pieces) - left_out.total()} meshes in {output}, {before} pieces from an earlier run; y up, front +z"
    stdout.print(text, soft_wrap=True)
    for reason, count in left_out.most_common():
        first = next(piece for piece in pieces if piece.reason is reason)
        stdout.print(f"left out {count}: {reason}; the first was {first.name} ({first.detail})", soft_wrap=True)


def _print_outcomes(outcomes: list[MeshOutcome], output: Path) -> None:
    rejected = [outcome for outcome in outcomes if outcome.rejected]
    used = [outcome for outcome in outcomes if not outcome.rejected]
    table = Table("meshes", "used", "rejected", "from an earlier run", "samples of uncertain sign")
    table.add_row(
        str(len(outcomes)),
        str(len(used)),
        str(len(rejected)),
        str(sum(outcome.resumed for outcome in outcomes)),
        f"{sum(outcome.uncertain for outcome in used) / max(len(used), 1):.2%}",
    )
    stdout.print(table)
    for outcome in rejected:
        stdout.print(f"rejected {outcome.name}: {outcome.reason}", highlight=False, soft_wrap=True)
    for outcome in used:
        for note in outcome.notes:
            stdout.print(f"{outcome.name}: {note}", highlight=False, soft_wrap=True)
    if (output / "report.json").exists():  # not yet while shards run
        stdout.print(f"check {output / 'contact_sheet.png'}; outcomes are in {output / 'report.json'}", soft_wrap=True)


def _report_absent(names: set[str], most: int = 20) -> None:
    """Say on stderr how many shapes of split files the source folder lacks, and which; the others are prepared."""
    if names:
        more = f" and {len(names) - most} more" if len(names) > most else ""
        listed = ", ".join(sorted(names)[:most])
        stderr.print(f"absent: {len(names)} shapes of the splits: {listed}{more}", soft_wrap=True, highlight=False)


def _print_estimate(found: Estimate, jobs: int, as_json: bool) -> None:
    """Print what a dry run found, for a number of worker processes, each on a core of its own."""
    if as_json:
        print_json({**vars(found), "jobs": jobs})
        return
    hours = found.seconds / jobs / 3600
    lines = (
        f"{found.remaining} of {found.meshes} meshes to sample; {found.rejected} of {found.tried} tried are unusable",
        f"time: {hours:.2f} h in {jobs} processes with a core each, {found.seconds / 3600:.2f} h of one core",
        f"disk: {found.disk / 1e9:.2f} GB in the end, and up to 4 GB beside it while packing; "
        f"{found.free / 1e9:.1f} GB are free",
    )
    stdout.print(*lines, sep="\n", soft_wrap=True)


def _bar(name: str, *more: ProgressColumn) -> Progress:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *more, console=stderr, disable=not stderr.is_terminal)
