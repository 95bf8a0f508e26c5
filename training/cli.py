"""`python -m training`: collect, prepare, train, evaluate."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sdf_backend.console import explained, print_json, stderr, stdout
from training.catalog import Layout, list_meshes, only, read_split
from training.collect import collect as collect_members
from training.sampling import Noise, SampleSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def collect(
    catalog: Annotated[Path, typer.Argument(help="CSV that names members of packages, object by object")],
    packages: Annotated[Path, typer.Argument(help="folder into which the packages were unpacked (dpkg -x)")],
    output: Annotated[Path, typer.Option("-o", help="folder for the meshes, one sub-folder a category")],
    category: Annotated[str | None, typer.Option(help="only this category")] = None,
) -> None:
    """Turn the members of packages that a catalogue names into canonical OBJ files with their credits."""
    with explained():
        count = collect_members(catalog, packages, output, category, stderr.print)
        stdout.print(f"{count} meshes in {output}")


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
    timeout: Annotated[float, typer.Option(min=1, help="seconds after which a mesh is given up")] = 300,
    seed: Annotated[int, typer.Option(help="seed of all sampling")] = 0,
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
    seed: Annotated[int | None, typer.Option(help="seed of weights, codes and the order of samples")] = None,
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
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.5f}  code norm {task.fields[norm]:.3f}  "),
            TextColumn("{task.fields[speed]:,.0f} samples/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr) as bar:
            task = bar.add_task("", total=settings.epochs, completed=trainer.epoch, loss=float("nan"), norm=0, speed=0)

            def show(report: EpochReport) -> None:
                bar.update(
                    task,
                    completed=report.epoch,
                    loss=report.loss,
                    norm=report.code_norm,
                    speed=report.samples_a_second,
                )

            trainer.run(show)
        stdout.print(f"model: {output / data.category}.safetensors", soft_wrap=True)


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


def _bar(name: str) -> Progress:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr)
