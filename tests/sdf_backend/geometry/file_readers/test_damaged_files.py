"""Files that are damaged or cut off are refused in one sentence or read right, whatever the place; never scrambled."""

import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from sample_files import FACES, VERTICES, binary_files, text_files

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import read_geometry

SEED = 20261130
CUTS = 300
MUTATIONS = 1_000
TEXTS = text_files()
# Numbers that trip parsers up.
ODD_NUMBERS = [b"-1", b"0", b"1e308", b"nan", b"99999999999", b"18446744073709551616", b"0x10", b"1_000", b""]


def rounded(points: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(one.reshape(-1).tolist()) for one in np.round(points, 4)}


TRIANGLES = rounded(np.stack([np.roll(VERTICES[FACES], turn, axis=1) for turn in range(3)]).reshape(-1, 3, 3))
POINTS = rounded(VERTICES)


@pytest.mark.parametrize("suffix", TEXTS)
def test_a_text_cut_off_anywhere_is_refused_or_a_part_of_itself(tmp_path: Path, suffix: str) -> None:
    print(f"seed {SEED}")
    draw, path, refused = random.Random(SEED), tmp_path / f"cut{suffix}", 0
    for _ in range(CUTS):
        content = TEXTS[suffix][: draw.randrange(len(TEXTS[suffix]))]
        path.write_bytes(content)
        try:
            read = read_geometry(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert rounded(read.vertices) <= POINTS, content[-60:]
        assert rounded(read.vertices[read.faces]) <= TRIANGLES, content[-60:]
    assert refused > 0


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_mutated_file_is_read_or_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    print(f"seed {SEED}")
    draw, files = random.Random(SEED), TEXTS if kind == "text" else binary_files(tmp_path)
    started = time.monotonic()
    for _ in range(MUTATIONS // 2):
        suffix = draw.choice(sorted(files))
        path = tmp_path / f"mutated{suffix}"
        path.write_bytes(mutate(files[suffix], draw))
        try:
            read = read_geometry(path)
        except InputError as error:
            assert "\n" not in str(error) and "Traceback" not in str(error)
        else:
            assert np.isfinite(read.vertices).all()
            assert not len(read.faces) or 0 <= read.faces.min() <= read.faces.max() < len(read.vertices)
    assert time.monotonic() - started < 60


def mutate(content: bytes, draw: random.Random) -> bytes:
    """One to three changes: a byte, a slice gone, doubled or moved, or a number that is another."""
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((1, 2, 8, 40)))
        slice_ = content[start:end]
        number = re.compile(rb"-?\d+(\.\d*)?").search(content, start)
        match draw.randrange(5):
            case 0:
                content = content[:start] + bytes(draw.randrange(256) for _ in slice_) + content[end:]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:start] + slice_ * draw.choice((2, 50)) + content[end:]
            case 3:
                content = content[:start] + content[end:] + slice_
            case _ if number:
                content = content[: number.start()] + draw.choice(ODD_NUMBERS) + content[number.end() :]
    return content
