"""Contact sheets: labelled images in a grid, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdf_backend.files import atomic_write
from sdf_backend.geometry.camera import BACKGROUND
from training.rendering import FONT_SIZE, GAP, Pixels, rounded_color

LABEL_COLOR = (52, 56, 64)


def write_contact_sheet(images: Sequence[Pixels], labels: Sequence[str], columns: int, path: Path) -> None:
    """Write a grid of images, row by row, each with its label underneath, as PNG to `path`.

    Parameters
    ----------
    images : (height, width, 3) uint8 each; sizes may differ
    labels : one per image; long ones wrap
    columns : images per row

    Raises
    ------
    ValueError : no images, `columns` below 1, or a label missing
    InputError : `path` cannot be written
    """
    write_png(_grid(images, labels, columns), path)


def side_by_side(pictures: Sequence[tuple[str, Pixels]]) -> Pixels:
    """Lay out (label, image) pairs in one row, the labels underneath."""
    return _grid([image for _, image in pictures], [label for label, _ in pictures], max(len(pictures), 1))


def write_png(image: Pixels, path: Path) -> None:
    """Write an image as PNG, atomically. Raises `InputError` where `path` cannot be written."""
    with atomic_write(Path(path)) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _grid(images: Sequence[Pixels], labels: Sequence[str], columns: int) -> Pixels:
    if not images:
        raise ValueError("There are no images to lay out.")
    if len(images) != len(labels):
        raise ValueError(f"There are {len(images)} images but {len(labels)} labels.")
    if columns < 1:
        raise ValueError(f"columns is {columns}; it must be at least 1.")
    font = ImageFont.load_default(FONT_SIZE)
    cell_width, image_height = max(i.shape[1] for i in images), max(i.shape[0] for i in images)
    wrapped = [_wrapped(label, font, cell_width) for label in labels]
    line_height = round(1.35 * FONT_SIZE)
    cell_height = image_height + GAP // 2 + line_height * max(len(lines) for lines in wrapped)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = (GAP + columns * (cell_width + GAP), GAP + rows * (cell_height + GAP))
    sheet = Image.new("RGB", size, rounded_color(BACKGROUND))
    draw = ImageDraw.Draw(sheet)
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        row, column = divmod(index, columns)
        left, top = GAP + column * (cell_width + GAP), GAP + row * (cell_height + GAP)
        # Smaller images are centred in their cell and aligned with its label.
        height, width = image.shape[:2]
        sheet.paste(Image.fromarray(image), (left + (cell_width - width) // 2, top + image_height - height))
        for number, line in enumerate(lines):
            anchor = left + cell_width / 2, top + image_height + GAP // 2 + number * line_height
            draw.text(anchor, line, fill=LABEL_COLOR, font=font, anchor="ma")
    return np.asarray(sheet)


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a label into lines that fit `width` pixels; a single word may overhang."""
    lines: list[str] = []
    for paragraph in label.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
