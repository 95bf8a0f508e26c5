"""Messages to frames and back: [b"SDF1", JSON header, raw little-endian arrays...].

    frames = encode(Submit(job="0123456789", task="complete", ...))
    message = decode(frames, REQUESTS, Limits())

The header holds the kind, the message's fields, and under "arrays" dtype and shape of each array frame; a field that is
an array is {"array": its number}. Decoding trusts nothing: every size is checked before anything is made of it, every
field must have its type, floats must be finite. Unknown fields are passed over, so that a later server may say more.
Encoding checks only what it must; who wants to know before sending whether the other side will take it, decodes it.
"""

import json
import math
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import zmq

from .messages import JOB_PATTERN, ArraySpec, Limits

VERSION = 1
FIRST_FRAME = b"SDF%d" % VERSION
FIRST_FRAME_OF_ANY_VERSION = re.compile(rb"SDF([0-9]{1,5})")
KNOWN_DTYPES = ("<f4", "<f8", "<i4", "<u4", "<i8")
# Whole numbers beyond this are not exact in every JSON reader.
LARGEST_INTEGER = 2**53
LONGEST_TEXT = 4096
# An array without elements may still claim long axes, over which somebody might loop: these bytes bound them.
EMPTY_ARRAY_BYTES = 1 << 16

Frame = bytes | bytearray | memoryview | zmq.Frame


class WireError(ValueError):
    """A message that cannot be used: `code` for programs, the text for people, `job` where it could be read."""

    def __init__(self, code: str, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.code, self.job = code, job


class VersionError(WireError):
    """A peer that speaks another version of the protocol."""

    def __init__(self, theirs: str) -> None:
        super().__init__(
            "version",
            f"a message of version {theirs} of the protocol came where version {VERSION} is spoken; "
            "update the older of the two programs",
        )


class Header(NamedTuple):
    """A checked header: its kind, all of its fields, and the arrays' frames, each with its description."""

    kind: str
    content: dict[str, Any]
    arrays: list[tuple[np.dtype, tuple[int, ...], memoryview | None]]

    @property
    def job(self) -> str | None:
        """The job that the message names, where it names one as it should."""
        job = self.content.get("job")
        return job if isinstance(job, str) and JOB_PATTERN.fullmatch(job) else None

    def outlined(self) -> "Header":
        """The same with arrays of the right type and shape and no values, for who routes a message and reads none."""
        return self._replace(arrays=[(dtype, shape, None) for dtype, shape, _ in self.arrays])


def encode(message: Any) -> list[bytes | memoryview]:
    """The frames of a message; arrays are not copied where they are contiguous and little-endian already.

    Text is made printable and cut to what the other side takes, so that any exception's text can be sent.
    Raises `WireError` for an array of another dtype, for NaN outside of arrays, and for what is no JSON.
    """
    arrays: list[np.ndarray] = []
    content = {"kind": message.kind, **_plain(message, arrays)}
    content["arrays"] = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in arrays]
    try:
        header = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise WireError("bad_value", f"the {message.kind} cannot be sent: {error}") from error
    return [FIRST_FRAME, header, *(array.reshape(-1).view(np.uint8).data for array in arrays)]


def decode(frames: Sequence[Frame], kinds: Mapping[str, type], limits: Limits) -> Any:
    """The message that frames hold, one of `kinds`.

    Raises `VersionError` for a peer of another version and `WireError` for anything else that is wrong.
    """
    return build(read_header(frames, limits), kinds)


def read_header(frames: Sequence[Frame], limits: Limits) -> Header:
    """Check sizes and the header; arrays' values are not looked at, so this is fast however large they are."""
    parts = [(frame.buffer if isinstance(frame, zmq.Frame) else memoryview(frame)).toreadonly() for frame in frames]
    version = FIRST_FRAME_OF_ANY_VERSION.fullmatch(parts[0][:9].tobytes()) if parts else None
    if version is None:
        raise WireError("bad_magic", f"the message does not begin with {FIRST_FRAME.decode()}")
    if version[0] != FIRST_FRAME:
        raise VersionError(version[1].decode())
    if len(parts) < 2:
        raise WireError("bad_header", "the message has no header")
    _check_sizes(parts, limits)
    content = _json(bytes(parts[1]))
    kind = content.get("kind")
    if not isinstance(kind, str):
        raise WireError("bad_header", "the header names no kind")
    header = Header(kind[:40], content, [])
    try:
        header.arrays.extend(_described(content.get("arrays", []), parts[2:]))
    except WireError as error:
        raise WireError(error.code, str(error), header.job) from error
    return header


def build(header: Header, kinds: Mapping[str, type]) -> Any:
    """The message of a checked header; raises `WireError` where a field is missing or not what it should be."""
    if header.kind not in kinds:
        raise WireError(
            "bad_kind", f"the kind {header.kind!r} is none of {', '.join(kinds)} that are known here", header.job
        )
    try:
        return _built(kinds[header.kind], header.content, list(header.arrays), header.kind)
    except WireError as error:
        raise WireError(error.code, str(error), header.job) from error


# --- dataclasses to JSON -----------------------------------------------------------------------------------------


def _plain(value: Any, arrays: list[np.ndarray]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), arrays) for field in fields(value)}
    if isinstance(value, np.ndarray):
        arrays.append(_little(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple | list):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, dict):
        return {_printable(str(key)): _plain(item, arrays) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return _printable(value)
    return value.item() if isinstance(value, np.generic) else value


def _little(array: np.ndarray) -> np.ndarray:
    little = array.dtype.newbyteorder("<")
    if little.str not in KNOWN_DTYPES:
        raise WireError("bad_array", f"an array of {array.dtype} cannot be sent; use {', '.join(KNOWN_DTYPES)}")
    return np.ascontiguousarray(array, little)


def _printable(text: str) -> str:
    if not text.isprintable():
        text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


# --- frames to headers -------------------------------------------------------------------------------------------


def _check_sizes(parts: list[memoryview], limits: Limits) -> None:
    if parts[1].nbytes > limits.header_bytes:
        raise WireError("too_large", f"the header has {parts[1].nbytes} bytes; at most {limits.header_bytes} are read")
    if len(parts) - 2 > limits.frames:
        raise WireError("too_large", f"the message has {len(parts) - 2} arrays; at most {limits.frames} are read")
    sizes = [part.nbytes for part in parts[2:]]
    if max(sizes, default=0) > limits.frame_bytes:
        raise WireError("too_large", f"an array has {max(sizes)} bytes; at most {limits.frame_bytes} are read")
    if sum(sizes) > limits.message_bytes:
        raise WireError("too_large", f"the arrays have {sum(sizes)} bytes; at most {limits.message_bytes} are read")


def _json(text: bytes) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number here")

    try:
        content = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise WireError("bad_header", f"the header is no JSON: {reason}") from error
    if not isinstance(content, dict):
        raise WireError("bad_header", "the header is no JSON object")
    return content


def _described(rows: Any, parts: list[memoryview]) -> list[tuple[np.dtype, tuple[int, ...], memoryview]]:
    if not isinstance(rows, list) or len(rows) != len(parts):
        described = len(rows) if isinstance(rows, list) else "no"
        raise WireError("bad_array", f"the header describes {described} arrays; {len(parts)} came")
    return [_one_described(index, row, part) for index, (row, part) in enumerate(zip(rows, parts, strict=True))]


def _one_described(index: int, row: Any, part: memoryview) -> tuple[np.dtype, tuple[int, ...], memoryview]:
    name, shape = (row.get("dtype"), row.get("shape")) if isinstance(row, dict) else (None, None)
    if not isinstance(name, str) or name not in KNOWN_DTYPES:
        raise WireError("bad_array", f"array {index} has the dtype {_short(name)}; use {', '.join(KNOWN_DTYPES)}")
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4 or not all(_is_length(length) for length in shape):
        raise WireError("bad_array", f"array {index} has the shape {_short(shape)}; use one to four lengths")
    dtype = np.dtype(name)
    claimed = math.prod(length or 1 for length in shape) * dtype.itemsize
    if math.prod(shape) * dtype.itemsize != part.nbytes or claimed > max(part.nbytes, EMPTY_ARRAY_BYTES):
        raise WireError("bad_array", f"array {index} has {part.nbytes} bytes, which is not {_short(shape)} of {name}")
    return dtype, tuple(shape), part


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_INTEGER


# --- JSON to dataclasses -----------------------------------------------------------------------------------------


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def _built(kind: type, content: Any, arrays: list, where: str) -> Any:
    if not isinstance(content, dict):
        raise WireError("bad_value", f"{where} is {_short(content)}; it must be an object")
    values, hints = {}, _hints(kind)
    for field in fields(kind):
        if field.name in content:
            place = f"{where}.{field.name}"
            values[field.name] = _value(hints[field.name], content[field.name], arrays, place)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise WireError("bad_value", f"{where} has no {field.name!r}")
    try:
        return kind(**values)
    except ValueError as error:
        raise WireError("bad_value", f"{where}: {error}") from error


def _value(hint: Any, value: Any, arrays: list, where: str) -> Any:
    """`value` as the type that `hint` names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        [inner] = [option for option in arguments if option is not NoneType]
        return None if value is None else _value(inner, value, arrays, where)
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, ArraySpec):
            return _array(extra, value, arrays, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return _built(hint, value, arrays, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise WireError("bad_value", f"{where} is {_short(value)}; it must be a list")
        if Ellipsis not in arguments and len(value) != len(arguments):
            raise WireError("bad_value", f"{where} has {len(value)} items; it must have {len(arguments)}")
        return tuple(_value(arguments[0], item, arrays, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise WireError("bad_value", f"{where} is {_short(value)}; it must be an object")
        return {
            _value(str, key, arrays, where): _value(arguments[1], item, arrays, f"{where}.{key[:40]}")
            for key, item in value.items()
        }
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if hint is int and type(value) is int and abs(value) <= LARGEST_INTEGER:
        return value
    if hint is bool and type(value) is bool:
        return value
    if hint is str and type(value) is str and len(value) <= LONGEST_TEXT and value.isprintable():
        return value
    names = {float: "a finite number", int: "a whole number", bool: "true or false"}
    wanted = names.get(hint, f"printable text of at most {LONGEST_TEXT} characters")
    raise WireError("bad_value", f"{where} is {_short(value)}; it must be {wanted}")


def _member(kind: type[StrEnum], value: Any, where: str) -> StrEnum:
    """The member of an enum that has this value."""
    try:
        return kind(_scalar(str, value, where))
    except ValueError as error:
        raise WireError("bad_value", f"{where} is {_short(value)}; it must be one of {', '.join(kind)}") from error


def _array(spec: ArraySpec, value: Any, arrays: list, where: str) -> np.ndarray:
    """A read-only view of the frame that `value` refers to.

    Each frame is used once: one frame that stands in a thousand places would cost a thousand checks.
    """
    index = value.get("array") if isinstance(value, dict) else None
    if not (type(index) is int and 0 <= index < len(arrays)):
        raise WireError("bad_array", f"{where} is {_short(value)}; it must name one of the {len(arrays)} arrays")
    if arrays[index] is None:
        raise WireError("bad_array", f"{where} names array {index}, which is in use; send it twice")
    dtype, shape, part = arrays[index]
    arrays[index] = None
    fits = len(shape) == len(spec.shape) and all(
        want in (None, got) for want, got in zip(spec.shape, shape, strict=True)
    )
    if dtype.str not in spec.dtypes or not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in spec.shape)
        raise WireError(
            "bad_array",
            f"{where} is {dtype.str} of shape {list(shape)}; it must be {' or '.join(spec.dtypes)} of shape ({wanted})",
        )
    if part is None:
        return np.broadcast_to(np.zeros((), dtype), shape)
    array = np.frombuffer(part, dtype).reshape(shape)
    # The largest and the smallest tell of NaN and infinity too, without another array of the same length.
    if dtype.kind == "f" and array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise WireError("not_finite", f"{where} holds NaN or infinite numbers; remove them")
    return array


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2


def _short(value: Any) -> str:
    """A value as an error may show it: short and on one line, however long or deep a stranger made it."""
    text = _BRIEF.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
