"""What a bare import may load, and that nothing is ever unpickled; import-linter holds the layers (`make lint`)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("sdf_backend", "training", "blender_addon", "extension", "benchmarks", "demo")
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TORCH_LOADERS = {"torch.load", "torch.jit.load", "torch.hub.load"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that are imported anywhere, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def unpickling(tree: ast.AST) -> Iterator[str]:
    """What could run code out of a file or a message."""
    yield from (f"import {name}" for name in imported(tree) if name.split(".")[0] in PICKLERS)
    # What makes nothing but tensors and plain containers runs none.
    harmless = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and _weights_only(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield "allow_pickle"
        elif isinstance(node, ast.Attribute) and node.attr in ("recv_pyobj", "send_pyobj"):
            yield node.attr
        elif isinstance(node, ast.Attribute) and node not in harmless and ast.unparse(node) in TORCH_LOADERS:
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            yield from (f"from torch import {alias.name}" for alias in node.names if alias.name == "load")


def _weights_only(call: ast.Call) -> bool:
    given = [one.value for one in call.keywords if one.arg == "weights_only"]
    return ast.unparse(call.func) == "torch.load" and [ast.unparse(value) for value in given] == ["True"]


@pytest.mark.parametrize("path", sources(*FOLDERS), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    assert list(unpickling(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load(path)",
        "from torch import load",
        "import torch; torch.load(path, weights_only=False)",
        "import torch; torch.load(path, weights_only=flag)",
        "import torch; torch.jit.load(path, weights_only=True)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "socket.recv_pyobj()",
        "def f():\n    import dill",
    ],
)
def test_the_search_for_unpickling_finds_it(line: str) -> None:
    assert list(unpickling(ast.parse(line)))


def test_there_are_sources_to_check() -> None:
    assert {"cli.py", "engine.py", "store.py"} <= {path.name for path in sources("sdf_backend")}
    assert {"cli.py", "prepare.py", "trainer.py"} <= {path.name for path in sources("training")}


HEAVY = {"torch", "trimesh", "scipy", "skimage", "igl", "embreex", "safetensors", "typer", "rich", "matplotlib"}


@pytest.mark.parametrize(
    "module",
    [
        "sdf_backend",
        "sdf_backend.errors",
        "sdf_backend.settings",
        "sdf_backend.files",
        "sdf_backend.serving.server",
        "sdf_backend.serving.worker",
        "sdf_backend.wire",
        "sdf_backend.wire.client",
    ],
)
def test_a_bare_import_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(finished.stdout.split())
    assert "sdf_backend" in loaded
    assert not loaded & HEAVY


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, sdf_backend.cli; print('torch' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert finished.stdout.strip() == "False"
