"""What comes from files and names never controls the terminal."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from backend_process import ROOT
from safetensors.torch import load_file, save_file

from sdf_backend.console import PrintableConsole, printable
from sdf_backend.model.store import FORMAT, Model

ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [text] \u00e9", "plain [text] \u00e9"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202eback", "\\u202eback"),
        ("not utf-8: \udcff", "not utf-8: \\udcff"),
    ],
)
def test_what_is_not_printable_is_written_as_a_code(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text) == shown
    PrintableConsole().print(text, soft_wrap=True)
    assert capsys.readouterr().out == f"{shown}\n"


def run(*arguments: str | Path) -> str:
    """What a command prints, on both streams."""
    command = [sys.executable, "-m", "sdf_backend", *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240)
    return finished.stdout.decode()


def test_no_escape_code_of_a_card_or_a_file_name_reaches_the_terminal(
    spheres: Model, models_folder: Path, tmp_path: Path
) -> None:
    card = asdict(spheres.card) | {
        "name": ESCAPES,
        "licence": ESCAPES,
        "sources": [{"licence": ESCAPES, "creator": ESCAPES, "shapes": 1}],
    }
    metadata = {"format": FORMAT, "card": json.dumps(card)}
    save_file(load_file(models_folder / "spheres.safetensors"), tmp_path / "spheres.safetensors", metadata)
    (tmp_path / f"broken{ESCAPES}.safetensors").write_text("no model")
    (tmp_path / "broken\udcff.safetensors").write_text("no model")
    listed = run("models", "--models", tmp_path)
    missing = run("complete", f"{tmp_path}/{ESCAPES}.ply", "-o", tmp_path / "whole.ply", "--model", "spheres")
    assert "spheres" in listed and listed.count("left out") == 2 and "does not exist" in missing
    for printed in (listed, missing):
        assert printed.replace("\n", "").isprintable()
        assert "\\x1b" in printed
