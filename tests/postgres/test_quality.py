"""The quality of a large directory is told with bounded work, and counts agree with what is stored."""

import asyncio
from typing import Any

import psycopg
import pytest

from operations import quality
from operations.quality import SQL, quality_of
from tests.postgres.ledgers import id_of, opened


def test_shared_values_are_counted_and_only_so_many_resources_are_looked_at(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            ids = [id_of(await ledger.create_user(f"u{n}", externalId=f"e{n % 4}")) for n in range(7)]
            await ledger.create_user("without")
            groups = [id_of(await ledger.create_group("Sales")) for _ in range(2)]
            await ledger.create_group("Other")
            found = await quality_of(ledger.services.ledger, ledger.directory, 24)
            assert (found["users"], found["users_without_external_id"], found["resources_read"]) == (8, 1, 11)
            same = found["same_external_id"]
            assert (same["values"], same["resources"], set(same["examples"])) == (3, 6, set(ids) - {ids[3]})
            same = found["same_display_name"]
            assert (same["values"], same["resources"], set(same["examples"])) == (1, 2, set(groups))
            assert (found["unknown_members"], found["user_names_without_email"]) == (0, None)
            await ledger.delete_user(ids[0])
            monkeypatch.setattr(quality, "RESOURCES_MAX", 3)
            monkeypatch.setattr(quality, "USERS_READ_MAX", 2)
            monkeypatch.setattr(quality, "GROUPS_READ_MAX", 1)
            found = await quality_of(ledger.services.ledger, ledger.directory, 24)
            assert (found["users"], found["users_without_external_id"], found["resources_read"]) == (3, 1, 3)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "rows_read"), [("same_external_id", 1_000), ("same_display_name", 1_000), ("quality_users", 1_000)]
)
def test_a_statement_reads_no_more_rows_than_its_bound(superuser_url: str, app_url: str, name: str, rows_read: int) -> None:
    with psycopg.connect(app_url, autocommit=True, cursor_factory=psycopg.RawCursor) as conn:
        conn.execute("set search_path to ledger")
        conn.execute(
            "insert into users (directory, id, active, body_seq, rv, etag_rv, created_at, updated_at, user_name_mac, external_id_mac) "
            "select 7, gen_random_uuid(), true, n, 1, 1, n, n, int8send(n), int8send(n / 2) from generate_series(1::int8, 20000) n"
        )
        conn.execute(
            "insert into groups (directory, id, body_seq, created_at, display_name_mac) "
            "select 7, gen_random_uuid(), n, n, int8send(n / 2) from generate_series(1::int8, 20000) n"
        )
        with psycopg.connect(superuser_url, autocommit=True) as owner:
            owner.execute("vacuum analyze ledger.users")
            owner.execute("vacuum analyze ledger.groups")
        plan = conn.execute(f"explain (analyze, format json) {SQL[name]}", (7, rows_read)).fetchone()
    assert plan is not None
    assert 0 < max(_read(plan[0][0]["Plan"])) <= rows_read


def _read(node: dict[str, Any]) -> list[float]:
    """The rows that each node of a plan gave, all its loops together."""
    own = node["Actual Rows"] * node["Actual Loops"]
    return [own, *(rows for child in node.get("Plans", ()) for rows in _read(child))]
