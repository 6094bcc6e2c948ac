import hashlib
import json

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from proofs.leaf import FIELDS, INTEGER_MAX, REQUIRED, LeafError, check_leaf, encode_leaf, leaf_hash

ascii_keys = st.text(st.characters(max_codepoint=127), max_size=8)
values = st.one_of(st.integers(-INTEGER_MAX, INTEGER_MAX), st.booleans(), st.text())
of_type = {int: st.integers(0, INTEGER_MAX), str: st.text(), bool: st.booleans()}
leaves = st.fixed_dictionaries(
    {key: of_type[REQUIRED[key]] for key in REQUIRED},
    optional={key: of_type[kind] for key, kind in FIELDS.items() if key not in REQUIRED},
)

MINIMAL = {key: {int: 1, str: "x"}[kind] for key, kind in REQUIRED.items()}


@given(st.dictionaries(ascii_keys, values))
def test_leaf_bytes_equal_sorted_orjson_and_rfc_8785(fields):
    encoded = encode_leaf(fields)
    assert encoded == orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    assert encoded == rfc8785.dumps(fields)


@given(leaves)
def test_an_encoded_leaf_passes_the_check(fields):
    assert check_leaf(encode_leaf(fields)) == fields


@pytest.mark.parametrize(
    "fields",
    [{"n": INTEGER_MAX + 1}, {"n": -INTEGER_MAX - 1}, {"n": 1.5}, {"n": None}, {"n": []}, {"n": {}}, {"é": 1}, {"n": "\ud800"}],
)
def test_a_value_without_a_canonical_form_is_refused(fields):
    with pytest.raises(LeafError):
        encode_leaf(fields)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"1",
        encode_leaf(MINIMAL) + b" ",
        b" " + encode_leaf(MINIMAL),
        json.dumps(MINIMAL, separators=(",", ":")).encode(),  # not sorted
        json.dumps(MINIMAL, sort_keys=True).encode(),  # spaces
        encode_leaf(MINIMAL).replace(b'"x"', b'"\\u0078"', 1),  # an unnecessary escape
        encode_leaf(MINIMAL).replace(b'"at":1', b'"at":1,"at":1'),  # a key twice
        encode_leaf(MINIMAL).replace(b'"at":1', b'"at":1.0'),
        encode_leaf(MINIMAL).replace(b'"at":1', b'"at":NaN'),
        encode_leaf(MINIMAL).replace(b'"at":1', b'"at":null'),
        encode_leaf(MINIMAL).replace(b'"at":1', b'"at":9007199254740993'),
        encode_leaf(MINIMAL).replace(b'"x"', b'"\\ud800"', 1),
        encode_leaf({**MINIMAL, "userName": "x"}),
        encode_leaf({**MINIMAL, "seq": "1"}),
        encode_leaf({**MINIMAL, "seq": True}),
        encode_leaf({**MINIMAL, "eff": 1}),
    ],
)
def test_bytes_that_are_not_a_canonical_leaf_are_refused(raw):
    with pytest.raises(LeafError):
        check_leaf(raw)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_leaf_without_a_required_field_is_refused(key):
    raw = encode_leaf({other: value for other, value in MINIMAL.items() if other != key})
    with pytest.raises(LeafError, match=f"{key} is missing"):
        check_leaf(raw)


def test_the_hash_of_a_leaf_follows_rfc_6962():
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"leaf") == hashlib.sha256(b"\0leaf").digest()
