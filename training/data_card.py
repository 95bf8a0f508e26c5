"""The data card of a model that ships: a page of its network, licence, data and accuracy, written from the model file.

What the model cannot do is for a person to say, under the heading Limits, which is kept when the page is written again.
"""

import textwrap
from pathlib import Path

from sdf_backend.files import atomic_write
from sdf_backend.model.card import ModelCard
from sdf_backend.model.store import Model

PROJECT_LICENCE = "GPL-3.0-or-later"
LIMITS = "## Limits"
WIDTH = 120


def write_data_card(path: Path, model: Model, size: int) -> None:
    """Write the page, atomically; of a page that is there, what follows the heading Limits stays.

    Parameters
    ----------
    path : of the page, a Markdown file
    size : of the model file, bytes
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    _, heading, limits = before.partition(f"\n{LIMITS}\n")
    sections = [
        f"# {model.card.name}",
        textwrap.fill(_network(model, size), WIDTH),
        "## Licence",
        textwrap.fill(_licence(model.card), WIDTH),
        "## Data",
        textwrap.fill(_data(model.card), WIDTH),
        _sources(model.card),
        "## Accuracy",
        _accuracy(model.card),
        *([f"{LIMITS}\n{limits.rstrip()}"] if heading else []),
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _network(model: Model, size: int) -> str:
    card = model.card
    thousands = sum(parameter.numel() for parameter in model.decoder.parameters()) / 1000
    symmetry = "" if card.decoder.get("mirror_axis") is None else ", left and right share their weights"
    encoder = "" if model.encoder is None else ", with an encoder that finds poses"
    return (
        f"A DeepSDF decoder{encoder}, made by `make starter-{card.name}`: {thousands:,.0f} thousand parameters, codes "
        f"of {card.decoder['code_length']}{symmetry}; {size / 1e6:.1f} MB. Canonical frame: {card.up} up, {card.front} "
        f"ahead, inside the unit sphere. Distances are learnt up to {card.clamp:g} of its radius; beyond that only the "
        "sign counts."
    )


def _licence(card: ModelCard) -> str:
    if not card.licence:
        return f"{PROJECT_LICENCE}, as the rest of the project: the data below demands no licence of its own."
    return (
        f"{card.licence}, which the data below demands, because some of it is share-alike: whoever passes the model "
        "file on, as it is or trained further, does so under that licence, and names the creators."
    )


def _data(card: ModelCard) -> str:
    meshes = sum(source["shapes"] for source in card.sources)
    samples = card.training["prepared_with"]["sampling"]["count"]
    return (
        f"{meshes:,} meshes and {len(card.shapes) - meshes:,} deformed copies of them, {samples:,} signed distance "
        f"samples of each, {card.training['epochs']:,} epochs. What is from packages is listed one by one, with what "
        "is for testing, in `training/starter_catalog.csv`; the rest was drawn by `training generate`."
    )


def _sources(card: ModelCard) -> str:
    rows = [(source["creator"], source["licence"], f"{source['shapes']:,}") for source in card.sources]
    return _table(("creator", "licence", "meshes"), sorted(rows, key=lambda row: (row[0].lower(), row[1])))


def _accuracy(card: ModelCard) -> str:
    """Chamfer distances, times 1000, of each task that was recorded."""
    rows = []
    for task, entry in sorted(card.accuracy.items()):
        mean, median = entry["mean"], entry["median"]
        scan = f"{1e3 * mean['scan']:.2f}" if "scan" in mean else ""
        row = (task, str(entry["count"]), f"{1e3 * mean['chamfer']:.2f}", f"{1e3 * median['chamfer']:.2f}", scan)
        rows.append((*row, f"{mean['cosine']:.2f}"))
    head = ("task", "test shapes", "Chamfer x 1000, mean", "median", "bare scan, mean", "normal cosine, mean")
    return _table(head, rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
