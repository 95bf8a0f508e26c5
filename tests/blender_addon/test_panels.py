"""What a user reads in the sidebar, in every state, without a Blender: the panels drawn on a stand-in that records.

The states of the connection come from a real client and a scripted server where that is simple, and from a scripted
client elsewhere. Left out: what stands where, and whatever a real Blender does with it; see tests/bpy and tests/gui.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from fake_server import FakeServer, until
from recording_layout import Layout
from stand_in import ROOTS, declared, made, stand_in

from sdf_backend.wire import messages as sent

ROOT = Path(__file__).parents[2]
NO_BACKEND = ["[Start Local Backend]", "or one that runs already:", "tcp://127.0.0.1:5577", "Key: ", "[Connect]"]
SETTINGS = [
    "Model: chairs",
    "Quality: Standard",
    "Resolution: 256",
    "Pose: Upright",
    "Follow Input: 1",
    "Candidates: 1",
    "Seed: 0",
]
BUTTONS = ["[Complete]", "[Reconstruct]"]
PANELS = ("SDF_PT_shapes", "SDF_PT_interpolate", "SDF_PT_sample", "SDF_PT_shape")
DIRECTIONS = [f"Direction {number}: 0.0" for number in range(1, 6)]
# Seen in Blender 4.3 at a scale of 1: the mean width of a letter, and what stands beside a notice, in pixels.
LETTER, BESIDE = 6.0, 60
LONG = (
    "the server at tcp://render-7.studio.example:5577 does not know the key in "
    "/home/artist/.config/sdf-shapes/keys/artist.key; ask its operator to authorise it, or for another key file"
)


@dataclass
class ScriptedClient:
    """A client in the hands of a test: what the session asks of one, without a server."""

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


class NoPurpose:
    """Of a job of which nothing comes into the scene."""

    def fail(self) -> Iterator[None]:
        yield


class Blender:
    """The add-on, switched on in a Blender of which there is only what its panels look at."""

    def __init__(self, bpy: Any, addon: Any) -> None:
        self.bpy, self.addon, self.classes = bpy, addon, bpy.utils.classes
        self.session, self.ticking = self.module("session").session, self.module("ticking")
        self.State, self.Stage = self.module("wire.client").State, self.module("launcher").Stage
        self.preferences = self.module("preferences").SDFPreferences()
        self.scene = made(bpy.types.Scene)
        self.see(None)

    def module(self, name: str) -> Any:
        return importlib.import_module(f"blender_addon.{name}")

    def see(self, active_object: Any, width: int | None = 260, ui_scale: float = 1.0) -> None:
        """What the panels are drawn in."""
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
        """Whether a panel is shown; one that does not say is."""
        panel = self.panel(name)
        return panel.poll.__module__ == "bpy.types" or panel.poll(self.context)

    def draw(self, name: str = "SDF_PT_shapes") -> list[str]:
        """What is read in a panel; whatever it draws, it changes nothing."""
        before = self.everything()
        assert self.shows(name)
        drawing = made(self.panel(name), layout=Layout(self.bpy))
        drawing.draw(self.context)
        assert self.everything() == before
        return drawing.layout.lines

    def everything(self) -> str:
        """All that drawing could change."""
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
        """Be connected to a backend with these models, or with one that knows chairs."""
        messages = self.module("wire.messages")
        models = models or (messages.ModelInfo("chairs"),)
        client = ScriptedClient(self.State.CONNECTED, messages.Welcome("scripted", models=models, devices=devices))
        self.session._client = client
        return client

    def submit(self, name: str, label: str, quiet: bool = False) -> None:
        """A job on its way."""
        job = self.module("session").Job(name, label, NoPurpose(), quiet)
        self.session.submit(self.module("wire.messages").Submit(name, "echo"), job)

    def shape(self, ends: int = 1, grid: bool = False, code_length: int = 8) -> Any:
        """An object that is a shape."""
        shapes = self.module("shapes")
        item = made(self.bpy.types.Object, dict, name="Chair completed")
        codes, poses = np.ones((ends, code_length)), np.tile(np.eye(4), (ends, 1, 1))
        shapes.remember(item, shapes.Remembered("chairs", codes, poses, codes[0], poses[0], grid))
        return item


@pytest.fixture
def blender() -> Iterator[Blender]:
    with stand_in() as bpy:
        addon = importlib.import_module("blender_addon")
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
    until(lambda: blender.session.state is blender.State.CONNECTED, server.step, blender.ticking.work)


def sentence(lines: list[str]) -> str:
    """The notice, from the lines that it stands on."""
    end = lines.index("[sdf.dismiss]")
    start = max((index for index in range(end) if lines[index].startswith("[")), default=-1) + 1
    return " ".join(lines[start:end])


# --- a backend on this computer ---


def test_without_a_backend_both_ways_to_one_are_offered(blender: Blender) -> None:
    assert blender.draw() == ["No backend yet", *NO_BACKEND]
    assert not any(map(blender.shows, PANELS[1:]))
    blender.preferences.address, blender.preferences.key_file = "tcp://render:5577", "//artist.key"
    assert blender.draw() == ["No backend yet", *NO_BACKEND[:2], "tcp://render:5577", "Key: //artist.key", "[Connect]"]


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("LOOKING", "looking whether /opt/sdf-shapes/bin/python has the backend"),
        ("STARTING", "starting the backend with /opt/sdf-shapes/bin/python"),
        ("RUNNING", "the backend listens at tcp://127.0.0.1:40001"),
    ],
)
def test_while_a_backend_starts_its_stage_is_told_and_it_can_be_stopped(
    blender: Blender, stage: str, reason: str
) -> None:
    launcher = blender.session.launcher
    launcher.stage, launcher.reason = blender.Stage[stage], reason
    lines = blender.draw()
    assert lines[:2] == [f"Backend: {stage.lower()}", "[sdf.stop_backend]"]
    assert "".join(lines[2:]).replace(" ", "") == reason.replace(" ", "")
    assert not blender.shows("SDF_PT_interpolate")


def test_a_backend_that_cannot_start_says_why_and_asks_for_a_python(blender: Blender, tmp_path: Path) -> None:
    launcher = blender.session.launcher
    blender.preferences.python = str(tmp_path / "nowhere")
    launcher.start(blender.preferences.python, tmp_path)
    until(lambda: launcher.stage is blender.Stage.FAILED, blender.ticking.work)
    blender.see(None, width=4000)
    reason = f"{tmp_path / 'nowhere'} is no file; choose another Python in the add-on's preferences"
    python = f"Python: {tmp_path / 'nowhere'}"
    box = ["The backend does not run", NO_BACKEND[0], python, *NO_BACKEND[1:]]
    lines = blender.draw()
    assert lines[:7] == box
    assert sentence(lines).startswith(reason)
    blender.press("sdf.dismiss")
    assert blender.draw() == box


# --- the connection ---


def test_connecting_and_what_keeps_from_it(blender: Blender, server: FakeServer) -> None:
    server.close()
    blender.session.connect(server.address, None, "Blender 5.0.0")
    assert blender.draw() == ["Connecting", "[sdf.disconnect]"]
    until(lambda: blender.session.notice, blender.ticking.work)
    lines = blender.draw()
    assert lines[:2] == ["Connecting", "[sdf.disconnect]"]
    assert sentence(lines).startswith("no server listens at")
    assert not any(map(blender.shows, PANELS[1:]))
    blender.press("sdf.disconnect")
    lines = blender.draw()
    assert lines[:6] == ["No backend yet", *NO_BACKEND]


def test_connected_and_lost(blender: Blender, server: FakeServer) -> None:
    connected(blender, server)
    assert blender.draw() == ["Connected", "[sdf.disconnect]", "Computes on cpu", *SETTINGS, *BUTTONS]
    server.close()
    until(lambda: blender.session.state is blender.State.LOST, blender.ticking.work)
    lines = blender.draw()
    assert lines[:2] == ["Lost", "[sdf.disconnect]"]
    assert sentence(lines).startswith("the connection to") and sentence(lines).endswith("has ended; trying again")
    assert lines[-1] == "[sdf.dismiss]"
    assert not blender.shows("SDF_PT_sample")


def test_refused_for_want_of_a_key(blender: Blender) -> None:
    public, secret = zmq.curve_keypair()
    server = FakeServer(curve=(public, secret))
    blender.session.connect(server.address, None, "Blender 5.0.0")
    until(lambda: blender.session.state is blender.State.REFUSED, blender.ticking.work)
    server.close()
    lines = blender.draw()
    assert lines[:2] == ["Refused", "[sdf.disconnect]"]
    assert "requires a key; give the key file" in sentence(lines)


def test_a_backend_of_another_version(blender: Blender, server: FakeServer) -> None:
    server.welcome = None

    def greet() -> None:
        server.step()
        if server.peer:
            with suppress(zmq.ZMQError):  # it has gone already
                server.send_frames([b"SDF2", b"{}"])

    blender.session.connect(server.address, None, "Blender 5.0.0")
    until(lambda: blender.session.state is blender.State.INCOMPATIBLE, greet, blender.ticking.work)
    lines = blender.draw()
    assert lines[:2] == ["Incompatible", "[sdf.disconnect]"]
    assert "update the older of the two programs" in sentence(lines) and lines[-1] == "[sdf.dismiss]"


def test_connected_to_the_backend_that_was_started_here(blender: Blender) -> None:
    client = blender.connect()
    blender.session.launcher.stage, blender.session.is_local = blender.Stage.RUNNING, True
    lines = blender.draw()
    assert lines[:2] == ["Connected, on this computer", "[sdf.stop_backend]"]
    client.state = blender.State.CONNECTING
    assert blender.draw() == ["Connecting", "[sdf.stop_backend]"]


def test_before_the_first_model_is_loaded_jobs_can_be_given_already(blender: Blender) -> None:
    client = blender.connect(devices=())
    client.welcome = blender.module("wire.messages").Welcome("scripted")
    lines = blender.draw()
    loading = ["Connected", "[sdf.disconnect]", "The backend is still", "loading its models; try", "again in a moment"]
    assert lines == [*loading, "Model: none yet", *SETTINGS[1:], *BUTTONS]


def test_a_model_that_the_backend_has_not_is_marked(blender: Blender) -> None:
    blender.connect()
    blender.scene.sdf.model = "lamps"
    assert blender.draw()[3:5] == ["Model: lamps", "The backend has no such model"]


def test_a_model_that_cannot_be_used_is_named_with_the_reason(blender: Blender) -> None:
    info = blender.module("wire.messages").ModelInfo
    several = ("cuda:0", "cuda:0", "cpu")  # of as many workers
    blender.connect(info("lamps", problem="lamps.safetensors is cut short"), info("chairs"), devices=several)
    blender.see(None, width=500)
    unusable = "lamps cannot be used: lamps.safetensors is cut short"
    lines = ["Connected", "[sdf.disconnect]", "Computes on cuda:0, cpu", unusable, *SETTINGS, *BUTTONS]
    assert blender.draw() == lines


# --- jobs ---


def test_each_job_has_a_row_and_a_cancel_of_its_own(blender: Blender) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    blender.submit("a" * 8, "Cube")
    blender.submit("b" * 8, "4 of chairs")
    blender.submit("c" * 8, "Chair completed", quiet=True)
    client.events = [messages.Accepted("a" * 8), messages.Accepted("b" * 8, 2)]
    blender.ticking.work()
    rows = [
        "Cube: waiting 0%",
        "[sdf.cancel aaaaaaaa]",
        "4 of chairs: waiting, 2 before it 0%",
        "[sdf.cancel bbbbbbbb]",
    ]
    lines = blender.draw()
    assert lines[-5:] == ["[Reconstruct]", *rows]
    client.events = [messages.Progress("a" * 8, "fitting", 0.425), messages.Progress("b" * 8, "meshing", 1.0)]
    blender.ticking.work()
    rows = ["Cube: fitting 42%", "[sdf.cancel aaaaaaaa]", "4 of chairs: meshing 100%", "[sdf.cancel bbbbbbbb]"]
    lines = blender.draw()
    assert lines[-4:] == rows


def test_a_cancelled_job_is_there_until_the_backend_has_heard_it(blender: Blender) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    blender.submit("a" * 8, "Cube")
    blender.press("sdf.cancel", job="a" * 8)
    client.events = [messages.Progress("a" * 8, "fitting", 0.5)]
    blender.ticking.work()
    lines = blender.draw()
    assert lines[-2:] == ["Cube: cancelling 0%", "[sdf.cancel aaaaaaaa]"]
    assert client.cancelled == ["a" * 8]
    client.events = [messages.Error("cancelled", "the job was cancelled", "a" * 8)]
    blender.ticking.work()
    lines = blender.draw()
    assert lines[-1] == "[Reconstruct]"


def test_jobs_stay_in_sight_while_the_connection_is_lost(blender: Blender) -> None:
    client = blender.connect()
    blender.submit("a" * 8, "Cube")
    client.state = blender.State.LOST
    assert blender.draw() == ["Lost", "[sdf.disconnect]", "Cube: waiting 0%", "[sdf.cancel aaaaaaaa]"]


# --- what has gone wrong ---


def test_an_error_is_told_with_its_remedy_until_it_is_dismissed(blender: Blender) -> None:
    client, messages = blender.connect(), blender.module("wire.messages")
    blender.submit("a" * 8, "Cube")
    client.events = [messages.Error("out_of_memory", "the GPU's memory is full", "a" * 8)]
    blender.ticking.work()
    lines = blender.draw()
    notice = lines[3 : lines.index("[sdf.dismiss]")]
    expected = "Cube: the GPU's memory is full; lower the resolution, or give fewer or smaller objects at once"
    assert len(notice) > 1 and " ".join(notice) == expected
    assert lines[lines.index("[sdf.dismiss]") + 1 :] == [*SETTINGS, *BUTTONS]
    blender.press("sdf.dismiss")
    assert blender.draw() == [*lines[:3], *SETTINGS, *BUTTONS]


@pytest.mark.parametrize("ui_scale", [0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("width", [180, 220, 260, 400, 800, 2400])
def test_no_line_of_a_notice_is_longer_than_the_sidebar(blender: Blender, width: int, ui_scale: float) -> None:
    blender.session.say(LONG)
    blender.see(None, width, ui_scale)
    lines = blender.draw()
    notice = lines[lines.index("[Connect]") + 1 : lines.index("[sdf.dismiss]")]
    assert "".join(notice).replace(" ", "") == LONG.replace(" ", "")
    room, longest = (width / ui_scale - BESIDE) / LETTER, max(map(len, notice))
    assert longest <= max(room, blender.module("panels").LEAST_LETTERS)
    assert len(notice) == 1 or longest > min(len(LONG), room) / 2  # none is broken much sooner than it must be


def test_without_a_region_as_in_a_script_lines_are_short(blender: Blender) -> None:
    blender.session.say(LONG)
    blender.see(None, width=None)
    lines = blender.draw()
    assert max(map(len, lines[lines.index("[Connect]") + 1 :])) <= blender.module("panels").LEAST_LETTERS


# --- settings ---


def test_front_is_asked_for_where_the_pose_is_aligned(blender: Blender) -> None:
    blender.connect()
    settings = blender.scene.sdf
    for pose, shown in (("aligned", ["Pose: Aligned", "Front: -Y"]), ("free", ["Pose: Free"])):
        settings.pose = pose
        lines = blender.draw()
        assert lines[3:] == [*SETTINGS[:3], *shown, *SETTINGS[4:], *BUTTONS]
    settings.model, settings.quality, settings.resolution = "chairs", "fine", 384
    lines = blender.draw()
    assert lines[3:6] == ["Model: chairs", "Quality: Fine", "Resolution: 384"]


def test_interpolation_asks_for_what_its_arrangement_needs(blender: Blender) -> None:
    blender.connect()
    settings, ways = blender.scene.sdf, "<Path> Grid"
    assert blender.draw("SDF_PT_interpolate") == ["<Row> Animation Blend", ways, "Steps: 7", "[Interpolate]"]
    settings.arrangement = "animation"
    shown = ["Row <Animation> Blend", ways, "Steps: 7", "Frames a step: 4", "[Interpolate]"]
    assert blender.draw("SDF_PT_interpolate") == shown
    settings.arrangement, settings.through = "blend", "grid"
    assert blender.draw("SDF_PT_interpolate") == ["Row Animation <Blend>", "Path <Grid>", "[Interpolate]"]


def test_new_shapes_and_variations(blender: Blender) -> None:
    blender.connect()
    assert blender.draw("SDF_PT_sample") == ["Count: 4", "[New Shapes]", "Spread: 0.3", "[Variations]"]


# --- the active object ---


@pytest.mark.parametrize(
    ("ends", "grid", "sliders"),
    [(1, False, []), (3, False, ["Blend: 0.0"]), (4, False, ["Blend: 0.0"]), (4, True, ["Blend: 0.0", "Across: 0.0"])],
    ids=["a completed shape", "a blend", "a blend of four", "a grid"],
)
def test_a_shape_has_its_sliders(blender: Blender, ends: int, grid: bool, sliders: list[str]) -> None:
    blender.connect()
    item = blender.shape(ends, grid)
    blender.see(item)
    buttons = ["[Seen and Filled In]", "Resolution: 256", "[sdf.redo]", "Main directions of chairs"]
    assert blender.draw("SDF_PT_shape") == [*sliders, *buttons, *DIRECTIONS]
    item.sdf.blend, item.sdf.directions = 0.25, (0.5, -1.5, *(0.0,) * 6)
    lines = blender.draw("SDF_PT_shape")
    assert ("Blend: 0.25" in lines) == bool(sliders)
    assert lines[-5:-3] == ["Direction 1: 0.5", "Direction 2: -1.5"]


def test_a_short_code_has_no_more_directions_than_numbers(blender: Blender) -> None:
    blender.connect()
    blender.see(blender.shape(code_length=3))
    lines = blender.draw("SDF_PT_shape")
    assert lines[-4:] == ["Main directions of chairs", *DIRECTIONS[:3]]


def spoilt(blender: Blender) -> Any:
    item = blender.shape()
    item["sdf_code"] = "broken"
    return item


@pytest.mark.parametrize(
    "active",
    [lambda _: None, lambda blender: made(blender.bpy.types.Object, dict, name="Cube"), spoilt],
    ids=["nothing", "no shape", "spoilt"],
)
def test_without_an_active_shape_its_panel_is_not_shown(blender: Blender, active: Callable[[Blender], Any]) -> None:
    blender.connect()
    blender.see(active(blender))
    assert not blender.shows("SDF_PT_shape")
    assert blender.shows("SDF_PT_interpolate")


def test_without_a_connection_a_shape_cannot_be_changed(blender: Blender) -> None:
    blender.see(blender.shape())
    assert not blender.shows("SDF_PT_shape")


# --- all of it ---


def test_whatever_is_the_matter_every_panel_that_is_shown_can_be_drawn(blender: Blender) -> None:
    client = blender.connect()
    blender.submit("a" * 8, "Cube")
    for state, stage, item, notice in product(
        blender.State, blender.Stage, (None, blender.shape(), blender.shape(4, grid=True)), ("", LONG)
    ):
        client.state, blender.session.launcher.stage, blender.session.notice = state, stage, notice
        blender.see(item)
        drawn = {name: blender.draw(name) for name in PANELS if blender.shows(name)}
        assert all(drawn.values())
        expected = {"SDF_PT_shapes"}
        if state is blender.State.CONNECTED:
            expected = set(PANELS) if item is not None else set(PANELS) - {"SDF_PT_shape"}
        assert set(drawn) == expected
        assert ("[sdf.dismiss]" in drawn["SDF_PT_shapes"]) == bool(notice)
        assert drawn["SDF_PT_shapes"][-2:] == ["Cube: waiting 0%", "[sdf.cancel aaaaaaaa]"]


# --- the classes ---


def test_every_operator_says_in_a_tooltip_what_it_does(blender: Blender) -> None:
    operators = [one for one in blender.addon.CLASSES if issubclass(one, blender.bpy.types.Operator)]
    assert len(operators) > 10
    labels = {one.bl_label for one in operators}
    assert len(labels) == len(operators)
    for one in operators:
        tooltip = vars(one).get("bl_description") or vars(one)["__doc__"]
        # Blender shows it as it is, and ends it with a full stop of its own.
        assert tooltip and "\n" not in tooltip and tooltip[0].isupper() and not tooltip.endswith("."), one
        assert all(setting.given.get("name") for setting in declared(one).values()), one
        assert all(setting.given.get("description") for setting in declared(one).values()), one


def test_classes_are_registered_in_an_order_that_blender_takes(blender: Blender) -> None:
    assert blender.classes == list(blender.addon.CLASSES)  # the stand-in has checked that parents come first
    panels = [one for one in blender.classes if issubclass(one, blender.bpy.types.Panel)]
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


def test_the_checks_of_the_stand_in_find_what_blender_does_not_know(blender: Blender) -> None:
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


def test_the_stand_in_leaves_nothing_behind() -> None:
    before = list(sys.meta_path)
    with stand_in():
        importlib.import_module("blender_addon")
        assert len(sys.meta_path) == len(before) + 1
    assert sys.meta_path == before
    assert not [name for name in sys.modules if name.split(".")[0] in ROOTS]
    assert importlib.util.find_spec("mathutils") is None


def test_the_addon_loads_the_wire_and_nothing_else_of_the_backend() -> None:
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
