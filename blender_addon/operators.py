"""Operators for the backend, the connection and the jobs; they work in the panel, from F3 and in scripts.

In background mode, where the timer does not run, they wait.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import bpy

from . import timer
from .job_operator import JobOperator
from .launcher import Stage
from .preferences import (
    OFFLINE,
    backend_folder,
    backend_wheel,
    connect_to,
    is_offline,
    preferences,
    start_local_backend,
)
from .properties import scene_settings
from .session import error_sentence, session
from .unfinished import fetch, forget
from .wire.client import ClientError, State
from .wire.messages import AUTO_MODEL

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
        start_local_backend(shlex.split(self.options))
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


class SDF_OT_install_backend(bpy.types.Operator):
    """Install the backend into the add-on's own folder; downloads 1 GB or, for NVIDIA's GPUs on Linux, some more"""

    bl_idname = "sdf.install_backend"
    bl_label = "Install Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled while it is being installed, and without a wheel or online access."""
        reason = cls._obstacle()
        if reason:
            cls.poll_message_set(reason)
        return not reason

    @staticmethod
    def _obstacle() -> str:
        if session.installer.is_active:
            return "The backend is being installed"
        if backend_wheel() is None:
            return "This copy of the add-on does not contain the backend; install it from the zip"
        return "" if bpy.app.online_access else OFFLINE

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Begin to install; the panel shows the progress, and the backend is started after it."""
        wheel = backend_wheel()
        assert wheel
        session.notice = ""
        session.installer.start(Path(sys.executable), wheel, backend_folder())
        return {"FINISHED"}


class SDF_OT_cancel_installation(bpy.types.Operator):
    """Cancel the installation and remove what there is of it"""

    bl_idname = "sdf.cancel_installation"
    bl_label = "Cancel Installation"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled while nothing is being installed."""
        if not session.installer.is_active:
            cls.poll_message_set("Nothing is being installed")
        return session.installer.is_active

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Cancel it."""
        session.installer.cancel()
        return {"FINISHED"}


class SDF_OT_copy_log(bpy.types.Operator):
    """Copy the path of the log of the backend, or of its installation, to the clipboard"""

    bl_idname = "sdf.copy_log"
    bl_label = "Copy Path of Log"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without a log."""
        if not _last_log():
            cls.poll_message_set("There is no log yet")
        return bool(_last_log())

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Copy it."""
        if context.window_manager:
            context.window_manager.clipboard = str(_last_log())
        return {"FINISHED"}


def _last_log() -> Path | None:
    return session.launcher.log or session.installer.log


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


class SDF_OT_fetch_results(JobOperator, bpy.types.Operator):
    """Fetch the results of what was not done when Blender closed"""

    bl_idname = "sdf.fetch_results"
    bl_label = "Fetch Results"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without such results."""
        return _has_offers(cls) and super().poll(context)

    def submit(self, context: bpy.types.Context) -> None:
        """Take over each job; its result is displayed when it is there."""
        for record in list(session.offered):
            fetch(record)


class SDF_OT_forget_results(bpy.types.Operator):
    """Offer these results no more; the backend removes them after a while"""

    bl_idname = "sdf.forget_results"
    bl_label = "Forget"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without such results."""
        return _has_offers(cls)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Forget each."""
        for record in list(session.offered):
            forget(record)
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
        if properties.model == AUTO_MODEL:
            return "Every model proposes a shape, and the one that explains the input best is taken"
        info = next((one for one in session.usable_models if one.name == properties.model), None)
        licences = ", ".join(info.licences) if info else ""
        return f"Learned from data under {licences}" if licences else "A category of objects"

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


def _has_offers(operator: Any) -> bool:
    if not session.offered:
        operator.poll_message_set("Nothing was left undone when Blender closed")
    return bool(session.offered)


def _started_or_failed() -> bool:
    if not session.launcher.is_active:
        return True
    return session.launcher.stage is Stage.RUNNING and session.state is State.CONNECTED and bool(session.models)


CLASSES = (
    SDF_OT_start_backend,
    SDF_OT_stop_backend,
    SDF_OT_install_backend,
    SDF_OT_cancel_installation,
    SDF_OT_copy_log,
    SDF_OT_connect,
    SDF_OT_disconnect,
    SDF_OT_cancel,
    SDF_OT_fetch_results,
    SDF_OT_forget_results,
    SDF_OT_choose_model,
    SDF_OT_tell,
    SDF_OT_dismiss,
)
