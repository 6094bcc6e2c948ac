"""The fast check of a leaf accepts exactly what the full check accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofs.leaf import INTEGER_MAX, REQUIRED, LeafError, check_leaf, encode_leaf
from replay.log_check import read_leaf
from tests.unit.proofs.test_leaf import leaves

NUMBERS = [name for name, kind in REQUIRED.items() if kind is int]


@given(leaves)
def test_the_fast_check_reads_a_canonical_leaf_as_the_full_check_does(fields: dict[str, int | str | bool]) -> None:
    raw = encode_leaf(fields)
    assert read_leaf(raw) == check_leaf(raw) == fields
    assert read_leaf(raw) == fields, "also once its shape is known"


@given(leaves, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_every_leaf_that_the_full_check_refuses_is_refused(
    fields: dict[str, int | str | bool], at: int, put: bytes, cut: int
) -> None:
    """The leaf is changed at one place, after the fast check has seen its shape."""
    raw = encode_leaf(fields)
    read_leaf(raw)
    changed = raw[:at] + put + raw[at + cut :]
    try:
        expected: object = check_leaf(changed)
    except LeafError:
        with pytest.raises(LeafError):
            read_leaf(changed)
    else:
        assert read_leaf(changed) == expected


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [INTEGER_MAX + 1, -INTEGER_MAX - 1])
def test_a_number_beyond_the_exact_range_of_json_readers_is_refused(name: str, value: int) -> None:
    fields = {name: 1 if kind is int else "x" for name, kind in REQUIRED.items()}
    raw = encode_leaf(fields)
    read_leaf(raw)
    known = f'"{name}":1'.encode()
    assert raw.count(known + b",") + raw.count(known + b"}") == 1
    changed = raw.replace(known, f'"{name}":{value}'.encode())
    for read in (check_leaf, read_leaf):
        with pytest.raises(LeafError):
            read(changed)
