"""A `UILayout` that records what a panel draws as lines of text, and fails for calls that Blender would reject.

Methods, keywords and their values, including icons, are checked against the stub of `UILayout`; properties and
operators against the registered classes. Not covered: positions, disabled items, and kinds of items that the add-on
does not draw.
"""

import inspect
import typing
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, Union

from stand_in import Property, declared

LAYOUTS = ("row", "column", "box", "split")
# Arguments that only affect the appearance.
LOOKS = {"slider", "emboss", "icon_value"}


class Layout:
    """A layout with its sub-layouts. `lines` is its text from the top: buttons in [], the active choice in <>."""

    def __init__(self, bpy: Any, drawn: list[Any] | None = None) -> None:
        vars(self).update(_bpy=bpy, _drawn=[] if drawn is None else drawn)

    @property
    def lines(self) -> list[str]:
        return [str(one) for one in self._drawn]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(self._bpy.types.UILayout, name))

        def draw(*given: Any, **named: Any) -> Any:
            arguments = signature.bind(self, *given, **named).arguments
            del arguments["self"]
            for key, value in arguments.items():
                self._check(value, signature.parameters[key].annotation, f"{name}({key}={value!r})")
            if name in LAYOUTS:
                return Layout(self._bpy, self._drawn)
            return getattr(Layout, f"_{name}")(self, **{key: arguments[key] for key in arguments if key not in LOOKS})

        return draw

    def __setattr__(self, name: str, value: Any) -> None:
        self._check(value, self._bpy.types.UILayout.__annotations__[name], f"{name} = {value!r}")

    def _check(self, value: Any, annotation: str, what: str) -> None:
        assert _fits(value, eval(annotation, {"bpy": self._bpy, "typing": typing})), f"{what}; it must be {annotation}"

    def _registered(self, idname: str, kind: type) -> Any:
        found = [one for one in self._bpy.utils.classes if issubclass(one, kind) and one.bl_idname == idname]
        assert found, f"{idname} is not registered"
        return found[0]

    # --- items -------------------------------------------------------------------------------------------------------

    def _label(self, text: str = "", icon: str = "NONE") -> None:
        self._drawn.append(text)

    def _separator(self) -> None:
        """Draws no text."""

    def _template_icon(self, scale: float = 1.0) -> None:
        """Draws no text."""

    def _progress(self, text: str = "", factor: float = 0.0) -> None:
        assert 0 <= factor <= 1
        self._drawn.append(f"{text} {factor:.0%}")

    def _prop(
        self,
        data: Any,
        property: str,
        text: str | None = None,
        index: int = -1,
        placeholder: str = "",
        expand: bool = False,
    ) -> None:
        assert type(data) in self._bpy.utils.classes, f"{type(data)} is not registered"
        assert property in declared(type(data)), f"{type(data).__name__} has no {property}"
        setting, value = declared(type(data))[property], getattr(data, property)
        if index >= 0:
            value = value[index]
        if expand:
            self._drawn.append(_choices(setting, value))
            return
        shown = setting.choices[value] if setting.kind == "EnumProperty" else value
        name = setting.settings["name"] if text is None else text
        self._drawn.append(f"{name}: {shown or placeholder or value}".removeprefix(": "))

    def _operator(self, operator: str, text: str | None = None, icon: str = "NONE") -> Any:
        found = self._registered(operator, self._bpy.types.Operator)
        assert text != "" or icon != "NONE", f"the button for {operator} has neither text nor icon"
        self._drawn.append(_Button(found, found.bl_label if text is None else text))
        return self._drawn[-1]

    def _menu(self, menu: str, text: str | None = None) -> None:
        found = self._registered(menu, self._bpy.types.Menu)
        self._drawn.append(f"{found.bl_label if text is None else text} >")


class _Button:
    """The properties of an operator, as `UILayout.operator` returns them; only declared ones can be set."""

    def __init__(self, operator: Any, text: str) -> None:
        vars(self).update(_operator=operator, _text=text, _given={})

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in declared(self._operator), f"{self._operator.bl_idname} has no {name}"
        assert isinstance(value, type(declared(self._operator)[name].settings["default"])), f"{name} = {value!r}"
        self._given[name] = value

    def __str__(self) -> str:
        return f"[{' '.join([self._text or self._operator.bl_idname, *map(str, self._given.values())])}]"


def _choices(setting: Property, chosen: str) -> str:
    assert setting.kind == "EnumProperty", "only an enum can be expanded"
    return " ".join(f"<{name}>" if one == chosen else name for one, name in setting.choices.items())


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type in the stub's notation."""
    kinds = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case origin if origin is Literal:
            return value in kinds
        case origin if origin in (Union, UnionType):
            return any(_fits(value, kind) for kind in kinds)
    return annotation is Any or isinstance(value, (int, float) if annotation is float else annotation)
