"""SCIM writes: from the body of a request to a command, and from its outcome to the answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

import orjson
import psycopg
import structlog

from api.scim.http import Answer, Content, streamed
from api.scim.members import members_named_in, patch_with_ids, resolve_members, with_external_ids
from api.scim.points import groups_of_user
from api.scim.resources import each, etag, group_json, object_members, shown_groups, with_meta
from api.services import Services
from database import patience
from ledger.commands import (
    Command,
    Condition,
    CreateGroup,
    CreateUser,
    DeleteGroup,
    DeleteUser,
    MemberIds,
    PatchGroup,
    PatchUser,
    ReplaceGroup,
    ReplaceUser,
    as_members,
    needs_of,
    parse_id,
)
from ledger.directories import Directory
from ledger.tokens import Token
from ledger.transaction import Outcome, Submission
from operations.admin_commands import AFTER_CHANGE_S
from projections import reads
from projections.reads import Resource, SealedResource
from projections.user_groups import GroupOf
from scim.apply import changed_names
from scim.casefolding import casefold
from scim.errors import InvalidValue, NotFound, TooMany, Unavailable, UnknownMembers
from scim.leniency import Leniency
from scim.normalise import normalise
from scim.patch import Patch, read_patch
from scim.projection import Projection, after_write, needs, project, read_projection
from scim.schema import GROUP, USER, ResourceType
from scim.work import Work

USER_BYTES_MAX = 1 * 2**20
GROUP_BYTES_MAX = 32 * 2**20
HEAVY_BYTES = 64 * 1024  # bytes of a request; a larger one shares no batch with others
GROUPS_SHOWN_MAX = 500  # groups of a user; an answer with more is encoded in a worker thread
THREAD_BYTES_MIN = 10_000  # a larger body is parsed and validated off the event loop: it takes over a millisecond

_log = structlog.get_logger("api.scim")
T = TypeVar("T")


class Source(Protocol):
    """What a write is made from: a request, or one operation of a bulk request.

    `events` counts the events that it made, `changed_bytes` the bytes of the resources that it changed, as they were before.
    """

    events: int
    changed_bytes: int

    @property
    def request_id(self) -> UUID: ...
    @property
    def op(self) -> int: ...
    @property
    def trace(self) -> bytes | None: ...
    @property
    def resource_id(self) -> UUID | None: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def leniency(self) -> Leniency: ...
    @property
    def work(self) -> Work: ...
    @property
    def effort(self) -> Work: ...  # what the decision may compute
    @property
    def shows(self) -> bool: ...  # whether anybody sees the resource in the answer
    async def content(self, limit: int) -> Content: ...
    def condition(self) -> Condition | None: ...


class Write:
    """One write request."""

    def __init__(self, services: Services, call: Source, directory: Directory, token: Token) -> None:
        self._services = services
        self._call = call
        self._directory = directory
        self._token = token
        self._leniency = call.leniency
        self._sent: frozenset[tuple[str, str]] | None = None  # what a PATCH changes in extensions; a whole resource otherwise
        self._weight = 1_000

    # -- users --------------------------------------------------------------

    async def create_user(self) -> Answer:
        document = await self._read_resource(self._directory.user_type, USER_BYTES_MAX)
        command = CreateUser(self._call.resource_id or self._services.ledger.new_id(), document, casefold(document["userName"]))
        return await self._created(self._directory.user_type, command.id, await self._submit(command))

    async def replace_user(self, user: str) -> Answer:
        document = await self._read_resource(self._directory.user_type, USER_BYTES_MAX)
        outcome = await self._submit(
            ReplaceUser(
                _resource_id(user), document, casefold(document["userName"]), self._call.condition(), self._directory.user_type
            )
        )
        return await self._changed_user(_resource_id(user), outcome)

    async def patch_user(self, user: str) -> Answer:
        patch = await self._read_patch(self._directory.user_type, USER_BYTES_MAX)
        outcome = await self._submit(
            PatchUser(_resource_id(user), patch, _user_names_in(patch), self._call.condition(), self._directory.user_type)
        )
        return await self._changed_user(_resource_id(user), outcome)

    async def delete_user(self, user: str) -> Answer:
        outcome = await self._submit(DeleteUser(_resource_id(user), self._call.condition()))
        return Answer(204, headers=_ledger_seq(outcome))

    # -- groups -------------------------------------------------------------

    async def create_group(self) -> Answer:
        document = await self._read_resource(self._directory.group_type, GROUP_BYTES_MAX)
        members = await self._members(document)
        command = CreateGroup(
            self._call.resource_id or self._services.ledger.new_id(), document, casefold(document["displayName"]), members
        )
        outcome = await self._submit(command)
        return await self._whole_group(201, command.id, outcome)

    async def replace_group(self, group: str) -> Answer:
        document = await self._read_resource(self._directory.group_type, GROUP_BYTES_MAX)
        members = await self._members(document)
        command = ReplaceGroup(
            _resource_id(group),
            document,
            casefold(document["displayName"]),
            members,
            self._call.condition(),
            self._directory.group_type,
        )
        return await self._whole_group(200, _resource_id(group), await self._submit(command))

    async def patch_group(self, group: str) -> Answer:
        patch = await self._read_patch(self._directory.group_type, GROUP_BYTES_MAX)
        if self._directory.profile.unknown_member != "refuse":
            as_sent = patch
            found = await self._member_ids(await self._computed(lambda: members_named_in(as_sent)))
            patch = await self._computed(lambda: patch_with_ids(as_sent, found))
        outcome = await self._submit(PatchGroup(_resource_id(group), patch, self._call.condition(), self._directory.group_type))
        if self._call.query.get("attributes"):
            # RFC 7644 §3.5.2: a client that asks for attributes MUST get them.
            return await self._whole_group(200, _resource_id(group), outcome)
        # 204: to show the group, its members would have to be loaded, 100 000 for an IdP that added one and did not ask for them.
        return Answer(204, headers=[*_ledger_seq(outcome), (b"etag", etag(outcome.etag_rv).encode())])

    async def delete_group(self, group: str) -> Answer:
        outcome = await self._submit(DeleteGroup(_resource_id(group), self._call.condition()))
        return Answer(204, headers=_ledger_seq(outcome))

    # -- in -----------------------------------------------------------------

    async def _parse(self, limit: int, read: Callable[[dict[str, Any]], T]) -> T:
        content = await self._call.content(limit)
        self._weight = 1_000 + content.size
        return await self._computed(lambda: read(content.load()))

    async def _computed(self, work: Callable[[], T]) -> T:
        """Compute something whose cost grows with the body: for a large one in a worker thread, else on the event loop."""
        if self._weight < 1_000 + THREAD_BYTES_MIN:
            return work()
        return await self._services.ledger.turns.compute(self._directory.id, work)

    async def _read_resource(self, kind: ResourceType, limit: int) -> dict[str, Any]:
        self._projection(kind)  # a wrong `attributes` parameter is refused before anything is stored
        return await self._parse(limit, lambda document: normalise(kind, document, self._leniency))

    async def _read_patch(self, kind: ResourceType, limit: int) -> Patch:
        self._projection(kind)
        patch = await self._parse(limit, lambda document: read_patch(kind, document, self._leniency))
        self._sent = changed_names(patch)
        return patch

    async def _member_ids(self, members: Sequence[str]) -> dict[str, str]:
        """The ids of members that are named by externalId or userName, where the profile says that they may be."""
        if self._directory.profile.unknown_member == "refuse" or not members:
            return {}  # most directories: no connection is asked for
        return await resolve_members(self._services.ledger.turns, self._directory, members, self._leniency)

    async def _members(self, document: dict[str, Any]) -> MemberIds:
        """The members of a group, taken out of its document: memberships are stored apart from it."""
        # To free so many dicts takes as long as to make them: for a large group not on the event loop.
        named: list[str] = await self._computed(lambda: [member["value"] for member in document.pop("members", ())])
        found = await self._member_ids(named)
        return await self._computed(lambda: as_members(found.get(member, member) for member in named))

    async def _submit(self, command: Command) -> Outcome:
        needs = await self._computed(lambda: needs_of(command))
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._weight > HEAVY_BYTES:
            needs = needs._replace(heavy=True)
        span = self._services.tracer.begin("commit", "internal", self._call.trace)
        submission = Submission(
            self._directory, command, needs, self._token.actor, self._call.request_id, self._call.op, waiter, self._token.id,
            self._weight, self._leniency, self._call.effort, trace=span.context, by_client=self._token.client is not None,
        )  # fmt: skip
        wait = patience.started()
        try:
            outcome = await self._services.ledger.submit(submission)
        except Exception as refused:
            span.end(type(refused).__name__)
            if isinstance(refused, UnknownMembers):
                raise await self._explained(refused) from None
            raise
        finally:
            patience.charge(wait)
        span.end("", {"ledger.directory": self._directory.slug, "ledger.seq": outcome.seq or 0, "ledger.events": outcome.events})
        patience.renew(AFTER_CHANGE_S)
        self._call.events += outcome.events
        self._call.changed_bytes += outcome.size
        return outcome

    async def _explained(self, refused: UnknownMembers) -> InvalidValue:
        with contextlib.suppress(psycopg.Error, Unavailable):  # without the look-up the refusal is true too
            return await with_external_ids(self._services.ledger.turns, self._directory, refused)
        return refused

    # -- out ----------------------------------------------------------------

    @property
    def _base(self) -> str:
        return f"{self._services.base_url}/scim/{self._directory.slug}/v2"

    def _projection(self, kind: ResourceType) -> Projection:
        attributes, excluded = self._call.query.get("attributes"), self._call.query.get("excludedAttributes")
        projection = read_projection(kind, attributes, excluded, self._leniency)
        return after_write(projection, self._sent)

    async def _created(self, kind: ResourceType, obj: UUID, outcome: Outcome) -> Answer:
        return await self._answer(201, kind, obj, outcome, None)

    async def _changed_user(self, user: UUID, outcome: Outcome) -> Answer:
        kind, groups = self._directory.user_type, None
        if self._call.shows and outcome.in_groups and needs(self._projection(kind), "groups"):
            groups = await self._read_for_answer(groups_of_user(self._services, self._directory, user, self._call.work))
        return await self._answer(200, kind, user, outcome, groups)

    async def _answer(
        self, status: int, kind: ResourceType, obj: UUID, outcome: Outcome, groups: Sequence[GroupOf] | None
    ) -> Answer:
        assert outcome.document is not None
        resource = Resource(kind.name, obj, outcome.document, outcome.etag_rv, outcome.created_at, outcome.updated_at)
        document = with_meta(resource, self._base)
        headers = _headers(document, outcome)
        if not self._call.shows:
            return Answer(status, headers=headers)

        def body() -> bytes:
            if groups:
                document["groups"] = shown_groups(groups, self._base)
            return orjson.dumps(project(self._projection(kind), document))

        large = outcome.large or len(groups or ()) > GROUPS_SHOWN_MAX
        if not large:
            return Answer(status, body(), headers)
        return Answer(
            status, await self._read_for_answer(self._services.ledger.turns.compute(self._directory.id, body)) or b"", headers
        )

    async def _whole_group(self, status: int, group: UUID, outcome: Outcome) -> Answer:
        if not self._call.shows and outcome.document is not None:  # nobody sees the resource, so it is not read
            return await self._answer(status, self._directory.group_type, group, outcome, None)
        projection = self._projection(self._directory.group_type)
        found = await self._read_for_answer(self._group_now(group, members=self._call.shows and needs(projection, "members")))
        if found is None:
            return await self._answer_without_reading(status, group, outcome)
        rows, members = found
        if not rows:
            raise NotFound("The group was deleted by another request meanwhile.")

        def read() -> tuple[dict[str, Any], bytes]:
            resource = reads.unsealed(self._services.ledger.kek, self._directory, GROUP.name, rows[0], self._call.work)
            document = with_meta(resource, self._base)
            return document, object_members(project(projection, document)) if self._call.shows else b""

        shown = await self._read_for_answer(self._services.ledger.turns.compute(self._directory.id, read))
        if shown is None:
            return await self._answer_without_reading(status, group, outcome)
        document, head = shown
        if not self._call.shows:
            return Answer(status, headers=_headers(document, outcome))
        return await streamed(
            status, each(group_json(head, projection, members or reads.Members(), self._base)), _headers(document, outcome)
        )

    async def _group_now(self, group: UUID, *, members: bool) -> tuple[Sequence[SealedResource], reads.Members | None]:
        async with self._services.ledger.turns.connection(self._directory.id) as conn:
            rows, _ = await reads.page(conn, self._directory, GROUP.name, [group])
            return rows, (await reads.members_of(conn, self._directory, [group])).get(group) if members else None

    async def _answer_without_reading(self, status: int, group: UUID, outcome: Outcome) -> Answer:
        """The answer from the outcome alone, where the group could not be read: its attributes, if the change loaded them, no members."""
        if outcome.document is None:
            return Answer(204, headers=[*_ledger_seq(outcome), (b"etag", etag(outcome.etag_rv).encode())])
        return await self._answer(status, self._directory.group_type, group, outcome, None)

    async def _read_for_answer(self, reading: Awaitable[T]) -> T | None:
        """The result of a read for the answer; None where it fails: the change is stored, so the answer must not be an error."""
        try:
            return await reading
        except (psycopg.Error, TooMany, Unavailable) as unread:
            _log.warning("answer_without", request_id=str(self._call.request_id), reason=type(unread).__name__)
            return None


def _headers(document: dict[str, Any], outcome: Outcome) -> list[tuple[bytes, bytes]]:
    meta = document["meta"]
    return [*_ledger_seq(outcome), (b"etag", meta["version"].encode()), (b"location", meta["location"].encode())]


def _resource_id(text: str) -> UUID:
    found = parse_id(text)
    if found is None:
        raise NotFound("There is no resource with this id in this directory.")
    return found


def _user_names_in(patch: Patch) -> tuple[str, ...]:
    """The userNames that a PATCH may set: the transaction reads whether another user has them."""
    values = (op.value for op in patch.operations if op.path.attribute is USER_NAME)
    return tuple(casefold(value) for value in values if isinstance(value, str))


USER_NAME = USER.attributes["username"]


def _ledger_seq(outcome: Outcome) -> list[tuple[bytes, bytes]]:
    return [(b"ledger-seq", str(outcome.seq).encode())] if outcome.seq is not None else []
