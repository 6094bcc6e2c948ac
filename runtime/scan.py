"""Look for words in every file of a data directory and in every table of the database: what is left of somebody who was erased.

Each word is looked for in the forms that text takes in files: UTF-8 in any case of ASCII, UTF-16, base64 at each of its three offsets,
hexadecimal, escapes of JSON and of URLs, composed and decomposed. What is compressed or sealed is not opened: of a sealed body nobody
finds anything without the key, and this shows that nothing is unsealed. Values that PostgreSQL compressed are read through SQL.
"""

import base64
import json
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from psycopg import sql

from database.connections import Connection
from database.queries import load_queries

SQL: Final = load_queries(__file__)
CHUNK: Final = 2**20  # bytes
NEEDLE_MIN: Final = 4  # characters; a shorter word stands everywhere by chance
NEEDLES_MAX: Final = 1_000
FOUND_MAX: Final = 1_000  # places that are listed
Advance = Callable[[int, int], None]  # called with (bytes done, bytes in all)


class NeedlesError(ValueError):
    """The file of words cannot be used; the text says why."""


class Found(NamedTuple):
    """A place with a word: a file with an offset in bytes, or a table with an offset in its text. Never the word itself.

    `needle`: its line in the file of words, from 1. `form`: how it stands there.
    """

    place: str
    offset: int
    needle: int
    form: str


def needles_of(text: str) -> list[str]:
    """The words of a file, one a line. Raises NeedlesError."""
    words = [line.strip() for line in text.splitlines()]
    used = [word for word in words if word]
    if not used:
        raise NeedlesError("It has no words: write one a line.")
    if len(used) > NEEDLES_MAX:
        raise NeedlesError(f"It has more than {NEEDLES_MAX} words.")
    if any(len(word) < NEEDLE_MIN for word in used):
        raise NeedlesError(f"A word of it is shorter than {NEEDLE_MIN} characters, and would be found by chance.")
    return words


class Forms:
    """The byte strings that stand for words: exact ones, and ones in which ASCII letters count in either case."""

    def __init__(self, words: Iterable[str]) -> None:
        self._exact = dict[bytes, tuple[int, str]]()
        self._folded = dict[bytes, tuple[int, str]]()
        for number, word in enumerate(words, 1):
            if word:
                self._add(number, word)
        self.longest = max(map(len, (*self._exact, *self._folded)))

    def _add(self, number: int, word: str) -> None:
        for text in dict.fromkeys(unicodedata.normalize(form, word) for form in ("NFC", "NFD", "NFKC", "NFKD")):
            for name, form in folded_forms(text).items():
                self._folded.setdefault(form.lower(), (number, name))
            for name, form in exact_forms(text).items():
                self._exact.setdefault(form, (number, name))

    def within(self, text: bytes) -> Iterator[tuple[int, int, str]]:
        """Where forms begin in a text: (offset, number of the word, name of the form), the first of each form."""
        lower = text.lower()
        for forms, looked in ((self._exact, text), (self._folded, lower)):
            for form, (number, name) in forms.items():
                at = looked.find(form)
                if at >= 0:
                    yield at, number, name


def folded_forms(word: str) -> dict[str, bytes]:
    """Forms in which letters of ASCII may have either case."""
    forms = {
        "utf-8": word.encode(), "casefolded": word.casefold().encode(), "utf-16le": word.encode("utf-16-le"), "utf-16be": word.encode("utf-16-be"),
        "json": json.dumps(word)[1:-1].encode(), "url": quote(word, safe="").encode(), "hex": word.encode().hex().encode(),
    }  # fmt: skip
    digits = "".join(filter(str.isdigit, word))
    return forms | ({"digits": digits.encode()} if len(digits) >= 2 * NEEDLE_MIN else {})


def exact_forms(word: str) -> dict[str, bytes]:
    """base64 of the word inside a longer text: without the characters at both ends that depend on its neighbours."""
    forms = dict[str, bytes]()
    for pad in range(3):
        raw = b"\0" * pad + word.encode()
        encoded = base64.b64encode(raw).rstrip(b"=")
        whole = encoded[-(-pad * 4 // 3) : len(raw) * 4 // 3]
        if len(whole) >= NEEDLE_MIN:
            forms[f"base64+{pad}"] = whole
            forms[f"base64url+{pad}"] = whole.translate(bytes.maketrans(b"+/", b"-_"))
    return forms


def scan_files(root: Path, forms: Forms, progress: Advance, *, without: Iterable[Path] = ()) -> Iterator[Found]:
    """Look through every regular file below a directory; of each file the first place of each form. Needs the memory of two chunks."""
    skipped = {path.resolve() for path in without}
    files = [
        path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink() and path.resolve() not in skipped
    ]
    total, done = sum(_bytes_of(path) for path in files), 0
    for path in files:
        yield from _in_file(path, forms)
        done += _bytes_of(path)
        progress(done, total)


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the server removed it meanwhile
        return 0


def _in_file(path: Path, forms: Forms) -> Iterator[Found]:
    seen = set[tuple[int, str]]()
    try:
        with path.open("rb") as file:
            for at, number, name in in_chunks(iter(lambda: file.read(CHUNK), b""), forms):
                if (number, name) not in seen:
                    seen.add((number, name))
                    yield Found(str(path), at, number, name)
    except FileNotFoundError:  # the server removed it meanwhile
        return


def in_chunks(chunks: Iterable[bytes], forms: Forms) -> Iterator[tuple[int, int, str]]:
    """Look through a text that comes in chunks: the end of each is looked at again together with the next."""
    before, start = b"", 0
    for chunk in chunks:
        text = before + chunk
        for at, number, name in forms.within(text):
            yield start + at, number, name
        keep = min(len(text), forms.longest - 1)
        start += len(text) - keep
        before = text[len(text) - keep :]


async def scan_tables(conn: Connection, forms: Forms, progress: Advance) -> AsyncIterator[Found]:
    """Look through the rows of every table that the login may read, statistics of the planner included, as COPY writes them."""
    tables = await (await conn.execute(SQL["tables_to_scan"])).fetchall()
    total, done = sum(size for _, _, size in tables), 0
    for schema, table, size in tables:
        place, seen = f"table {schema}.{table}", set[tuple[int, str]]()
        async for at, number, name in _in_table(conn, schema, table, forms):
            if (number, name) not in seen:
                seen.add((number, name))
                yield Found(place, at, number, name)
        done += size
        progress(done, total)


async def _in_table(conn: Connection, schema: str, table: str, forms: Forms) -> AsyncIterator[tuple[int, int, str]]:
    statement = sql.SQL("copy (select * from {}.{}) to stdout").format(sql.Identifier(schema), sql.Identifier(table))
    before, start = b"", 0
    async with conn.cursor().copy(statement) as copy:
        async for row in copy:
            text = before + bytes(row)
            for at, number, name in forms.within(text):
                yield start + at, number, name
            keep = min(len(text), forms.longest - 1)
            start += len(text) - keep
            before = text[len(text) - keep :]
