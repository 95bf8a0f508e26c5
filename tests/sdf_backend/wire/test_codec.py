"""Messages survive encoding and decoding; any other bytes raise a `WireError` that says what is wrong."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdf_backend.wire import codec, messages
from sdf_backend.wire.codec import FIRST_FRAME, WireError, build, decode, encode, read_header
from sdf_backend.wire.messages import (
    REPLIES,
    REQUESTS,
    ArraySpec,
    Cancel,
    Error,
    Hello,
    Limits,
    Preview,
    Progress,
    Result,
    Shape,
    Source,
    StatusRequest,
    Submit,
    Task,
)
from sdf_backend.wire.settings import Axis, Keep, Pose, Quality, TaskSettings, bounds_of

WIRE = Path(messages.__file__).parent
JOB = "job-12345678"
TRIANGLE = np.array([[0, 1, 2]], dtype="<i4")
POINTS = np.arange(9, dtype="<f4").reshape(3, 3)
LIMITS = Limits()

# --- strategies: any message, made from the type hints -----------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-codec.LARGEST_INTEGER, codec.LARGEST_INTEGER)
printable = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
jobs = st.from_regex(messages.JOB_PATTERN, fullmatch=True)


@st.composite
def numbers(draw: st.DrawFn, spec: ArraySpec) -> np.ndarray:
    shape = tuple(draw(st.integers(0, 5)) if length is None else length for length in spec.shape)
    dtype = np.dtype(draw(st.sampled_from(spec.dtypes)))
    if dtype.kind == "f":
        width = 32 if dtype.itemsize == 4 else 64
        return draw(arrays(dtype, shape, elements=st.floats(allow_nan=False, allow_infinity=False, width=width)))
    return draw(arrays(dtype, shape))


@st.composite
def meshes(draw: st.DrawFn, kind: type) -> Any:
    """A source, shape or preview: as many normals as vertices, and faces of vertices that are there."""
    values = {field.name: draw(of(codec._hints(kind)[field.name])) for field in fields(kind)}
    count = draw(st.integers(1, 5))
    for name, value in values.items():
        if name in ("vertices", "normals", "observed", "deviation", "colors") and value is not None:
            values[name] = (
                np.resize(value, (count, *value.shape[1:]))
                if value.size
                else np.zeros_like(value, shape=(count, *value.shape[1:]))
            )
        if name == "faces" and value is not None:
            values[name] = value % count
    if kind is Shape:
        values["kept_vertices"] = draw(st.integers(0, count))
        values["kept_faces"] = draw(st.integers(0, len(values["faces"])))
        values["quads"] = draw(st.integers(0, len(values["faces"]) // 2))
    return kind(**values)


@st.composite
def task_settings(draw: st.DrawFn) -> TaskSettings:
    up, front = draw(st.permutations("xyz"))[:2]
    sign = st.sampled_from("+-")
    return TaskSettings(
        draw(st.integers(*bounds_of("resolution"))),
        draw(st.sampled_from(Pose)),
        Axis(draw(sign) + up),
        Axis(draw(sign) + front),
        draw(st.sampled_from(Quality)),
        draw(st.integers(0, codec.LARGEST_INTEGER)),
        draw(st.floats(0, 1)),
        draw(st.integers(*bounds_of("candidates"))),
        draw(st.sampled_from(Keep)),
    )


def of(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of([st.none() if option is NoneType else of(option) for option in arguments])
    for extra in getattr(hint, "__metadata__", ()):
        return numbers(extra)
    if hint in (Source, Shape, Preview):
        return meshes(hint)
    if hint is TaskSettings:
        return task_settings()
    if is_dataclass(hint):
        return a_message(hint)
    if origin is tuple:
        if Ellipsis in arguments:
            return st.lists(of(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(of, arguments))
    if origin is dict:
        return st.dictionaries(printable, of(arguments[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    return {float: finite, int: whole, bool: st.booleans(), str: printable}[hint]


def a_message(kind: Any) -> st.SearchStrategy[Any]:
    special = {"job": jobs, "task": st.sampled_from(Task), "keep": st.floats(0, 1e6), "count": st.integers(1, 99)}
    special["spread"] = st.floats(0, 1)
    if kind in (messages.WorkerInfo, StatusRequest, Error):
        special["job"] = st.none() | jobs
    hints = codec._hints(kind)
    return st.builds(
        kind,
        **{
            field.name: special[field.name] if field.name in special else of(hints[field.name])
            for field in fields(kind)
        },
    )


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, field.name), getattr(right, field.name)) for field in fields(left)
        )
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and type(left) is type(right)


# --- round trips ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [REQUESTS, REPLIES], ids=["requests", "replies"])
@settings(max_examples=150)
@given(data=st.data())
def test_a_message_comes_back_as_it_was(table: dict[str, type], data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(sorted(table)).flatmap(lambda kind: a_message(table[kind])))
    assert same(decode(encode(message), table, LIMITS), message)


def test_a_message_comes_back_over_a_socket_without_a_copy() -> None:
    message = Submit(JOB, "echo", sources=(Source(POINTS, TRIANGLE),))
    with zmq.Context() as context, context.socket(zmq.PAIR) as here, context.socket(zmq.PAIR) as there:
        here.bind("inproc://here")
        there.connect("inproc://here")
        here.send_multipart(encode(message))
        frames = there.recv_multipart(copy=False)
        [source] = decode(frames, REQUESTS, LIMITS).sources
    assert same(source, message.sources[0])
    assert np.shares_memory(source.vertices, np.frombuffer(frames[2].buffer, np.uint8))
    assert not source.vertices.flags.writeable


def test_arrays_in_place_are_not_copied() -> None:
    frames = encode(Submit(JOB, "echo", sources=(Source(POINTS, TRIANGLE),)))
    assert np.shares_memory(np.frombuffer(frames[2], np.uint8), POINTS)


@pytest.mark.parametrize("values", [POINTS.astype(">f4"), POINTS.astype(">f8"), POINTS.T, POINTS[::-1]])
def test_arrays_of_any_order_are_sent_little_endian(values: np.ndarray) -> None:
    [source] = decode(encode(Submit(JOB, "echo", sources=(Source(values),))), REQUESTS, LIMITS).sources
    np.testing.assert_array_equal(source.vertices, values)
    assert source.vertices.dtype.str in ("<f4", "<f8")


@pytest.mark.parametrize("dtype", ["f2", "bool", "u1", "u8", "c8", "O", "M8[s]", "U3"])
def test_an_array_of_another_dtype_is_not_sent(dtype: str) -> None:
    with pytest.raises(WireError, match="use <f4") as caught:
        encode(Submit(JOB, "echo", sources=(Source(np.zeros((1, 3)).astype(dtype)),)))
    assert caught.value.code == "bad_array"


@pytest.mark.parametrize("message", [Progress(JOB, "fitting", math.nan), Hello(client=object())])
def test_values_that_json_cannot_hold_are_not_sent(message: Any) -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        encode(message)


def test_numpy_scalars_and_any_text_can_be_sent() -> None:
    sent = Progress(JOB, "fitting", np.float32(0.5))
    assert decode(encode(sent), REPLIES, LIMITS).fraction == 0.5
    text = decode(encode(Error("failed", "line one\r\n\tline two \ud800\x00" + "x" * 9999)), REPLIES, LIMITS).message
    assert text.startswith("line one line two xxx") and len(text) == codec.LONGEST_TEXT


def test_settings_are_sent_by_value_and_name() -> None:
    settings = TaskSettings(64, Pose.ALIGNED, Axis.POSITIVE_Y, Axis.NEGATIVE_X, Quality.FINE, 7, 0.5, 3)
    header = bytes(encode(Submit(JOB, "echo", settings=settings))[1])
    assert (
        b'"settings":{"resolution":64,"pose":"aligned","up":"+y","front":"-x","quality":"fine",'
        b'"seed":7,"refine":0.5,"candidates":3,"keep":"nothing","triangles":0,"quads":0}' in header
    )


@pytest.mark.parametrize("fields", [{}, {"pose": "free"}, {"resolution": 32, "later": [1]}])
def test_missing_settings_take_their_defaults(fields: dict[str, Any]) -> None:
    decoded = decode(framed(submission([], settings=fields)), REQUESTS, LIMITS).settings
    assert decoded == TaskSettings(**{name: value for name, value in fields.items() if name != "later"})
    assert isinstance(decoded.pose, Pose) and isinstance(decoded.up, Axis)


# --- messages that are refused -----------------------------------------------------------------------------------


def framed(header: Any, *parts: bytes) -> list[bytes]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return [FIRST_FRAME, text, *parts]


def refused(frames: Any, table: dict[str, type] = REQUESTS, limits: Limits = LIMITS) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frames, table, limits)
    error = caught.value
    assert str(error).isprintable() and len(str(error)) < 600
    # The error can itself be sent.
    assert decode(encode(Error(error.code, str(error), error.job)), REPLIES, LIMITS).message == str(error)
    return error


def test_more_quads_than_the_triangles_make_are_refused() -> None:
    code, pose, faces = np.zeros((1, 2)), np.eye(4)[None], np.zeros((3, 3), dtype=np.int32)
    assert Shape(np.zeros((1, 3)), faces, code, pose, quads=1).quads == 1
    for quads in (-1, 2):
        with pytest.raises(ValueError, match=f"{quads} quads are announced in 3 triangles"):
            Shape(np.zeros((1, 3)), faces, code, pose, quads=quads)


def submission(rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"kind": "submit", "job": JOB, "task": "echo", "arrays": rows, **fields}


@pytest.mark.parametrize("first", [b"SDF2", b"SDF0", b"SDF01", b"SDF99999"])
def test_another_version_is_named_together_with_ours(first: bytes) -> None:
    error = refused([first, b"what a later version says", b"", b""])
    assert error.code == "version"
    assert f"version {first[3:].decode()} " in str(error) and "version 1 " in str(error) and "update" in str(error)


@pytest.mark.parametrize(
    "first", [b"", b"SDF", b"SDF123456", b"sdf1", b"SDF1 ", b"SDF\n", b"GET / HTTP/1.1", b"SDF\xd9\xa1"]
)
def test_what_does_not_begin_as_it_should(first: bytes) -> None:
    assert refused([first, b"{}"]).code == "bad_magic"
    assert refused([first]).code == "bad_magic"
    assert refused([]).code == "bad_magic"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b'{"kind": 3}',
        b'{"kind": null}',
        b"\xff\xfe{}",
        b'\xef\xbb\xbf{"kind":"hello"}',
        b'{"kind":"hello"} x',
        b'{"kind":"hello","client":NaN}',
        b'{"kind":"hello","client":Infinity}',
        b'{"kind":"hello","client":-Infinity}',
        b'{"kind":"hello","client":' + b"9" * 5000 + b"}",
        b'{"kind":"hello","client":' + b"[" * 100_000 + b"}",
    ],
)
def test_a_header_that_is_none(header: bytes) -> None:
    assert refused(framed(header)).code == "bad_header"


def test_a_message_without_a_header() -> None:
    assert refused([FIRST_FRAME]).code == "bad_header"


@pytest.mark.parametrize("depth", [*range(1, 100, 7), *range(900, 1010), 5000, 60_000])
@pytest.mark.parametrize(
    "header", ['{"kind":"cancel","job":%s}', '{"kind":"hello","software":%s}', '{"kind":"hello","arrays":[%s]}']
)
def test_deep_nesting_is_refused_wherever_it_stands(header: str, depth: int) -> None:
    parts = [b""] if "arrays" in header else []
    for nest in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        assert refused(framed((header % nest).encode(), *parts)).code in ("bad_header", "bad_value", "bad_array")


@pytest.mark.parametrize("kind", ["", "Hello", "result", "kind" * 100, "\ud800", "a\nb"])
def test_an_unknown_kind(kind: str) -> None:
    error = refused(framed({"kind": kind, "job": JOB}))
    assert error.code == "bad_kind" and error.job == JOB
    assert "hello, submit, cancel, status" in str(error)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"client": 3}, "text"),
        ({"client": None}, "text"),
        ({"client": "a\nb"}, "text"),
        ({"client": "\ud800"}, "text"),
        ({"client": "\u202e"}, "text"),
        ({"client": "x" * 4097}, "4096"),
        ({"software": ["x"]}, "text"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(fields: dict[str, Any], message: str) -> None:
    error = refused(framed({"kind": "hello", **fields}))
    assert error.code == "bad_value" and message in str(error) and next(iter(fields)) in str(error)


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": {"pose": "x" * 4000}},
        {"settings": {"pose": None}},
        {"settings": {"up": "w"}},
        {"settings": {"quality": ["fine"]}},
        {"settings": {"resolution": 8}},
        {"settings": {"candidates": 0}},
        {"settings": {"seed": -1}},
        {"settings": {"refine": 1.5}},
        {"settings": {"pose": "aligned", "up": "+z", "front": "-z"}},
        {"settings": []},
        {"job": None},
        {"job": "short"},
        {"job": "x" * 65},
        {"job": "white space"},
        {"job": JOB + "\n"},
        {"job": "\u0661" * 10},
        {"task": "explode"},
        {"task": 1},
        {"model": 1},
        {"count": 1.0},
        {"count": True},
        {"count": "1"},
        {"count": 2**53 + 1},
        {"count": 0},
        {"keep": -1},
        {"keep": True},
        {"keep": 10**400},
        {"spread": -0.1},
        {"spread": 1.5},
        {"spread": None},
        {"settings": []},
        {"settings": {"resolution": None}},
        {"settings": {"resolution": 1.5}},
        {"sources": {}},
        {"sources": [None]},
        {"sources": [{}]},
        {"codes": []},
        {"codes": {"array": 0}},
        {"codes": {"array": True}},
        {"codes": {"array": -1}},
        {"codes": {}},
        {"weights": [[0.5]]},
        {"weights": {"array": 0}},
    ],
)
def test_an_invalid_submission_is_refused(fields: dict[str, Any]) -> None:
    error = refused(framed(submission([], **fields)))
    assert error.code in ("bad_value", "bad_array")
    assert error.job == (None if "job" in fields else JOB)


@pytest.mark.parametrize("name", ["job", "task"])
def test_a_missing_field_is_named(name: str) -> None:
    header = submission([])
    del header[name]
    assert f"no '{name}'" in str(refused(framed(header)))


def test_numbers_too_large_for_a_float_are_refused_not_infinite() -> None:
    assert (
        refused(framed(b'{"kind":"submit","job":"%s","task":"echo","keep":1e999}' % JOB.encode())).code == "bad_value"
    )


def test_unknown_fields_and_arrays_are_ignored() -> None:
    header = submission(
        [{"dtype": "<f4", "shape": [1], "unit": "m"}],
        later={"array": 0},
        settings={"resolution": 64, "later": [1]},
    )
    message = decode(framed(header, bytes(4)), REQUESTS, LIMITS)
    assert same(message, Submit(JOB, "echo", settings=TaskSettings(resolution=64)))


# --- arrays --------------------------------------------------------------------------------------------------------


def with_points(row: Any, part: bytes, **more: Any) -> list[bytes]:
    return framed(submission([row], sources=[{"vertices": {"array": 0}, **more}]), part)


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        {"dtype": "<f4"},
        {"shape": [1, 3]},
        {"dtype": None, "shape": [1, 3]},
        {"dtype": ["<f4"], "shape": [1, 3]},
        *(
            {"dtype": name, "shape": [1, 3]}
            for name in (">f4", "=f4", "f4", "<f2", "|O", "O", "<f4,<f4", "<U3", "|V12")
        ),
        *({"dtype": "<f4", "shape": shape} for shape in ([], [3], [4, 3], [1, 3, 1], [-1, 3], [1, -3], [1.0, 3])),
        *({"dtype": "<f4", "shape": shape} for shape in ("13", None, 3, {}, [True, 3], ["1", 3], [1, 3, 1, 1, 1])),
        *({"dtype": "<f4", "shape": shape} for shape in ([2**62, 3], [2**200], [2**64 + 1, 3], [3, 1], [1, 1, 3])),
    ],
)
def test_arrays_that_are_not_what_they_say(row: Any) -> None:
    error = refused(with_points(row, bytes(12)))
    assert error.code == "bad_array" and error.job == JOB


@pytest.mark.parametrize("shape", [[0, 2**53], [2**53, 0], [0, 2**53, 2**53, 2**53], [2**40, 0, 0], [0, 3, 2**20]])
def test_an_empty_array_may_not_claim_to_be_long(shape: list[int]) -> None:
    for field in ({"codes": {"array": 0}}, {"poses": {"array": 0}}, {}):
        assert refused(framed(submission([{"dtype": "<f4", "shape": shape}], **field), b"")).code == "bad_array"


def test_an_empty_array_is_an_array() -> None:
    [source] = decode(with_points({"dtype": "<f8", "shape": [0, 3]}, b""), REQUESTS, LIMITS).sources
    assert source.vertices.shape == (0, 3)


def test_as_many_arrays_must_come_as_are_described() -> None:
    row = {"dtype": "<f4", "shape": [1, 3]}
    assert refused(framed(submission([row]))).code == "bad_array"
    assert refused(framed(submission([]), bytes(12))).code == "bad_array"
    assert refused(framed({"kind": "hello", "arrays": None})).code == "bad_array"
    assert refused(framed({"kind": "hello", "arrays": {}})).code == "bad_array"


def test_one_frame_cannot_stand_in_many_places() -> None:
    header = submission([{"dtype": "<f4", "shape": [1, 3]}], sources=[{"vertices": {"array": 0}}] * 1000)
    error = refused(framed(header, bytes(12)))
    assert error.code == "bad_array" and "which another field uses" in str(error)


def test_a_header_can_be_built_twice() -> None:
    header = read_header(encode(Submit(JOB, "echo", sources=(Source(POINTS),))), LIMITS)
    assert same(build(header, REQUESTS), build(header, REQUESTS))


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 4, -1])
def test_numbers_that_are_not_finite_are_refused(dtype: str, value: float, place: int) -> None:
    points = POINTS.astype(dtype)
    points.reshape(-1)[place] = value
    error = refused(encode(Submit(JOB, "echo", sources=(Source(points),))))
    assert error.code == "not_finite" and "sources[0].vertices" in str(error) and error.job == JOB


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_refused_like_any() -> None:
    points = np.full((3, 3), 0x7FA00000, dtype="<u4").view("<f4")
    assert refused(encode(Submit(JOB, "echo", sources=(Source(points),)))).code == "not_finite"


@pytest.mark.parametrize("dtype", ["<i4", "<u4", "<i8"])
@pytest.mark.parametrize("index", [-1, 3, 2**31 - 1])
def test_faces_of_vertices_that_are_not_there_are_refused(dtype: str, index: int) -> None:
    faces = TRIANGLE.astype("<i8")
    faces[0, 1] = index
    rows = [{"dtype": "<f4", "shape": [3, 3]}, {"dtype": dtype, "shape": [1, 3]}]
    header = submission(rows, sources=[{"vertices": {"array": 0}, "faces": {"array": 1}}])
    error = refused(framed(header, POINTS.tobytes(), faces.astype(dtype).tobytes()))
    assert error.code == "bad_value" and "out of range; there are 3" in str(error)


def test_normals_and_sensor_must_fit() -> None:
    with pytest.raises(ValueError, match="normals"):
        Source(POINTS, normals=POINTS[:2])
    rows = [{"dtype": "<f4", "shape": [3, 3]}]
    for sensor in ([], [1.0, 2.0], [1, 2, 3, 4]):
        header = submission(rows, sources=[{"vertices": {"array": 0}, "sensor": sensor}])
        assert "must have 3" in str(refused(framed(header, POINTS.tobytes())))
    header = submission(rows, sources=[{"vertices": {"array": 0}, "sensor": [1, 2, 3]}])
    assert decode(framed(header, POINTS.tobytes()), REQUESTS, LIMITS).sources[0].sensor == (1.0, 2.0, 3.0)


def test_an_outline_has_shapes_and_no_values() -> None:
    nan = np.full((1000, 3), math.nan, dtype="<f4")
    header = read_header(encode(Submit(JOB, "echo", sources=(Source(nan, np.zeros((1, 3), "<i8")),))), LIMITS)
    [source] = build(header.without_values(), REQUESTS).sources
    assert source.vertices.shape == (1000, 3) and source.faces.dtype == np.dtype("<i8")
    with pytest.raises(WireError, match="NaN"):
        build(header, REQUESTS)


# --- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (replace(LIMITS, header_bytes=100), "header"),
        (replace(LIMITS, frames=1), "2 arrays"),
        (replace(LIMITS, frame_bytes=35), "an array has 36 bytes"),
        (replace(LIMITS, message_bytes=47), "the arrays have 48 bytes"),
    ],
)
def test_what_is_too_large_is_not_looked_at(limits: Limits, word: str) -> None:
    frames = encode(Submit(JOB, "echo", sources=(Source(POINTS, TRIANGLE),)))
    assert decode(frames, REQUESTS, LIMITS)
    error = refused(frames, limits=limits)
    assert error.code == "too_large" and word in str(error) and "at most" in str(error)
    # Sizes are checked before the header is parsed.
    frames[1] = b"x" * len(frames[1])
    assert refused(frames, limits=limits).code == "too_large"


# --- anything at all -----------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just({"array": 0}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = sorted(
    {field.name for kind in [*REQUESTS.values(), *REPLIES.values(), Source, Shape] for field in fields(kind)}
)
headers = st.dictionaries(st.sampled_from(["kind", "arrays", *names]), json_values, max_size=6)
rows = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*codec.KNOWN_DTYPES, "<f2", "O"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=5) | json_values,
    }
)
any_table = st.sampled_from([REQUESTS, REPLIES])


def message_or_error(frames: list[bytes], table: dict[str, type]) -> None:
    try:
        message = decode(frames, table, LIMITS)
    except WireError as error:
        assert error.code and str(error).isprintable()
        assert error.job is None or messages.JOB_PATTERN.fullmatch(error.job)
        encode(Error(error.code, str(error), error.job))
    else:
        assert type(message) in table.values()
        encode(message)


@settings(max_examples=300)
@given(any_table, st.lists(st.binary(max_size=40), max_size=5), st.booleans())
def test_any_bytes_give_a_message_or_an_error(table: dict[str, type], frames: list[bytes], begun: bool) -> None:
    message_or_error([FIRST_FRAME, *frames] if begun else frames, table)


@settings(max_examples=400)
@given(any_table, headers, st.lists(st.tuples(rows, st.binary(max_size=48)), max_size=3), st.data())
def test_any_header_gives_a_message_or_an_error(
    table: dict[str, type], header: dict[str, Any], described: list[tuple[Any, bytes]], data: st.DataObject
) -> None:
    header = {**header, "kind": data.draw(st.sampled_from(sorted(table)))}
    header.setdefault("arrays", [row for row, _ in described])
    message_or_error(framed(header, *(part for _, part in described)), table)


@settings(max_examples=300)
@given(any_table, st.data())
def test_a_damaged_message_gives_a_message_or_an_error(table: dict[str, type], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(table)))
    frames = [bytes(frame) for frame in encode(data.draw(a_message(table[kind])))]
    for _ in range(data.draw(st.integers(1, 4))):
        which = data.draw(st.integers(0, len(frames) - 1))
        frame = bytearray(frames[which])
        place = data.draw(st.integers(0, len(frame)))
        match data.draw(st.sampled_from(["change", "cut", "insert", "drop", "repeat"])):
            case "change":
                frame[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del frame[place:]
            case "insert":
                frame[place:place] = data.draw(st.binary(max_size=8))
            case "drop" if len(frames) > 1:
                frames.pop(which)
                continue
            case "repeat":
                frames.insert(which, bytes(frame))
                continue
        frames[which] = bytes(frame)
    message_or_error(frames, table)


# --- imports of the wire -----------------------------------------------------------------------------------------


def test_the_wire_needs_nothing_but_numpy_and_zmq(tmp_path: Path) -> None:
    """A copy of the folder, as the Blender extension carries one, under another name and away from the project."""
    shutil.copytree(WIRE, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    modules = [f"copied.{path.stem}" for path in WIRE.glob("*.py") if path.stem != "__init__"]
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; before = set(sys.modules); import {', '.join(modules)};"
        "files = {name for name, module in sys.modules.items() if getattr(module, '__file__', None)} - before;"
        "print(*{name.split('.')[0] for name in files} - set(sys.stdlib_module_names))"
    )
    finished = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert len(modules) >= 3
    assert set(finished.stdout.split()) == {"copied", "numpy", "zmq"}


def test_importing_the_wire_loads_nothing_else_of_the_project() -> None:
    modules = [
        "sdf_backend.wire",
        *(f"sdf_backend.wire.{path.stem}" for path in WIRE.glob("*.py") if path.stem[0] != "_"),
    ]
    program = (
        f"import sys, {', '.join(modules)}; print(*(name for name in sys.modules if name.startswith('sdf_backend')))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=WIRE.parents[1], capture_output=True, text=True, timeout=120, check=True
    )
    assert set(finished.stdout.split()) == {"sdf_backend", *modules}


def test_results_are_what_they_say() -> None:
    shape = Shape(
        POINTS, TRIANGLE, np.zeros((1, 4), "<f4"), np.eye(4)[None], np.ones(3, "<f4"), seconds={"fitting": 1.5}
    )
    assert same(decode(encode(Result(JOB, (shape,))), REPLIES, LIMITS), Result(JOB, (shape,)))
    for wrong in (replace(shape, code=np.zeros((2, 4))), replace(shape, pose=np.eye(4))):
        assert refused(encode(Result(JOB, (wrong,))), REPLIES).code == "bad_array"
    with pytest.raises(ValueError, match="observed"):
        replace(shape, observed=np.ones(2))
    assert decode(encode(Cancel(JOB)), REQUESTS, LIMITS).job == JOB
