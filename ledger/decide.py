"""Decisions: state and command in, events out. Pure: ids and documents are arguments; build.py adds numbers and times.

Consumers rely on the order of the events in a commit (docs/events.md, "One event"): updated, derived revokes, deactivated; reactivated,
derived restores; derived removals, deleted.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple
from uuid import UUID

from ledger.commands import (
    COMMIT_EVENTS_MAX,
    UNKNOWN_ENOUGH,
    CleanUp,
    Command,
    CreateGroup,
    CreateUser,
    DeleteGroup,
    DeleteUser,
    DirectoryState,
    Erasable,
    Erase,
    GroupState,
    Last,
    PatchGroup,
    PatchUser,
    RecordFacts,
    ReplaceGroup,
    ReplaceUser,
    UserState,
    of_the_idp,
    parse_id,
    too_many_events,
)
from ledger.events import (
    ACCESS_RESTORED,
    ACCESS_REVOKED,
    CLOSED,
    DELETED,
    DIRECTORY,
    DIRECTORY_DELETED,
    DIRECTORY_PROFILE_CHANGED,
    DIRECTORY_RATE_LIMIT_CHANGED,
    DIRECTORY_SCHEMA_REGISTERED,
    DIRECTORY_WAS_CLOSED,
    GROUP,
    GROUP_CREATED,
    GROUP_DELETED,
    GROUP_ERASED,
    GROUP_UPDATED,
    GROUP_WAS_DELETED,
    IDP,
    MEMBER_ADDED,
    MEMBER_REMOVED,
    OPERATOR,
    PAUSED,
    USER,
    USER_CREATED,
    USER_DEACTIVATED,
    USER_DELETED,
    USER_ERASED,
    USER_REACTIVATED,
    USER_UPDATED,
    USER_WAS_DEACTIVATED,
    USER_WAS_DELETED,
    USER_WAS_ERASED,
    USER_WAS_REACTIVATED,
    Body,
    Draft,
    EventType,
)
from ledger.refused import HeldError, OvertakenError
from scim.apply import PATCH_STEPS, apply_patch
from scim.casefolding import casefold
from scim.diff import changes, in_order_of
from scim.errors import Forbidden, InvalidValue, NotFound, TooMany, Unavailable, Uniqueness, UnknownMembers
from scim.extension import check_immutable
from scim.filter_dependencies import equated_members
from scim.filters import matches
from scim.leniency import Leniency
from scim.member_operations import MemberOperation, no_such_member
from scim.normalise import check_user_name
from scim.patch import Patch
from scim.schema import ResourceType
from scim.work import Work

PAUSED_RETRY_S = 60  # the Retry-After of a paused directory; a pause takes minutes or hours
PAUSED_SAYS = "An operator paused this directory: nothing was changed. Send the request again after the time in Retry-After, or ask them to resume it."
CLOSED_SAYS = "This directory was closed for ever; nothing was changed. Switch provisioning to it off in your IdP, or ask for another directory."


SHARED_STEPS = 2_000  # of a PATCH in a shared batch: some milliseconds


class RunsAloneError(Exception):
    """The command changes many memberships: decide it again in its own transaction, with all memberships loaded."""


class TooHeavyError(Exception):
    """The command computes too much for a shared batch: decide it again in its own transaction."""


class Effort(NamedTuple):
    """How much a decision may compute: the rest of the request's budget, but at most SHARED_STEPS in a shared batch."""

    work: Work
    shared: bool

    def patched(self, kind: ResourceType, before: dict[str, Any], patch: Patch, leniency: Leniency) -> Any:
        """Apply a PATCH. Raises TooHeavyError above SHARED_STEPS in a shared batch, TooMany if the request's budget is spent."""
        small = Work(min(SHARED_STEPS, self.work.left)) if self.shared else self.work
        allowed = small.left
        try:
            after = apply_patch(kind, before, patch, leniency, small)
        except TooMany:
            if self.shared and self.work.left > allowed:
                raise TooHeavyError from None
            raise
        if self.shared:
            self.work.spend(allowed - small.left)
        return after


class Decision(NamedTuple):
    """The events of one command (none for a no-op) and the resource afterwards (None if it was deleted or not loaded)."""

    drafts: tuple[Draft, ...]
    document: dict[str, Any] | None = None


def decide(state: DirectoryState, command: Command, leniency: Leniency, effort: Effort | None = None) -> Decision:
    """Decide one command. `effort` limits its computation; the default is the budget of one PATCH.

    Raises ScimError if the command is refused, RunsAloneError if it needs all memberships, TooHeavyError if it needs its own
    transaction.
    """
    _refuse_where_nothing_may_be_written(state.directory, command)
    decision = _decide(state, command, leniency, effort or Effort(Work(PATCH_STEPS), shared=False))
    if len(decision.drafts) > COMMIT_EVENTS_MAX:
        raise too_many_events(len(decision.drafts))
    return decision


def _decide(state: DirectoryState, command: Command, leniency: Leniency, effort: Effort) -> Decision:
    match command:
        case CreateUser():
            return _create_user(state, command)
        case ReplaceUser():
            return _replace_user(state, command)
        case PatchUser():
            return _patch_user(state, command, leniency, effort)
        case DeleteUser():
            return _delete_user(state, command)
        case CreateGroup():
            return _create_group(state, command)
        case ReplaceGroup():
            return _replace_group(state, command)
        case PatchGroup():
            return _patch_group(state, command, leniency, effort)
        case DeleteGroup():
            return _delete_group(state, command)
        case CleanUp():
            return _clean_up(state, command)
        case Erase():
            return _erase(state, command)
        case _:
            if not state.stands or not command.counts(state.directory, state.clock):
                raise OvertakenError
            return Decision(command.drafts)


# -- directories ------------------------------------------------------------


def _refuse_where_nothing_may_be_written(directory: str, command: Command) -> None:
    """A paused directory refuses changes from its IdP. A closed one also refuses new profiles and schemas. The rest is allowed."""
    if directory == PAUSED and of_the_idp(command):
        raise Unavailable(PAUSED_SAYS, retry_after=PAUSED_RETRY_S)
    if directory in {CLOSED, DELETED} and (of_the_idp(command) or _changes_profile(command)):
        raise Forbidden(CLOSED_SAYS)


_PROFILE_CHANGES: Final = {DIRECTORY_PROFILE_CHANGED, DIRECTORY_SCHEMA_REGISTERED, DIRECTORY_RATE_LIMIT_CHANGED}


def _changes_profile(command: Command) -> bool:
    return isinstance(command, RecordFacts) and any(draft.kind in _PROFILE_CHANGES for draft in command.drafts)


def _clean_up(state: DirectoryState, command: CleanUp) -> Decision:
    """One piece of the clean-up; what an earlier piece removed is skipped. Access ended when the directory was closed."""
    if state.directory != CLOSED:
        return Decision(())
    drafts = [
        _edge(MEMBER_REMOVED, group, member, kind, DIRECTORY_WAS_CLOSED, effective=False)
        for group, member, kind in command.memberships
        if (group, member) in state.edges
    ]
    drafts += [_ended(USER_DELETED, user, USER, state.left[user]) for user in command.users if user in state.left]
    drafts += [_ended(GROUP_DELETED, group, GROUP, state.left[group]) for group in command.groups if group in state.left]
    if command.last:
        body = Body({"id": str(command.directory), "slug": command.slug}, [], command.slug)
        drafts.append(Draft(DIRECTORY_DELETED, command.directory, DIRECTORY, cause=DIRECTORY_WAS_CLOSED, body=body))
    return Decision(tuple(drafts))


def _ended(kind: EventType, obj: UUID, ot: str, last: Last) -> Draft:
    body = None if last.document is None else Body(last.document, [], last.key)
    return Draft(kind, obj, ot, cause=DIRECTORY_WAS_CLOSED, active=False if ot == USER else None, body=body)


# -- erasure ----------------------------------------------------------------


def _erase(state: DirectoryState, command: Erase) -> Decision:
    """Erase a user or group; no event if that was done before. What derives from the end of a living one comes first.

    The events of the commit have no bodies: a last state that is sealed now would be ciphertext of somebody who is being erased.
    """
    found = state.erasable.get(command.subject)
    if found is None or found.ot != command.ot:
        raise NotFound("There never was a user or group of this id in this directory.")
    if found.erased:
        return Decision(())
    if found.hold is not None and not command.over_holds:
        raise HeldError(found.hold)
    ended = () if not found.living else _end_of_erased(state, command.subject, found)
    kind = USER_ERASED if found.ot == USER else GROUP_ERASED
    return Decision((*ended, Draft(kind, command.subject, found.ot, cause=OPERATOR, active=False if found.ot == USER else None)))


def _end_of_erased(state: DirectoryState, subject: UUID, found: Erasable) -> tuple[Draft, ...]:
    closed = state.directory in {CLOSED, DELETED}
    if found.ot == USER:
        effective = found.active and not closed
        removals = [_edge(MEMBER_REMOVED, group, subject, USER, USER_WAS_ERASED, effective) for group in found.groups]
        return (*removals, Draft(USER_DELETED, subject, USER, cause=USER_WAS_ERASED, active=False))
    own = [
        _edge(MEMBER_REMOVED, subject, member, kind, GROUP_WAS_DELETED, active and not closed)
        for member, (kind, active) in ((member, state.members[member]) for member in found.members)
    ]
    above = [_edge(MEMBER_REMOVED, parent, subject, GROUP, GROUP_WAS_DELETED, not closed) for parent in found.groups]
    return (*own, *above, Draft(GROUP_DELETED, subject, GROUP, cause=OPERATOR))


# -- users ------------------------------------------------------------------


def _create_user(state: DirectoryState, command: CreateUser) -> Decision:
    _refuse_taken(state, command.key, command.id)
    check_user_name(command.document)
    document = {**command.document, "id": str(command.id)}
    document.setdefault("active", True)
    return Decision((_user_event(USER_CREATED, command.id, document, [], command.key),), document)


def _replace_user(state: DirectoryState, command: ReplaceUser) -> Decision:
    user = _user(state, command.id)
    if command.condition:
        command.condition.check(user.etag_rv)
    document = in_order_of(user.document, {**command.document, "id": str(command.id)})
    # A PUT without `active` keeps the state: it must not reactivate a user who left.
    document.setdefault("active", user.active)
    check_immutable(command.kind, user.document, document)
    return _change_user(state, user, document)


def _patch_user(state: DirectoryState, command: PatchUser, leniency: Leniency, effort: Effort) -> Decision:
    user = _user(state, command.id)
    if command.condition:
        command.condition.check(user.etag_rv)
    after = effort.patched(command.kind, user.document, command.patch, leniency)
    return _change_user(state, user, in_order_of(user.document, after))


def _change_user(state: DirectoryState, user: UserState, after: dict[str, Any]) -> Decision:
    key = casefold(after["userName"])
    if key != user.key:
        _refuse_taken(state, key, user.id)
    check_user_name(after, user.document)
    found = changes(user.document, after)
    if not found:
        return Decision((), user.document)
    attributes = [change for change in found if change["path"] != "active"]
    drafts: list[Draft] = []
    if attributes:
        drafts.append(_user_event(USER_UPDATED, user.id, {**after, "active": user.active}, attributes, key))
    if after["active"] is not user.active:
        drafts += _activation(user, after, [change for change in found if change["path"] == "active"], key)
    return Decision(tuple(drafts), after)


def _activation(user: UserState, after: dict[str, Any], change: list[dict[str, Any]], key: str) -> list[Draft]:
    if user.in_groups and user.groups is None:
        raise RunsAloneError
    groups = user.groups or ()
    if after["active"]:
        restored = [_access(ACCESS_RESTORED, group, user.id, USER_WAS_REACTIVATED) for group in groups]
        return [_user_event(USER_REACTIVATED, user.id, after, change, key), *restored]
    revoked = [_access(ACCESS_REVOKED, group, user.id, USER_WAS_DEACTIVATED) for group in groups]
    return [*revoked, _user_event(USER_DEACTIVATED, user.id, after, change, key)]


def _delete_user(state: DirectoryState, command: DeleteUser) -> Decision:
    user = _user(state, command.id)
    if command.condition:
        command.condition.check(user.etag_rv)
    if user.in_groups and user.groups is None:
        raise RunsAloneError
    removals = [_edge(MEMBER_REMOVED, group, user.id, USER, USER_WAS_DELETED, user.active) for group in user.groups or ()]
    # `active` is false, so that a consumer that folds the events ends all access here, even if it missed earlier ones.
    last = Draft(USER_DELETED, user.id, USER, active=False, body=Body(user.document, [], user.key) if user.document else None)
    return Decision((*removals, last))


def _user_event(kind: EventType, user: UUID, document: dict[str, Any], found: list[dict[str, Any]], key: str) -> Draft:
    return Draft(kind, user, USER, active=document["active"], body=Body(document, found, key))


def _user(state: DirectoryState, user: UUID) -> UserState:
    found = state.users.get(user)
    if found is None:
        raise NotFound("There is no user with this id in this directory. It may have been deleted.")
    return found


def _refuse_taken(state: DirectoryState, key: str, user: UUID) -> None:
    owner = state.names.get(key)
    if owner is not None and owner != user:
        raise Uniqueness(f"userName: user {owner} of this directory already has this userName (compared ignoring case).")


# -- groups -----------------------------------------------------------------


def _create_group(state: DirectoryState, command: CreateGroup) -> Decision:
    document = {**command.document, "id": str(command.id)}
    created = Draft(GROUP_CREATED, command.id, GROUP, body=Body(document, [], command.key))
    members = dict.fromkeys(_known_members(state, command.id, command.members))
    return Decision((created, *(_add(state, command.id, member) for member in members)), document)


def _replace_group(state: DirectoryState, command: ReplaceGroup) -> Decision:
    group = _group(state, command.id)
    if command.condition:
        command.condition.check(group.etag_rv)
    document = in_order_of(group.document, {**command.document, "id": str(command.id)})
    check_immutable(command.kind, group.document, document)
    wanted = set(_known_members(state, group.id, command.members))
    return _change_group(state, group, document, wanted, set(group.members or ()))


def _patch_group(state: DirectoryState, command: PatchGroup, leniency: Leniency, effort: Effort) -> Decision:
    group = _group(state, command.id)
    if command.condition:
        command.condition.check(group.etag_rv)
    document = group.document
    if command.patch.operations:
        document = in_order_of(document, effort.patched(command.kind, document, command.patch, leniency))
    wanted, current = _apply_member_operations(state, group, command.patch.member_operations)
    return _change_group(state, group, document, wanted, current)


def _change_group(
    state: DirectoryState, group: GroupState, document: dict[str, Any], wanted: set[UUID], current: set[UUID]
) -> Decision:
    found = changes(group.document, document)
    drafts: list[Draft] = []
    if found:
        drafts.append(Draft(GROUP_UPDATED, group.id, GROUP, body=Body(document, found, casefold(document["displayName"]))))
    drafts += [_remove(state, group, member) for member in sorted(current - wanted)]
    drafts += [_add(state, group.id, member) for member in sorted(wanted - current)]
    return Decision(tuple(drafts), document)


def _delete_group(state: DirectoryState, command: DeleteGroup) -> Decision:
    group = _group(state, command.id)
    if command.condition:
        command.condition.check(group.etag_rv)
    own = [_remove(state, group, member, GROUP_WAS_DELETED) for member in group.members or ()]
    above = [_edge(MEMBER_REMOVED, parent, group.id, GROUP, GROUP_WAS_DELETED, effective=True) for parent in group.parents]
    body = Body(group.document, [], casefold(group.document["displayName"])) if group.document else None
    last = Draft(GROUP_DELETED, group.id, GROUP, body=body)
    return Decision((*own, *above, last))


def _group(state: DirectoryState, group: UUID) -> GroupState:
    found = state.groups.get(group)
    if found is None:
        raise NotFound("There is no group with this id in this directory. It may have been deleted.")
    return found


def _apply_member_operations(
    state: DirectoryState, group: GroupState, operations: tuple[MemberOperation, ...]
) -> tuple[set[UUID], set[UUID]]:
    """The members of the group after the operations, and before them: (wanted, current).

    If the members were not all loaded, both sets hold only members that the operations name: adding one member to a large group
    is cheap.
    """
    if group.members is not None:
        current = set(group.members)
    else:
        current = {member for operation in operations for member in _named(operation) if (group.id, member) in state.edges}
    _refuse_what_is_no_id(operations)
    added = [member for operation in operations if operation.kind == "add" for member, _ in operation.members]
    _known_members(state, group.id, added)
    wanted = set(current)
    for operation in operations:
        match operation.kind:
            case "add":
                wanted.update(_named(operation))
            case "remove":
                wanted -= set(_named(operation))
            case "clear":
                wanted.clear()
            case "require":
                if wanted.isdisjoint(_named(operation)):
                    raise no_such_member()
            case _:
                wanted -= {member for member in wanted if _selected(state, group, operation, member)}
    return wanted, current


def _named(operation: MemberOperation) -> Iterator[UUID]:
    return (found for found in (parse_id(member) for member, _ in operation.members) if found is not None)


def _selected(state: DirectoryState, group: GroupState, operation: MemberOperation, member: UUID) -> bool:
    kind = (group.members or {}).get(member) or state.members[member][0]
    return operation.filter is not None and matches(operation.filter, {"value": str(member), "type": kind})


NAMED_MAX: Final = UNKNOWN_ENOUGH  # members that a refusal names
NAMED_CHARACTERS_MAX: Final = 80  # of each of them


def _known_members(state: DirectoryState, group: UUID, members: Iterable[UUID | str]) -> list[UUID]:
    """The members as ids. Raises InvalidValue, which names ids that no user or group of the directory has."""
    known: list[UUID] = []
    unknown: dict[str, None] = {}
    for member in members:
        found = parse_id(member) if isinstance(member, str) else member
        if found == group:
            raise InvalidValue("members: a group cannot be a member of itself.")
        if found is None or found not in state.members:
            unknown[str(member)] = None
            if state.cut and len(unknown) > NAMED_MAX:
                raise _nobody(list(unknown), "Create it first, or leave it out.", more="more")
        else:
            known.append(found)
    if unknown:
        raise _nobody(list(unknown), "Create it first, or leave it out.")
    return known


def _refuse_what_is_no_id(operations: tuple[MemberOperation, ...]) -> None:
    """Raises InvalidValue if an operation removes a member by a value that cannot be an id.

    If that were answered with success, the member would stay in the group. An id that is not a member is no error.
    """
    named: dict[str, None] = {}
    # An operation with `require` answers noTarget instead.
    required = {member for operation in operations if operation.kind == "require" for member, _ in operation.members}
    for operation in operations:
        if operation.kind == "remove":
            named |= dict.fromkeys(member for member, _ in operation.members if member not in required)
        elif operation.filter is not None:
            named |= dict.fromkeys(sorted(equated_members(operation.filter)))
    wrong = [member for member in named if parse_id(member) is None]
    if wrong:
        raise _nobody(wrong, "Name each member by the id that this service gave it.")


def _nobody(members: list[str], fix: str, more: str = "") -> UnknownMembers:
    shown = ", ".join(f'"{_shortened(member)}"' for member in members[:NAMED_MAX])
    more = f" and {more or f'{len(members) - NAMED_MAX} more'}" if len(members) > NAMED_MAX else ""
    return UnknownMembers(f"members: no user or group of this directory has the id {shown}{more}. {fix}", members[:NAMED_MAX])


def _shortened(text: str) -> str:
    return text if len(text) <= NAMED_CHARACTERS_MAX else text[: NAMED_CHARACTERS_MAX - 3] + "..."


def _add(state: DirectoryState, group: UUID, member: UUID) -> Draft:
    kind, active = state.members[member]
    return _edge(MEMBER_ADDED, group, member, kind, IDP, active)


def _remove(state: DirectoryState, group: GroupState, member: UUID, cause: str = IDP) -> Draft:
    kind, active = state.members[member]
    return _edge(MEMBER_REMOVED, group.id, member, kind, cause, active)


def _edge(kind: EventType, group: UUID, member: UUID, member_type: str, cause: str, effective: bool) -> Draft:
    return Draft(kind, group, GROUP, cause=cause, mem=member, mt=member_type, eff=effective)


def _access(kind: EventType, group: UUID, user: UUID, cause: str) -> Draft:
    # Access that follows from a user's activity moves no ETag, because the stored group is unchanged.
    return _edge(kind, group, user, USER, cause, effective=True)._replace(moves_etag=False)
