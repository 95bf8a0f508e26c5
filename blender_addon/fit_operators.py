"""Operators that complete and reconstruct objects, and what is done with their results."""

from dataclasses import replace
from typing import Any

import bpy

from .completions import CANDIDATES, best_of, submit_fit
from .fit_request import FitRequest, inputs_of, read_request, replace_results_by_inputs, request_of_result
from .geometry import GeometryError
from .job_operator import JobOperator, active_first
from .keeping import hide, is_hidden, show
from .properties import CompletionProperties, UpAxis
from .session import NO_MORE_STEPS, Steps, session
from .shapes import INPUTS, Asked, mark_as_made, remove_object
from .translations import translated
from .trials import Outcome, start_trials
from .verdict import VERDICT, verdict_of
from .wire.settings import Pose


class FitOperator(JobOperator):
    """Completes or reconstructs."""

    task: str

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the selected objects as one observation."""
        self.submit_objects(context, active_first(context), Asked.now())

    def submit_objects(self, context: bpy.types.Context, selected: list[bpy.types.Object], asked: Asked) -> None:
        """Submit objects as one observation; results stand for what they were made of."""
        objects = replace_results_by_inputs(selected)
        model, settings = self.chosen_model(context), self.chosen_settings(context)
        guesses_up = self.chosen(context, "up") == UpAxis.UNKNOWN
        submit_fit(read_request(self.task, model, settings, objects, asked, guesses_up))


class SDF_OT_complete(FitOperator, CompletionProperties, bpy.types.Operator):
    """Make a whole, closed mesh of a partial object, in its place and at its scale; of a result, make it again"""

    bl_idname = "sdf.complete"
    bl_label = "Complete"
    task = "complete"


class SDF_OT_complete_each(FitOperator, CompletionProperties, bpy.types.Operator):
    """Complete each selected object by itself"""

    bl_idname = "sdf.complete_each"
    bl_label = "Complete Each"
    task = "complete"

    def submit(self, context: bpy.types.Context) -> None:
        """Submit a job for each selected object."""
        asked = Asked.now()
        objects = replace_results_by_inputs(active_first(context))
        if not objects:
            raise GeometryError("Nothing is selected; select the objects to complete")
        for item in objects:
            self.submit_objects(context, [item], asked)


class SDF_OT_reconstruct(FitOperator, CompletionProperties, bpy.types.Operator):
    """Make a clean, closed mesh of a whole object, however broken its faces are"""

    bl_idname = "sdf.reconstruct"
    bl_label = "Reconstruct"
    task = "reconstruct"


class _TrialOperator(JobOperator):
    """Fits the input of the active result in other ways, and completes it in the best if that explains more."""

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the first of the fits."""
        item = context.active_object
        verdict = verdict_of(item) if item else None
        if item is None or verdict is None:
            raise GeometryError("The active object is not a result; select a completed or reconstructed object")
        request = request_of_result(item, Asked.now())
        variants = self.variants(request)
        if not variants:
            raise GeometryError("The backend has no other model; add one to its folder of models")
        before, name = Outcome(request, verdict.explained), item.name

        def then(outcomes: list[Outcome]) -> Steps:
            best = best_of(outcomes)
            shares = ", ".join(f"{self.label(one.request)} {one.explained:.0%}" for one in [before, *outcomes])
            if best.explained < before.explained + VERDICT.better:
                session.notice = translated("Nothing explains {name} much better: {shares}.", name=name, shares=shares)
            else:
                label = self.label(best.request)
                submit_fit(best.request, translated("{name} explains most: {shares}.", name=label, shares=shares))
            return NO_MORE_STEPS

        start_trials(variants, then, lambda: NO_MORE_STEPS)

    def variants(self, request: FitRequest) -> list[FitRequest]:
        """What is tried."""
        raise NotImplementedError

    @staticmethod
    def label(request: FitRequest) -> str:
        """What sets a variant apart, in a word."""
        raise NotImplementedError


class SDF_OT_try_models(_TrialOperator, bpy.types.Operator):
    """Fit the input of this result with every other model, and keep the one that explains most of it"""

    bl_idname = "sdf.try_models"
    bl_label = "Try All Models"

    def variants(self, request: FitRequest) -> list[FitRequest]:
        """The request with each other model."""
        return [replace(request, model=model) for model in session.models if model != request.model]

    @staticmethod
    def label(request: FitRequest) -> str:
        """The model."""
        return request.model


class SDF_OT_try_orientations(_TrialOperator, bpy.types.Operator):
    """Fit the input of this result in any orientation, and keep that if it explains more of it"""

    bl_idname = "sdf.try_orientations"
    bl_label = "Try Any Orientation"

    def variants(self, request: FitRequest) -> list[FitRequest]:
        """The request with a free pose."""
        return [replace(request, settings=replace(request.settings, pose=Pose.FREE))]

    @staticmethod
    def label(request: FitRequest) -> str:
        """What was assumed about the pose."""
        settings = request.settings
        return "any orientation" if settings.pose is Pose.FREE else f"{settings.pose} along {settings.up.upper()}"


class SDF_OT_use_candidate(bpy.types.Operator):
    """Keep this candidate, in the place of the best, and remove the others"""

    bl_idname = "sdf.use_candidate"
    bl_label = "Use This"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled unless the active object is one of several candidates."""
        if not others_of(context.active_object):
            cls.poll_message_set("The active object is not one of several candidates")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Move it to the place of the best, under its name."""
        item: Any = context.active_object
        best = min([item, *others_of(item)], key=lambda one: one.name)
        name, place = best.name, best.matrix_world.copy()
        for other in others_of(item):
            remove_object(other)
        item.name, item.matrix_world = name, place
        mark_as_made(item)
        return {"FINISHED"}


class SDF_OT_toggle_input(bpy.types.Operator):
    """Hide what this result was made of, or show it again"""

    bl_idname = "sdf.toggle_input"
    bl_label = "Hide or Show Input"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without an input."""
        if not (context.active_object and inputs_of(context.active_object)):
            cls.poll_message_set("The active object has no input in this scene")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Hide or show each input."""
        inputs = inputs_of(context.active_object) if context.active_object else []
        change = show if all(map(is_hidden, inputs)) else hide
        for item in inputs:
            change(item)
        return {"FINISHED"}


def others_of(item: bpy.types.Object | None) -> list[bpy.types.Object]:
    """The other candidates of the same job, in the current scene."""
    job = item.get(CANDIDATES) if item else None
    scene = bpy.context.scene
    if not job or scene is None:
        return []
    return [one for one in scene.objects if one != item and one.get(CANDIDATES) == job and INPUTS in one]


CLASSES = (
    SDF_OT_complete,
    SDF_OT_complete_each,
    SDF_OT_reconstruct,
    SDF_OT_try_models,
    SDF_OT_try_orientations,
    SDF_OT_use_candidate,
    SDF_OT_toggle_input,
)
