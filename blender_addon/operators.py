"""Operators of the backend, the connection and the jobs; each works from the panel, from F3, and from a script.

In background mode, where no timer goes on with anything, they wait.
"""

import shlex
from pathlib import Path

import bpy

from . import ticking
from .launcher import Stage
from .preferences import OFFLINE, backend_folder, connect_to, is_offline, preferences
from .session import session
from .wire.client import ClientError, State

CONNECT_SECONDS, MODELS_SECONDS, START_SECONDS = 10.0, 30.0, 120.0
# States in which waiting on is of no use.
HOPELESS = (State.REFUSED, State.INCOMPATIBLE, State.CLOSED)


class SDF_OT_start_backend(bpy.types.Operator):
    """Start a backend on this computer, and connect to it"""

    bl_idname = "sdf.start_backend"
    bl_label = "Start Local Backend"

    options: bpy.props.StringProperty(
        name="Options", description="More words for the backend's command line, as `serve --help` lists them"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """One backend at a time."""
        if session.state is State.CONNECTED:
            cls.poll_message_set("There is a backend already; disconnect from it first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Begin to start it; the panel shows how it goes."""
        python = preferences().python
        session.notice = ""
        python = bpy.path.abspath(python) if python else ""
        session.launcher.start(python, backend_folder(), shlex.split(self.options))
        ready = not bpy.app.background or ticking.wait(_started_or_failed, START_SECONDS)
        if ready and session.launcher.stage is not Stage.FAILED:
            return {"FINISHED"}
        log = session.launcher.log
        late = f"The backend has not loaded its models in {START_SECONDS:.0f} s; its log is {log}"
        session.notice = session.launcher.reason if ready else late
        if not ready:
            session.close()
            session.launcher.stop()
        self.report({"ERROR"}, session.notice)
        return {"CANCELLED"}


class SDF_OT_stop_backend(bpy.types.Operator):
    """Stop the backend that was started here, and the jobs that it still does"""

    bl_idname = "sdf.stop_backend"
    bl_label = "Stop Local Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Where there is one."""
        running = session.launcher.stage in (Stage.LOOKING, Stage.STARTING, Stage.RUNNING)
        if not running:
            cls.poll_message_set("No backend was started here")
        return running

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Stop it."""
        if session.is_local:
            session.close()
        session.launcher.stop()
        return {"FINISHED"}


class SDF_OT_connect(bpy.types.Operator):
    """Connect to the backend whose address is in the preferences"""

    bl_idname = "sdf.connect"
    bl_label = "Connect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Begin to connect; the panel shows how it goes."""
        chosen = preferences()
        if is_offline(chosen.address):
            session.notice = OFFLINE
            self.report({"ERROR"}, OFFLINE)
            return {"CANCELLED"}
        try:
            connect_to(chosen.address, Path(bpy.path.abspath(chosen.key_file)) if chosen.key_file else None)
        except ClientError as error:
            session.notice = str(error)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.launcher.stop()
        if bpy.app.background:
            ticking.wait(lambda: session.state in (State.CONNECTED, *HOPELESS), CONNECT_SECONDS)
            ticking.wait(lambda: bool(session.models) or session.state is not State.CONNECTED, MODELS_SECONDS)
            if session.state is not State.CONNECTED:
                self.report({"ERROR"}, session.reason)
                return {"CANCELLED"}
        return {"FINISHED"}


class SDF_OT_disconnect(bpy.types.Operator):
    """End the connection to the backend, and the jobs that it still does; one that was started here is stopped"""

    bl_idname = "sdf.disconnect"
    bl_label = "Disconnect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """End it."""
        session.close()
        session.launcher.stop()
        return {"FINISHED"}


class SDF_OT_cancel(bpy.types.Operator):
    """Give up this job, or all of them"""

    bl_idname = "sdf.cancel"
    bl_label = "Cancel"

    job: bpy.props.StringProperty(name="Job", description="Its name; all where it is empty", options={"HIDDEN"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Ask the backend to stop."""
        for name in [self.job] if self.job else list(session.jobs):
            session.cancel(name)
        return {"FINISHED"}


class SDF_OT_tell(bpy.types.Operator):
    """Write a sentence to the Info log"""

    bl_idname = "sdf.tell"
    bl_label = "Tell"
    bl_options = {"INTERNAL"}  # noqa: RUF012

    text: bpy.props.StringProperty(name="Text", description="The sentence", options={"SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Wait for the next event: what is reported from within a timer goes to the console only."""
        self._timer = context.window_manager.event_timer_add(0.01, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Write it, and leave the event to others."""
        context.window_manager.event_timer_remove(self._timer)
        return self.execute(context) | {"PASS_THROUGH"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Write it."""
        self.report({"WARNING"}, self.text)
        return {"FINISHED"}


class SDF_OT_dismiss(bpy.types.Operator):
    """Remove this sentence from the panel; the Info log keeps it"""

    bl_idname = "sdf.dismiss"
    bl_label = "Dismiss"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove it."""
        session.notice = ""
        return {"FINISHED"}


def _started_or_failed() -> bool:
    if session.launcher.stage in (Stage.STOPPED, Stage.FAILED):
        return True
    return session.launcher.stage is Stage.RUNNING and session.state is State.CONNECTED and bool(session.models)


CLASSES = (
    SDF_OT_start_backend,
    SDF_OT_stop_backend,
    SDF_OT_connect,
    SDF_OT_disconnect,
    SDF_OT_cancel,
    SDF_OT_tell,
    SDF_OT_dismiss,
)
