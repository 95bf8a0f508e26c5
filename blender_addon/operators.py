"""One operator a button; each works from the panel, from F3, and from a script, in background mode too."""

from pathlib import Path

import bpy

from . import ticking
from .geometry import GeometryError, read_objects
from .preferences import preferences
from .properties import RESOLUTIONS, settings
from .session import KEEP_SECONDS, Job, session
from .wire.client import ClientError, State, new_job
from .wire.codec import WireError
from .wire.messages import JobSettings, Source, Submit

CONNECT_SECONDS, BACKGROUND_SECONDS = 10.0, 600.0
LOOPBACK = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:")


class SDF_OT_connect(bpy.types.Operator):
    """Connect to the backend whose address is in the preferences"""

    bl_idname = "sdf.connect"
    bl_label = "Connect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Begin to connect; the panel shows how it goes."""
        chosen = preferences()
        elsewhere = chosen.address.startswith("tcp://") and not chosen.address.startswith(LOOPBACK)
        if elsewhere and not bpy.app.online_access:
            self.report({"ERROR"}, "Blender is set to be offline; allow online access in the preferences, under System")
            return {"CANCELLED"}
        try:
            key = Path(bpy.path.abspath(chosen.key_file)) if chosen.key_file else None
            session.connect(chosen.address, key, f"Blender {bpy.app.version_string}")
        except ClientError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if bpy.app.background and not ticking.wait_connected(CONNECT_SECONDS):
            self.report({"ERROR"}, session.reason)
            return {"CANCELLED"}
        return {"FINISHED"}


class SDF_OT_disconnect(bpy.types.Operator):
    """End the connection to the backend, and the jobs that it still does"""

    bl_idname = "sdf.disconnect"
    bl_label = "Disconnect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """End it."""
        session.close()
        return {"FINISHED"}


class _Shape:
    """What completing and reconstructing have in common."""

    task: str

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Greyed out, with the reason as its tooltip, where it cannot work."""
        if session.state is not State.CONNECTED:
            cls.poll_message_set("There is no backend; connect to one first")  # type: ignore[attr-defined]
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Ask the backend for it; in background mode, wait for the result too."""
        chosen = settings(context.scene)
        model = chosen.model or next(iter(session.models), "")
        wanted = JobSettings(RESOLUTIONS[chosen.quality], chosen.pose, "+z", chosen.front, chosen.quality, chosen.seed)
        try:
            seen = read_objects(_chosen(context), context.evaluated_depsgraph_get())
            source = Source(seen.vertices, seen.faces)
            submit = Submit(new_job(), self.task, model, wanted, (source,), keep=KEEP_SECONDS)
            job = Job(submit.job, self.task, model, _chosen(context)[0].name, seen, dict(vars(wanted)))
            session.submit(submit, job)
        except (GeometryError, WireError) as error:
            self.report({"ERROR"}, str(error))  # type: ignore[attr-defined]
            return {"CANCELLED"}
        if bpy.app.background:
            ticking.wait_for(job.name, BACKGROUND_SECONDS)
            if job.error:
                self.report({"ERROR"}, job.error)  # type: ignore[attr-defined]
                return {"CANCELLED"}
        return {"FINISHED"}


class SDF_OT_complete(_Shape, bpy.types.Operator):
    """Make the selected part of an object whole: a closed mesh, in its place and at its scale"""

    bl_idname = "sdf.complete"
    bl_label = "Complete"
    task = "complete"


class SDF_OT_reconstruct(_Shape, bpy.types.Operator):
    """Make a clean, closed mesh of a whole one, as the model understands it"""

    bl_idname = "sdf.reconstruct"
    bl_label = "Reconstruct"
    task = "reconstruct"


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


def _chosen(context: bpy.types.Context) -> list[bpy.types.Object]:
    """The selected objects, the active one first."""
    selected = list(context.selected_objects)
    active = context.active_object
    return sorted(selected, key=lambda item: item != active)


CLASSES = (SDF_OT_connect, SDF_OT_disconnect, SDF_OT_complete, SDF_OT_reconstruct, SDF_OT_cancel)
