"""Operators that make shapes. Properties that are not given come from `scene.sdf`; in background mode they wait."""

from dataclasses import replace
from itertools import count as count_from
from typing import Any, cast

import bpy
import numpy as np

from .directions import DIRECTIONS
from .fit_request import SUFFIXES
from .geometry import GeometryError
from .interpolation import Arrangement, InterpolationRequest, Traversal, start_interpolation
from .job_operator import JobOperator, active_first
from .material import (
    OBSERVED_MATERIAL,
    UNCERTAINTY_MATERIAL,
    UNIT,
    AttributeMaterial,
    hide_material,
    show_material,
    shown_material,
)
from .properties import InterpolationProperties, RemeshingProperties, SamplingProperties
from .result_handlers import MeshReplacement, Placement, Rows
from .session import KEEP_SECONDS, Job, capitalised, session
from .shapes import (
    SOURCE,
    Asked,
    StoredShape,
    bounding_box,
    input_names,
    linked_reason,
    source_name,
    stored_shape,
    upright_pose,
    world_pose,
)
from .sliders import decode_request, object_sliders
from .verdict import verdict_of
from .wire.client import new_job
from .wire.messages import AUTO_MODEL, Submit

SELECT_A_SHAPE = "select a completed, reconstructed or new shape"
# From a shape to the middle of its first variation, relative to the depth of the shape.
VARIATION_SPACING = 1.0
SHORTEST_ROW = 4
# The tags of assets, by the task that made them; the words are those of the names of results.
MADE_BY = {**SUFFIXES, "interpolate": "interpolated"}


class SDF_OT_interpolate(JobOperator, InterpolationProperties, bpy.types.Operator):
    """Interpolate between the selected objects"""

    bl_idname = "sdf.interpolate"
    bl_label = "Interpolate"

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the interpolation, or first the fit of objects that store no shape."""
        objects = active_first(context)
        given = self.properties.is_property_set("model")
        stored_models = [] if given else [shape.model for shape in map(stored_shape, objects) if shape]
        request = InterpolationRequest(
            model=stored_models[0] if stored_models else self.chosen_model(context),
            settings=self.chosen_settings(context),
            arrangement=Arrangement(self.chosen(context, "arrangement")),
            through=Traversal(self.chosen(context, "through")),
            steps=self.chosen(context, "steps"),
            hold=self.chosen(context, "hold"),
            frame=context.scene.frame_current if context.scene else 1,
            asked=Asked.now(),
        )
        start_interpolation(objects, context.evaluated_depsgraph_get(), request)


class _SamplingOperator(JobOperator):
    """Makes new shapes."""

    def submit_samples(
        self,
        context: bpy.types.Context,
        model: str,
        name: str,
        orientation: np.ndarray,
        start: np.ndarray,
        floor: float,
        near: np.ndarray | None = None,
    ) -> None:
        """Submit the job.

        Parameters
        ----------
        name : of the new objects
        orientation : (4, 4), rotation and scale of the new shapes
        start : (3,), position of the first
        floor : the height on which they stand
        near : (code_length,), the code that is varied, or None
        """
        count, settings = self.chosen(context, "count"), self.chosen_settings(context)
        if not self.properties.is_property_set("seed"):
            settings = replace(settings, seed=_unused_seed(name, settings.seed))
        spread = 0.0 if near is None else self.chosen(context, "spread")
        submit = Submit(
            new_job(),
            "sample",
            model,
            settings,
            codes=None if near is None else near[None],
            poses=orientation[None],
            count=count,
            spread=spread,
            keep=KEEP_SECONDS,
        )
        stored = {"task": "sample", "resolution": settings.resolution, "seed": settings.seed, "spread": spread}
        placements = [Placement(np.zeros(3), orientation)] * count
        width = max(SHORTEST_ROW, round(count**0.5))
        handler = Rows(name, model, placements, stored, Asked.now(), width, start, floor)
        session.submit(submit, Job(submit.job, f"New {model} ({count})", handler))


class SDF_OT_sample(_SamplingOperator, SamplingProperties, bpy.types.Operator):
    """Make new shapes of this category, which stand at the 3D cursor; each click makes others"""

    bl_idname = "sdf.sample"
    bl_label = "New Shapes"

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the job."""
        model = _sampled_model(self.chosen_model(context), context.active_object)
        cursor = np.array(context.scene.cursor.location, dtype=np.float64) if context.scene else np.zeros(3)
        orientation = upright_pose(session.front(model)) @ np.diag([*(self.chosen(context, "size") / 2,) * 3, 1])
        self.submit_samples(context, model, f"New {model}", orientation, cursor, cursor[2])


class SDF_OT_vary(_SamplingOperator, SamplingProperties, bpy.types.Operator):
    """Make shapes that are like the active one, in front of it; each click makes others"""

    bl_idname = "sdf.vary"
    bl_label = "Variations"

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the job."""
        item, shape = _active_shape(context)
        pose, (corner, size) = world_pose(item, shape.pose), bounding_box(item)
        start = np.array([pose[0, 3], corner[1] - VARIATION_SPACING * size[1], pose[2, 3]])
        orientation = Placement.from_pose(pose).orientation
        self.submit_samples(
            context, shape.model, f"{source_name(item)} variation", orientation, start, corner[2], shape.code
        )


def _sampled_model(chosen: str, active: bpy.types.Object | None) -> str:
    """The model of new shapes; where the choice is Auto, that of the active shape, or the first of the backend."""
    if chosen != AUTO_MODEL:
        return chosen
    shape = stored_shape(active) if active else None
    return shape.model if shape else next(iter(session.models), "")


def _unused_seed(name: str, first: int) -> int:
    """The first seed, from `first` on, of which no shapes of this name have been made or are being made."""
    used = {item.get("sdf_seed") for item in bpy.data.objects if item.get(SOURCE) == name}
    handlers = [job.handler for job in session.jobs.values()]
    used |= {one.settings["seed"] for one in handlers if isinstance(one, Rows) and one.name == name}
    return next(seed for seed in count_from(first) if seed not in used)


class SDF_OT_redo(JobOperator, RemeshingProperties, bpy.types.Operator):
    """Build the mesh of the active shape again at this resolution; nothing is fitted again"""

    bl_idname = "sdf.redo"
    bl_label = "Remesh at This Resolution"

    def submit(self, context: bpy.types.Context) -> None:
        """Submit the job."""
        item, shape = _active_shape(context)
        if reason := linked_reason(item):
            raise GeometryError(reason)
        given = self.properties.is_property_set("resolution")
        resolution = self.properties.resolution if given else object_sliders(item).resolution
        submit = decode_request(item, shape, resolution)
        session.submit(submit, Job(submit.job, item.name, MeshReplacement(item, {"resolution": resolution})))


class SDF_OT_reset_directions(bpy.types.Operator):
    """Set all directions to zero, for the shape as it was completed"""

    bl_idname = "sdf.reset_directions"
    bl_label = "Reset Directions"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without a shape."""
        if stored_shape(context.active_object) is None:
            cls.poll_message_set("The active object is not a shape")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Reset them; the mesh follows."""
        if context.active_object:
            object_sliders(context.active_object).directions = (0.0,) * DIRECTIONS
        return {"FINISHED"}


class SDF_OT_mark_as_asset(bpy.types.Operator):
    """Mark the active shape as an asset, with a picture, a description and tags; run again to renew these"""

    bl_idname = "sdf.mark_as_asset"
    bl_label = "Mark as Asset"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Disabled without a shape, and for a linked one."""
        item = context.active_object
        reason = linked_reason(item) if item and stored_shape(item) else "The active object is not a shape"
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Mark it; Blender draws the picture in the background."""
        item, shape = _active_shape(context)
        item.asset_mark()
        asset, made = item.asset_data, MADE_BY.get(str(item.get("sdf_task")), "new")
        assert asset
        asset.description = _asset_description(item, shape, made)
        for tag in (shape.model, made):
            asset.tags.new(tag, skip_if_exists=True)
        item.asset_generate_preview()
        return {"FINISHED"}


def _asset_description(item: bpy.types.Object, shape: StoredShape, made: str) -> str:
    inputs, verdict = ", ".join(input_names(item)), verdict_of(item)
    of = f" from {inputs}" if inputs else ""
    explained = f", which explains {verdict.explained:.0%} of it" if verdict else ""
    return f"{capitalised(made)}{of} with the model {shape.model}{explained}"


class _ShowMaterial:
    """Shows a material of the selected shapes, or restores theirs if the first of them shows it."""

    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012
    material: AttributeMaterial
    lacking: str

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Show the material, or hide it."""
        items = [item for item in active_first(context) if stored_shape(item) and isinstance(item.data, bpy.types.Mesh)]
        linked = next(filter(None, map(linked_reason, items)), "")
        if linked or not items:
            cast(Any, self).report({"ERROR"}, linked or f"The selection contains no shape; {SELECT_A_SHAPE}")
            return {"CANCELLED"}
        if shown_material(cast(Any, items[0].data)) is self.material:
            for item in items:
                hide_material(cast(Any, item.data))
            _restore_shading(context.space_data)
            return {"FINISHED"}
        known = [item for item in items if self.material.attribute in cast(Any, item.data).attributes]
        if not known:
            cast(Any, self).report({"ERROR"}, f"The selected shapes have {self.lacking}; select a completed shape")
            return {"CANCELLED"}
        for item in known:
            shape = stored_shape(item)
            if shape:
                item[UNIT] = float(abs(np.linalg.det(shape.pose[:3, :3])) ** (1 / 3))
            show_material(cast(Any, item.data), self.material)
        _show_materials(context.space_data)
        return {"FINISHED"}


class SDF_OT_show_observed(_ShowMaterial, bpy.types.Operator):
    """Colour the observed and the completed region of the selected shapes; run again to restore their materials"""

    bl_idname = "sdf.show_observed"
    bl_label = "Observed and Completed"
    material, lacking = OBSERVED_MATERIAL, "no observed region"


class SDF_OT_show_uncertainty(_ShowMaterial, bpy.types.Operator):
    """Colour the selected shapes by how uncertain their surface is, from blue to red; run again to restore materials"""

    bl_idname = "sdf.show_uncertainty"
    bl_label = "Uncertainty"
    material, lacking = UNCERTAINTY_MATERIAL, "no known uncertainty"


def _show_materials(space: bpy.types.Space | None) -> None:
    shading = space.shading if isinstance(space, bpy.types.SpaceView3D) else None
    if shading and shading.type in ("SOLID", "WIREFRAME"):  # these do not display materials
        session.shading_before[shading.as_pointer()] = shading.type
        shading.type = "MATERIAL"


def _restore_shading(space: bpy.types.Space | None) -> None:
    """Restore what `_show_materials` has changed, unless the user has changed it since."""
    shading = space.shading if isinstance(space, bpy.types.SpaceView3D) else None
    before = session.shading_before.pop(shading.as_pointer(), None) if shading else None
    if shading and before and shading.type == "MATERIAL":
        shading.type = before


def _active_shape(context: bpy.types.Context) -> tuple[bpy.types.Object, StoredShape]:
    item = context.active_object
    shape = stored_shape(item)
    if item is None or shape is None:
        raise GeometryError(f"The active object is not a shape; {SELECT_A_SHAPE}")
    return item, shape


CLASSES = (
    SDF_OT_interpolate,
    SDF_OT_sample,
    SDF_OT_vary,
    SDF_OT_redo,
    SDF_OT_reset_directions,
    SDF_OT_mark_as_asset,
    SDF_OT_show_observed,
    SDF_OT_show_uncertainty,
)
