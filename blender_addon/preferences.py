"""Preferences of the add-on: address and key of the backend, and the Python of a local one. No .blend file has them."""

import ipaddress
import os
import re
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import bpy

from .session import session
from .wire.messages import AUTO_MODEL

DEFAULT_ADDRESS = "tcp://127.0.0.1:5577"
OFFLINE = "Blender is offline; enable Allow Online Access in the preferences under System, or start a local backend"
HOST = re.compile(r"tcp://\[?([^\]/]+?)\]?:\d+")


class SDFPreferences(bpy.types.AddonPreferences):
    """Preferences of the add-on"""

    bl_idname = __package__ or ""

    address: bpy.props.StringProperty(
        name="Address",
        description="Address of a running backend, for example tcp://127.0.0.1:5577",
        default=DEFAULT_ADDRESS,
    )
    key_file: bpy.props.StringProperty(
        name="Key File",
        description="Your key file for a backend on another computer; you get it from the operator of the backend",
        subtype="FILE_PATH",
    )
    python: bpy.props.StringProperty(
        name="Python",
        description="The Python interpreter of a local backend; if this is empty, the usual locations are searched",
        subtype="FILE_PATH",
    )

    model: bpy.props.StringProperty(
        name="Default Model",
        description="The model of scenes in which none is chosen; if this is empty, Auto",
    )

    start_at_launch: bpy.props.BoolProperty(
        name="Start at Launch", description="Start a local backend together with Blender", default=False
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draw them."""
        for name in ("model", "start_at_launch", "python", "address", "key_file"):
            self.layout.prop(self, name)


def preferences() -> SDFPreferences:
    """The preferences of this Blender."""
    stored = bpy.context.preferences
    assert stored
    return cast(SDFPreferences, stored.addons[__package__ or ""].preferences)


def chosen_model(given: str) -> str:
    """The model that is given, that of the preferences, or `AUTO_MODEL`."""
    return given or preferences().model or AUTO_MODEL


def start_local_backend(options: Sequence[str] = ()) -> None:
    """Begin to start a backend on this computer, with further options of `serve`."""
    python = preferences().python
    session.notice = ""
    session.close()  # from a server that does not answer
    session.launcher.start(bpy.path.abspath(python) if python else "", backend_folder(), options)


def connect_to(address: str, key_file: Path | None, is_local: bool = False) -> None:
    """Begin to connect. Raises `ClientError` for an address or key file that is not valid."""
    session.connect(address, key_file, f"Blender {bpy.app.version_string}", is_local, _secret())


def _secret() -> str:
    """What owns the jobs of this user at a backend without keys: another Blender of theirs may fetch the results."""
    path = user_folder("client") / "secret"
    try:
        with suppress(FileExistsError), open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(uuid.uuid4().hex)
        return path.read_text(encoding="ascii")
    except OSError:  # a full disk, say; then no other Blender can fetch them
        return ""


def is_offline(address: str) -> bool:
    """Whether Blender's preferences forbid a connection to this address; loopback addresses are always allowed."""
    host = HOST.fullmatch(address)
    return bool(host) and not _is_loopback(host[1]) and not bpy.app.online_access


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may resolve to any address
        return False


def backend_wheel() -> Path | None:
    """The backend's wheel that the extension contains; None in a copy of the sources."""
    return next(iter(sorted(Path(__file__).parent.glob("backend/*.whl"))), None)


def backend_folder() -> Path:
    """The folder for a local backend and its log."""
    return user_folder("backend")


def user_folder(name: str) -> Path:
    """A folder of this user, in the one that Blender keeps for this extension."""
    try:
        return Path(bpy.utils.extension_path_user(__package__ or "", path=name, create=True))
    except ValueError:  # the add-on is not installed as an extension
        folder = Path(tempfile.gettempdir(), "sdf-shapes", name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


CLASSES = (SDFPreferences,)
