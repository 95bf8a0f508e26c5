"""Builds the extension for Blender in dist/: one zip for Blender 4.2 to 5.0, one for 5.1 and later.

    python -m extension

Each contains pyzmq's wheels for Linux, Windows and macOS, unchanged from the registry, for the Python of its
Blenders. A third zip is for a Blender 4.2 to 5.0 that a Linux distribution has built with its own, newer Python. One
zip with both kinds of wheels would fail in Blender 4.2.0, which selects the newer wheel, and a Blender whose Python
is not 3.11 rejects it. The wire is a symbolic link in the repository and a copy in the zips. All contain this project's
wheel too, which the add-on installs outside of Blender.
"""

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADDON, DIST = ROOT / "blender_addon", ROOT / "dist"
# Blender's names of platforms, and the platform tags of compatible wheels.
PLATFORMS = {
    "linux-x64": ("manylinux_2_28_x86_64", "manylinux_2_26_x86_64", "manylinux2014_x86_64"),
    "windows-x64": ("win_amd64",),
    "macos-arm64": ("macosx_11_0_arm64", "macosx_10_15_universal2"),
    "macos-x64": ("macosx_10_15_x86_64", "macosx_10_15_universal2", "macosx_10_9_x86_64"),
}
# The timestamp of every file, so that equal contents give equal zips.
EPOCH = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Variant:
    """A zip for Blender versions from `first` to before `last`, with their Python."""

    name: str
    first: str
    last: str | None
    python: str
    abi: str
    platforms: tuple[str, ...] = tuple(PLATFORMS)
    folder: str = "."
    """in dist/: an extension repository must not list two zips for the same Blender in one folder"""


VARIANTS = (
    Variant("blender-4.2-to-5.0", "4.2.0", "5.1.0", "3.11", "cp311"),
    Variant("blender-5.1-and-later", "5.1.0", None, "3.13", "abi3"),
    Variant(
        "blender-4.2-to-5.0-of-distribution", "4.2.0", "5.1.0", "3.13", "abi3", ("linux-x64",), "linux-distributions"
    ),
)


def main() -> None:
    """Build all zips, replace earlier ones, and print their paths."""
    for old in (*DIST.glob("*.zip"), *DIST.glob("*/*.zip")):
        old.unlink()
    backend = _backend_wheel()
    pyzmq = next(line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("pyzmq=="))
    for variant in VARIANTS:
        found = (_wheel(variant, pyzmq, PLATFORMS[platform]) for platform in variant.platforms)
        wheels = list({wheel.name: wheel for wheel in found}.values())  # two platforms share the wheel for macOS
        path = DIST / variant.folder / f"sdf_shapes-{_version()}-{variant.name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in _members(variant, wheels, backend):
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.1f} MiB, sha256 {digest}")


def _version() -> str:
    return tomllib.loads((ADDON / "blender_manifest.toml").read_text())["version"]


def _wheel(variant: Variant, pyzmq: str, tags: tuple[str, ...]) -> Path:
    """pyzmq's wheel for one platform, downloaded once."""
    folder = DIST / "wheels" / pyzmq / variant.abi / tags[0]
    if not (found := sorted(folder.glob("*.whl"))):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", pyzmq]
        command += ["--python-version", variant.python, "--implementation", "cp", "--abi", variant.abi]
        command += [part for tag in tags for part in ("--platform", tag)]
        subprocess.run([*command, "--dest", str(folder), "--disable-pip-version-check"], check=True)
        found = sorted(folder.glob("*.whl"))
    return found[0]


def _backend_wheel() -> Path:
    """The wheel of this project, with the models that ship."""
    folder = DIST / "wheels" / "backend"
    for old in folder.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def _members(variant: Variant, wheels: list[Path], backend: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file of a zip."""
    yield "blender_manifest.toml", _manifest(variant, wheels).encode()
    yield "LICENSE", (ROOT / "LICENSE").read_bytes()
    for path in sorted(ADDON.glob("*.py")):
        yield path.name, path.read_bytes()
    for folder, pattern in (("wire", "*.py"), ("pictures", "*.png")):
        for path in sorted((ADDON / folder).glob(pattern)):
            yield f"{folder}/{path.name}", path.read_bytes()
    for wheel in wheels:
        yield f"wheels/{wheel.name}", wheel.read_bytes()
    # For Install Backend; not for Blender's Python, and so not in the manifest.
    yield f"backend/{backend.name}", backend.read_bytes()
    yield "backend/constraints.txt", (ROOT / "constraints.txt").read_bytes()


def _manifest(variant: Variant, wheels: list[Path]) -> str:
    text = (ADDON / "blender_manifest.toml").read_text()
    first = f'blender_version_min = "{variant.first}"\n'
    last = f'blender_version_max = "{variant.last}"\n' if variant.last else ""
    platforms = ", ".join(f'"{platform}"' for platform in variant.platforms)
    names = ", ".join(f'"./wheels/{wheel.name}"' for wheel in wheels)
    return text.replace(
        'blender_version_min = "4.2.0"\n', f"{first}{last}platforms = [{platforms}]\nwheels = [{names}]\n"
    )


if __name__ == "__main__":
    main()
