"""Runs INSIDE the Infinigen environment: one mesh a request, until its input ends.

    .venv-infinigen/bin/python infinigen_worker.py  <requests  >replies

A request and a reply are one line of JSON each. The request names a factory, its seed and a file; the worker writes
`vertices`, (n, 3) float32 in metres, and `faces`, (m, 3) int32, into that .npz file, in Infinigen's own axes (z up).
The reply's `status` is `ready` (once, after the imports), `done`, `failed` (this piece alone) or `unusable`
(the environment or the factory: no later piece would fare better). Nothing of the project is imported here, because
its dependencies are not installed in this environment.
"""

import contextlib
import inspect
import json
import os
import random
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np


class UnusableFactoryError(Exception):
    """The environment or a factory is not what the factory table expects."""


def main() -> None:
    """Answer requests from stdin on what was stdout; prints of Blender and Infinigen go to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        bpy = import_module("bpy")
        import_module("infinigen")
    except ImportError as error:
        _reply(replies, status="unusable", detail=f"cannot import {error.name}: {error}")
        return
    _reply(replies, status="ready")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            vertices, faces = make_mesh(bpy, request)
        except UnusableFactoryError as error:
            _reply(replies, status="unusable", detail=str(error))
        except Exception as error:  # a factory may raise anything; it costs this piece
            _reply(replies, status="failed", detail=f"{type(error).__name__}: {error}")
        else:
            np.savez(request["output"], vertices=vertices, faces=faces)
            _reply(replies, status="done")


def make_mesh(bpy: Any, request: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Build one piece in an empty scene.

    Parameters
    ----------
    bpy : Blender's Python module.
    request : `module` and `factory` name the class; `seed` is an int; `options` are keyword arguments of
        `create_asset`; with `placeholder` true the factory's placeholder is one more; `assign` maps an attribute
        path ("params/Arm Type") to its value and `scale` to a factor.

    Returns
    -------
    vertices : (n, 3) float32, metres, z up.
    faces : (m, 3) int32.

    Raises
    ------
    UnusableFactoryError
        Where the class, an attribute or an argument of `create_asset` does not exist.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    seed = request["seed"]
    factory_class = _find(request["module"], request["factory"])
    with _seeded(seed):
        _check_signature(factory_class, (seed,), {})
        factory = factory_class(seed)
        for path, value in request["assign"].items():
            _set(factory, path, lambda _, value=value: value)
        for path, factor in request["scale"].items():
            _set(factory, path, lambda before, factor=factor: before * factor)
        options = {"i": seed, **request["options"]}
        if request["placeholder"]:
            options["placeholder"] = None
        _check_signature(factory.create_asset, (), options)
        if request["placeholder"]:
            # Some factories require the piece's number here, others take no argument.
            wanted = {"i": seed} if "i" in inspect.signature(factory.create_placeholder).parameters else {}
            options["placeholder"] = factory.create_placeholder(**wanted)
        made = factory.create_asset(**options)
    return _triangles(bpy, made)


def _find(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnusableFactoryError(f"Infinigen has no factory {module}.{name} ({error})") from error


def _check_signature(function: Any, positional: tuple, named: dict[str, Any]) -> None:
    """Raise `UnusableFactoryError` unless a function accepts these arguments; the call itself may still fail."""
    try:
        inspect.signature(function).bind(*positional, **named)
    except TypeError as error:
        given = ", ".join([*map(repr, positional), *sorted(named)])
        raise UnusableFactoryError(f"{function.__qualname__} does not take ({given}): {error}") from error


def _set(factory: Any, path: str, change: Any) -> None:
    """Change one attribute; the rest of the path are keys of dictionaries or indices of sequences."""
    name, *keys = path.split("/")
    if not hasattr(factory, name):
        raise UnusableFactoryError(f"{type(factory).__name__} has no attribute {name}")
    if not keys:
        setattr(factory, name, change(getattr(factory, name)))
        return
    setattr(factory, name, _changed(getattr(factory, name), keys, change, f"{type(factory).__name__}.{path}"))


def _changed(container: Any, keys: list[str], change: Any, path: str) -> Any:
    """A copy of nested dictionaries, lists and tuples with one leaf changed."""
    key: Any = keys[0] if isinstance(container, dict) else int(keys[0])
    try:
        leaf = container[key]
    except (KeyError, IndexError) as error:
        raise UnusableFactoryError(f"{path} does not exist") from error
    copied: Any = dict(container) if isinstance(container, dict) else list(container)
    copied[key] = _changed(leaf, keys[1:], change, path) if keys[1:] else change(leaf)
    return type(container)(copied)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """As Infinigen's FixedSeed: both global generators, which its factories draw from, start at `seed`."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    yield


def _triangles(bpy: Any, root: Any) -> tuple[np.ndarray, np.ndarray]:
    """All triangles of an object and what hangs below it, modifiers applied, in world coordinates."""
    graph = bpy.context.evaluated_depsgraph_get()
    vertices, faces, start = [np.zeros((0, 3))], [np.zeros((0, 3), int)], 0
    for item in (root, *root.children_recursive):
        if item.type != "MESH":
            continue
        evaluated = item.evaluated_get(graph)
        mesh = evaluated.to_mesh()
        mesh.calc_loop_triangles()
        points = np.empty(len(mesh.vertices) * 3)
        mesh.vertices.foreach_get("co", points)
        corners = np.empty(len(mesh.loop_triangles) * 3, dtype=np.int32)
        mesh.loop_triangles.foreach_get("vertices", corners)
        matrix = np.array(evaluated.matrix_world)  # (4, 4)
        vertices.append(points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3])
        faces.append(corners.reshape(-1, 3) + start)
        start += len(mesh.vertices)
        evaluated.to_mesh_clear()
    return np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32)


def _reply(stream: Any, **content: Any) -> None:
    stream.write(json.dumps(content) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
