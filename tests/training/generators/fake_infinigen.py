"""A stand-in for the Infinigen environment: a `bin/python` whose bpy and infinigen are a few lines each."""

import sys
from pathlib import Path

from training.generators.recipe import InfinigenFactory

BPY = '''
"""As much of bpy as the worker uses; an object is one mesh of triangles."""
from types import SimpleNamespace

import numpy as np


class Items(list):
    def foreach_get(self, name, out):
        out[:] = np.asarray(self, dtype=out.dtype).ravel()


class Object:
    type = "MESH"

    def __init__(self, vertices, triangles, matrix=None):
        self.vertices, self.loop_triangles = Items(vertices), Items(triangles)
        self.matrix_world = np.eye(4) if matrix is None else matrix
        self.children_recursive = []

    def evaluated_get(self, graph):
        return self

    def to_mesh(self):
        return self

    def to_mesh_clear(self):
        pass

    def calc_loop_triangles(self):
        pass


scenes = 0


def read_factory_settings(use_empty):
    global scenes
    scenes += 1
    print("chatter on stdout, as Blender has it")


ops = SimpleNamespace(wm=SimpleNamespace(read_factory_settings=read_factory_settings))
context = SimpleNamespace(evaluated_depsgraph_get=lambda: None)
'''

FACTORIES = '''
"""Factories that behave, and some that do not. A box of 6 x 6 x 6 cells, 1 x 2 x 3 m, in Infinigen's axes."""
import os
import time
from pathlib import Path

import bpy
import numpy as np


def box(size, cells=6):
    axis = np.linspace(0, 1, cells + 1)
    vertices, triangles = [], []
    for normal in range(3):
        for end in (0.0, 1.0):
            grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
            side = np.insert(grid, normal, end, axis=1)
            a = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel() + len(vertices) * len(side)
            b, c, d = a + cells + 1, a + cells + 2, a + 1
            vertices.append(side)
            triangles += [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    return bpy.Object(np.concatenate(vertices) * size, np.concatenate(triangles))


class Good:
    size = (1.0, 2.0, 3.0)

    def __init__(self, factory_seed):
        self.seed, self.stretch = factory_seed, 1.0
        self.params = {"lengths": (1.0, 1.0), "style": "plain"}

    def create_asset(self, i, **params):
        return box(np.array(self.size) * self.stretch * [1, self.params["lengths"][1], 1])


class Random(Good):
    def create_asset(self, i):
        return box(np.random.uniform(0.5, 1.5, size=3))


class Placed(Good):
    def create_placeholder(self):
        return "placeholder"

    def create_asset(self, i, placeholder, face_size):
        assert placeholder == "placeholder" and face_size == 0.02
        return super().create_asset(i)


class Family(Good):
    """A parent, and a child that is moved by 3 m and mirrored by its matrix."""

    def create_asset(self, i):
        parent, child = box((1, 1, 1)), box((1, 1, 1))
        child.matrix_world = np.diag([-1.0, 1, 1, 1])
        child.matrix_world[0, 3] = 4
        lamp = bpy.Object([], [])
        lamp.type = "LIGHT"
        parent.children_recursive = [child, lamp]
        return parent


class Raises(Good):
    def create_asset(self, i):
        raise ValueError("no legs")


class Dies(Good):
    def create_asset(self, i):
        print("about to die", flush=True)
        os._exit(11)


class DiesOnce(Good):
    """Dies unless a file is there."""

    def create_asset(self, i):
        flag = Path(os.environ["FAKE_FLAG"])
        if not flag.exists():
            flag.touch()
            os._exit(11)
        return super().create_asset(i)


class Hangs(Good):
    def create_asset(self, i):
        time.sleep(600)


class Huge(Good):
    size = (1.0, 2.0, 4449.0)


class Flat(Good):
    size = (1.0, 2.0, 0.001)


class Plain(Good):
    def create_asset(self, i):
        return box((1, 2, 3), cells=1)


class Nan(Good):
    size = (1.0, 2.0, float("nan"))


class Changed(Good):
    def create_asset(self, i, colour):
        return super().create_asset(i)


class ChangedConstructor(Good):
    def __init__(self, factory_seed, colour):
        super().__init__(factory_seed)
'''


def make_environment(root: Path) -> Path:
    """A folder with a `bin/python` that finds the stand-ins."""
    objects = root / "lib" / "infinigen" / "assets" / "objects"
    objects.mkdir(parents=True)
    for folder in (objects, objects.parent, objects.parent.parent):
        (folder / "__init__.py").touch()
    (objects / "things.py").write_text(FACTORIES)
    (root / "lib" / "bpy.py").write_text(BPY)
    write_python(root, f'PYTHONPATH="{root / "lib"}" exec "{sys.executable}" "$@"')
    return root


def write_python(environment: Path, line: str) -> None:
    """Make `environment/bin/python` a shell script of one line."""
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f"#!/bin/sh\n{line}\n")
    python.chmod(0o755)


def recipe(factory: str, **more: object) -> InfinigenFactory:
    """A recipe for a class of the stand-in."""
    return InfinigenFactory(factory.lower(), "things", factory, **more)  # type: ignore[arg-type]
