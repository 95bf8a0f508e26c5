"""The pictures of the models, PNG files that ship with the add-on; a model of another name has none.

Not from the backend: a list of models comes with each of its greetings, every two seconds, and pictures are a hundred
times as long. `make pictures` draws them.
"""

from pathlib import Path
from typing import Any, cast

import bpy
import bpy.utils.previews

FOLDER = Path(__file__).parent / "pictures"
_previews: list[bpy.utils.previews.ImagePreviewCollection] = []


def icon_of(model: str) -> int:
    """Blender's number of the picture of a model; 0, which is no icon, without one."""
    picture = _previews[0].get(model) if _previews else None
    return picture.icon_id if picture else 0


def attach() -> None:
    """Read the pictures. Asked for the size, Blender does so at once; else it does while the first menu is open."""
    previews = bpy.utils.previews.new()
    for path in sorted(FOLDER.glob("*.png")):
        _ = cast(Any, previews.load(path.stem, str(path), "IMAGE")).image_size[:]
    _previews.append(previews)


def detach() -> None:
    """Remove them."""
    bpy.utils.previews.remove(_previews.pop())
