"""Files that a stranger might send: valid ones, changed a little or altogether."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import strategies as st

ABSURD_NUMBERS = (float("nan"), float("inf"), -float("inf"), -1, 0, -0.0, 1e-400, 10**400, 2**64)
EXPLODING = ("(.+)+x", "(a|a)+$", "(.*)*(.*)*y", "(\\w+\\s?)*$", "[", "(?P<x>", ".*", "\\")
PATHS = ("../../etc/passwd", "/etc/passwd", "C:\\windows", "a\0b", "\N{RIGHT-TO-LEFT OVERRIDE}", "")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(ABSURD_NUMBERS),
    st.sampled_from(EXPLODING + PATHS),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
huge = st.one_of(
    st.integers(1_001, 5_000).map(lambda n: ["a"] * n),
    st.integers(1_001, 5_000).map(lambda n: {str(i): 1.0 for i in range(n)}),
    st.integers(10_000, 100_000).map(lambda n: "(a+)+" * n),
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value there is something to replace."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] * bool(path) + [p for key, inner in items for p in _paths(inner, (*path, key))]


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


@st.composite
def changed(draw: st.DrawFn, valid: dict[str, Any], changes: int = 2) -> dict[str, Any]:
    """A valid JSON object in which some values or names are others, missing or new."""
    values = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, changes))):
        path = draw(st.sampled_from(_paths(values)))
        parent, key = _parent(values, path), path[-1]
        what = draw(st.sampled_from(("replace", "replace", "huge", "delete", "rename", "add")))
        if what == "delete":
            del parent[key]
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(st.text(max_size=20))] = parent.pop(key)
        elif what == "add" and isinstance(parent, dict):
            parent[draw(st.text(max_size=20))] = draw(anything)
        else:
            parent[key] = draw(huge if what == "huge" else anything)
        if not _paths(values):
            break
    return values


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, within: int | None = None) -> bytes:
    """Bytes of which some are others, missing or twice there; only the first `within` of them."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, min(within or len(data), len(data)) - 1))
        what = draw(st.sampled_from(("flip", "cut", "insert", "repeat", "end")))
        if what == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 50))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif what == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 50))]
        else:
            del data[at:]
    return bytes(data)


def as_json(value: Any) -> bytes:
    """As Python's `json` writes it, NaN and lone surrogates included."""
    return json.dumps(value).encode()


@st.composite
def not_json(draw: st.DrawFn) -> bytes:
    """What is no JSON object at all, or hardly."""
    depth = draw(st.integers(100, 200_000))
    return draw(
        st.one_of(
            st.binary(max_size=200),
            anything.map(as_json),
            st.text(max_size=50).map(lambda text: text.encode("utf-16", "surrogatepass")),
            st.just(b"[" * depth),
            st.just(b'{"blocks":' * depth + b"1" + b"}" * depth),
            st.just(b'{"peft_type": "BIOTUNE", "lr_multipliers": {"a": ' + b"9" * depth + b"}}"),
            st.just(b'{"peft_type": "BIOTUNE", "peft_type": "BIOTUNE"}'),
            st.just(b'\xef\xbb\xbf{"peft_type": "BIOTUNE"}'),
            st.sampled_from(("LORA", "IA3", "BOFT", "biotune", "")).map(
                lambda kind: as_json({"peft_type": kind, "lr_multipliers": {"head": 1.0}})
            ),
        )
    )


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: bytes, tensors: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + tensors


DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X")
SIZES = st.one_of(
    st.integers(-1, 2**64), st.sampled_from((0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
)


@st.composite
def lying_safetensors(draw: st.DrawFn, valid: bytes) -> bytes:
    """A file whose header says what isn't so."""
    header, tensors = split_safetensors(valid)
    names = [name for name in header if name != "__metadata__"]
    for _ in range(draw(st.integers(1, 3))):
        name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        lie = draw(st.sampled_from(("dtype", "shape", "offsets", "overlap", "name", "drop", "any")))
        if not isinstance(header.get(name), dict) or not isinstance(header.get(other), dict):
            continue
        if lie == "dtype":
            header[name]["dtype"] = draw(st.sampled_from(DTYPES))
        elif lie == "shape":
            header[name]["shape"] = draw(st.lists(SIZES, max_size=4))
        elif lie == "offsets":
            header[name]["data_offsets"] = draw(st.lists(SIZES, min_size=1, max_size=3))
        elif lie == "overlap":
            header[name]["data_offsets"] = header[other].get("data_offsets")
        elif lie == "name":
            header[draw(st.text(max_size=30)) or "x" * 600] = header.pop(name)
        elif lie == "drop":
            del header[name]
        else:
            header[name] = draw(anything)
    return join_safetensors(as_json(header), tensors)


@st.composite
def wrong_length(draw: st.DrawFn, valid: bytes) -> bytes:
    """A file that announces a header of another length."""
    header, tensors = split_safetensors(valid)
    return join_safetensors(
        as_json(header), tensors, draw(st.integers(0, 2**64 - 1).filter(lambda n: n != len(header)))
    )


@st.composite
def other_tensors(draw: st.DrawFn, valid: bytes) -> bytes:
    """A file that is sound, but of another model: one tensor more, fewer, or of another shape."""
    header, tensors = split_safetensors(valid)
    names = [name for name in header if name != "__metadata__"]
    name = draw(st.sampled_from(names))
    what = draw(st.sampled_from(("more", "rename", "reshape", "retype")))
    if what == "more":
        end = len(tensors)
        extra = draw(st.text(min_size=1, max_size=20).filter(lambda text: text not in header))
        header[extra] = {"dtype": "U8", "shape": [4], "data_offsets": [end, end + 4]}
        tensors += b"abcd"
    elif what == "rename":
        header[draw(st.text(max_size=20))] = header.pop(name)
    elif what == "reshape":
        header[name]["shape"] = [1, *header[name]["shape"]]
    else:
        header[name]["dtype"] = {"F32": "I32", "I64": "F64"}[header[name]["dtype"]]
    return join_safetensors(as_json(header), tensors)
