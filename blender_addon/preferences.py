"""What belongs to this Blender and not to a file: where the backend is, the key to it, and the Python that has it."""

import ipaddress
import re
import tempfile
from pathlib import Path
from typing import cast

import bpy

from .session import session

DEFAULT_ADDRESS = "tcp://127.0.0.1:5577"
OFFLINE = "Blender is set to be offline; allow online access in the preferences, under System, or start a local backend"
HOST = re.compile(r"tcp://\[?([^\]/]+?)\]?:\d+")


class SDFPreferences(bpy.types.AddonPreferences):
    """Shown under Preferences, Add-ons."""

    bl_idname = __package__ or ""

    address: bpy.props.StringProperty(
        name="Address",
        description="Where a backend listens, for example tcp://127.0.0.1:5577",
        default=DEFAULT_ADDRESS,
    )
    key_file: bpy.props.StringProperty(
        name="Key file",
        description="Your key file, for a backend on another computer; its operator gives it to you",
        subtype="FILE_PATH",
    )
    python: bpy.props.StringProperty(
        name="Python",
        description="The Python that has the backend, for one on this computer; the usual places where it is empty",
        subtype="FILE_PATH",
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draw them."""
        for name in ("python", "address", "key_file"):
            self.layout.prop(self, name)


def preferences() -> SDFPreferences:
    """Those of this Blender."""
    stored = bpy.context.preferences
    assert stored
    return cast(SDFPreferences, stored.addons[__package__ or ""].preferences)


def connect_to(address: str, key_file: Path | None, is_local: bool = False) -> None:
    """Begin to connect; raises `ClientError` for an address or key that cannot be."""
    session.connect(address, key_file, f"Blender {bpy.app.version_string}", is_local)


def is_offline(address: str) -> bool:
    """Whether Blender's user has forbidden to connect to an address; this computer is always allowed."""
    host = HOST.fullmatch(address)
    return bool(host) and not _is_loopback(host[1]) and not bpy.app.online_access


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be anybody's
        return False


def backend_folder() -> Path:
    """Where a local backend may write its log: the folder that Blender keeps for this extension."""
    try:
        return Path(bpy.utils.extension_path_user(__package__ or "", path="backend", create=True))
    except ValueError:  # the add-on was not installed as an extension
        folder = Path(tempfile.gettempdir(), "sdf-shapes")
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


CLASSES = (SDFPreferences,)
