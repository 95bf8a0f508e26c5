"""The base of the operators that submit jobs. Properties that are not given come from `scene.sdf`."""

from collections.abc import Callable
from typing import Any

import bpy

from . import timer
from .geometry import GeometryError
from .preferences import chosen_model
from .properties import RESOLUTIONS, panel_fields, scene_settings, task_settings
from .session import error_sentence, session
from .wire.codec import WireError
from .wire.errors import InputError
from .wire.settings import Quality, TaskSettings

BACKGROUND_SECONDS = 3600.0


class JobOperator:
    """Submits a job; in background mode it waits for the result."""

    properties: Any
    report: Callable[[set[str], str], None]

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled, with the reason as its tooltip, without a usable backend and outside Object Mode."""
        reason = session.unavailable_reason or ("" if context.mode == "OBJECT" else "Switch to Object Mode first")
        if reason:
            cls.poll_message_set(reason)  # type: ignore[attr-defined]
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Submit the job; in background mode, wait until the result is displayed."""
        try:
            self.submit(context)
        except (GeometryError, WireError, InputError) as error:
            session.notice = error_sentence(error)
            self.report({"ERROR"}, session.notice)
            return {"CANCELLED"}
        session.notice = ""
        errors = timer.finish(BACKGROUND_SECONDS) if bpy.app.background else []
        if errors:
            self.report({"ERROR"}, "; ".join(errors))
            return {"CANCELLED"}
        return {"FINISHED"}

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the job. Raises `GeometryError` and `WireError`."""
        raise NotImplementedError

    def chosen(self, context: bpy.types.Context, name: str) -> Any:
        """The value of a property: the operator's own if it was given, otherwise the scene's."""
        given = self.properties.is_property_set
        if name == "resolution" and not given(name) and hasattr(self, "quality") and given("quality"):
            return RESOLUTIONS[Quality(self.properties.quality)]
        return getattr(self.properties if given(name) else scene_settings(context.scene), name)

    def chosen_model(self, context: bpy.types.Context) -> str:
        """The chosen model, that of the preferences, or `AUTO_MODEL`."""
        return chosen_model(self.chosen(context, "model"))

    def chosen_settings(self, context: bpy.types.Context, settings: type[TaskSettings] = TaskSettings) -> TaskSettings:
        """The settings of the job; those that the operator does not have are at their defaults."""
        names = [name for name in panel_fields(settings) if hasattr(self, name)]
        return task_settings(lambda name: self.chosen(context, name), names, settings)


def active_first(context: bpy.types.Context) -> list[bpy.types.Object]:
    """The selected objects, the active object first."""
    return sorted(context.selected_objects, key=lambda item: item != context.active_object)
