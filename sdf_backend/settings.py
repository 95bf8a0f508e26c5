"""What a user may ask of a task, without torch: `TaskSettings` and its enums.

Declared in `sdf_backend.wire.settings`, which the Blender extension ships; this is where the backend imports it from.
"""

from sdf_backend.wire.settings import Axis, Pose, Quality, TaskSettings, bounds_of, help_of

__all__ = ["Axis", "Pose", "Quality", "TaskSettings", "bounds_of", "help_of"]
