"""Presets of the settings, in a real Blender."""

from pathlib import Path
from typing import Any

import bpy
import pytest

from blender_addon.presets import SUBFOLDER


def test_settings_come_back_from_a_preset(addon: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bpy.utils, "user_resource", lambda kind, path="", create=False: str(tmp_path))
    settings = bpy.context.scene.sdf
    chosen = {
        "model": "chairs",
        "quality": "fine",
        "resolution": 300,
        "pose": "aligned",
        "front": "+x",
        "keep": "nothing",
    }
    for name, value in chosen.items():
        setattr(settings, name, value)
    assert bpy.ops.sdf.add_preset(name="Broken chairs") == {"FINISHED"}
    [path] = tmp_path.glob("*.py")
    assert path.stem == "Broken_chairs"
    for name in chosen:
        settings.property_unset(name)
    assert settings.model == ""
    bpy.ops.script.execute_preset(filepath=str(path), menu_idname="SDF_PT_presets")
    assert {name: getattr(settings, name) for name in chosen} == chosen
    assert bpy.types.SDF_PT_presets.preset_subdir == SUBFOLDER
