"""The installer with real virtual environments and a small wheel in place of the backend's, without a registry."""

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_process import ROOT, until

exec(f"""
from types import ModuleType
package = sys.modules["addon_without_blender"] = ModuleType("addon_without_blender")
package.__path__ = [{str(ROOT / "blender_addon")!r}]
""")
installer_module = importlib.import_module("addon_without_blender.installer")
python_finder = importlib.import_module("addon_without_blender.python_finder")
Stage = installer_module.Stage
OFFLINE = ("--no-index",)


@pytest.fixture
def installer() -> Iterator[Any]:
    made = installer_module.Installer()
    yield made
    made.close()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with a module `sdf_backend` and the extra `backend`, which wants nothing."""
    path = tmp_path / "in a folder" / "sdf_shapes-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "sdf_shapes-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sdf_backend/__init__.py", "ANSWER = 42\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: sdf-shapes\nVersion: 1.0\nProvides-Extra: backend\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (path.parent / "constraints.txt").write_text("sdf-shapes==1.0\n")
    return path


def ended(installer: Any) -> None:
    until(lambda: installer.poll() and not installer.is_active, "the installation ends", seconds=300)


def test_the_backend_is_installed_where_the_launcher_looks_first(installer: Any, wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "add-on"
    installer.start(Path(sys.executable), wheel, folder, OFFLINE)
    assert (installer.stage, installer.reason) == (Stage.RUNNING, "Making a Python environment")
    ended(installer)
    assert (installer.stage, installer.reason) == (Stage.DONE, "The backend is installed")
    python = installer_module.environment_python(folder)
    assert next(iter(python_finder.usual_pythons(python))) == python
    program = "import sdf_backend; print(sdf_backend.ANSWER)"
    done = subprocess.run([python, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


def test_a_failure_is_one_sentence_that_names_the_log(installer: Any, wheel: Path, tmp_path: Path) -> None:
    (wheel.parent / "constraints.txt").write_text("sdf-shapes==2.0\n")
    installer.start(Path(sys.executable), wheel, tmp_path / "add-on", OFFLINE)
    ended(installer)
    assert installer.stage is Stage.FAILED
    assert installer.reason.startswith("The backend was not installed (")
    assert installer.reason.endswith(f"; see the log {installer.log}") and installer.log.stat().st_size


def test_cancelling_removes_what_was_installed(installer: Any, wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "add-on"
    installer.start(Path(sys.executable), wheel, folder, OFFLINE)
    until((folder / "environment").exists, "the environment is being made")
    installer.cancel()
    assert installer.stage is Stage.CANCELLING
    ended(installer)
    assert (installer.stage, installer.reason) == (Stage.IDLE, "The installation was cancelled")
    assert not (folder / "environment").exists()


def test_a_python_that_does_not_exist_is_reported(installer: Any, wheel: Path, tmp_path: Path) -> None:
    installer.start(tmp_path / "nowhere", wheel, tmp_path / "add-on")
    assert installer.stage is Stage.FAILED and "nowhere cannot be started: No such file" in installer.reason


def test_a_python_without_pip_is_reported_with_the_remedy(installer: Any, wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'Not created because ensurepip is not'\necho 'available.'\nexit 1\n")
    python.chmod(0o755)
    installer.start(python, wheel, tmp_path / "add-on")
    ended(installer)
    assert f"{python} has no ensurepip; install your distribution's package for it" in installer.reason


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("", ""),
        ("Processing ./sdf_shapes.whl\nCollecting torch>=2.4\n", "Looking for torch"),
        ("Collecting torch>=2.4\n  Downloading torch-2.13.0-cp313.whl (104.1 MB)\n", "Downloading torch (104.1 MB)"),
        ("Collecting a\n  Downloading a-1.whl (2 kB)\nCollecting b-c\n", "Looking for b-c"),
        ("Downloading a-1.whl (2 kB)\nInstalling collected packages: a\n", "Installing what was downloaded"),
    ],
)
def test_the_progress_is_told_in_words(installer: Any, tmp_path: Path, printed: str, reason: str) -> None:
    installer.log = tmp_path / "install.log"
    installer.log.write_text(printed)
    assert installer._progress().startswith(reason) and bool(installer._progress()) == bool(reason)
