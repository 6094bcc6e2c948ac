"""Which releases can run with which schema: each migration says it, and releases read it that do not have the migration."""

import pytest

from database.releases import Applied, Migration, SchemaRelation, refusal, schema_relation

OURS = [Migration(1, "one", "", "a"), Migration(2, "two", "", "b")]


def as_applied(*more: Applied) -> list[Applied]:
    return [Applied(m.number, m.checksum, m.serves) for m in OURS] + list(more)


def made(number: int, serves: int | None) -> Migration:
    said = "" if serves is None else f"-- serves: {serves:04}\n"
    return Migration(number, "next", f"-- what it is\n{said}alter table x add y int;", "c")  # type: ignore[arg-type]


def test_a_migration_says_which_release_it_serves_and_by_default_only_its_own() -> None:
    assert made(3, 2).serves == 2
    assert made(3, None).serves == 3


@pytest.mark.parametrize(
    ("applied", "is_to_us"),
    [
        (as_applied(), SchemaRelation.SAME),
        (as_applied()[:1], SchemaRelation.OLDER),
        (as_applied(Applied(3, "c", 2)), SchemaRelation.NEWER),
        (as_applied(Applied(3, "c", 1), Applied(4, "d", 2)), SchemaRelation.NEWER),
        (as_applied(Applied(3, "c", 3)), SchemaRelation.FOREIGN),
        (as_applied(Applied(3, "c", 2), Applied(4, "d", 3)), SchemaRelation.FOREIGN),
        (as_applied(Applied(3, "c")), SchemaRelation.FOREIGN),
        ([Applied(1, "edited"), Applied(2, "b")], SchemaRelation.FOREIGN),
        (as_applied(Applied(3, "c", 2))[1:], SchemaRelation.FOREIGN),
    ],
)
def test_a_schema_is_the_own_one_newer_older_or_unknown(applied: list[Applied], is_to_us: SchemaRelation) -> None:
    assert schema_relation(OURS, applied) is is_to_us
    why = refusal(OURS, {found.number: found for found in applied})
    assert (why is not None) == (is_to_us is SchemaRelation.FOREIGN)


def test_the_refusal_names_the_migration_and_what_to_do() -> None:
    assert "0003" in str(refusal(OURS, {3: Applied(3, "c", 3), 1: Applied(1, "a"), 2: Applied(2, "b")}))
    assert "0001 one" in str(refusal(OURS, {1: Applied(1, "edited")}))
    assert "lacks migration 0001" in str(refusal(OURS, {2: Applied(2, "b"), 3: Applied(3, "c", 2)}))
