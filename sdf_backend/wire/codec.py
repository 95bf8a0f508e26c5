"""Encodes messages as frames and decodes them: [b"SDF1", JSON header, raw little-endian arrays...].

    frames = encode(Submit(job="0123456789", task="complete", ...))
    message = decode(frames, REQUESTS, Limits())

The header holds the kind, the fields of the message, and under "arrays" the dtype and shape of each array frame; a
field that is an array is {"array": its index}; an enum is its value. Decoding trusts nothing: every size is checked
before memory is allocated, every field must have its type, floats must be finite. Unknown fields are ignored, so that
later versions can add some. Encoding checks only what it must; to check a message before it is sent, decode its frames.
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

from .errors import ErrorCode
from .messages import JOB_PATTERN, ArraySpec, Error, Limits

VERSION = 1
FIRST_FRAME = b"SDF%d" % VERSION
FIRST_FRAME_OF_ANY_VERSION = re.compile(rb"SDF([0-9]{1,5})")
KNOWN_DTYPES = ("<f4", "<f8", "<i4", "<u4", "<i8")
# Larger integers are not exact in every JSON parser.
LARGEST_INTEGER = 2**53
LONGEST_TEXT = 4096
# Characters of an error message, which may quote anything.
LONGEST_ERROR = 1000
# An array without elements may still claim long axes, over which a program might loop: these bytes bound them.
EMPTY_ARRAY_BYTES = 1 << 16

Frame = bytes | bytearray | memoryview | zmq.Frame


class WireError(ValueError):
    """A message cannot be used.

    code : an `ErrorCode`, for programs; the text of the exception is for people
    job : the name of the job, if it could be read
    """

    def __init__(self, code: ErrorCode | str, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.code, self.job = code, job


class VersionError(WireError):
    """The peer uses another version of the protocol."""

    def __init__(self, theirs: str) -> None:
        super().__init__(
            ErrorCode.VERSION,
            f"received a message in version {theirs} of the protocol, but this program uses version {VERSION} of it; "
            "update the older of the two programs",
        )


class Header(NamedTuple):
    """A checked header: kind, fields, and for each array its dtype, shape and frame."""

    kind: str
    content: dict[str, Any]
    arrays: list[tuple[np.dtype, tuple[int, ...], memoryview | None]]

    @property
    def job(self) -> str | None:
        """The job of the message, if it has a valid name."""
        job = self.content.get("job")
        return job if isinstance(job, str) and JOB_PATTERN.fullmatch(job) else None

    def without_values(self) -> "Header":
        """A copy whose arrays have dtype and shape but no values, to check a message that is only passed on."""
        return self._replace(arrays=[(dtype, shape, None) for dtype, shape, _ in self.arrays])


def encode(message: Any) -> list[bytes | memoryview]:
    """Encode a message as frames; contiguous little-endian arrays are not copied.

    Text is made printable and truncated to the permitted length, so that the text of any exception can be sent.
    Raises `WireError` for an array of another dtype, for NaN outside of arrays, and for values that JSON cannot hold.
    """
    arrays: list[np.ndarray] = []
    content = {"kind": message.kind, **_to_json(message, arrays)}
    content["arrays"] = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in arrays]
    try:
        header = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise WireError(ErrorCode.BAD_VALUE, f"the {message.kind} message cannot be sent: {error}") from error
    return [FIRST_FRAME, header, *(array.reshape(-1).view(np.uint8).data for array in arrays)]


def encode_error(code: ErrorCode | str, message: str, job: str | None = None) -> list[Frame]:
    """Encode an `Error`: its message truncated to one short line, and an invalid job name left out."""
    text = message if len(message) <= LONGEST_ERROR else message[: LONGEST_ERROR - 3] + "..."
    name = job if job is not None and JOB_PATTERN.fullmatch(job) else None
    return list(encode(Error(code, text, name)))


def decode(frames: Sequence[Frame], kinds: Mapping[str, type], limits: Limits) -> Any:
    """Decode frames as a message, one of `kinds`.

    Raises `VersionError` for another protocol version and `WireError` for any other defect.
    """
    return build(read_header(frames, limits), kinds)


def read_header(frames: Sequence[Frame], limits: Limits) -> Header:
    """Check the sizes and parse the header; values of arrays are not read, so their size does not matter."""
    parts = [(frame.buffer if isinstance(frame, zmq.Frame) else memoryview(frame)).toreadonly() for frame in frames]
    version = FIRST_FRAME_OF_ANY_VERSION.fullmatch(parts[0][:9].tobytes()) if parts else None
    if version is None:
        raise WireError(ErrorCode.BAD_MAGIC, f"the message does not begin with {FIRST_FRAME.decode()}")
    if version[0] != FIRST_FRAME:
        raise VersionError(version[1].decode())
    if len(parts) < 2:
        raise WireError(ErrorCode.BAD_HEADER, "the message has no header")
    _check_sizes(parts, limits)
    content = _parse_json(bytes(parts[1]))
    kind = content.get("kind")
    if not isinstance(kind, str):
        raise WireError(ErrorCode.BAD_HEADER, "the header has no kind")
    header = Header(kind[:40], content, [])
    try:
        header.arrays.extend(_parse_arrays(content.get("arrays", []), parts[2:]))
    except WireError as error:
        raise WireError(error.code, str(error), header.job) from error
    return header


def build(header: Header, kinds: Mapping[str, type]) -> Any:
    """Build the message of a checked header; raises `WireError` for a missing or invalid field."""
    if header.kind not in kinds:
        raise WireError(
            ErrorCode.BAD_KIND, f"unknown message kind {header.kind!r}; use one of {', '.join(kinds)}", header.job
        )
    try:
        return _to_dataclass(kinds[header.kind], header.content, list(header.arrays), header.kind)
    except WireError as error:
        raise WireError(error.code, str(error), header.job) from error


# --- dataclasses to JSON -----------------------------------------------------------------------------------------


def _to_json(value: Any, arrays: list[np.ndarray]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _to_json(getattr(value, field.name), arrays) for field in fields(value)}
    if isinstance(value, np.ndarray):
        arrays.append(_to_little_endian(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple | list):
        return [_to_json(item, arrays) for item in value]
    if isinstance(value, dict):
        return {_printable(str(key)): _to_json(item, arrays) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return _printable(value)
    return value.item() if isinstance(value, np.generic) else value


def _to_little_endian(array: np.ndarray) -> np.ndarray:
    little = array.dtype.newbyteorder("<")
    if little.str not in KNOWN_DTYPES:
        raise WireError(
            ErrorCode.BAD_ARRAY, f"an array of dtype {array.dtype} cannot be sent; use {', '.join(KNOWN_DTYPES)}"
        )
    return np.ascontiguousarray(array, little)


def _printable(text: str) -> str:
    if not text.isprintable():
        text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


# --- frames to headers -------------------------------------------------------------------------------------------


def _check_sizes(parts: list[memoryview], limits: Limits) -> None:
    if parts[1].nbytes > limits.header_bytes:
        raise WireError(
            ErrorCode.TOO_LARGE, f"the header has {parts[1].nbytes} bytes; at most {limits.header_bytes} are accepted"
        )
    if len(parts) - 2 > limits.frames:
        raise WireError(
            ErrorCode.TOO_LARGE, f"the message has {len(parts) - 2} arrays; at most {limits.frames} are accepted"
        )
    sizes = [part.nbytes for part in parts[2:]]
    if max(sizes, default=0) > limits.frame_bytes:
        raise WireError(
            ErrorCode.TOO_LARGE, f"an array has {max(sizes)} bytes; at most {limits.frame_bytes} are accepted"
        )
    if sum(sizes) > limits.message_bytes:
        raise WireError(
            ErrorCode.TOO_LARGE, f"the arrays have {sum(sizes)} bytes; at most {limits.message_bytes} are accepted"
        )


def _parse_json(text: bytes) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not allowed")

    try:
        content = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise WireError(ErrorCode.BAD_HEADER, f"the header is not JSON: {reason}") from error
    if not isinstance(content, dict):
        raise WireError(ErrorCode.BAD_HEADER, "the header is not a JSON object")
    return content


def _parse_arrays(rows: Any, parts: list[memoryview]) -> list[tuple[np.dtype, tuple[int, ...], memoryview]]:
    if not isinstance(rows, list) or len(rows) != len(parts):
        described = len(rows) if isinstance(rows, list) else "no"
        raise WireError(ErrorCode.BAD_ARRAY, f"the header describes {described} arrays; the message has {len(parts)}")
    return [_parse_array(index, row, part) for index, (row, part) in enumerate(zip(rows, parts, strict=True))]


def _parse_array(index: int, row: Any, part: memoryview) -> tuple[np.dtype, tuple[int, ...], memoryview]:
    name, shape = (row.get("dtype"), row.get("shape")) if isinstance(row, dict) else (None, None)
    if not isinstance(name, str) or name not in KNOWN_DTYPES:
        raise WireError(
            ErrorCode.BAD_ARRAY, f"array {index} has the dtype {_short(name)}; use {', '.join(KNOWN_DTYPES)}"
        )
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4 or not all(_is_length(length) for length in shape):
        raise WireError(
            ErrorCode.BAD_ARRAY, f"array {index} has the shape {_short(shape)}; use one to four non-negative integers"
        )
    dtype = np.dtype(name)
    claimed = math.prod(length or 1 for length in shape) * dtype.itemsize
    if math.prod(shape) * dtype.itemsize != part.nbytes or claimed > max(part.nbytes, EMPTY_ARRAY_BYTES):
        raise WireError(
            ErrorCode.BAD_ARRAY,
            f"array {index} has {part.nbytes} bytes, which does not match shape {_short(shape)} of {name}",
        )
    return dtype, tuple(shape), part


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_INTEGER


# --- JSON to dataclasses -----------------------------------------------------------------------------------------


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def _to_dataclass(kind: type, content: Any, arrays: list, where: str) -> Any:
    if not isinstance(content, dict):
        raise WireError(ErrorCode.BAD_VALUE, f"{where} is {_short(content)}; it must be an object")
    values, hints = {}, _hints(kind)
    for field in fields(kind):
        if field.name in content:
            path = f"{where}.{field.name}"
            values[field.name] = _value(hints[field.name], content[field.name], arrays, path)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise WireError(ErrorCode.BAD_VALUE, f"{where} has no {field.name!r}")
    try:
        return kind(**values)
    except ValueError as error:
        raise WireError(ErrorCode.BAD_VALUE, f"{where}: {error}") from error


def _value(hint: Any, value: Any, arrays: list, where: str) -> Any:
    """Convert a JSON value to the type of a hint."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if NoneType in arguments and value is None:
            return None
        inner, *rest = [option for option in arguments if option is not NoneType]
        if str in rest:  # an enum to which later versions may add members
            text = _scalar(str, value, where)
            return inner(text) if text in list(inner) else text
        return _value(inner, value, arrays, where)
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, ArraySpec):
            return _array(extra, value, arrays, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return _to_dataclass(hint, value, arrays, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum_member(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise WireError(ErrorCode.BAD_VALUE, f"{where} is {_short(value)}; it must be a list")
        if Ellipsis not in arguments and len(value) != len(arguments):
            raise WireError(ErrorCode.BAD_VALUE, f"{where} has {len(value)} items; it must have {len(arguments)}")
        return tuple(_value(arguments[0], item, arrays, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise WireError(ErrorCode.BAD_VALUE, f"{where} is {_short(value)}; it must be an object")
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
    names = {float: "a finite number", int: "an integer", bool: "true or false"}
    wanted = names.get(hint, f"printable text of at most {LONGEST_TEXT} characters")
    raise WireError(ErrorCode.BAD_VALUE, f"{where} is {_short(value)}; it must be {wanted}")


def _enum_member(kind: type[StrEnum], value: Any, where: str) -> StrEnum:
    try:
        return kind(_scalar(str, value, where))
    except ValueError as error:
        raise WireError(
            ErrorCode.BAD_VALUE, f"{where} is {_short(value)}; it must be one of {', '.join(kind)}"
        ) from error


def _array(spec: ArraySpec, value: Any, arrays: list, where: str) -> np.ndarray:
    """A read-only view of the frame that `value` refers to.

    Each frame is used once: a frame that a thousand fields refer to would be checked a thousand times.
    """
    index = value.get("array") if isinstance(value, dict) else None
    if not (type(index) is int and 0 <= index < len(arrays)):
        raise WireError(
            ErrorCode.BAD_ARRAY, f"{where} is {_short(value)}; it must be the index of one of the {len(arrays)} arrays"
        )
    if arrays[index] is None:
        raise WireError(
            ErrorCode.BAD_ARRAY, f"{where} refers to array {index}, which another field uses; send it twice"
        )
    dtype, shape, part = arrays[index]
    arrays[index] = None
    fits = len(shape) == len(spec.shape) and all(
        want in (None, got) for want, got in zip(spec.shape, shape, strict=True)
    )
    if dtype.str not in spec.dtypes or not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in spec.shape)
        raise WireError(
            ErrorCode.BAD_ARRAY,
            f"{where} is {dtype.str} of shape {list(shape)}; it must be {' or '.join(spec.dtypes)} of shape ({wanted})",
        )
    if part is None:
        return np.broadcast_to(np.zeros((), dtype), shape)
    array = np.frombuffer(part, dtype).reshape(shape)
    # Maximum and minimum reveal NaN and infinity without allocating a mask.
    if dtype.kind == "f" and array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise WireError(ErrorCode.NOT_FINITE, f"{where} contains NaN or infinite numbers; remove them")
    return array


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2


def _short(value: Any) -> str:
    """A value for an error message: one short line, however long or deeply nested it is."""
    text = _BRIEF.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
