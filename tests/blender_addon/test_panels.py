"""The text of the sidebar in every state, without Blender: panels are drawn on a layout that records.

A real client and a scripted server provide the connection states where that is simple, otherwise a scripted client.
Layout and the behaviour of a real Blender are not tested here; see tests/bpy and tests/gui.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, make_dataclass
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq
from fake_server import FakeServer, until
from recording_layout import Layout
from stand_in import ROOTS, declared, made, stand_in

from sdf_backend.wire import messages as sent

ROOT = Path(__file__).parents[2]
CONNECT = "Or Connect to a Running Backend:"
NO_BACKEND = ["[Start Local Backend]", "[Install Backend]", CONNECT, "tcp://127.0.0.1:5577", "Key File: ", "[Connect]"]
SETTINGS = [
    "Model:",
    "Auto >",
    "Quality: Standard",
    "Resolution: 256",
    "Pose: Upright",
    "Up: Unknown",
    "Follow Input: 1.0",
    "Keep: Input",
    "Most Triangles: 0",
    "Quads: 0",
    "Candidates: 1",
    "Seed: 0",
]
BUTTONS = ["[Complete]", "[Complete Each]", "[Reconstruct]"]
PANELS = ("SDF_PT_shapes", "SDF_PT_interpolate", "SDF_PT_sample", "SDF_PT_shape", "SDF_PT_messages")
DIRECTIONS = [f"Direction {number}: 0.0" for number in range(1, 6)]
# Measured in Blender 4.3 at a scale of 1: mean width of a character, and width beside a notice, in pixels.
CHARACTER_WIDTH, MARGIN = 6.0, 60
LONG = (
    "the server at tcp://render-7.studio.example:5577 does not know the key in "
    "/home/artist/.config/sdf-shapes/keys/artist.key; ask its operator to authorise it, or for another key file"
)


@dataclass
class ScriptedClient:
    """A client that a test controls, without a server."""

    state: Any
    welcome: Any = None
    reason: str = ""
    events: list[Any] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def poll(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def submit(self, submit: Any) -> None:
        """Taken."""

    def cancel(self, name: str) -> None:
        self.cancelled.append(name)

    def close(self) -> None:
        """Nothing to close."""


class NoDisplay:
    """A result handler that displays nothing."""

    undoable = False

    def finish(self, result: Any) -> Iterator[None]:
        return iter(())

    def fail(self) -> Iterator[None]:
        return iter(())


class Blender:
    """The add-on, enabled in a stand-in for Blender that has only what panels use."""

    def __init__(self, bpy: Any, addon: Any) -> None:
        self.bpy, self.addon, self.classes = bpy, addon, bpy.utils.classes
        self.session, self.timer = self.module("session").session, self.module("timer")
        self.State, self.Stage = self.module("wire.client").State, self.module("launcher").Stage
        self.preferences = self.module("preferences").SDFPreferences()
        self.scene = made(bpy.types.Scene)
        self.see(None)

    def module(self, name: str) -> Any:
        return importlib.import_module(f"blender_addon.{name}")

    def see(self, active_object: Any, width: int | None = 260, ui_scale: float = 1.0) -> None:
        """Set the context in which panels are drawn."""
        types = self.bpy.types
        addons = {"blender_addon": made(types.Addon, preferences=self.preferences)}
        system = made(types.PreferencesSystem, ui_scale=ui_scale)
        self.bpy.context = self.context = made(
            types.Context,
            scene=self.scene,
            mode="OBJECT",
            active_object=active_object,
            region=None if width is None else made(types.Region, width=width),
            preferences=made(types.Preferences, addons=addons, system=system),
        )

    def panel(self, name: str) -> Any:
        return next(one for one in self.classes if one.__name__ == name)

    def shows(self, name: str) -> bool:
        """Whether a panel is visible; one without `poll` is."""
        panel = self.panel(name)
        return panel.poll.__module__ == "bpy.types" or panel.poll(self.context)

    def draw(self, name: str = "") -> list[str]:
        """The lines of a panel; by default of the first, and of the last with its messages and jobs."""
        if name:
            return self._draw(name)
        return [*self._draw("SDF_PT_shapes"), *(self._draw("SDF_PT_messages") if self.shows("SDF_PT_messages") else [])]

    def _draw(self, name: str) -> list[str]:
        """The lines of a panel. Drawing must not change anything."""
        before = self.everything()
        assert self.shows(name)
        drawing = made(self.panel(name), layout=Layout(self.bpy))
        drawing.draw(self.context)
        assert self.everything() == before
        return drawing.layout.lines

    def everything(self) -> str:
        """Everything that drawing could change."""
        owners = [self.scene.sdf, self.preferences]
        if self.context.active_object is not None:
            owners.append(self.context.active_object.sdf)
        settings = [{name: getattr(owner, name) for name in declared(type(owner))} for owner in owners]
        session = self.session
        connection = (session.state, session.reason, session.welcome)
        return repr((session, vars(session), connection, vars(session.launcher), settings, self.context.active_object))

    def press(self, idname: str, **given: Any) -> None:
        """Press a button."""
        operator = next(one for one in self.classes if getattr(one, "bl_idname", "") == idname)()
        for name, value in given.items():
            setattr(operator, name, value)
        assert operator.execute(self.context) == {"FINISHED"}

    def connect(self, *models: Any, devices: tuple[str, ...] = ("cpu",)) -> ScriptedClient:
        """Connect to a scripted backend with these models, by default chairs."""
        messages = self.module("wire.messages")
        models = models or (messages.ModelInfo("chairs"),)
        client = ScriptedClient(self.State.CONNECTED, messages.Welcome("scripted", models=models, devices=devices))
        self.session._client = client
        return client

    def submit(self, name: str, label: str, hidden: bool = False) -> None:
        """Submit a job."""
        job = self.module("session").Job(name, label, NoDisplay(), hidden)
        self.session.submit(self.module("wire.messages").Submit(name, "echo"), job)

    def shape(self, ends: int = 1, grid: bool = False, code_length: int = 8) -> Any:
        """An object that stores a shape."""
        shapes = self.module("shapes")
        item = made(self.bpy.types.Object, dict, name="Chair completed")
        codes, poses = np.ones((ends, code_length)), np.tile(np.eye(4), (ends, 1, 1))
        shapes.store_shape(item, shapes.StoredShape("chairs", codes, poses, codes[0], poses[0], grid))
        return item


@pytest.fixture
def blender(tmp_path: Path) -> Iterator[Blender]:
    with stand_in() as bpy:
        addon = importlib.import_module("blender_addon")
        importlib.import_module("blender_addon.unfinished").user_folder = lambda name: tmp_path
        addon.register()
        yield Blender(bpy, addon)
        addon.unregister()
        assert not bpy.utils.classes


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with zmq.Context() as context:
        server = FakeServer(context=context)
        server.welcome = sent.Welcome("fake 1.0", models=(sent.ModelInfo("chairs"),), devices=("cpu",))
        yield server
        server.close()


def connected(blender: Blender, server: FakeServer) -> None:
    blender.session.connect(server.address, None, "Blender 5.0.0")
    until(lambda: blender.session.state is blender.State.CONNECTED, server.step, blender.timer.work)


def sentence(lines: list[str]) -> str:
    """The notice, joined from its lines."""
    end = lines.index("[sdf.dismiss]")
    start = max((index for index in range(end) if lines[index].startswith("[")), default=-1) + 1
    return " ".join(lines[start:end])


# --- a backend on this computer ---


def test_without_a_backend_start_and_connect_are_offered(blender: Blender) -> None:
    assert blender.draw() == ["No Backend", *NO_BACKEND]
    assert not any(map(blender.shows, PANELS[1:-1]))
    blender.preferences.address, blender.preferences.key_file = "tcp://render:5577", "//artist.key"
    assert blender.draw() == [
        *("No Backend", *NO_BACKEND[:3]),
        *("tcp://render:5577", "Key File: //artist.key", "[Connect]"),
    ]


@pytest.mark.parametrize(
    ("stage", "label", "reason"),
    [
        ("SEARCHING", "Searching for Python", "Checking whether /opt/sdf-shapes/bin/python has the backend"),
        ("STARTING", "Starting Backend", "Starting the backend with /opt/sdf-shapes/bin/python"),
        ("RUNNING", "Backend Running", "The backend is running at tcp://127.0.0.1:40001"),
    ],
)
def test_a_backend_that_is_starting_shows_its_stage_and_can_be_stopped(
    blender: Blender, stage: str, label: str, reason: str
) -> None:
    launcher = blender.session.launcher
    launcher.stage, launcher.reason = blender.Stage[stage], reason
    lines = blender.draw()
    assert lines[:2] == [label, "[sdf.stop_backend]"]
    assert "".join(lines[2:]).replace(" ", "") == reason.replace(" ", "")
    assert not blender.shows("SDF_PT_interpolate")


def test_a_backend_that_cannot_start_shows_the_reason_and_the_python(blender: Blender, tmp_path: Path) -> None:
    launcher = blender.session.launcher
    blender.preferences.python = str(tmp_path / "nowhere")
    launcher.start(blender.preferences.python, tmp_path)
    until(lambda: launcher.stage is blender.Stage.FAILED, blender.timer.work)
    blender.see(None, width=4000)
    reason = f"{tmp_path / 'nowhere'} is not a file; choose another Python in the add-on's preferences"
    python = f"Python: {tmp_path / 'nowhere'}"
    box = ["Backend Failed", *NO_BACKEND[:2], python, "[Copy Path of Log]", *NO_BACKEND[2:]]
    lines = blender.draw()
    assert lines[: len(box)] == box
    assert sentence(lines).startswith(reason)
    blender.press("sdf.dismiss")
    assert blender.draw() == box


def test_an_installation_shows_its_progress_and_can_be_cancelled(blender: Blender) -> None:
    installer = blender.session.installer
    installer.stage, installer.reason = blender.module("installer").Stage.RUNNING, "Downloading torch (104.1 MB)"
    installer._process = SimpleNamespace(poll=lambda: None, wait=lambda: None, kill=lambda: None, pid=0)
    blender.see(None, width=4000)
    lines = ["No Backend", NO_BACKEND[0], installer.reason, "[sdf.cancel_installation]", *NO_BACKEND[2:]]
    assert blender.draw() == lines
    installer._process, installer.stage = None, blender.module("installer").Stage.IDLE


# --- the connection ---


def test_an_address_without_a_server_still_offers_a_local_backend(blender: Blender, server: FakeServer) -> None:
    server.close()
    blender.session.connect(server.address, None, "Blender 5.0.0")
    assert blender.draw() == ["Connecting", "[sdf.disconnect]", "No Backend", *NO_BACKEND]
    until(lambda: blender.session.notice, blender.timer.work)
    lines = blender.draw()
    assert lines[:9] == ["Connecting", "[sdf.disconnect]", "No Backend", *NO_BACKEND]
    assert sentence(lines).startswith("No server listens at")
    assert not any(map(blender.shows, PANELS[1:-1]))


def test_a_lost_connection_is_shown(blender: Blender, server: FakeServer) -> None:
    connected(blender, server)
    assert blender.draw() == ["Connected", "[sdf.disconnect]", "Computing on cpu", *SETTINGS, *BUTTONS]
    server.close()
    until(lambda: blender.session.state is blender.State.LOST, blender.timer.work)
    lines = blender.draw()
    assert lines[:2] == ["Connection Lost", "[sdf.disconnect]"]
    assert sentence(lines).startswith("The connection to") and sentence(lines).endswith("has ended; trying again")
    assert lines[-1] == "[sdf.dismiss]"
    assert not blender.shows("SDF_PT_sample")


def test_a_connection_without_the_required_key_is_refused(blender: Blender) -> None:
    public, secret = zmq.curve_keypair()
    server = FakeServer(curve=(public, secret))
    blender.session.connect(server.address, None, "Blender 5.0.0")
    until(lambda: blender.session.state is blender.State.REFUSED, blender.timer.work)
    server.close()
    lines = blender.draw()
    assert lines[:2] == ["Connection Refused", "[sdf.disconnect]"]
    assert "requires a key; give the key file" in sentence(lines)


def test_a_backend_of_another_version_is_incompatible(blender: Blender, server: FakeServer) -> None:
    server.welcome = None

    def greet() -> None:
        server.step()
        if server.peer:
            with suppress(zmq.ZMQError):  # it has disconnected already
                server.send_frames([b"SDF2", b"{}"])

    blender.session.connect(server.address, None, "Blender 5.0.0")
    until(lambda: blender.session.state is blender.State.INCOMPATIBLE, greet, blender.timer.work)
    lines = blender.draw()
    assert lines[:2] == ["Incompatible Version", "[sdf.disconnect]"]
    assert "update the older of the two programs" in sentence(lines) and lines[-1] == "[sdf.dismiss]"


def test_a_connection_to_the_local_backend_is_marked(blender: Blender) -> None:
    client = blender.connect()
    blender.session.launcher.stage, blender.session.is_local = blender.Stage.RUNNING, True
    lines = blender.draw()
    assert lines[:2] == ["Connected (Local)", "[sdf.stop_backend]"]
    client.state = blender.State.CONNECTING
    assert blender.draw() == ["Connecting", "[sdf.stop_backend]"]


def test_settings_are_shown_before_the_first_model_is_loaded(blender: Blender) -> None:
    client = blender.connect(devices=())
    client.welcome = blender.module("wire.messages").Welcome("scripted")
    lines = blender.draw()
    loading = ["Connected", "[sdf.disconnect]", "The backend is still", "loading its models; try", "again in a moment"]
    assert lines == [*loading, *SETTINGS, *BUTTONS]
    assert drawn_menu(blender, "SDF_MT_models")[1:] == [" ".join(loading[2:])]


def test_a_model_that_the_backend_does_not_have_is_marked(blender: Blender) -> None:
    blender.connect()
    blender.scene.sdf.model = "lamps"
    assert blender.draw()[3:6] == ["Model:", "Lamps >", "The backend does not have this model"]


def drawn_menu(blender: Blender, name: str) -> list[str]:
    menu = made(blender.panel(name), layout=Layout(blender.bpy))
    menu.draw(blender.context)
    return menu.layout.lines


def test_every_model_is_listed_whichever_is_chosen(blender: Blender) -> None:
    info = blender.module("wire.messages").ModelInfo
    blender.connect(info("chairs", shapes=458, licences=("CC0 1.0", "CC BY 3.0")), info("lamps"))
    auto = "[Auto: the one that explains the input best auto]"
    every = [auto, "[Chairs: learned from 458 shapes chairs]", "[Lamps lamps]"]
    assert drawn_menu(blender, "SDF_MT_models") == every
    blender.press("sdf.choose_model", model="lamps")
    assert blender.draw()[3:5] == ["Model:", "Lamps >"]
    assert drawn_menu(blender, "SDF_MT_models") == every
    choose = blender.panel("SDF_OT_choose_model")
    assert (
        choose.description(blender.context, SimpleNamespace(model="chairs"))
        == "Learned from data under CC0 1.0, CC BY 3.0"
    )


def test_the_default_model_is_that_of_the_preferences_or_auto(blender: Blender) -> None:
    info = blender.module("wire.messages").ModelInfo
    blender.connect(info("chairs"), info("lamps"))
    assert blender.draw()[4] == "Auto >"
    blender.preferences.model = "lamps"
    assert blender.draw()[4] == "Lamps >"
    blender.scene.sdf.model = "chairs"
    assert blender.draw()[4] == "Chairs >"


def test_an_unusable_model_is_listed_with_the_reason(blender: Blender) -> None:
    info = blender.module("wire.messages").ModelInfo
    several = ("cuda:0", "cuda:0", "cpu")  # of as many workers
    blender.connect(info("lamps", problem="lamps.safetensors is cut short"), info("chairs"), devices=several)
    blender.see(None, width=500)
    unusable = "lamps cannot be used: lamps.safetensors is cut short"
    lines = ["Connected", "[sdf.disconnect]", "Computing on cuda:0, cpu", unusable, *SETTINGS, *BUTTONS]
    assert blender.draw() == lines


# --- jobs ---


def test_each_job_has_a_row_with_a_cancel_button(blender: Blender) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    blender.submit("a" * 8, "Cube")
    blender.submit("b" * 8, "New chairs (4)")
    blender.submit("c" * 8, "Chair completed", hidden=True)
    client.events = [messages.Accepted("a" * 8), messages.Accepted("b" * 8, 2)]
    blender.timer.work()
    rows = [
        "Cube: Waiting 0%",
        "[sdf.cancel aaaaaaaa]",
        "New chairs (4): Waiting, 2 ahead 0%",
        "[sdf.cancel bbbbbbbb]",
    ]
    lines = blender.draw()
    assert lines[-6:] == ["[Reconstruct]", *rows, "[Cancel All]"]
    client.events = [messages.Progress("a" * 8, "fitting", 0.425), messages.Progress("b" * 8, "meshing", 1.0)]
    blender.timer.work()
    rows = ["Cube: Fitting 42%", "[sdf.cancel aaaaaaaa]", "New chairs (4): Meshing 100%", "[sdf.cancel bbbbbbbb]"]
    lines = blender.draw()
    assert lines[-5:-1] == rows
    blender.press("sdf.cancel")
    assert client.cancelled == ["a" * 8, "b" * 8, "c" * 8]


def test_a_job_like_an_earlier_one_has_an_estimate(blender: Blender, monkeypatch: pytest.MonkeyPatch) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    clock = [1000.0]
    monkeypatch.setattr(blender.module("session").time, "monotonic", lambda: clock[0])

    for name, seconds in (("a" * 8, 4.0), ("b" * 8, 90.0), ("c" * 8, 6.0)):
        blender.submit(name, "Cube")
        client.events = [messages.Progress(name, "loading", 0.0)]
        blender.timer.work()
        assert ("left" in blender.draw()[-2]) == bool(blender.session.durations)
        clock[0] += seconds
        client.events = [messages.Result(name)]
        blender.timer.work()
    blender.submit("d" * 8, "Cube")
    client.events = [messages.Accepted("d" * 8)]
    blender.timer.work()
    assert blender.draw()[-2] == "Cube: Waiting 0%"
    shown = []
    for phase in ("posing", "extracting", "extracting"):
        client.events = [messages.Progress("d" * 8, phase, 0.5)]
        blender.timer.work()
        shown.append(blender.draw()[-2])
        clock[0] += 4
    assert shown == ["Cube: Finding the pose, about 6 s left 50%", "Cube: Building the mesh, about 2 s left 50%",
                     "Cube: Building the mesh 50%"]  # fmt: skip
    blender.session.durations = {kind: [400.0] for kind in blender.session.durations}
    assert blender.draw()[-2] == "Cube: Building the mesh, about 6 min left 50%"


def test_a_cancelled_job_is_listed_until_the_backend_confirms(blender: Blender) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    blender.submit("a" * 8, "Cube")
    blender.press("sdf.cancel", job="a" * 8)
    client.events = [messages.Progress("a" * 8, "fitting", 0.5)]
    blender.timer.work()
    lines = blender.draw()
    assert lines[-2:] == ["Cube: Cancelling 0%", "[sdf.cancel aaaaaaaa]"]
    assert client.cancelled == ["a" * 8]
    client.events = [messages.Error("cancelled", "the job was cancelled", "a" * 8)]
    blender.timer.work()
    lines = blender.draw()
    assert lines[-1] == "[Reconstruct]"


def test_jobs_are_listed_while_the_connection_is_lost(blender: Blender) -> None:
    client = blender.connect()
    blender.submit("a" * 8, "Cube")
    client.state = blender.State.LOST
    lines = blender.draw()
    assert lines[:2] == ["Connection Lost", "[sdf.disconnect]"]
    assert lines[-2:] == ["Cube: Waiting 0%", "[sdf.cancel aaaaaaaa]"]


def test_what_was_being_made_when_blender_closed_is_offered(blender: Blender) -> None:
    blender.connect()
    blender.session.offered = [SimpleNamespace(source="Chair"), SimpleNamespace(source="Table")]
    blender.see(None, width=4000)
    offer = ["Not done when Blender closed: Chair, Table", "[Fetch Results]", "[Forget]"]
    assert blender.draw("SDF_PT_messages") == offer


# --- errors ---


def test_an_error_is_shown_with_its_remedy_until_dismissed(blender: Blender) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    blender.submit("a" * 8, "Cube")
    client.events = [messages.Error("out_of_memory", "the GPU's memory is full", "a" * 8)]
    blender.timer.work()
    lines = blender.draw()
    above = ["Connected", "[sdf.disconnect]", "Computing on cpu", *SETTINGS, *BUTTONS]
    assert lines[: len(above)] == above  # the message moves no button
    notice = lines[len(above) : lines.index("[sdf.dismiss]")]
    expected = "Cube: the GPU's memory is full; lower the resolution, or use fewer or smaller objects at once"
    assert len(notice) > 1 and " ".join(notice) == expected
    blender.press("sdf.dismiss")
    assert blender.draw() == above


@pytest.mark.parametrize("ui_scale", [0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("width", [180, 220, 260, 400, 800, 2400])
def test_no_line_of_a_notice_is_longer_than_the_sidebar(blender: Blender, width: int, ui_scale: float) -> None:
    blender.session.notify(LONG)
    blender.see(None, width, ui_scale)
    lines = blender.draw()
    notice = lines[lines.index("[Connect]") + 1 : lines.index("[sdf.dismiss]")]
    assert "".join(notice).replace(" ", "") == LONG.replace(" ", "")
    room, longest = (width / ui_scale - MARGIN) / CHARACTER_WIDTH, max(map(len, notice))
    assert longest <= max(room, blender.module("panels").MINIMUM_CHARACTERS)
    assert len(notice) == 1 or longest > min(len(LONG), room) / 2  # no line is much shorter than necessary


def test_lines_are_short_without_a_region(blender: Blender) -> None:
    blender.session.notify(LONG)
    blender.see(None, width=None)
    lines = blender.draw()
    assert max(map(len, lines[lines.index("[Connect]") + 1 :])) <= blender.module("panels").MINIMUM_CHARACTERS


# --- settings ---


def test_the_front_axis_is_shown_for_an_aligned_pose(blender: Blender) -> None:
    blender.connect()
    settings = blender.scene.sdf
    for pose, shown in (("aligned", ["Pose: Aligned", "Up: Unknown", "Front: -Y"]), ("free", ["Pose: Free"])):
        settings.pose = pose
        lines = blender.draw()
        assert lines[3:] == [*SETTINGS[:4], *shown, *SETTINGS[6:], *BUTTONS]
    settings.model, settings.quality, settings.resolution = "chairs", "fine", 384
    lines = blender.draw()
    assert lines[3:7] == ["Model:", "Chairs >", "Quality: Fine", "Resolution: 384"]


def test_each_task_setting_is_a_property_as_declared(blender: Blender) -> None:
    settings, properties = blender.module("wire.settings"), blender.module("properties")
    shown = declared(properties.SDFSettings)
    for item in fields(settings.TaskSettings):
        given = shown[item.name].given
        panel = properties.PANEL.get(item.name, properties.PanelField())
        assert given["default"] == (panel.default or item.default)
        assert given["description"].lower() == item.metadata["help"].lower()
        bounds = item.metadata["bounds"]
        # Blender's whole numbers have 32 bits.
        most = min(bounds.most, 2**31 - 1) if item.name == "seed" else bounds.most
        assert (given.get("min"), given.get("max")) == (bounds.least, most)


def test_files_of_earlier_versions_keep_their_choices(blender: Blender) -> None:
    stored = {
        "quality": ["preview", "standard", "fine"],
        "pose": ["aligned", "upright", "free"],
        "front": ["-y", "+y", "-x", "+x", "-z", "+z"],
        "up": ["unknown", "+z", "+y"],
        "arrangement": ["row", "animation", "blend"],
        "through": ["path", "grid"],
        "keep": ["nothing", "input"],
    }
    properties = declared(blender.module("properties").SDFSettings)
    for name, choices in stored.items():
        assert [(item[0], item[3]) for item in properties[name].settings["items"]] == [
            (choice, index) for index, choice in enumerate(choices)
        ]


def test_a_new_task_setting_appears_in_the_panel_and_in_the_submission() -> None:
    with stand_in() as bpy:
        # The settings are replaced before the add-on reads them, as if the dataclass had the field.
        package = ModuleType("blender_addon")
        package.__path__ = [str(ROOT / "blender_addon")]
        sys.modules["blender_addon"] = package
        settings = importlib.import_module("blender_addon.wire.settings")
        smoothing = settings.option(0.5, "how smooth the mesh is", 0, 2)
        fields_of_variant = [("smoothing", float, smoothing)]
        settings.TaskSettings = make_dataclass(
            "TaskSettings", fields_of_variant, bases=(settings.TaskSettings,), frozen=True
        )
        del sys.modules["blender_addon"]
        addon = importlib.import_module("blender_addon")
        addon.register()
        blender = Blender(bpy, addon)
        blender.connect()
        assert "Smoothing: 0.5" in blender.draw()
        given = declared(blender.module("properties").SDFSettings)["smoothing"].given
        assert (given["description"], given["min"], given["max"]) == ("How smooth the mesh is", 0, 2)
        blender.scene.sdf.smoothing = 1.5
        operator = next(cls for cls in blender.classes if getattr(cls, "bl_idname", "") == "sdf.complete")()
        type(operator).properties = SimpleNamespace(is_property_set=lambda name: False)
        submit = blender.module("wire.messages").Submit(
            "a" * 8, "complete", settings=operator.chosen_settings(blender.context)
        )
        header = json.loads(bytes(blender.module("wire.codec").encode(submit)[1]))
        assert header["settings"]["smoothing"] == 1.5
        assert header["settings"]["pose"] == "upright"
        addon.unregister()


def test_interpolation_shows_the_settings_of_its_arrangement(blender: Blender) -> None:
    blender.connect()
    settings, through = blender.scene.sdf, "<Path> Grid"
    assert blender.draw("SDF_PT_interpolate") == ["<Row> Animation Blend", through, "Steps: 7", "[Interpolate]"]
    settings.arrangement = "animation"
    shown = ["Row <Animation> Blend", through, "Steps: 7", "Frames per Step: 4", "[Interpolate]"]
    assert blender.draw("SDF_PT_interpolate") == shown
    settings.arrangement, settings.through = "blend", "grid"
    assert blender.draw("SDF_PT_interpolate") == ["Row Animation <Blend>", "Path <Grid>", "[Interpolate]"]


def test_new_shapes_and_variations_have_their_settings(blender: Blender) -> None:
    blender.connect()
    assert blender.draw("SDF_PT_sample") == ["Count: 4", "Size: 2.0", "[New Shapes]", "Spread: 0.3", "[Variations]"]


# --- the active object ---


def test_a_weak_result_says_so_and_offers_what_can_be_tried(blender: Blender) -> None:
    blender.connect()
    item = blender.shape()
    item["sdf_explained"], item["sdf_confidence"] = 0.99, 1.0
    blender.see(item, width=4000)
    verdict = ["Explains 99% of the input", "Pose: Certain", "Category: Fits", "[Hide or Show Input]"]
    assert blender.draw("SDF_PT_shape")[:4] == verdict
    item["sdf_explained"], item["sdf_confidence"] = 0.41, 0.05
    assert blender.draw("SDF_PT_shape")[:7] == [
        "Explains 41% of the input",
        "Pose: Ambiguous",
        "Category: Doubtful",
        "Only 41% of the input is explained by chairs: it may be of another category, or lie another way.",
        "[Try All Models]",
        "[Try Any Orientation]",
        "[Hide or Show Input]",
    ]


@pytest.mark.parametrize(
    ("ends", "grid", "sliders"),
    [(1, False, []), (3, False, ["Blend: 0.0"]), (4, False, ["Blend: 0.0"]), (4, True, ["Blend: 0.0", "Across: 0.0"])],
    ids=["a completed shape", "a blend", "a blend of four", "a grid"],
)
def test_the_active_shape_has_its_sliders(blender: Blender, ends: int, grid: bool, sliders: list[str]) -> None:
    blender.connect()
    item = blender.shape(ends, grid)
    blender.see(item)
    buttons = [
        "[Observed and Completed]",
        "[Uncertainty]",
        "[Mark as Asset]",
        "Resolution: 256",
        "[sdf.redo]",
        "Main Directions of chairs",
        "[sdf.reset_directions]",
    ]
    assert blender.draw("SDF_PT_shape") == [*sliders, *buttons, *DIRECTIONS]
    item.sdf.blend, item.sdf.directions = 0.25, (0.5, -1.5, *(0.0,) * 6)
    lines = blender.draw("SDF_PT_shape")
    assert ("Blend: 0.25" in lines) == bool(sliders)
    assert lines[-5:-3] == ["Direction 1: 0.5", "Direction 2: -1.5"]


def test_directions_have_names_once_they_are_known(blender: Blender) -> None:
    blender.connect()
    blender.see(blender.shape())
    changes = np.array([[0.1, -0.3, -0.2, 0], [0, 0, 0.03, 0], [0, 0, -0.1, 0.02], [0, 0, 0, 0.2], [0, -0.1, 0, 0]])
    known = blender.module("directions").Directions(np.eye(5, 8), changes)
    blender.session.sliders.directions["chairs"] = known
    named = ["1: Lower, Shallower: 0.0", "Direction 2: 0.0", "3: Shallower: 0.0", "4: Fuller: 0.0", "5: Lower: 0.0"]
    assert blender.draw("SDF_PT_shape")[-5:] == named


def test_a_short_code_has_fewer_directions(blender: Blender) -> None:
    blender.connect()
    blender.see(blender.shape(code_length=3))
    lines = blender.draw("SDF_PT_shape")
    assert lines[-5:] == ["Main Directions of chairs", "[sdf.reset_directions]", *DIRECTIONS[:3]]


def invalid(blender: Blender) -> Any:
    item = blender.shape()
    item["sdf_code"] = "broken"
    return item


@pytest.mark.parametrize(
    "active",
    [lambda _: None, lambda blender: made(blender.bpy.types.Object, dict, name="Cube"), invalid],
    ids=["no object", "no shape", "invalid properties"],
)
def test_the_panel_of_the_active_shape_needs_one(blender: Blender, active: Callable[[Blender], Any]) -> None:
    blender.connect()
    blender.see(active(blender))
    assert not blender.shows("SDF_PT_shape")
    assert blender.shows("SDF_PT_interpolate")


def test_the_panel_of_the_active_shape_needs_a_connection(blender: Blender) -> None:
    blender.see(blender.shape())
    assert not blender.shows("SDF_PT_shape")


# --- all combinations ---


def test_every_visible_panel_can_be_drawn_in_every_state(blender: Blender) -> None:
    client = blender.connect()
    blender.submit("a" * 8, "Cube")
    for state, stage, item, notice in product(
        blender.State, blender.Stage, (None, blender.shape(), blender.shape(4, grid=True)), ("", LONG)
    ):
        client.state, blender.session.launcher.stage, blender.session.notice = state, stage, notice
        blender.see(item)
        drawn = {name: blender.draw(name) for name in PANELS if blender.shows(name)}
        assert all(drawn.values())
        expected = {"SDF_PT_shapes", "SDF_PT_messages"}
        if state is blender.State.CONNECTED:
            expected = set(PANELS) if item is not None else set(PANELS) - {"SDF_PT_shape"}
        assert set(drawn) == expected
        assert ("[sdf.dismiss]" in drawn["SDF_PT_messages"]) == bool(notice)
        assert drawn["SDF_PT_messages"][:2] == ["Cube: Waiting 0%", "[sdf.cancel aaaaaaaa]"]


# --- the classes ---


def test_every_operator_has_a_tooltip_in_blenders_style(blender: Blender) -> None:
    operators = [one for one in blender.addon.CLASSES if issubclass(one, blender.bpy.types.Operator)]
    assert len(operators) > 10
    labels = {one.bl_label for one in operators}
    assert len(labels) == len(operators)
    for one in operators:
        tooltip = vars(one).get("bl_description") or vars(one)["__doc__"]
        # Blender adds the full stop.
        assert tooltip and "\n" not in tooltip and tooltip[0].isupper() and not tooltip.endswith("."), one
        assert all(setting.given.get("name") for setting in declared(one).values()), one
        assert all(setting.given.get("description") for setting in declared(one).values()), one


def test_parents_are_registered_before_their_panels(blender: Blender) -> None:
    assert blender.classes == list(blender.addon.CLASSES)  # the stand-in checks the order
    panels = [one for one in blender.classes if issubclass(one, blender.bpy.types.Panel) and hasattr(one, "bl_idname")]
    assert [one.bl_idname for one in panels] == list(PANELS)
    assert {one.bl_category for one in panels} == {"DeepSDF"}
    blender.addon.unregister()
    assert blender.classes == []
    with pytest.raises(AssertionError, match="comes before SDF_PT_shapes"):
        blender.bpy.utils.register_class(panels[1])
    blender.addon.register()


def test_menus_and_preferences_can_be_drawn(blender: Blender) -> None:
    blender.preferences.layout = Layout(blender.bpy)
    menus = [one for one in blender.classes if issubclass(one, blender.bpy.types.Menu)]
    for one in (blender.preferences, *(made(menu, layout=Layout(blender.bpy)) for menu in menus)):
        one.draw(blender.context)
        assert one.layout.lines


def test_the_stand_in_rejects_what_blender_would_reject(blender: Blender) -> None:
    layout = Layout(blender.bpy)
    wrong: list[Callable[[], Any]] = [
        lambda: layout.row(aligned=True),
        lambda: layout.lable(text="No"),
        lambda: layout.label(text=5),
        lambda: layout.label(text="No", icon="NO_SUCH_ICON"),
        lambda: layout.prop(blender.scene.sdf, "colour"),
        lambda: layout.prop(blender.scene.sdf, "steps", size=3),
        lambda: layout.operator("sdf.nothing"),
        lambda: layout.operator("sdf.cancel", text=""),
        lambda: setattr(layout.operator("sdf.cancel"), "name", "a"),
        lambda: setattr(layout.operator("sdf.cancel"), "job", 5),
        lambda: setattr(layout, "scale_z", 2.0),
        lambda: setattr(layout, "scale_y", "large"),
        lambda: layout.menu("SDF_MT_nothing"),
        lambda: setattr(blender.scene.sdf, "pose", "sideways"),
        lambda: blender.bpy.props.IntProperty(name="No", minimum=3),
        lambda: blender.bpy.types.Nothing,
        lambda: blender.bpy.ops.sdf,
        lambda: made(blender.bpy.types.Context, object_active=None),
    ]
    for one in wrong:
        with pytest.raises((AssertionError, AttributeError, TypeError, KeyError)):
            one()


# --- imports ---


def test_the_stand_in_is_removed_completely() -> None:
    before = list(sys.meta_path)
    with stand_in():
        importlib.import_module("blender_addon")
        assert len(sys.meta_path) == len(before) + 1
    assert sys.meta_path == before
    assert not [name for name in sys.modules if name.split(".")[0] in ROOTS]
    assert importlib.util.find_spec("mathutils") is None


def test_the_addon_loads_only_the_wire_of_the_backend() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from stand_in import stand_in
with stand_in():
    import blender_addon
    blender_addon.register()
    wire = [name for name in sys.modules if name.startswith("blender_addon.wire.")]
    print(*sorted(wire), *sorted({{name.partition(".")[0] for name in sys.modules}}))
    blender_addon.unregister()
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(finished.stdout.split())
    assert not loaded & {"sdf_backend", "training", "torch", "scipy", "trimesh", "safetensors", "skimage"}
    assert {"blender_addon", "bpy", "mathutils", "numpy", "zmq", "blender_addon.wire.client"} <= loaded
    files = {f"blender_addon.wire.{path.stem}" for path in (ROOT / "sdf_backend" / "wire").glob("*.py")}
    assert {name for name in loaded if name.startswith("blender_addon.wire.")} <= files
