"""A runnable stand-in for `bpy` and `mathutils`, made of the stubs of fake-bpy-module, for tests without a Blender.

    with stand_in() as bpy:
        import blender_addon

A definition is looked for in the stub, parsed and executed when it is asked for, since the stub of `bpy.types` has
150,000 lines; what no stub declares is an `AttributeError`, as in Blender. Functions take what their signatures say and
do nothing; properties remember what they were declared with, and hold values once their class is registered.

Left out: `bpy.data`, running operators through `bpy.ops`, timers that fire, what properties call back and clamp, custom
properties, and all that mathutils computes.
"""

import __future__

import ast
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# What is imported anew with each stand-in, and is gone after it.
ROOTS = ("bpy", "mathutils", "blender_addon")
POSTPONED = __future__.annotations.compiler_flag
# `class A[T]`, `def a[T]` and `type A = B`, which Python 3.11 does not know.
NEW_SYNTAX = re.compile(r"^(\s*(?:class|def) \w+)\[[^\[\]]*\]|^type (?=\w+ =)", re.MULTILINE)


class Property:
    """A call of `bpy.props`: `kind`, what was `given`, and `settings`, which has the stub's defaults too."""

    def __init__(self, declared: Any, *unnamed: Any, **given: Any) -> None:
        bound = inspect.signature(declared).bind(*unnamed, **given)
        bound.apply_defaults()
        self.kind, self.given, self.settings = declared.__name__, given, bound.arguments
        if self.kind == "EnumProperty" and "default" in given:
            assert given["default"] in self.choices, given

    @property
    def choices(self) -> dict[str, str]:
        """Identifiers of an enum's items, and what the user reads of them."""
        return {item[0]: item[1] for item in self.settings["items"]}

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        if self.kind == "PointerProperty" and self not in vars(owner):
            vars(owner)[self] = self.settings["type"]()
        size = self.settings.get("size", 1) if self.kind.endswith("VectorProperty") else 0
        return vars(owner).get(self, self.given.get("default", (0.0,) * size) if size else self.settings.get("default"))

    def __set__(self, owner: Any, value: Any) -> None:
        assert self.kind != "EnumProperty" or value in self.choices, f"{value!r} is none of {list(self.choices)}"
        vars(owner)[self] = value


def declared(owner: type) -> dict[str, Property]:
    """The properties that a class declares, its bases' among them."""
    found = [item for base in reversed(owner.__mro__) for item in vars(base).get("__annotations__", {}).items()]
    return {name: value for name, value in found if isinstance(value, Property)}


@cache
def _source(stub: Path) -> str:
    """A stub without the prose that it begins with."""
    return re.split(r"^import typing$", stub.read_text(), maxsplit=1, flags=re.M)[-1]


@cache
def _definition(stub: Path, name: str) -> ast.Module | None:
    """What a stub says of a name, its bases without what they are generic over."""
    found = re.search(
        rf"^(class |def |type |(?=\w+:)){name}\b.*?(?=^(class|def|type|@)|\Z)", _source(stub), re.MULTILINE | re.DOTALL
    )
    if not found:
        return None
    tree = ast.parse(NEW_SYNTAX.sub(r"\1", found[0]))
    del tree.body[1:]
    if isinstance(made := tree.body[0], ast.ClassDef):
        made.bases = [base.value if isinstance(base, ast.Subscript) else base for base in made.bases]
    return tree


class _Stub(ModuleType):
    """A module whose content is made when it is asked for."""

    def __init__(self, name: str, stub: Path) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._stub = stub
        self.typing, self.sys = typing, sys

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, self._made(name))
        return vars(self)[name]

    def _made(self, name: str) -> Any:
        if (self._stub.parent / name).is_dir():
            return importlib.import_module(f"{self.__name__}.{name}")
        if (tree := _definition(self._stub, name)) is None:
            raise AttributeError(f"the stub of {self.__name__} has no {name}")
        match tree.body[0]:
            case ast.AnnAssign(annotation=ast.Attribute(attr=same)) if same == name:  # of Blender's own interface
                return type(name, (self.Panel if "_PT_" in name else self.Menu,), {})
            case ast.AnnAssign(annotation=annotation) if ast.unparse(annotation).startswith("list["):
                return []
            case ast.AnnAssign():
                raise AttributeError(f"the stand-in leaves {self.__name__}.{name} out")
            case ast.ClassDef(bases=bases):
                for base in bases:
                    getattr(self, ast.unparse(base))
        exec(compile(tree, self.__name__, "exec", POSTPONED, dont_inherit=True), vars(self))
        of_props = self.__name__ == "bpy.props" and name.endswith("Property")
        return partial(Property, vars(self)[name]) if of_props else vars(self)[name]


class _Finder:
    """Finds the modules of which there are stubs; for `sys.meta_path`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        root, *rest = name.split(".")
        if root in ("bpy", "mathutils"):
            for place in map(Path, sys.path):
                stub = place.joinpath(f"{root}-stubs", *rest, "__init__.pyi")
                if stub.is_file():
                    return ModuleSpec(name, self, origin=str(stub), is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stub(spec.name, Path(str(spec.origin)))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is executed before it is asked for."""


class _Registered(list[Any]):
    """The registered classes in their order; a class is checked for what Blender wants of it."""

    def register(self, one: Any) -> None:
        types, name = sys.modules["bpy"].types, getattr(one, "bl_idname", one.__name__)
        assert issubclass(one, types.bpy_struct), f"{name} is nothing that Blender knows"
        assert one not in self, f"{name} is registered already"
        if issubclass(one, types.Operator):
            assert re.fullmatch(r"[a-z]\w*\.[a-z_]+", name), f"{name!r} cannot be an operator's name"
        if parent := getattr(one, "bl_parent_id", ""):
            assert parent in [getattr(other, "bl_idname", "") for other in self], f"{name} comes before {parent}"
        for property_name, value in declared(one).items():
            assert value.kind != "PointerProperty" or value.settings["type"] in self, f"{name} comes too early"
            setattr(one, property_name, value)
        self.append(one)


def made(kind: type, *bases: type, **values: Any) -> Any:
    """One of Blender's own things that has these values, which the stub must know of."""
    known = {*dir(kind), *(name for base in kind.__mro__ for name in vars(base).get("__annotations__", {}))}
    assert known.issuperset(values), f"{kind.__name__} has no {set(values) - known}"
    return type(kind.__name__, (*bases, kind), values)()


@contextmanager
def stand_in() -> Iterator[Any]:
    """Import `bpy` and the add-on from here on, until it is left; nothing of them stays."""
    assert not [name for name in sys.modules if name.split(".")[0] in ROOTS], "they are imported already"
    finder = _Finder()
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        bpy: Any = importlib.import_module("bpy")
        classes = _Registered()
        bpy.utils.classes = classes
        bpy.utils.register_class, bpy.utils.unregister_class = classes.register, classes.remove
        bpy.app.background, bpy.app.online_access = False, True
        bpy.app.version, bpy.app.version_string = (5, 0, 0), "5.0.0"
        bpy.app.handlers.persistent = bpy.path.abspath = lambda given: given
        yield bpy
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in [name for name in sys.modules if name.split(".")[0] in ROOTS]:
            del sys.modules[name]
