"""A runnable stand-in for `bpy` and `mathutils`, made from the stubs of fake-bpy-module, for tests without Blender.

    with stand_in() as bpy:
        import blender_addon

A definition is found in the stub, parsed and executed on first access, since the stub of `bpy.types` has 150,000 lines;
a name that no stub declares is an `AttributeError`, as in Blender. Functions check their arguments and do nothing;
properties record their declaration, and hold values once their class is registered.

Not covered: `bpy.data`, operators called through `bpy.ops`, timers, update callbacks and clamping of properties, custom
properties, and the computations of mathutils.
"""

import __future__

import ast
import builtins
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

# Packages that are imported for each stand-in, and removed after it.
ROOTS = ("bpy", "mathutils", "bl_ui", "bl_operators", "blender_addon")
POSTPONED = __future__.annotations.compiler_flag
# `class A[T]`, `def a[T]` and `type A = B`, which Python 3.11 does not know.
NEW_SYNTAX = re.compile(r"^(\s*(?:class|def) \w+)\[[^\[\]]*\]|^type (?=\w+ =)", re.MULTILINE)


class Property:
    """A call of `bpy.props`: `kind`, the arguments `given`, and `settings`, which include the stub's defaults."""

    def __init__(self, declared: Any, *unnamed: Any, **given: Any) -> None:
        bound = inspect.signature(declared).bind(*unnamed, **given)
        bound.apply_defaults()
        self.kind, self.given, self.settings = declared.__name__, given, bound.arguments
        if self.kind == "EnumProperty" and "default" in given:
            assert given["default"] in self.choices, given

    @property
    def choices(self) -> dict[str, str]:
        """Identifiers and labels of an enum's items."""
        return {item[0]: item[1] for item in self.settings["items"]}

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        if self.kind == "PointerProperty" and self not in vars(owner):
            vars(owner)[self] = self.settings["type"]()
        size = self.settings.get("size", 1) if self.kind.endswith("VectorProperty") else 0
        return vars(owner).get(self, self.given.get("default", (0.0,) * size) if size else self.settings.get("default"))

    def __set__(self, owner: Any, value: Any) -> None:
        assert self.kind != "EnumProperty" or value in self.choices, f"{value!r} is not one of {list(self.choices)}"
        vars(owner)[self] = value


def declared(owner: type) -> dict[str, Property]:
    """The properties that a class and its bases declare."""
    found = [item for base in reversed(owner.__mro__) for item in vars(base).get("__annotations__", {}).items()]
    return {name: value for name, value in found if isinstance(value, Property)}


@cache
def _source(stub: Path) -> str:
    """A stub without its introduction."""
    return re.split(r"^import typing$", stub.read_text(), maxsplit=1, flags=re.M)[-1]


@cache
def _definition(stub: Path, name: str) -> ast.Module | None:
    """The definition of a name in a stub, with the type arguments of its bases removed."""
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
    """A module whose definitions are made on first access."""

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
            case ast.AnnAssign(annotation=ast.Attribute(attr=same)) if same == name:  # a panel or menu of Blender
                return type(name, (self.Panel if "_PT_" in name else self.Menu,), {})
            case ast.AnnAssign(annotation=annotation) if ast.unparse(annotation).startswith("list["):
                return []
            case ast.AnnAssign():
                raise AttributeError(f"the stand-in does not cover {self.__name__}.{name}")
            case ast.ClassDef(bases=bases):
                for base in map(ast.unparse, bases):
                    hasattr(builtins, base) or getattr(self, base)
        exec(compile(tree, self.__name__, "exec", POSTPONED, dont_inherit=True), vars(self))
        of_props = self.__name__ == "bpy.props" and name.endswith("Property")
        return partial(Property, vars(self)[name]) if of_props else vars(self)[name]


class _Finder:
    """Finds the modules that have stubs; for `sys.meta_path`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        root, *rest = name.split(".")
        if root in ROOTS[:-1]:
            for place in map(Path, sys.path):
                stub = place.joinpath(f"{root}-stubs", *rest, "__init__.pyi")
                if stub.is_file():
                    return ModuleSpec(name, self, origin=str(stub), is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stub(spec.name, Path(str(spec.origin)))

    def exec_module(self, module: ModuleType) -> None:
        """Definitions are executed on first access."""


class _Registered(list[Any]):
    """The registered classes in order; each is checked as Blender checks it."""

    def register(self, cls: Any) -> None:
        types, name = sys.modules["bpy"].types, getattr(cls, "bl_idname", cls.__name__)
        assert issubclass(cls, types.bpy_struct), f"{name} is not a type that can be registered"
        assert cls not in self, f"{name} is registered already"
        if issubclass(cls, types.Operator):
            assert re.fullmatch(r"[a-z]\w*\.[a-z_]+", name), f"{name!r} cannot be an operator's name"
        if parent := getattr(cls, "bl_parent_id", ""):
            assert parent in [getattr(other, "bl_idname", "") for other in self], f"{name} comes before {parent}"
        for property_name, value in declared(cls).items():
            assert value.kind != "PointerProperty" or value.settings["type"] in self, f"{name} comes too early"
            setattr(cls, property_name, value)
        self.append(cls)


class _Previews(dict[str, Any]):
    """A collection of previews, numbered from 1 in the order in which they are loaded."""

    def __init__(self, bpy: Any) -> None:
        super().__init__()
        self._bpy = bpy

    def load(self, name: str, filepath: str, file_type: str) -> Any:
        assert Path(filepath).is_file() and file_type == "IMAGE"
        self[name] = made(self._bpy.types.ImagePreview, icon_id=len(self) + 1, image_size=(64, 64))
        return self[name]


def made(kind: type, *bases: type, **values: Any) -> Any:
    """An instance of a Blender type with these attributes, which the stub must declare."""
    known = {*dir(kind), *(name for base in kind.__mro__ for name in vars(base).get("__annotations__", {}))}
    assert known.issuperset(values), f"{kind.__name__} has no {set(values) - known}"
    return type(kind.__name__, (*bases, kind), values)()


@contextmanager
def stand_in() -> Iterator[Any]:
    """Make `bpy` and the add-on importable within the context; they are removed after it."""
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
        bpy.app.translations.pgettext_iface = lambda text, context: text
        previews: Any = importlib.import_module("bpy.utils.previews")
        previews.new = partial(_Previews, bpy)
        yield bpy
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in [name for name in sys.modules if name.split(".")[0] in ROOTS]:
            del sys.modules[name]
