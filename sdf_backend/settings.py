"""The settings of a task, `TaskSettings`, and their enums. Loads no torch.

Declared in `sdf_backend.wire.settings`, which the Blender extension ships; the backend imports them from here.
"""

from sdf_backend.wire.settings import Axis, Keep, Pose, Quality, TaskSettings, bounds_of, help_of

__all__ = ["Axis", "Keep", "Pose", "Quality", "TaskSettings", "bounds_of", "help_of"]
