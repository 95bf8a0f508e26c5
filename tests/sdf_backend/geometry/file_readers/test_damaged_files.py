"""Files that are damaged or cut off are refused in one sentence or read right, whatever the place; never scrambled."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from mutations import SEED, mutate
from sample_files import FACES, VERTICES, binary_files, text_files

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import read_geometry

CUTS = 300
MUTATIONS = 1_000
TEXTS = text_files()


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
