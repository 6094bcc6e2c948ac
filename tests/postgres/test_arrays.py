"""PostgreSQL reads the encoded arrays as it reads those of psycopg's own dumpers."""

from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from database.arrays import bools, byteas, int2s, int4s, int8s, register_arrays, texts, uuids

Encode = Callable[[list[Any]], bytes]
characters = st.characters(codec="utf-8", exclude_characters="\0")  # the type text of PostgreSQL accepts every other character

KINDS: dict[str, tuple[Encode, LiteralString, st.SearchStrategy[Any], list[Any]]] = {
    "bool": (bools, "SELECT %b::bool[]", st.booleans(), [True, False]),
    "int2": (int2s, "SELECT %b::int2[]", st.integers(-(2**15), 2**15 - 1), [-(2**15), 0, 2**15 - 1]),
    "int4": (int4s, "SELECT %b::int4[]", st.integers(-(2**31), 2**31 - 1), [-(2**31), 0, 2**31 - 1]),
    "int8": (int8s, "SELECT %b::int8[]", st.integers(-(2**63), 2**63 - 1), [-(2**63), 0, 2**63 - 1]),
    "text": (texts, "SELECT %b::text[]", st.none() | st.text(characters), [None, "", "NULL", '{"a",b}', "é\U0001f600"]),
    "bytea": (byteas, "SELECT %b::bytea[]", st.none() | st.binary(), [None, b"", b"\0\xff", b"\\x00", bytes(5_000)]),
    "uuid": (uuids, "SELECT %b::uuid[]", st.none() | st.uuids(), [None]),
}


@pytest.fixture(scope="module")
def connection(admin_url: str) -> Iterator[Connection[TupleRow]]:
    with psycopg.connect(admin_url) as opened:
        register_arrays(opened)
        yield opened


def read_back(connection: Connection[TupleRow], kind: str, values: list[Any]) -> list[Any]:
    encode, statement, _, _ = KINDS[kind]
    row = connection.execute(statement, (encode(values),)).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_an_array_is_read_back_as_it_was_sent(connection: Connection[TupleRow], kind: str, data: st.DataObject) -> None:
    """The writer sends every row this way; a wrong length or null would store another value without an error."""
    values = data.draw(st.lists(KINDS[kind][2], max_size=20))
    assert read_back(connection, kind, values) == values


@pytest.mark.parametrize("kind", KINDS)
def test_the_extreme_values_of_a_type_are_read_back(connection: Connection[TupleRow], kind: str) -> None:
    """Empty, null, the smallest and the largest, and text that looks like an array literal."""
    values = KINDS[kind][3]
    assert read_back(connection, kind, []) == []
    assert read_back(connection, kind, values) == values
    assert read_back(connection, kind, values * 1_000) == values * 1_000


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_carries_its_type(connection: Connection[TupleRow], kind: str) -> None:
    """Without a cast the statement has to say the type of what it sends, or PostgreSQL would have to guess it."""
    encode, _, _, values = KINDS[kind]
    row = connection.execute("SELECT pg_typeof(%b)::text", (encode(values),)).fetchone()
    assert row == ({"bool": "boolean", "int2": "smallint", "int4": "integer", "int8": "bigint"}.get(kind, kind) + "[]",)


@pytest.mark.parametrize(("encode", "value"), [(int2s, 2**15), (int4s, 2**31), (int8s, 2**63)])
def test_a_number_that_does_not_fit_is_refused_before_it_is_sent(encode: Encode, value: int) -> None:
    """It must never wrap around."""
    with pytest.raises(Exception, match=r"requires|range|too large"):
        encode([value])
