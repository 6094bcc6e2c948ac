"""Tokens on a real database: a row is valid only together with its events, whoever wrote it; tokens of earlier releases still
work.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from database.connections import connect_owner
from database.migrate import migrate
from ledger.events import TOKEN_BOUND, TOKEN_REVOKED
from ledger.refused import OvertakenError
from ledger.sealing import Kek
from ledger.tokens import Scope, database_clock, find, find_all, live_tokens, rotate, token_hash
from replay.verify import verify_tokens
from tests.postgres.ledgers import Ledger, opened
from tests.postgres.machine import Machine, administration

KEK = Kek.of(bytes(range(32)))
SECRET = "sl_admin_by_hand"  # of no token
IN_A_YEAR = datetime.now(UTC) + timedelta(days=365)


@asynccontextmanager
async def issuing(url: str):
    async with opened(url, kek=KEK) as ledger, administration(url, KEK) as acts:
        yield ledger, acts


async def works(ledger: Ledger, text: str) -> bool:
    async with ledger.services.ledger.connection() as conn:
        return token_hash(text) in await live_tokens(conn, KEK, [token_hash(text)])


async def findings(ledger: Ledger, owner_url: str) -> list[str]:
    conn = await connect_owner(owner_url)
    try:
        async with ledger.services.ledger.connection() as reader:
            directories = await ledger.services.ledger.directories.all(reader)
        return [f"{found.place}: {found.problem}" for found in await verify_tokens(conn, KEK, directories)]
    finally:
        await conn.close()


def by_hand(superuser_url: str, statement: str, *values: object, trigger: bool = False) -> None:
    """Write as somebody with a login of the server does, with the trigger disabled as the owner can do."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        if not trigger:
            conn.execute("alter table tokens disable trigger all")
        conn.execute(statement, values)  # pyright: ignore[reportArgumentType, reportCallIssue]
        conn.execute("alter table tokens enable always trigger only_less, enable always trigger append_only")


def run(url: str, check: Callable[[Ledger, Machine], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with issuing(url) as (ledger, acts):
            await check(ledger, acts)

    asyncio.run(all_of_it())


async def admin_token(acts: Machine) -> tuple[str, UUID]:
    text = await acts.issue_token("consumer", "t", ("acme",), IN_A_YEAR, scope=Scope(types=("user.*",)))
    return text, UUID(text.split("_")[2])


def test_issued_rotated_and_revoked_tokens_follow_from_the_log(app_url: str, owner_url: str) -> None:
    async def check(ledger: Ledger, acts: Machine) -> None:
        text, token = await admin_token(acts)
        assert await works(ledger, text)
        async with ledger.services.ledger.connection() as conn:
            row = await find(conn, token)
            now = await database_clock(conn)
            assert row is not None
            new = rotate(await acts.issuer("tok_x"), uuid4(), row, 3600)
            again = rotate(await acts.issuer("tok_x"), uuid4(), row, 3600)
        await acts.record(new.command())
        assert await works(ledger, text)
        assert await works(ledger, new.text)
        with pytest.raises(OvertakenError):
            await acts.record(again.command())
        with pytest.raises(psycopg.IntegrityError, match="only ever gets less"):  # not even the serving role
            await acts.record(replace(again.command(), stands=None))
        assert not await works(ledger, again.text), "the whole commit is refused"
        async with ledger.services.ledger.connection() as conn:
            old, successor = await find(conn, token), await find(conn, new.row.id)
            assert old is not None
            assert successor is not None
            assert (old.state(now), successor.state(now)) == ("overlapping", "active")
            assert (old.superseded_by, successor.supersedes) == (successor.id, old.id)
            assert [r.id for r in await find_all(conn, role="consumer", directory="acme")] == [old.id, successor.id]
            assert await find_all(conn, directory="other") == []
        assert await findings(ledger, owner_url) == []
        await acts.revoke_token(successor.id)
        assert not await works(ledger, new.text)
        assert await findings(ledger, owner_url) == []

    run(app_url, check)


def test_a_token_that_was_revoked_meanwhile_gets_no_successor(app_url: str) -> None:
    """A rotation is decided on a row that was read before: a revocation in between wins, and the new secret is refused
    everywhere.
    """

    async def check(ledger: Ledger, acts: Machine) -> None:
        _, token = await admin_token(acts)
        async with ledger.services.ledger.connection() as conn:
            row = await find(conn, token)
        assert row is not None
        new = rotate(await acts.issuer("tok_x"), uuid4(), row, 3600)
        await acts.revoke_token(token)
        with pytest.raises(OvertakenError):
            await acts.record(new.command())
        with pytest.raises(psycopg.IntegrityError, match="only ever gets less"):
            await acts.record(replace(new.command(), stands=None))
        assert not await works(ledger, new.text)

    run(app_url, check)


INSERT = (
    "insert into tokens (id, hash, role, name, directories, expires_at, seal) select %s, %s, 'admin', 'mine', '{*}', now() + "
    "interval '1 year', (select seal from tokens limit 1)"
)


def test_a_row_inserted_by_hand_is_refused_and_found(app_url: str, owner_url: str, superuser_url: str) -> None:
    """The cases are: with a seal copied from another row, written by the serving role itself, and after the next start."""

    async def check(ledger: Ledger, acts: Machine) -> None:
        await admin_token(acts)
        by_hand(superuser_url, INSERT, uuid4(), token_hash(SECRET))
        by_hand(superuser_url, INSERT.replace("(select seal from tokens limit 1)", "null"), uuid4(), token_hash(SECRET + "2"))
        with psycopg.connect(app_url, autocommit=True) as conn:
            conn.execute("set search_path to ledger")
            conn.execute(INSERT, (uuid4(), token_hash(SECRET + "3")))
        assert await acts.bind_tokens() == 0
        for text in (SECRET, SECRET + "2", SECRET + "3"):
            assert not await works(ledger, text)
        found = await findings(ledger, owner_url)
        assert len(found) == 3
        assert all("no event token.issued made this row" in line for line in found)

    run(app_url, check)


CHANGED = {
    "scopes": "update tokens set directories = '{*}' where id = %s",
    "role": "update tokens set role = 'admin' where id = %s",
    "types": "update tokens set types = '{*}' where id = %s",
    "end": "update tokens set expires_at = expires_at + interval '1 year' where id = %s",
    "hash": "update tokens set hash = sha256('mine') where id = %s",
    "consumers": "update tokens set consumers = '{a}' where id = %s",
    "unsealed": "update tokens set seal = null, role = 'admin' where id = %s",
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_row_edited_by_hand_is_refused_and_found(app_url: str, owner_url: str, superuser_url: str, what: str) -> None:
    async def check(ledger: Ledger, acts: Machine) -> None:
        text, token = await admin_token(acts)
        by_hand(superuser_url, CHANGED[what], token)
        assert await acts.bind_tokens() == 0, "what the log has sealed is never bound again"
        async with ledger.services.ledger.connection() as conn:
            row = await find(conn, token)
            assert row is not None
            assert await live_tokens(conn, KEK, [row.hash]) == {}
        assert not await works(ledger, text)
        assert [line.partition(":")[0] for line in await findings(ledger, owner_url)] == [f"token {token}"]

    run(app_url, check)


def test_a_revoked_token_cannot_be_made_valid_again(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def check(ledger: Ledger, acts: Machine) -> None:
        text, token = await admin_token(acts)
        await acts.revoke_token(token)
        by_hand(superuser_url, "update tokens set revoked_at = null where id = %s", token)
        assert not await works(ledger, text)
        assert "token.revoked stands in the log" in (await findings(ledger, owner_url))[0]
        by_hand(superuser_url, "delete from tokens where id = %s", token)
        assert "its row is missing" in (await findings(ledger, owner_url))[0]

    run(app_url, check)


REFUSED = (
    "update tokens set revoked_at = null", "update tokens set revoked_at = revoked_at + interval '1 day'",
    "update tokens set expires_at = expires_at + interval '1 second'", "update tokens set last_used_at = null",
    "update tokens set last_used_at = last_used_at - interval '1 second'", "update tokens set superseded_by = null",
    "update tokens set superseded_by = id", "update tokens set seal = null", "update tokens set seal = sha256('x')",
)  # fmt: skip
FORBIDDEN = (
    "update tokens set hash = sha256('x')", "update tokens set role = 'admin'", "update tokens set directories = '{*}'",
    "update tokens set types = '{*}'", "update tokens set consumers = '{*}'", "update tokens set bodies = true",
    "update tokens set name = 'x'", "update tokens set created_by = 'x'", "delete from tokens", "truncate tokens",
)  # fmt: skip


@pytest.mark.parametrize("statement", [*REFUSED, *FORBIDDEN])
def test_the_rights_of_a_token_cannot_be_extended(app_url: str, superuser_url: str, statement: str) -> None:
    """The serving role has no right to do it, or the trigger refuses it; the trigger also applies to a superuser in replica mode."""
    insert = (
        "insert into tokens (id, hash, role, name, directories, expires_at, seal, types, consumers, bodies, revoked_at, last_used_at, superseded_by) "
        "values (gen_random_uuid(), 'h', 'consumer', 'n', '{acme}', now(), 's', '{user.*}', '{a}', false, now(), now(), gen_random_uuid())"
    )
    with psycopg.connect(app_url, autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        conn.execute(insert)
        refused = psycopg.errors.RestrictViolation if statement in REFUSED else psycopg.errors.InsufficientPrivilege
        with pytest.raises(refused):
            conn.execute(sql.SQL(statement))  # pyright: ignore[reportArgumentType]
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set search_path to ledger; set session_replication_role = replica")
        with pytest.raises(psycopg.errors.RestrictViolation):
            conn.execute(sql.SQL(statement))  # pyright: ignore[reportArgumentType]


def test_the_serving_role_may_reduce_the_rights_of_a_token(app_url: str) -> None:
    """Otherwise the refusals above could have another cause."""
    with psycopg.connect(app_url, autocommit=True) as conn:
        conn.execute("set search_path to ledger")
        conn.execute(
            "insert into tokens (id, hash, role, name, directories, expires_at) values (gen_random_uuid(), 'h', 'auditor', 'n', '{acme}', now())"
        )
        for statement in (
            "update tokens set seal = 's'", "update tokens set superseded_by = gen_random_uuid(), seal = 't', expires_at = expires_at - interval '1 day'",
            "update tokens set last_used_at = now()", "update tokens set last_used_at = now()", "update tokens set revoked_at = now()",
        ):  # fmt: skip
            assert conn.execute(statement).rowcount == 1


def test_a_revoked_token_writes_nothing_whatever_its_row_says(app_url: str, superuser_url: str) -> None:
    """The write transaction asks the events too, so a cached token does not help."""
    from ledger.commands import CreateUser, needs_of
    from ledger.transaction import Submission
    from runtime.identifiers import uuid7
    from scim.errors import Unauthorized

    async def check(ledger: Ledger, acts: Machine) -> None:
        async def write(token: UUID, name: str) -> None:
            command = CreateUser(uuid4(), {"schemas": [], "userName": name}, name)
            waiter = asyncio.get_running_loop().create_future()
            await ledger.services.ledger.submit(
                Submission(ledger.directory, command, needs_of(command), "tok", uuid7(), 0, waiter, token)
            )

        _, token = await admin_token(acts)
        await write(token, "before")
        await acts.revoke_token(token)
        by_hand(superuser_url, "update tokens set revoked_at = null where id = %s", token)
        with pytest.raises(Unauthorized):
            await write(token, "after")
        _, widened = await admin_token(acts)
        by_hand(superuser_url, "update tokens set expires_at = expires_at + interval '1 day' where id = %s", widened)
        with pytest.raises(Unauthorized):
            await write(widened, "widened")

    run(app_url, check)


# -- earlier releases ---------------------------------------------------------


def as_before_seals(superuser_url: str) -> None:
    """The table as migration 0005 left it, with the rows that it had."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute(
            "set search_path to ledger; drop trigger only_less on tokens; drop trigger append_only on tokens; drop function keep_token(); "
            "alter table tokens drop created_by, drop supersedes, drop superseded_by, drop seal; delete from migrations where number = 6"
        )


async def issued_before_seals(acts: Machine) -> str:
    """A token whose event has the fields that releases before seals wrote."""

    from ledger.commands import RecordFacts
    from ledger.tokens import issue

    new = issue(await acts.issuer("sys"), uuid4(), "auditor", "old", ("acme",), expires_at=IN_A_YEAR)
    facts = new.command()
    (draft,) = facts.drafts
    assert draft.body is not None
    draft.body.object.pop("seal")
    await acts.record(RecordFacts((draft._replace(),), facts.statements))
    return new.text


def test_tokens_of_an_earlier_release_still_work(app_url: str, owner_url: str, superuser_url: str) -> None:
    async def check(ledger: Ledger, acts: Machine) -> None:
        kept, widened = await issued_before_seals(acts), await issued_before_seals(acts)
        revoked = await issued_before_seals(acts)
        await acts.revoke_token(UUID(revoked.split("_")[2]))
        as_before_seals(superuser_url)
        assert migrate(owner_url)
        by_hand(superuser_url, "update tokens set role = 'admin' where id = %s", UUID(widened.split("_")[2]))
        by_hand(superuser_url, INSERT, uuid4(), token_hash(SECRET))
        assert not await works(ledger, kept), "only what was compared with the log works"
        assert await acts.bind_tokens() == 2
        assert await acts.bind_tokens() == 0
        assert [await works(ledger, text) for text in (kept, widened, revoked, SECRET)] == [True, False, False, False]
        found = sorted(line.partition(": ")[2] for line in await findings(ledger, owner_url))
        assert len(found) == 2
        async with ledger.services.ledger.connection() as conn:
            row = await find(conn, UUID(kept.split("_")[2]))
            assert row is not None
            assert row.created_by == "sys"
            assert row.facts & TOKEN_BOUND.bit
            assert not row.facts & TOKEN_REVOKED.bit
        # The hash was accepted unchecked this one time: with another hash later, the row is another token.
        by_hand(superuser_url, "update tokens set seal = null, hash = sha256('mine') where id = %s", row.id)
        assert await acts.bind_tokens() == 0
        assert not await works(ledger, "mine")

    run(app_url, check)
