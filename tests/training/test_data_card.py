"""The page of a model that ships says what its file says, and keeps what a person wrote of its limits."""

from dataclasses import replace
from pathlib import Path

from sdf_backend.model.store import Model
from training.data_card import write_data_card

MEAN = {"chamfer": 0.00331, "scan": 0.00423, "cosine": 0.807}
TRAINING = {"epochs": 700, "prepared_with": {"sampling": {"count": 80_000}}}
SOURCES = [
    {"licence": "CC-BY-SA-3.0", "creator": "the herd", "shapes": 7},
    {"licence": "CC-BY-3.0", "creator": "Ada", "shapes": 3},
]


def page(path: Path, spheres: Model, **changes: object) -> str:
    card = replace(spheres.card, training=TRAINING, **changes)
    write_data_card(path / "spheres.md", replace(spheres, card=card), 2_100_000)
    return (path / "spheres.md").read_text()


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def test_the_page_names_every_source_and_how_many_shapes_are_of_it(spheres: Model, tmp_path: Path) -> None:
    text = page(tmp_path, spheres, sources=SOURCES)
    assert text.index("| Ada | CC-BY-3.0 | 3 |") < text.index("| the herd | CC-BY-SA-3.0 | 7 |")
    assert "10 meshes and 2 deformed copies of them, 80,000 signed distance samples" in unwrapped(text)
    assert "2.1 MB" in text and "codes of 3;" in text and "700 epochs" in unwrapped(text)


def test_share_alike_data_makes_the_file_share_alike_and_the_page_says_so(spheres: Model, tmp_path: Path) -> None:
    text = unwrapped(page(tmp_path, spheres, licence="CC-BY-SA-3.0", sources=SOURCES))
    assert "## Licence CC-BY-SA-3.0, which the data below demands, because some of it is share-alike" in text
    assert "## Licence GPL-3.0-or-later, as the rest of the project" in unwrapped(page(tmp_path, spheres))


def test_the_accuracy_of_each_task_is_a_row(spheres: Model, tmp_path: Path) -> None:
    entry = {"count": 8, "mean": MEAN, "median": {"chamfer": 0.0021}}
    known = {"count": 8, "mean": {"chamfer": 0.0002, "cosine": 0.94}, "median": {"chamfer": 0.0001}}
    text = page(tmp_path, spheres, accuracy={"unknown": known, "complete": entry})
    assert "| complete | 8 | 3.31 | 2.10 | 4.23 | 0.81 |\n| unknown | 8 | 0.20 | 0.10 |  | 0.94 |\n" in text


def test_what_a_person_wrote_of_the_limits_stays(spheres: Model, tmp_path: Path) -> None:
    assert "## Limits" not in page(tmp_path, spheres)
    with (tmp_path / "spheres.md").open("a") as file:
        file.write("\n## Limits\n\nNo cubes.\n")
    again = page(tmp_path, spheres, sources=SOURCES)
    assert again.endswith("\n\n## Limits\n\nNo cubes.\n") and "the herd" in again
    assert page(tmp_path, spheres, sources=SOURCES) == again
