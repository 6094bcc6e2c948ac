"""Before an operation runs: its line of the permission table, and what the caller must reach of it.

Each decorator takes the name of a line. The target comes in as the words of the caller (a slug, a name, an id) and reaches the
operation as the thing itself; what the caller does not reach is refused exactly like what is not there.
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
from ledger.commands import parse_id
from ledger.directories import SYSTEM, Directory
from ledger.refused import OvertakenError
from ledger.tokens import Token, find, token_of
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.permissions import ROLES, TABLE, Reach, Rule, allowed
from operations.refusals import ConflictError, ForbiddenError, NotFoundError
from replay.redeliver import run_of

DECIDED_MAX: Final = 5  # times, while other requests change the same thing
P = ParamSpec("P")
T = TypeVar("T")
Target = TypeVar("Target")
Plain = Callable[Concatenate[OpenLedger, Caller, P], Awaitable[T]]
Aimed = Callable[Concatenate[OpenLedger, Caller, Target, P], Awaitable[T]]
Named = Callable[Concatenate[OpenLedger, Caller, str, P], Awaitable[T]]

NO_CONSUMER = "There is no consumer of that name. GET /v1/consumers lists them."
NO_DIRECTORY = "This token does not reach a directory of that name."
NO_REPLAY = "There is no replay of that id. GET /v1/replays lists them."
NO_TOKEN = "There is no token of that id. GET /v1/tokens lists them."  # noqa: S105  # a sentence


def check(caller: Caller, operation: str) -> None:
    """Raises ForbiddenError where the caller's role may not ask for it at all."""
    if not allowed(caller.token.role, operation):
        *others, last = [role for role in ROLES if role in TABLE[operation].roles]
        raise ForbiddenError(f"This needs a token of role {', '.join(others)}{' or ' if others else ''}{last}.")
    if TABLE[operation].reach == "all" and not caller.everywhere:
        raise ForbiddenError("This needs a token that is not narrowed to directories.")


def operation(name: str) -> Callable[[Plain[P, T]], Plain[P, T]]:
    """An operation whose answer holds only what the caller reaches, or that speaks about no directory.

    What is `within` looks by itself at what its arguments name, and awaits `caller.admitted()` after that.
    """
    rule = _rule_of(name, "-", "all", "within", "consumer")

    def wrap(act: Plain[P, T]) -> Plain[P, T]:
        @wraps(act)
        async def admitted(ledger: OpenLedger, caller: Caller, /, *args: P.args, **kwargs: P.kwargs) -> T:
            check(caller, name)
            if rule.reach != "within":
                await caller.admitted()
            return await _decided_anew(lambda: act(ledger, caller, *args, **kwargs))

        return admitted

    return wrap


async def _decided_anew(act: Callable[[], Awaitable[T]]) -> T:
    """Carry out an act that another request may overtake between reading and recording: then what it reads now decides."""
    for _ in range(DECIDED_MAX):
        with contextlib.suppress(OvertakenError):
            return await act()
    raise ConflictError("Other requests change this at the same moment. Ask again.", "overtaken")


def on_directory(name: str) -> Callable[[Aimed[Directory, P, T]], Named[P, T]]:
    """An operation on a directory, named by its slug."""
    return _aimed(name, reached_log if _rule_of(name, "directory", "log").reach == "log" else reached_directory)


def on_consumer(name: str) -> Callable[[Aimed[Consumer, P, T]], Named[P, T]]:
    """An operation on a consumer, named by its name."""
    _rule_of(name, "consumer")
    return _aimed(name, reached_consumer)


def on_replay(name: str) -> Callable[[Aimed[Run, P, T]], Named[P, T]]:
    """An operation on a run, named by its id."""
    _rule_of(name, "replay")
    return _aimed(name, reached_replay)


def on_token(name: str) -> Callable[[Aimed[TokenRow, P, T]], Named[P, T]]:
    """An operation on a token, named by its id."""
    _rule_of(name, "token")
    return _aimed(name, reached_token)


def _rule_of(name: str, *reaches: Reach) -> Rule:
    rule = TABLE[name]  # KeyError: an operation without a line cannot be defined
    assert rule.reach in reaches, f"{name} reaches {rule.reach}"
    return rule


def _aimed(
    name: str, find: Callable[[OpenLedger, Caller, str], Awaitable[Target]]
) -> Callable[[Aimed[Target, P, T]], Named[P, T]]:
    def wrap(act: Aimed[Target, P, T]) -> Named[P, T]:
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
    """An IdP directory that the caller reaches, as it stands now. Raises ForbiddenError alike for hidden and missing ones."""
    if slug == SYSTEM:
        raise ForbiddenError(NO_DIRECTORY)
    return await reached_log(ledger, caller, slug)


async def reached_log(ledger: OpenLedger, caller: Caller, slug: str) -> Directory:
    """The same, and the ledger's own directory for those who reach it."""
    found = None
    if caller.token.reaches_log(slug):
        async with ledger.connection() as conn:
            await ledger.directories.refresh(conn)
            found = await ledger.directories.by_slug(conn, slug)
    if found is None:
        raise ForbiddenError(NO_DIRECTORY)
    return found


async def reached_consumer(ledger: OpenLedger, caller: Caller, name: str) -> Consumer:
    """A consumer that belongs to the caller. Raises NotFoundError alike for hidden and missing ones."""
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
    """Those consumers that belong to the caller.

    Also what an earlier, wider filter left to be delivered has to be within reach: whoever owns the consumer says where it goes.
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


def _reads(token: Token, slug: str, types: int) -> bool:
    return token.reaches_log(slug) and token.reads_bits(types)


async def reaches_run(ledger: OpenLedger, conn: Connection, caller: Caller, run: Run) -> bool:
    """Whether all that a run sends, or sent, is within reach: its consumer may have had a wider filter then."""
    slugs = {found.id: found.slug for found in await ledger.directories.all(conn)}
    return all(_reads(caller.token, slugs[number], run.range.types) for number in run.range.directories)


async def reached_replay(ledger: OpenLedger, caller: Caller, text: str) -> Run:
    """A run of a consumer that belongs to the caller. Raises NotFoundError alike for hidden and missing ones."""
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
        return caller.everywhere  # of a consumer that was deleted
    return await owns(ledger, conn, caller, target) and await reaches_run(ledger, conn, caller, run)


async def reached_token(ledger: OpenLedger, caller: Caller, text: str) -> TokenRow:
    """A token within the caller's own scopes. Raises NotFoundError alike for hidden and missing ones."""
    number = _token_id(text)
    if number is not None:
        async with ledger.connection() as conn:
            found = await find(conn, number)
        if found is not None and caller.token.covers(token_of(found)):
            return found
    raise NotFoundError(NO_TOKEN)


def _token_id(text: str) -> UUID | None:
    """An id as lists show it, or as events name it (`tok_…`)."""
    digits = text.removeprefix("tok_")
    return UUID(digits) if len(digits) == 32 and all(c in "0123456789abcdef" for c in digits) else parse_id(text)
