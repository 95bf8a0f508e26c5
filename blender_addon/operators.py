"""Operators for the backend, the connection and the jobs; they work in the panel, from F3 and in scripts.

In background mode, where the timer does not run, they wait.
"""

import shlex
from pathlib import Path
from typing import Any

import bpy

from . import timer
from .launcher import Stage
from .preferences import OFFLINE, backend_folder, connect_to, is_offline, preferences
from .properties import scene_settings
from .session import error_sentence, session
from .wire.client import ClientError, State

CONNECT_SECONDS, MODELS_SECONDS, START_SECONDS = 10.0, 30.0, 120.0
# States that waiting does not change.
UNRECOVERABLE = (State.REFUSED, State.INCOMPATIBLE, State.CLOSED)


class SDF_OT_start_backend(bpy.types.Operator):
    """Start a backend on this computer and connect to it"""

    bl_idname = "sdf.start_backend"
    bl_label = "Start Local Backend"

    options: bpy.props.StringProperty(
        name="Options", description="Further command-line options of the backend; `serve --help` lists them"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled while a backend is connected."""
        if session.state is State.CONNECTED:
            cls.poll_message_set("A backend is already connected; disconnect from it first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Begin to start it; the panel shows the progress."""
        python = preferences().python
        session.notice = ""
        session.close()  # from a server that does not answer
        python = bpy.path.abspath(python) if python else ""
        session.launcher.start(python, backend_folder(), shlex.split(self.options))
        in_time = not bpy.app.background or timer.wait(_started_or_failed, START_SECONDS)
        if in_time and session.launcher.stage is not Stage.FAILED:
            return {"FINISHED"}
        log = session.launcher.log
        late = f"The backend did not load its models within {START_SECONDS:.0f} s; see its log {log}"
        session.notice = session.launcher.reason if in_time else late
        if not in_time:
            session.close()
            session.launcher.stop()
        self.report({"ERROR"}, session.notice)
        return {"CANCELLED"}


class SDF_OT_stop_backend(bpy.types.Operator):
    """Stop the local backend and its jobs"""

    bl_idname = "sdf.stop_backend"
    bl_label = "Stop Local Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without a local backend."""
        if not session.launcher.is_active:
            cls.poll_message_set("No local backend is running")
        return session.launcher.is_active

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Stop it."""
        if session.is_local:
            session.close()
        session.launcher.stop()
        return {"FINISHED"}


class SDF_OT_connect(bpy.types.Operator):
    """Connect to the backend at the address in the add-on's preferences"""

    bl_idname = "sdf.connect"
    bl_label = "Connect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Begin to connect; the panel shows the progress."""
        chosen = preferences()
        if is_offline(chosen.address):
            return self._fail(OFFLINE)
        try:
            connect_to(chosen.address, Path(bpy.path.abspath(chosen.key_file)) if chosen.key_file else None)
        except ClientError as error:
            return self._fail(error_sentence(error))
        session.launcher.stop()
        if bpy.app.background:
            timer.wait(lambda: session.state in (State.CONNECTED, *UNRECOVERABLE), CONNECT_SECONDS)
            timer.wait(lambda: bool(session.models) or session.state is not State.CONNECTED, MODELS_SECONDS)
            if session.state is not State.CONNECTED:
                self.report({"ERROR"}, session.reason)
                return {"CANCELLED"}
        return {"FINISHED"}

    def _fail(self, notice: str) -> set[str]:
        session.notice = notice
        self.report({"ERROR"}, notice)
        return {"CANCELLED"}


class SDF_OT_disconnect(bpy.types.Operator):
    """Close the connection and cancel its jobs; a local backend is stopped"""

    bl_idname = "sdf.disconnect"
    bl_label = "Disconnect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Close it."""
        session.close()
        session.launcher.stop()
        return {"FINISHED"}


class SDF_OT_cancel(bpy.types.Operator):
    """Cancel this job, or all jobs"""

    bl_idname = "sdf.cancel"
    bl_label = "Cancel"

    job: bpy.props.StringProperty(
        name="Job", description="The id of the job; all jobs if this is empty", options={"HIDDEN"}
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Ask the backend to cancel."""
        for name in [self.job] if self.job else list(session.jobs):
            session.cancel(name)
        return {"FINISHED"}


class SDF_OT_choose_model(bpy.types.Operator):
    """Choose the category of the object"""

    bl_idname = "sdf.choose_model"
    bl_label = "Choose Model"
    bl_options = {"INTERNAL", "UNDO"}  # noqa: RUF012

    model: bpy.props.StringProperty(name="Model", description="The name of the model")

    @classmethod
    def description(cls, context: bpy.types.Context, properties: Any) -> str:
        """What the model was learned from."""
        info = next((one for one in session.usable_models if one.name == properties.model), None)
        return f"Under {', '.join(info.licences)}" if info and info.licences else "A category of objects"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Set the model of the scene."""
        scene_settings(context.scene).model = self.model
        return {"FINISHED"}


class SDF_OT_tell(bpy.types.Operator):
    """Write a message to the Info log"""

    bl_idname = "sdf.tell"
    bl_label = "Write to Info Log"
    bl_options = {"INTERNAL"}  # noqa: RUF012

    text: bpy.props.StringProperty(name="Text", description="The message", options={"SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Wait for the next event: reports from a timer are written to the console only."""
        self._timer = context.window_manager.event_timer_add(0.01, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Write the message, and pass the event on."""
        context.window_manager.event_timer_remove(self._timer)
        return self.execute(context) | {"PASS_THROUGH"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Write the message."""
        self.report({"WARNING"}, self.text)
        return {"FINISHED"}


class SDF_OT_dismiss(bpy.types.Operator):
    """Remove this message from the panel; the Info log keeps it"""

    bl_idname = "sdf.dismiss"
    bl_label = "Dismiss"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove it."""
        session.notice = ""
        return {"FINISHED"}


def _started_or_failed() -> bool:
    if not session.launcher.is_active:
        return True
    return session.launcher.stage is Stage.RUNNING and session.state is State.CONNECTED and bool(session.models)


CLASSES = (
    SDF_OT_start_backend,
    SDF_OT_stop_backend,
    SDF_OT_connect,
    SDF_OT_disconnect,
    SDF_OT_cancel,
    SDF_OT_choose_model,
    SDF_OT_tell,
    SDF_OT_dismiss,
)
