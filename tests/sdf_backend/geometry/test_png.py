"""PNG files are read back by another program to the same pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sdf_backend.errors import InputError
from sdf_backend.geometry.png import write_png


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (30, 50, 3)).astype(np.uint8)


def test_one_image_is_read_back(tmp_path: Path) -> None:
    write_png(tmp_path / "one.png", [image(0)])
    with Image.open(tmp_path / "one.png") as read:
        assert read.mode == "RGB"
        assert np.array_equal(np.asarray(read), image(0))
        assert getattr(read, "n_frames", 1) == 1


def test_an_animation_is_read_back_frame_by_frame(tmp_path: Path) -> None:
    write_png(tmp_path / "many.png", [image(seed) for seed in range(4)], frames_a_second=10)
    with Image.open(tmp_path / "many.png") as read:
        assert read.n_frames == 4
        assert read.info["loop"] == 0
        for seed, frame in enumerate(ImageSequence.Iterator(read)):
            assert np.array_equal(np.asarray(frame.convert("RGB")), image(seed))
            assert frame.info["duration"] == 100


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_png(tmp_path / "file" / "one.png", [image(0)])


def test_an_image_that_is_partly_transparent_is_read_back(tmp_path: Path) -> None:
    opacity = np.arange(1500, dtype=np.uint8).reshape(30, 50, 1)
    write_png(tmp_path / "clear.png", [np.concatenate([image(0), opacity], axis=2)])
    with Image.open(tmp_path / "clear.png") as read:
        assert read.mode == "RGBA"
        assert np.array_equal(np.asarray(read), np.concatenate([image(0), opacity], axis=2))
