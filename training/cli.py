"""`python -m training`: collect, near-duplicates, humans, prepare, hold out, train, evaluate, import."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from sdf_backend.cli import QualityName
from sdf_backend.console import explained, print_json, stderr, stdout
from sdf_backend.errors import InputError
from training.augment import Kind
from training.catalog import Layout, list_meshes, only, read_split
from training.collect import collect as collect_members
from training.sampling import Noise, SampleSettings

if TYPE_CHECKING:  # torch takes a second to load; `--help` and wrong usage should not wait for it
    from sdf_backend.engine import Engine, Quality
    from training.dataset import Dataset
    from training.evaluate import EvaluateSettings, Report, Result

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


class TaskName(StrEnum):
    """What is asked of a model."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    COMPLETE = "complete"
    NOISE = "noise"
    POSE = "pose"
    OUTLIERS = "outliers"
    INTERPOLATE = "interpolate"


@app.command()
def collect(
    catalog: Annotated[Path, typer.Argument(help="CSV that names members of packages, object by object")],
    packages: Annotated[Path, typer.Argument(help="folder into which the packages were unpacked (dpkg -x)")],
    output: Annotated[Path, typer.Option("-o", help="folder for the meshes, one sub-folder a category")],
    category: Annotated[str | None, typer.Option(help="only this category")] = None,
) -> None:
    """Turn the members of packages that a catalogue names into canonical OBJ files with their credits."""
    with explained():
        count = collect_members(catalog, packages, output, category, lambda line: stderr.print(line, soft_wrap=True))
        stdout.print(f"{count} meshes in {output}", soft_wrap=True)


@app.command(name="near-duplicates")
def near_duplicates_command(
    meshes: Annotated[Path, typer.Argument(help="folder of meshes with a sources.json that says their splits")],
    category: Annotated[str | None, typer.Option(help="a sub-folder of it")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Chamfer distance x 1000 in the unit sphere; default see the settings")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the pairs as JSON")] = False,
) -> None:
    """List test pieces that are nearly a training piece, by shape; fails where there is one."""
    from training.near_duplicates import DuplicateSettings, near_duplicates

    with explained():
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
                f"{len({pair.test.name for pair in pairs})} test pieces are nearly a training piece (Chamfer distance "
                f"below {settings.threshold:g}); put both of each pair into one split"
            )


@app.command()
def humans(
    output: Annotated[Path, typer.Option("-o", help="folder for the meshes")],
    count: Annotated[int, typer.Option(min=1, help="how many bodies")] = 560,
    seed: Annotated[int, typer.Option(min=0, help="seed of age, sex, build and pose")] = 0,
) -> None:
    """Draw human bodies of every age, sex and build, in mild poses; wants the package anny."""
    from training.bodies import write_bodies

    with explained(), _bar("bodies") as bar:
        task = bar.add_task("bodies", total=count)
        write_bodies(output, count, seed, lambda done: bar.update(task, completed=done))
        stdout.print(f"{count} meshes in {output}; z up, front -y", soft_wrap=True)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="folder of meshes, or ShapeNet's root")],
    output: Annotated[Path, typer.Option("-o", help="dataset to write, or to go on with")],
    layout: Annotated[Layout, typer.Option(help="how the source is laid out")] = Layout.FOLDER,
    category: Annotated[str | None, typer.Option(help="ShapeNet synset, or a sub-folder; names the dataset")] = None,
    train_split: Annotated[Path | None, typer.Option("--split", help="official split file: training shapes")] = None,
    test_split: Annotated[Path | None, typer.Option(help="official split file: test shapes")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="worker processes; default one a core")] = None,
    samples: Annotated[int, typer.Option(min=1000, help="signed distance samples a shape")] = 500_000,
    noise: Annotated[Noise, typer.Option(help="variances near the surface: the paper's or the released tool's")] = (
        Noise.RELEASED
    ),
    up: Annotated[str, typer.Option(help="the meshes' axis that points up")] = "+y",
    front: Annotated[str, typer.Option(help="the meshes' axis that points ahead; ShapeNet: -z")] = "-z",
    copies: Annotated[int, typer.Option(min=0, help="deformed copies of each training mesh")] = 0,
    deform: Annotated[Kind, typer.Option(help="how the copies are deformed")] = Kind.AIRCRAFT,
    timeout: Annotated[float, typer.Option(min=1, help="seconds after which a mesh is given up")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="seed of all sampling")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the outcomes as JSON")] = False,
) -> None:
    """Sample the signed distances of every mesh; a killed run goes on where it was."""
    from training.prepare import PrepareSettings, prepare

    with explained():
        entries = list_meshes(source, layout, category)
        if train_split or test_split:
            everything, entries = entries, []
            if train_split:
                entries += only(everything, read_split(train_split), "train")
            if test_split:
                entries += only(everything, read_split(test_split), "test")
        settings = PrepareSettings(
            category=category or source.resolve().name,
            up=up,
            front=front,
            copies=copies,
            sampling=SampleSettings(count=samples, noise=noise),
            augment=deform.settings,
            timeout=timeout,
            seed=seed,
        )
        with _bar("preparing") as bar:
            task = bar.add_task("preparing", total=None)
            outcomes = prepare(
                entries, output, settings, jobs, lambda _, total: bar.update(task, advance=1, total=total)
            )
        if as_json:
            print_json([vars(outcome) for outcome in outcomes])
        else:
            _show_outcomes(outcomes, output)


@app.command(name="hold-out")
def hold_out_command(
    dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")],
    families: Annotated[Path, typer.Argument(help="file that names training families, one a line")],
    output: Annotated[Path, typer.Option("-o", help="folder for the new dataset")],
) -> None:
    """Make a dataset for choosing settings: some training families play the test shapes, which are out of sight."""
    from training.dataset import Dataset
    from training.hold_out import hold_out

    with explained():
        if not families.is_file():
            raise InputError(f"{families} does not exist; name a file of families, one a line")
        held = hold_out(Dataset.open(dataset), set(families.read_text().split()), output)
        train, test = (sum(record.split == split for record in held.records) for split in ("train", "test"))
        stdout.print(f"{output}: {train} shapes to train with, {test} held out", soft_wrap=True)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")],
    output: Annotated[Path, typer.Option("-o", help="folder for checkpoints, pictures and the finished model")],
    preset: Annotated[str, typer.Option(help="small (a CPU, a quick look) or paper")] = "small",
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the shapes; default the preset's")] = None,
    halve_every: Annotated[int | None, typer.Option(min=1, help="epochs after which learning rates halve")] = None,
    symmetric: Annotated[bool, typer.Option(help="the category is left-right symmetric")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run was")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="seed of weights, codes and the order of samples")] = None,
) -> None:
    """Train a decoder and one code a shape; the finished model is one .safetensors file."""
    from sdf_backend.devices import choose_device
    from training.dataset import Dataset
    from training.trainer import EpochReport, Trainer, chosen_preset

    with explained():
        data = Dataset.open(dataset)
        settings = chosen_preset(preset, epochs=epochs, halve_every=halve_every, seed=seed)
        if symmetric:
            settings = settings.mirrored(data.front)
        trainer = Trainer(data, settings, output, choose_device(device))
        if resume:
            trainer.resume()
        elif trainer.has_checkpoint():
            raise InputError(f"{output} holds a run already; go on with --resume, or choose another folder")
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.5f}  code norm {task.fields[norm]:.3f}  "),
            TextColumn("{task.fields[speed]:,.0f} samples/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
            task = bar.add_task("", total=settings.epochs, completed=trainer.epoch, loss=float("nan"), norm=0, speed=0)

            def show(report: EpochReport) -> None:
                bar.update(
                    task,
                    completed=report.epoch,
                    loss=report.loss,
                    norm=report.code_norm,
                    speed=report.samples_a_second,
                )
                if not stderr.is_terminal and report.epoch % settings.checkpoint_every == 0:
                    stderr.print(f"epoch {report.epoch} of {settings.epochs}: loss {report.loss:.5f}", highlight=False)

            trainer.run(show)
        stdout.print(f"model: {output / data.category}.safetensors", soft_wrap=True)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="a model's .safetensors file, or its name")],
    dataset: Annotated[Path, typer.Argument(help="folder that prepare wrote")],
    task: Annotated[
        TaskName,
        typer.Option(
            help="known: training shapes; unknown: test shapes, whole; complete: scans of them; noise, pose, outliers: "
            "scans that are noisier, stand anywhere, or stand on a floor; interpolate: between pairs of test shapes"
        ),
    ] = TaskName.COMPLETE,
    output: Annotated[Path | None, typer.Option("-o", help="folder for TASK.html, TASK.json and TASK.png")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    seed: Annotated[int, typer.Option(min=0, help="decides views, noise and the points that are compared")] = 0,
    resolution: Annotated[int, typer.Option(min=16, max=1024, help="cells per axis of the generated meshes")] = 256,
    shapes: Annotated[
        int | None, typer.Option(min=1, help="how many, spread over the split; default 16 known, all test shapes")
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="scans a shape, each completed by itself")] = 1,
    record: Annotated[bool, typer.Option("--record", help="keep the means and medians in the model's file")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    quality: Annotated[QualityName, typer.Option(help="how long a fit may take")] = QualityName.STANDARD,
    refine: Annotated[float, typer.Option(min=0, max=1, help="how far results follow what was seen")] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, help="scans of each view, each with noise of its own")] = 1,
    with_reference: Annotated[
        bool, typer.Option("--reference", help="the released DeepSDF reconstruction beside; half a minute a shape")
    ] = False,
) -> None:
    """Measure a model against the meshes that a dataset was made from."""
    from sdf_backend.engine import Engine, Quality
    from training.dataset import Dataset
    from training.evaluate import EvaluateSettings, Outcome, Report, Task, record_accuracy
    from training.evaluation_pictures import ContactSheet
    from training.report import write_html

    with explained():
        if output and output.exists() and not output.is_dir():
            raise InputError(f"cannot write into {output}: it is a file; name a folder")
        if task is TaskName.INTERPOLATE:
            if shapes or record or with_reference or max(views, seeds) > 1 or seed or refine != 1:
                raise InputError(
                    "interpolate takes none of --shapes, --views, --seed, --seeds, --refine, --reference and --record"
                )
            _interpolations(model, dataset, output, as_json, resolution, device, Quality(quality.value))
            return
        settings = EvaluateSettings(
            Task(task.value), resolution, shapes, views, Quality(quality.value), seed, refine, seeds, with_reference
        )
        engine, data = Engine(device=device), Dataset.open(dataset)
        outcomes: list[Outcome] = []
        sheet, report = ContactSheet(settings.task), Report(model, str(dataset), settings, outcomes)
        for result in _watched(engine, model, data, settings):
            outcomes.append(result.outcome)
            # After each, since they take minutes: of a run that is killed all numbers stay.
            if output:
                report.save(output)
                sheet.add(result)
        if output:
            sheet.save(output / f"{task}.png")
            write_html(output / f"{task}.html", report, (output / f"{task}.png").read_bytes())
        if as_json:
            print_json(report.content())
        else:
            _show_report(report)
        if report.summary.failed == len(outcomes):
            raise InputError(f"all {len(outcomes)} shapes failed; the first reason: {outcomes[0].reason}")
        if record:
            record_accuracy(engine.store.find(model), report)


@app.command(name="import-deepsdf")
def import_deepsdf_command(
    experiment: Annotated[Path, typer.Argument(help="folder of an experiment of the released DeepSDF code")],
    output: Annotated[Path, typer.Option("-o", help="the model's file, CATEGORY.safetensors, lower-case plural")],
    split: Annotated[Path | None, typer.Option(help="training split, for the shapes' names; default numbers")] = None,
    checkpoint: Annotated[str, typer.Option(help="which of its checkpoints")] = "latest",
    up: Annotated[str, typer.Option(help="axis of the data that points up")] = "+y",
    front: Annotated[str, typer.Option(help="axis of the data that points ahead")] = "-z",
    licence: Annotated[str, typer.Option(help="of the data that it was trained on")] = "unknown",
    creator: Annotated[str, typer.Option(help="of the data that it was trained on")] = "unknown",
) -> None:
    """Turn an experiment of the released DeepSDF code into a model that the backend serves."""
    from sdf_backend.model_store import SUFFIX, save_model
    from training.import_deepsdf import import_deepsdf

    with explained():
        if output.suffix != SUFFIX:
            raise InputError(f"{output} does not end in {SUFFIX}; name the model's file, as chairs{SUFFIX}")
        names = None if split is None else read_split(split)
        model = import_deepsdf(experiment, output.stem, names, checkpoint, up, front, licence, creator)
        save_model(output, model)
        stdout.print(f"model: {output}, {len(model.codes)} shapes", soft_wrap=True)


def _interpolations(
    model: str,
    dataset: Path,
    output: Path | None,
    as_json: bool,
    resolution: int,
    device: str,
    quality: "Quality",
) -> None:
    """The task `interpolate`: every pair of some test shapes."""
    from sdf_backend.engine import Engine
    from training.dataset import Dataset
    from training.interpolations import evaluate_interpolations, pair_count, save_interpolations

    engine, data = Engine(device=device), Dataset.open(dataset)
    with _bar("interpolate") as bar:
        row, pairs = bar.add_task("", total=pair_count(data)), []
        for pair in evaluate_interpolations(engine, model, data, resolution, quality):
            pairs.append(pair)
            # After each, since they take minutes: of a run that is killed all that was done stays.
            if output:
                save_interpolations(output, model, dataset, pairs)
            bar.advance(row)
    if as_json:
        print_json([vars(pair) for pair in pairs])
        return
    table = Table("from", "to", "steps", "closed", "largest step", "median step", "ratio", "", box=SIMPLE_HEAD)
    for pair in pairs:
        numbers = (f"{pair.largest:.4f}", f"{pair.median:.4f}", f"{pair.ratio:.2f}")
        table.add_row(pair.first, pair.last, str(pair.steps), str(pair.closed), *numbers, pair.reason)
    stdout.print(table)
    if all(pair.reason for pair in pairs):
        raise InputError(f"all {len(pairs)} pairs failed; the first reason: {pairs[0].reason}")


def _watched(engine: "Engine", model: str, dataset: "Dataset", settings: "EvaluateSettings") -> "Iterator[Result]":
    """The results of an evaluation, with a progress bar on stderr."""
    from training.evaluate import chosen_records, evaluate, variants

    records = chosen_records(engine.model(model), dataset, settings)
    with _bar(settings.task.value, TextColumn("{task.description}")) as bar:
        row = bar.add_task("", total=len(records) * len(variants(settings)))
        for result in evaluate(
            engine, model, dataset, settings, lambda name, phase, _: bar.update(row, description=f"{name}: {phase}")
        ):
            bar.advance(row)
            yield result


def _show_report(report: "Report") -> None:
    """A row a shape, then mean and median; a failed shape's row holds its reason."""
    from training.report import MEASURES

    summary = report.summary
    scores = [measure for measure in MEASURES if measure.name in summary.mean]
    numbers = [Column(one.title, justify="right", no_wrap=True) for one in scores]
    table = Table(
        Column("shape", overflow="fold", min_width=8), *numbers, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for outcome in report.outcomes:
        measures = outcome.measures()
        if outcome.scores:
            worse = outcome.scan is not None and not outcome.nearer
            table.add_row(outcome.title, *(one.text(measures) for one in scores), style="red" if worse else "")
    table.add_section()
    table.add_row("mean", *(one.text(summary.mean) for one in scores))
    table.add_row("median", *(one.text(summary.median) for one in scores))
    for end, name in enumerate(("from", "to")):
        bounds = {measure: interval[end] for measure, interval in summary.interval.items()}
        table.add_row(f"95 % of means {name}", *(one.text(bounds) for one in scores))
    for label, means in summary.variants.items():
        table.add_row(label, *(one.text(means) for one in scores))
    # Into a file or a pipe nothing need be squeezed.
    (stdout if stdout.is_terminal else Console(width=160)).print(table)
    for outcome in report.outcomes:
        if not outcome.scores:
            stdout.print(f"failed {outcome.title}: {outcome.reason}", highlight=False, soft_wrap=True)
    measured = summary.count - summary.failed
    text = f"{measured} of {summary.count} measured, {summary.failed} failed"
    if summary.nearer_than_scan is not None:
        text += f"; {summary.nearer_than_scan} of {measured} completions are nearer to the truth than their scans"
    if summary.seed_deviation is not None:
        text += f"; standard deviation of Chamfer over scans of one view {summary.seed_deviation:.1%}"
    stdout.print(f"{text}; Chamfer distances are times 1000, squared", highlight=False, soft_wrap=True)


def _show_outcomes(outcomes: list, output: Path) -> None:
    rejected = [outcome for outcome in outcomes if outcome.reason]
    used = [outcome for outcome in outcomes if not outcome.reason]
    table = Table("meshes", "used", "rejected", "taken over from before", "samples of uncertain sign")
    table.add_row(
        str(len(outcomes)),
        str(len(used)),
        str(len(rejected)),
        str(sum(outcome.resumed for outcome in outcomes)),
        f"{sum(outcome.uncertain for outcome in used) / len(used):.2%}",
    )
    stdout.print(table)
    for outcome in rejected:
        stdout.print(f"rejected {outcome.name}: {outcome.reason}", highlight=False, soft_wrap=True)
    stdout.print(f"look at {output / 'contact_sheet.png'}; outcomes in {output / 'report.json'}", soft_wrap=True)


def _bar(name: str, *more: ProgressColumn) -> Progress:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *more, console=stderr, disable=not stderr.is_terminal)
