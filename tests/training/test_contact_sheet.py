"""Contact sheets, judged by their pixels."""

import numpy as np
import pytest
from PIL import Image

from training.contact_sheet import side_by_side, write_contact_sheet, write_png
from training.rendering import FONT_SIZE, GAP


class TestContactSheet:
    def tiles(self, count: int) -> list[np.ndarray]:
        return [np.full((30, 120, 3), 40 * index, np.uint8) for index in range(count)]

    def test_images_stand_in_a_grid_above_their_labels(self, tmp_path):
        path = tmp_path / "made" / "sheet.png"
        write_contact_sheet(self.tiles(5), ["one", "two", "three", "four", "five"], 3, path)
        assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
        with Image.open(path) as image:
            assert image.format == "PNG"
            sheet = np.asarray(image)
        gap, cell = GAP, 30 + GAP // 2 + round(1.35 * FONT_SIZE)
        assert sheet.shape == (gap + 2 * (cell + gap), gap + 3 * (120 + gap), 3)
        for index in range(5):
            row, column = divmod(index, 3)
            top, left = gap + row * (cell + gap), gap + column * (120 + gap)
            assert (sheet[top : top + 30, left : left + 120] == 40 * index).all()
            assert sheet[top + 30 : top + cell, left : left + 120].min() < 120  # text of the label

    def test_a_failed_write_leaves_the_old_file_and_no_other(self, tmp_path):
        path = tmp_path / "sheet.png"
        path.write_bytes(b"old")
        with pytest.raises(TypeError):
            write_png(np.zeros((4, 4, 7), np.uint8), path)
        assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]
        assert path.read_bytes() == b"old"

    def test_long_labels_wrap(self):
        short = side_by_side([("label", self.tiles(1)[0])])
        long = side_by_side([("a label of many words that fit no single line", self.tiles(1)[0])])
        assert long.shape[0] > short.shape[0]
        assert long.shape[1] == short.shape[1]

    def test_images_of_different_sizes(self):
        small, large = np.zeros((10, 20, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)
        row = side_by_side([("small", small), ("large", large)])
        assert row.shape[1] == 3 * GAP + 2 * 60
        black = (row[: GAP + 40] == 0).all(axis=2)
        assert black.sum() == small[..., 0].size + large[..., 0].size

    def test_malformed_input_is_rejected(self, tmp_path):
        with pytest.raises(ValueError, match="no images"):
            side_by_side([])
        with pytest.raises(ValueError, match="2 images but 1 labels"):
            write_contact_sheet(self.tiles(2), ["one"], 2, tmp_path / "sheet.png")
        with pytest.raises(ValueError, match="columns is 0"):
            write_contact_sheet(self.tiles(1), ["one"], 0, tmp_path / "sheet.png")
        assert list(tmp_path.iterdir()) == []
