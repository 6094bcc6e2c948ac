"""Read the journal of SCIM requests, and the health of a directory for the admin of its IdP."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NotRequired, TypeAlias, TypedDict
from uuid import UUID

from msgspec import Meta

from database.arrays import int4s
from database.connections import Connection
from database.queries import load_queries
from delivery.surge_control import lately_in, limits
from delivery.surge_policy import Action, Limit
from ledger.directories import Directory
from ledger.event_data import Count, FromOne, Id, Instant
from ledger.events import CLOSED, DELETED, EVENT_TYPES, GROUP, PAUSED, USER, Fact
from ledger.sealing import Kek, NoteKind, open_note
from ledger.state import tail_now
from ledger.tokens import Token
from operations.admission import on_directory, operation, reached_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.quality import Quality, quality_advice, quality_of
from proofs.keys import WrapError
from scim.leniency import TEST_OBJECT, sentence_of
from scim.mistakes import Mistake, known_mistake
from scim.profile import UnknownProfileError
from scim.remedies import fix_of

SQL: Final = load_queries(__file__)
JOURNAL_PAGE_MAX = 1_000
SILENCE_HOURS = 24  # after this an IdP that sends changes at once is reported as silent
SILENCE_CYCLES = 3  # after so many cycles an IdP that has cycles is
ERROR_SHARE = 0.05
SPIKE_REQUESTS_MIN = 60  # requests in a minute; fewer are never reported as a spike
LOOKED_MAX = 200_000  # newest requests that the health report looks at: a statement may take four seconds
MENDED_S = 3_600  # a mistake that is older than this, and than the last request, is mended
MISTAKES_LOOKED_MAX = 10_000  # newest entries of mistakes in URLs and tokens that it looks at
OVERLAP_ENDS: Final = timedelta(hours=6)  # before its end a rotated token that is still used is told as such
SPIKE_TIMES_MIN = 10  # a spike has this many times the requests of the median minute
MistakeName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": [mistake.value for mistake in Mistake]})]
CHANGES: Final = sum(  # the event types that requests of an IdP make, as bits
    kind.bit for kind in EVENT_TYPES if kind.subject in {USER, GROUP} and Fact.BY_OPERATOR not in kind.facts
)


class RequestEntry(TypedDict):
    """One SCIM request: a line of the journal. `path` is a template without ids, `filter` has no values. `fix`: what to do about a refusal.

    `mistake`: requests that were refused for their URL or their token, and were meant for this directory. Then `count` is their number,
    otherwise it is 1, and the other fields are those of the newest.
    """

    id: FromOne
    directory: str
    time: Instant
    method: str
    path: str
    filter: NotRequired[str | None]
    status: int
    scim_type: NotRequired[str]
    detail: NotRequired[str]
    profile: str
    tolerances: list[str]
    events: Count
    duration_us: Count
    request_id: UUID
    count: FromOne
    token: NotRequired[str]
    mistake: NotRequired[MistakeName]
    fix: NotRequired[str]


class OperationFigures(TypedDict):
    """How often an operation was asked for, and how it was answered. `errors` are without 429; `p50_us`: the median time of an answer."""

    method: str
    path: str
    requests: Count
    errors: Count
    too_many_requests: Count
    p50_us: Count
    last: Instant


class ConnectionMistake(TypedDict):
    """Requests that were meant for the directory and refused for their URL or their token. `token`: the one that they named."""

    mistake: MistakeName
    token: Id | None
    count: Count
    last: Instant
    meaning: str
    fix: str


class Spike(TypedDict):
    """A minute with many times the requests of the median minute."""

    minute: Instant
    requests: Count
    times_the_median: float


class Refusal(TypedDict):
    """A reason of refusals, how often it was given, and what to do about it."""

    status: int
    scim_type: str | None
    detail: str | None
    count: Count
    last: Instant
    fix: str | None


class RetryStorm(TypedDict):
    """A request that was refused again and again within the last hour."""

    method: str
    path: str
    status: int
    count: Count
    first: Instant
    last: Instant


class ToleranceUse(TypedDict):
    """A tolerance of the profile that the IdP relies on, and what it forgives."""

    tolerance: str
    requests: Count
    meaning: str


class TokenAge(TypedDict):
    """A SCIM token of the directory, with its use. `superseded_by`: its successor after a rotation; until it expires both work."""

    id: Id
    name: str
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None
    last_used_at: Instant | None
    superseded_by: Id | None


class ClientAge(TypedDict):
    """An OAuth 2.0 client of the directory, with its use."""

    id: Id
    name: str
    created_at: Instant
    revoked_at: Instant | None
    last_used_at: Instant | None


class SurgeState(TypedDict):
    """The revocations of the last hour, beside the limit of the surge brake."""

    revocations_last_hour: Count
    per_hour: Count
    action: Action


class RateLimitState(TypedDict):
    """How many SCIM requests the directory may send."""

    per_second: FromOne
    burst: FromOne


class Report(TypedDict):
    """What the journal says of a directory. `since` is set where the journal has more than it looks at: figures are since then."""

    directory: str
    profile: str
    hours: int
    since: Instant | None
    last_request: Instant | None
    last_change: Instant | None
    busiest_minute_requests: Count
    operations: list[OperationFigures]
    spikes: list[Spike]
    refusals: list[Refusal]
    retry_storms: list[RetryStorm]
    tolerances: list[ToleranceUse]
    test_objects: Count
    mistakes: list[ConnectionMistake]
    tokens: list[TokenAge]
    clients: list[ClientAge]


class State(Report):
    """The report, with the directory's own state, since when it has it (null: always active), and its clock (`exact`, `behind`, `frozen`).

    `rate_limit`: null if requests have no limit. `cycle_minutes`: of the IdP; null if it has none.
    """

    state: str
    state_since: Instant | None
    clock: str
    surge: SurgeState
    rate_limit: RateLimitState | None
    cycle_minutes: Count | None
    quality: Quality


class DirectoryHealth(State):
    """The health of a directory's IdP. `advice`: sentences for its admin, worst first."""

    advice: list[str]


@operation("requests.list")
async def list_requests(
    ledger: OpenLedger,
    caller: Caller,
    *,
    directory: str | None,
    status: int | None,
    refused: bool | None,
    before: int,
    limit: int,
) -> list[RequestEntry]:
    """Requests of the directories that the caller reaches, or of one of them, newest first, before a given id."""
    if directory is not None:
        reached = [await reached_directory(ledger, caller, directory)]
    else:
        async with ledger.connection() as conn:
            reached = [found for found in await ledger.directories.all(conn) if caller.token.reaches(found.slug)]
    async with ledger.connection() as conn:
        params = (int4s([found.id for found in reached]), before, refused, status, limit)
        rows = await (await conn.execute(SQL["list_requests"], params)).fetchall()
    return [_entry_json(ledger.kek, row) for row in rows]


async def formerly(ledger: OpenLedger, hashed: bytes, slug: str) -> tuple[Directory, Token] | None:
    """The directory and token of a refused request, if the token is revoked or expired. For the journal only: it grants nothing."""
    async with ledger.connection() as conn:
        row = await (await conn.cursor(binary=True).execute(SQL["token_ever"], (hashed,))).fetchone()
        if row is None:
            return None
        number, role, name, directories, types, bodies, client = row
        token = Token(number, role, name, tuple(directories), tuple(types), bodies, client=client)
        with suppress(UnknownProfileError):  # a profile of a newer release, whose processes write the journal of this directory
            directory = await ledger.directories.by_slug(conn, slug) if token.reaches(slug) else None
            return None if directory is None else (directory, token)
    return None


@on_directory("directories.health")
async def health(ledger: OpenLedger, _caller: Caller, directory: Directory, hours: int) -> DirectoryHealth:
    """The health of a directory's IdP, with advice for its admin, worst first."""
    async with ledger.connection() as conn:
        report = await directory_health(conn, ledger.kek, directory, hours)
        clock = (await tail_now(conn, directory)).state
        limit = (await limits(conn)).get(directory.id, Limit())
        lost = await lately_in(conn, directory, limit)
        closed = await (await conn.execute(SQL["doctor_closed_at"], (directory.id,))).fetchone()
    (ended,) = closed or (None,)
    since = ended or directory.since  # of a directory that is cleaned up, not the end of the clean-up
    surge: SurgeState = {"revocations_last_hour": lost, "per_hour": limit.per_hour, "action": limit.action}
    expected, allowed = directory.profile.file.expected, directory.rate_limit
    found: State = {
        **report,
        "state": directory.state,
        "state_since": datetime.fromtimestamp(since / 1e6, UTC) if since else None,
        "clock": clock,
        "surge": surge,
        "rate_limit": {"per_second": allowed.per_second, "burst": allowed.burst} if allowed is not None else None,
        "cycle_minutes": expected.cycle_minutes,
        "quality": await quality_of(ledger, directory, hours),
    }
    said = advice(found, datetime.fromtimestamp(ledger.clock() / 1e6, UTC), expects_external_id=expected.external_id)
    return {**found, "advice": said}


def _entry_json(kek: Kek, row: tuple[Any, ...]) -> RequestEntry:
    (
        number, directory, time, method, path, shape, status, scim_type, sealed, profile, tolerances, events, took, request, token, mistake, times, of_a_client,
    ) = row  # fmt: skip
    entry: RequestEntry = {
        "id": number, "directory": directory, "time": time, "method": method, "path": path, "status": status, "profile": profile,
        "tolerances": tolerances, "events": events, "duration_us": took, "request_id": request, "count": times,
    }  # fmt: skip
    if shape is not None:
        entry["filter"] = _open_sealed(kek, shape, "filter", request)
    if scim_type is not None:
        entry["scim_type"] = scim_type
    detail = _open_sealed(kek, sealed, "refusal", request)
    if detail is not None:
        entry["detail"] = detail
    if token is not None:
        entry["token"] = f"{'cli' if of_a_client else 'tok'}_{token.hex}"
    known = None if mistake is None else known_mistake(mistake)
    fix = known.fix if known is not None else fix_of(status, scim_type, detail)
    if mistake is not None:
        entry["mistake"] = mistake
    if fix is not None:
        entry["fix"] = fix
    return entry


def _open_sealed(kek: Kek, sealed: bytes | None, kind: NoteKind, request: UUID) -> str | None:
    try:
        return None if sealed is None else open_note(kek, sealed, kind=kind, owner=request)
    except WrapError:
        return "(unreadable: not sealed by this service for this request)"


def _mistake(row: tuple[Any, ...]) -> ConnectionMistake:
    name, token, count, last = row
    known = known_mistake(name)
    meaning, fix = (known.detail, known.fix) if known else (f"Requests had the mistake {name}.", "See the journal.")
    return {
        "mistake": name, "token": None if token is None else str(token), "count": count, "last": last, "meaning": meaning, "fix": fix,
    }  # fmt: skip


def _refused(kek: Kek, row: tuple[Any, ...]) -> Refusal:
    status, scim_type, sealed, request, count, last = row
    detail = _open_sealed(kek, sealed, "refusal", request)
    fix = fix_of(status, scim_type, detail)
    return {"status": status, "scim_type": scim_type, "detail": detail, "count": count, "last": last, "fix": fix}


def _token_age(row: tuple[Any, ...]) -> TokenAge:
    number, name, created_at, expires_at, revoked_at, used, successor = row
    return {
        "id": str(number), "name": name, "created_at": created_at, "expires_at": expires_at, "revoked_at": revoked_at,
        "last_used_at": used, "superseded_by": None if successor is None else str(successor),
    }  # fmt: skip


async def directory_health(conn: Connection, kek: Kek, directory: Directory, hours: int) -> Report:
    """Last request, errors per operation, refusals with reason and fix, spikes, retry storms, tolerances relied on, token ages."""
    looked = await (await conn.execute(SQL["doctor_looked"], (directory.id, hours, LOOKED_MAX))).fetchone()
    assert looked is not None
    first, since, last = looked
    changed = await (await conn.execute(SQL["doctor_last_change"], (directory.id, CHANGES))).fetchone()

    async def rows(name: str, *params: Any) -> list[tuple[Any, ...]]:
        return await (await conn.execute(SQL[name], (directory.id, first, *params))).fetchall()

    ((busiest,),) = await rows("doctor_busiest")
    mistakes = await (await conn.execute(SQL["doctor_mistakes"], (directory.id, hours, MISTAKES_LOOKED_MAX))).fetchall()
    tokens = await (await conn.execute(SQL["doctor_tokens"], (directory.slug,))).fetchall()
    clients = await (await conn.execute(SQL["doctor_clients"], (directory.id,))).fetchall()
    relied = await rows("doctor_tolerances")
    return {
        "directory": directory.slug,
        "profile": directory.profile.text,
        "hours": hours,
        "since": since,  # set if there were more requests than LOOKED_MAX
        "last_request": last,
        "last_change": changed[0] if changed else None,
        "busiest_minute_requests": busiest or 0,
        "operations": [
            {
                "method": method,
                "path": path,
                "requests": n,
                "errors": errors,
                "too_many_requests": many,
                "p50_us": p50,
                "last": at,
            }
            for method, path, n, errors, many, p50, at in await rows("doctor_operations")
        ],
        "spikes": [
            {"minute": minute, "requests": n, "times_the_median": times}
            for minute, n, times in await rows("doctor_spikes", SPIKE_REQUESTS_MIN, SPIKE_TIMES_MIN)
        ],
        "refusals": [_refused(kek, row) for row in await rows("doctor_refusals")],
        "retry_storms": [
            {"method": method, "path": path, "status": status, "count": n, "first": began, "last": at}
            for method, path, status, n, began, at in await rows("doctor_retries")
        ],
        "tolerances": [
            {"tolerance": name, "requests": count, "meaning": sentence_of(name)} for name, count in relied if name != TEST_OBJECT
        ],
        "test_objects": sum(count for name, count in relied if name == TEST_OBJECT),
        "mistakes": [_mistake(row) for row in mistakes],
        "tokens": list(map(_token_age, tokens)),
        "clients": [
            {"id": str(number), "name": name, "created_at": made, "revoked_at": ended, "last_used_at": used}
            for number, name, made, ended, used in clients
        ],
    }


def advice(report: State, now: datetime, *, expects_external_id: bool = False) -> list[str]:
    """Sentences for the admin of the IdP, worst first."""
    if report["state"] in {CLOSED, DELETED}:
        return _closed(report)
    of_itself = [*_paused(report), *_clock(report), *_surge_advice(report)]
    return [
        *of_itself,
        *_mistakes(report, now),
        *_storms(report),
        *_tokens(report, now),
        *_silence(report, now),
        *_errors(report),
        *_spikes(report),
        *quality_advice(report["quality"], expects_external_id=expects_external_id),
    ]


def _clock(report: State) -> list[str]:
    name = report["directory"]
    says = {
        "behind": "No change is accepted: the last event is more than 60 seconds ahead of the database's clock. Put the clock right, or "
        f"accept it: scim-ledger directory accept-clock {name} --reason … (docs/operations.md, clock_behind_ledger).",
        "frozen": "Changes have the time of the last event until the database's clock has caught up with it, as an operator accepted.",
    }
    return [says[report["clock"]]] if report.get("clock") in says else []


def _surge_advice(report: State) -> list[str]:
    name, surge = report["directory"], report["surge"]
    if surge["revocations_last_hour"] <= surge["per_hour"]:
        return []
    says = f"More users lost access in the last hour than is usual here ({surge['per_hour']})."
    stop = f"If nobody meant that, stop the IdP, and scim-ledger directory pause {name} --reason …"
    if surge["action"] == "hold":
        return [
            f"{says} Changes above that are not pushed. {stop}; otherwise scim-ledger directory surge release {name} --reason …"
        ]
    return [f"{says} {stop}"]


def _closed(report: State) -> list[str]:
    last, since = report["last_request"], report["state_since"]
    if last is None or since is None or last <= since:
        return []
    return [
        f"The IdP still sends requests (the last {last:%Y-%m-%d %H:%M} UTC), and each is refused: switch its provisioning off."
    ]


def _paused(report: State) -> list[str]:
    if report["state"] != PAUSED:
        return []
    since = f" since {report['state_since']:%Y-%m-%d %H:%M} UTC" if report["state_since"] else ""
    says = f"It is paused{since}: changes of its IdP are answered 503, to be sent again later; reads go on."
    return [f"{says} scim-ledger directory resume {report['directory']} --reason …"]


def _mistakes(report: State, now: datetime) -> list[str]:
    """Mistakes of the last hour, and older ones after which no request came: otherwise somebody has mended them."""
    last = report["last_request"]
    return [
        f"{found['meaning']} ({found['count']}, the last {found['last']:%Y-%m-%d %H:%M} UTC) {found['fix']}"
        for found in report["mistakes"]
        if last is None or found["last"] > last or (now - found["last"]).total_seconds() < MENDED_S
    ]


def _storms(report: State) -> list[str]:
    return [
        f"The IdP repeats {storm['method']} {storm['path']} without success ({storm['count']} times in an hour, status {storm['status']})."
        for storm in report["retry_storms"]
    ]


def _tokens(report: State, now: datetime) -> list[str]:
    live = [t for t in report["tokens"] if t["revoked_at"] is None and t["expires_at"] > now]
    clients = [client for client in report["clients"] if client["revoked_at"] is None]
    if not live and not clients:
        return ["No valid SCIM token: issue one and put it into the IdP."]
    every = {t["id"]: t for t in report["tokens"]}
    replaced = [line for t in live if t["superseded_by"] for line in _replaced(t, every.get(t["superseded_by"]), now)]
    kept = [t for t in live if not t["superseded_by"]]
    soon = [
        f"Token {t['name']} expires on {t['expires_at']:%Y-%m-%d}: rotate it." for t in kept if (t["expires_at"] - now).days < 30
    ]
    awaited = {t["superseded_by"] for t in live}
    unused = [t for t in kept if t["last_used_at"] is None and (now - t["created_at"]).days >= 1 and t["id"] not in awaited]
    idle = [client for client in clients if client["last_used_at"] is None and (now - client["created_at"]).days >= 1]
    return [
        *replaced,
        *soon,
        *(f"Token {t['name']} was never used: enter it in the IdP, or revoke it if nobody needs it." for t in unused),
        *(
            f"OAuth 2.0 client {client['name']} was never used: enter it in the IdP, or revoke it if nobody needs it."
            for client in idle
        ),
    ]


def _replaced(old: TokenAge, new: TokenAge | None, now: datetime) -> list[str]:
    """What to do about a token that was rotated and still works: nothing once its successor alone is used."""
    name, successor, ends = old["name"], old["superseded_by"], f"{old['expires_at']:%Y-%m-%d %H:%M} UTC"
    if new is None or new["revoked_at"] is not None:
        return [f"Token {name} works until {ends}, and its successor {successor} is revoked: issue one and enter it in the IdP."]
    used, taken = old["last_used_at"], new["last_used_at"]
    if taken is not None and (used is None or used <= taken):
        return []
    says = f"Token {name} was replaced by {successor}, and works until {ends}: enter the new one in the IdP."
    if used is not None and used > new["created_at"] and old["expires_at"] - now < OVERLAP_ENDS:
        return [f"{says} Until now the IdP uses the old one, and will be refused then."]
    return [says]


def _silence(report: State, now: datetime) -> list[str]:
    last = report["last_request"] or report["last_change"]  # the journal forgets requests after 30 days, the log no change
    cycle = report["cycle_minutes"]
    if last is None:
        return [] if report["mistakes"] else ["No request has arrived yet: check the URL and the token in the IdP."]
    quiet_minutes = (now - last).total_seconds() / 60
    if cycle is not None and quiet_minutes > SILENCE_CYCLES * cycle:
        says = f"Silence since {last:%Y-%m-%d %H:%M} UTC, and this IdP synchronises about every {cycle} minutes."
        return [f"{says} If anything changed there since, see whether its provisioning is switched on and not in quarantine."]
    if cycle is None and quiet_minutes > SILENCE_HOURS * 60:
        return [f"Silence since {last:%Y-%m-%d %H:%M} UTC: is the IdP's provisioning switched on?"]
    return []


def _errors(report: State) -> list[str]:
    found: list[str] = []
    total, errors, limited = (sum(o[name] for o in report["operations"]) for name in ("requests", "errors", "too_many_requests"))
    if total and errors / total > ERROR_SHARE:
        span = f"since {report['since']:%Y-%m-%d %H:%M} UTC" if report["since"] else f"in the last {report['hours']} hours"
        found.append(f"{errors} of {total} requests were refused {span}; the health report of the directory has the reasons.")
    if limited:
        found.append(_too_many(limited, report))
    return found


def _too_many(limited: int, report: State) -> str:
    says, limit = f"{limited} requests were answered 429: the IdP sends faster than", report["rate_limit"]
    if limit is None:
        return f"{says} this directory's queue accepts."
    raised = f"scim-ledger directory rate-limit set {report['directory']} {2 * limit['per_second']}"
    return (
        f"{says} the limit of this directory, {limit['per_second']} a second and {limit['burst']} at once. To raise it: {raised}"
    )


def _spikes(report: State) -> list[str]:
    return [
        f"{spike['requests']} requests in the minute from {spike['minute']:%Y-%m-%d %H:%M} UTC, {spike['times_the_median']:g} times the "
        "usual: did somebody restart the IdP's provisioning, or assign many users at once?"
        for spike in report["spikes"]
    ]
