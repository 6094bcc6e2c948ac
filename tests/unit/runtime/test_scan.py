"""The forms in which words are found, and that no form is lost between two chunks."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.scan import Forms, NeedlesError, in_chunks, needles_of, scan_files

WORD = "Zoë Müller"
STANDS_AS = {
    "utf-8": WORD.encode(), "upper case": b"ADA LOVELACE", "utf-16le": WORD.encode("utf-16-le"), "utf-16be": WORD.encode("utf-16-be"),
    "json": b"Zo\\u00eb M\\u00fcller", "url": b"Zo%C3%AB%20M%C3%BCller", "hex": WORD.encode().hex().upper().encode(),
    "decomposed": "Zoe\u0308 Mu\u0308ller".encode(), "digits": b"491705550199",
}  # fmt: skip
FORMS = Forms([WORD, "Ada Lovelace", "+49 170 5550199"])


@pytest.mark.parametrize("form", STANDS_AS)
def test_a_word_is_found_in_each_form(form: str) -> None:
    assert list(in_chunks([b"before" + STANDS_AS[form] + b"after"], FORMS)), form


@given(st.binary(max_size=7), st.binary(max_size=7))
def test_a_word_is_found_in_base64_wherever_it_begins(before: bytes, after: bytes) -> None:
    assert list(in_chunks([base64.b64encode(before + WORD.encode() + after)], FORMS))
    assert list(in_chunks([base64.urlsafe_b64encode(before + WORD.encode() + after)], FORMS))


@given(st.integers(0, 40), st.integers(1, 30))
def test_a_word_is_found_across_chunks_at_its_place(before: int, size: int) -> None:
    text = b"." * before + STANDS_AS["utf-16le"] + b"." * 40
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    assert before in {at for at, _, name in in_chunks(chunks, FORMS) if name == "utf-16le"}


def test_other_words_are_not_found() -> None:
    assert list(in_chunks([b"Zoe Mueller, Ada Love, 0170 555"], FORMS)) == []


def test_files_are_named_with_offset_and_line_and_the_file_of_words_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(WORD)
    (tmp_path / "log").write_bytes(b"x" * 10 + WORD.encode())
    (tmp_path / "link").symlink_to(tmp_path / "log")
    seen = list[tuple[int, int]]()
    found = list(scan_files(tmp_path, FORMS, lambda done, total: seen.append((done, total)), without=[tmp_path / "words.txt"]))
    assert {(one.place, one.offset, one.needle) for one in found if one.form == "utf-8"} == {(str(tmp_path / "log"), 10, 1)}
    assert seen[-1][0] == seen[-1][1]
    assert WORD not in repr(found)


@pytest.mark.parametrize("text", ["", "\n \n", "abc", "x" * 5 + "\nab", "\n".join(f"word{n}" for n in range(1_001))])
def test_words_that_cannot_be_looked_for_are_refused(text: str) -> None:
    with pytest.raises(NeedlesError):
        needles_of(text)
