import json
import re
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scim.body import read_json
from scim.errors import InvalidSyntax, TooMany
from tests.conftest import examples


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{not json", "line 1, column 2"),
        (b'{"a":\n 1,}', "line 2"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":"\xff"}', "not UTF-8: byte 7"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\\ud800"}', "line 1, column"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":Infinity}', "not valid JSON"),
        (b'{"a":1,"a":2}', "a occurs twice in the body"),
        (b'{"a":1,"A":2}', "A occurs twice in the body"),
        (b'{"b":{"a":1,"a" :2}}', "a occurs twice in b"),
        (b'{"b":[1,{"c":{"x":1,"x"\n:2}}]}', "x occurs twice in b[1].c"),
        (b'{"\xc3\xa4\xc3\xa4":1,"\xc3\x84\xc3\xa4":2}', "a name occurs twice"),
        (b'{"a":"x\\u0000y"}', "at a holds a NUL"),
        (b'{"a":["\\u0000"]}', "a[0] holds a NUL"),
        (b'{"a\\u0000":1}', "name in the body holds a NUL"),
        (b'{"a":9223372036854775808}', "integer at a does not fit"),
        (b'{"a":[-9223372036854775809]}', "integer at a[0] does not fit"),
        (b'{"a":[' + b"9" * 300 + b"]}", "does not fit"),
        (b'{"a":[' + b"9" * 5000 + b"]}", "line 1, column 7"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "more than 32 levels"),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "more than 32 levels"),
        (b"[" * 100_000, "more than 32 levels"),
        (b'{"a":' * 100_000, "more than 32 levels"),
    ],
)
def test_an_invalid_body_is_refused_with_the_place_of_the_fault(raw, said):
    with pytest.raises(InvalidSyntax, match=re.escape(said)):
        read_json(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"a":9223372036854775807,"b":-9223372036854775808}',
        b'{"a":1e30,"b":[1.5,[1,[2]]]}',
        b'{"a":"\\":","b":" : \\" :"}',
        b'{"a":"\\\\u0000"}',
        b'{"a" : 1, "b"\t:\n{"a"\r:2}}',
        b'{"a":[' + b'{"b":1},' * 100 + b"{}]}",
        b'{"a":' * 32 + b"1" + b"}" * 32,
        b'{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[","b":"\\u0041"}',
    ],
)
def test_a_valid_body_is_read_unchanged(raw):
    assert read_json(raw) == json.loads(raw)


def test_the_allowed_depth_can_be_set():
    assert read_json(b'{"a":{}}', depth_max=2) == {"a": {}}
    with pytest.raises(InvalidSyntax, match="more than 1 levels"):
        read_json(b'{"a":{}}', depth_max=1)


NAMES = st.sampled_from(["a", "A", "b", 'c":', " :", "d\n", "urn:x:y", "\u00e9", "\\"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.floats(-1e300, 1e300),
    st.sampled_from(["", '":', '" :', "x\0", "ok", "::"]),
)
PAIRS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(st.tuples(NAMES, inner), max_size=4).map(tuple)),
    max_leaves=12,
)
SPACE = st.sampled_from(["", " ", "\n", "\t", "\r", "  "])


def _written(node, space):
    if isinstance(node, tuple):
        return "{" + ",".join(f"{space}{json.dumps(key)}{space}:{space}{_written(value, space)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(_written(value, space) for value in node) + "]"
    return json.dumps(node)


def _faulty(node):
    if isinstance(node, tuple):
        folded = [key.casefold() for key, _ in node]
        return len(set(folded)) < len(folded) or any(_faulty(value) for _, value in node)
    if isinstance(node, list):
        return any(map(_faulty, node))
    return (isinstance(node, int) and not -(2**63) <= node < 2**63) or (isinstance(node, str) and "\0" in node)


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.tuples(NAMES, PAIRS), max_size=5).map(tuple), SPACE)
def test_refusals_agree_with_a_strict_reading_of_every_body(tree, space):
    raw = _written(tree, space).encode()
    if _faulty(tree):
        with pytest.raises(InvalidSyntax):
            read_json(raw)
    else:
        assert read_json(raw) == json.loads(raw)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(raw):
    try:
        found = read_json(raw)
    except InvalidSyntax:
        return
    assert found == orjson.loads(raw)


@pytest.mark.parametrize("raw", [b"[" * 8_000_000, b'{"a":[' + b"[]," * 3_000_000 + b"x", b'{"a":[' + b"{}," * 3_000_000])
def test_text_that_is_not_json_is_refused_at_once_however_long_it_is(raw: bytes) -> None:
    """Earlier, 30 MiB of brackets took a minute, while all other requests of the directory waited."""
    started = time.process_time()
    with pytest.raises(TooMany):
        read_json(raw)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    "values",
    [
        b"[{}" + b",{}" * 250_000 + b"]",
        b"[0" + b",0" * 2_000_001 + b"]",
        b"{" + b",".join(b'"n%d": 0' % n for n in range(20_040)) + b"}",
        b"[" + b",".join(b'{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0}' for _ in range(220_000)) + b"]",
    ],
)
def test_a_body_with_too_many_values_is_refused_before_objects_are_made(values: bytes) -> None:
    """Earlier, five million empty members took 340 MB."""
    with pytest.raises(TooMany, match="too many values"):
        read_json(b'{"members":' + values + b"}")


def test_a_body_with_as_many_values_as_the_largest_group_is_read() -> None:
    members = b",".join(b'{"value":"%d","display":"x","type":"User","$ref":"https://x/Users/1"}' % n for n in range(200_000))
    assert len(read_json(b'{"members":[' + members + b"]}")["members"]) == 200_000


def test_a_body_that_ends_within_many_brackets_is_refused_as_incomplete() -> None:
    with pytest.raises(InvalidSyntax):
        read_json(b'{"a":[' + b"[]," * 200_000 + b"x")
