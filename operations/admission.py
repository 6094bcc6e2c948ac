"""Check a caller before its operation runs: by the operation's line in the permission table, and by what the token reaches.

Each decorator takes the name of a line. The caller names the target by a slug, a name or an id; the operation receives the object.
A target beyond the caller's reach is refused exactly like a missing one, so that nobody learns what exists.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

from database.connections import Connection
from delivery.consumers import NAME, Consumer, consumer_named, filters_of, left_over
from delivery.runs import Run
from ledger.bindings import TokenRow
from ledger.client_bindings import ClientRow
from ledger.clients import find_clients
from ledger.commands import parse_id
from ledger.directories import SYSTEM, Directory
from ledger.ids import Slug
from ledger.refused import OvertakenError
from ledger.tokens import Token, find, token_of
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.permissions import ROLES, TABLE, Reach, Rule, allowed
from operations.refusals import ConflictError, ForbiddenError, NotFoundError
from replay.redeliver import run_of

DECIDED_MAX: Final = 5  # attempts, while other requests change the same rows
P = ParamSpec("P")
T = TypeVar("T")
Target = TypeVar("Target")
Plain = Callable[Concatenate[OpenLedger, Caller, P], Awaitable[T]]
Aimed = Callable[Concatenate[OpenLedger, Caller, Target, P], Awaitable[T]]
Named = Callable[Concatenate[OpenLedger, Caller, str, P], Awaitable[T]]

NO_CONSUMER = "There is no consumer of that name, or the token does not reach all that the consumer reads. GET /v1/consumers lists those that it reaches."
NO_DIRECTORY = "There is no directory of that name, or the token does not reach it."
NO_CLIENT = "There is no OAuth 2.0 client of that id. GET /v1/clients lists them."
NO_REPLAY = "There is no replay of that id. GET /v1/replays lists them."
NO_TOKEN = "There is no token of that id. GET /v1/tokens lists them."  # noqa: S105  # a sentence


# operation -> what it does: the first sentence of its docstring, shown in /openapi.json
SENTENCES: Final[dict[str, str]] = {}


def check(caller: Caller, operation: str) -> None:
    """Raises ForbiddenError if the caller's role may not use the operation."""
    if not allowed(caller.token.role, operation):
        *others, last = [role for role in ROLES if role in TABLE[operation].roles]
        raise ForbiddenError(f"This needs a token of role {', '.join(others)}{' or ' if others else ''}{last}.")
    if TABLE[operation].reach == "all" and not caller.everywhere:
        raise ForbiddenError("This needs a token that is not narrowed to directories.")


def operation(name: str) -> Callable[[Plain[P, T]], Plain[P, T]]:
    """Decorate an operation without a target: its answer holds only what the caller reaches, or it is about no directory.

    An operation with reach `within` checks what its arguments name itself, and awaits `caller.admitted()` afterwards.
    """
    rule = _rule_of(name, "-", "all", "within", "consumer")

    def wrap(act: Plain[P, T]) -> Plain[P, T]:
        _note_sentence(name, act.__doc__)

        @wraps(act)
        async def admitted(ledger: OpenLedger, caller: Caller, /, *args: P.args, **kwargs: P.kwargs) -> T:
            check(caller, name)
            if rule.reach != "within":
                await caller.admitted()
            return await _decided_anew(lambda: act(ledger, caller, *args, **kwargs))

        return admitted

    return wrap


async def _decided_anew(act: Callable[[], Awaitable[T]]) -> T:
    """Carry out an act, and again if another request changed its rows between reading and recording."""
    for _ in range(DECIDED_MAX):
        with contextlib.suppress(OvertakenError):
            return await act()
    raise ConflictError("Other requests change this at the same moment. Ask again.", "overtaken")


def on_directory(name: str) -> Callable[[Aimed[Directory, P, T]], Named[P, T]]:
    """Decorate an operation on a directory, which the caller names by its slug."""
    return _aimed(name, reached_log if _rule_of(name, "directory", "log").reach == "log" else reached_directory)


def on_consumer(name: str) -> Callable[[Aimed[Consumer, P, T]], Named[P, T]]:
    """Decorate an operation on a consumer, which the caller names by its name."""
    _rule_of(name, "consumer")
    return _aimed(name, reached_consumer)


def on_replay(name: str) -> Callable[[Aimed[Run, P, T]], Named[P, T]]:
    """Decorate an operation on a run of a replay, which the caller names by its id."""
    _rule_of(name, "replay")
    return _aimed(name, reached_replay)


def on_token(name: str) -> Callable[[Aimed[TokenRow, P, T]], Named[P, T]]:
    """Decorate an operation on a token, which the caller names by its id."""
    _rule_of(name, "token")
    return _aimed(name, reached_token)


def on_client(name: str) -> Callable[[Aimed[ClientRow, P, T]], Named[P, T]]:
    """Decorate an operation on an OAuth 2.0 client, which the caller names by its id."""
    _rule_of(name, "client")
    return _aimed(name, reached_client)


def _note_sentence(name: str, doc: str | None) -> None:
    text = " ".join((doc or "").split("\n\n")[0].split())
    SENTENCES.setdefault(name, text.partition(". ")[0].rstrip(".") + ".")


def _rule_of(name: str, *reaches: Reach) -> Rule:
    rule = TABLE[name]  # KeyError at import: an operation must have a line
    assert rule.reach in reaches, f"{name} reaches {rule.reach}"
    return rule


def _aimed(
    name: str, find: Callable[[OpenLedger, Caller, str], Awaitable[Target]]
) -> Callable[[Aimed[Target, P, T]], Named[P, T]]:
    def wrap(act: Aimed[Target, P, T]) -> Named[P, T]:
        _note_sentence(name, act.__doc__)

        @wraps(act)
        async def admitted(ledger: OpenLedger, caller: Caller, target: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
            check(caller, name)
            found = [await find(ledger, caller, target)]
            await caller.admitted()

            async def once() -> T:
                return await act(ledger, caller, found.pop() if found else await find(ledger, caller, target), *args, **kwargs)

            return await _decided_anew(once)

        return admitted

    return wrap


async def reached_directory(ledger: OpenLedger, caller: Caller, slug: str) -> Directory:
    """The current row of an IdP's directory. Raises the same ForbiddenError for a hidden and a missing one."""
    if slug == SYSTEM:
        raise ForbiddenError(NO_DIRECTORY)
    return await reached_log(ledger, caller, slug)


async def reached_log(ledger: OpenLedger, caller: Caller, slug: str) -> Directory:
    """The same for any directory, `_system` included if the caller reaches it."""
    found = None
    if caller.token.reaches_log(slug):
        async with ledger.connection() as conn:
            await ledger.directories.refresh(conn)
            found = await ledger.directories.by_slug(conn, slug)
    if found is None:
        raise ForbiddenError(NO_DIRECTORY)
    return found


async def reached_consumer(ledger: OpenLedger, caller: Caller, name: str) -> Consumer:
    """A consumer that belongs to the caller. Raises the same NotFoundError for a hidden and a missing one."""
    found = None
    if NAME.fullmatch(name):
        async with ledger.connection() as conn:
            known = await consumer_named(conn, name)
            found = known if known is not None and await owns(ledger, conn, caller, known) else None
    if found is None:
        raise NotFoundError(NO_CONSUMER)
    return found


async def owns(ledger: OpenLedger, conn: Connection, caller: Caller, consumer: Consumer) -> bool:
    """Whether a consumer belongs to the caller: its token reaches all of it."""
    return bool(await owned(ledger, conn, caller, [consumer]))


async def owned(ledger: OpenLedger, conn: Connection, caller: Caller, asked: Sequence[Consumer]) -> list[Consumer]:
    """The consumers that belong to the caller.

    The token must also reach deliveries that are open from an earlier, wider filter, because the owner can change their URL.
    """
    mine = [consumer for consumer in asked if _reaches_consumer(caller.token, consumer)]
    were = await filters_of(conn, [consumer.id for consumer in mine]) if mine else []
    wider = {number for number, slugs, types in were if not (caller.token.reaches_all(slugs) and caller.token.reads(types))}
    if not wider:
        return mine
    slugs = {found.id: found.slug for found in await ledger.directories.all(conn)}
    rows = await left_over(conn, sorted(wider))
    beyond = {number for number, directory, types in rows if not _reads(caller.token, slugs[directory], types)}
    return [consumer for consumer in mine if consumer.id not in beyond]


def _reaches_consumer(token: Token, consumer: Consumer) -> bool:
    asked = consumer.definition
    return token.reaches_all(asked.directories) and token.reads(asked.types) and token.moves(consumer.name)


def _reads(token: Token, slug: Slug, types: int) -> bool:
    return token.reaches_log(slug) and token.reads_bits(types)


async def reaches_run(ledger: OpenLedger, conn: Connection, caller: Caller, run: Run) -> bool:
    """Whether the token reaches all events of a run, whose consumer may have had a wider filter when it began."""
    slugs = {found.id: found.slug for found in await ledger.directories.all(conn)}
    return all(_reads(caller.token, slugs[number], run.range.types) for number in run.range.directories)


async def reached_replay(ledger: OpenLedger, caller: Caller, text: str) -> Run:
    """A run of a consumer that belongs to the caller. Raises the same NotFoundError for a hidden and a missing one."""
    number = parse_id(text)
    if number is not None:
        async with ledger.connection() as conn:
            run = await run_of(conn, ledger.kek, number)
            if run is not None and await _owns_run(ledger, conn, caller, run):
                return run
    raise NotFoundError(NO_REPLAY)


async def _owns_run(ledger: OpenLedger, conn: Connection, caller: Caller, run: Run) -> bool:
    target = await consumer_named(conn, run.consumer_name)
    if target is None or target.id != run.consumer:
        return caller.everywhere  # the consumer of the run was deleted
    return await owns(ledger, conn, caller, target) and await reaches_run(ledger, conn, caller, run)


async def reached_token(ledger: OpenLedger, caller: Caller, text: str) -> TokenRow:
    """A token that the caller's token covers. Raises the same NotFoundError for a hidden and a missing one."""
    number = _id_in(text, "tok_")
    if number is not None:
        async with ledger.connection() as conn:
            found = await find(conn, number)
        if found is not None and caller.token.covers(token_of(found)):
            return found
    raise NotFoundError(NO_TOKEN)


async def reached_client(ledger: OpenLedger, caller: Caller, text: str) -> ClientRow:
    """An OAuth 2.0 client of a directory that the caller reaches. Raises the same NotFoundError for a hidden and a missing one."""
    number = _id_in(text, "cli_")
    if number is not None:
        async with ledger.connection() as conn:
            found = await find_clients(conn, client=number)
        if found and caller.token.reaches(found[0].directory):
            return found[0]
    raise NotFoundError(NO_CLIENT)


def _id_in(text: str, prefix: str) -> UUID | None:
    """Parse the id of a token or a client, as lists show it or as events do (`tok_…`, `cli_…`)."""
    digits = text.removeprefix(prefix)
    return UUID(digits) if len(digits) == 32 and all(c in "0123456789abcdef" for c in digits) else parse_id(text)
