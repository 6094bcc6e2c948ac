"""Pausing, resuming, closing and clean-up: which commands each state of a directory accepts, and what one piece of the clean-up
removes.
"""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from ledger import commands as c
from ledger.clocks import DirectoryTail
from ledger.commands import CleanUp, DirectoryState, Last, RecordFacts, needs_of
from ledger.decide import CLOSED_SAYS, PAUSED_SAYS, Decision, decide
from ledger.directories import Directory
from ledger.events import (
    ACTIVE,
    CLOSED,
    DELETED,
    DIRECTORY,
    DIRECTORY_PROFILE_CHANGED,
    OPERATOR,
    PAUSED,
    TOKEN,
    TOKEN_REVOKED,
    Draft,
)
from ledger.lifecycle import LifecycleError, clock_accepted, closed, paused, resumed
from ledger.refused import OvertakenError, StateError
from scim.errors import Forbidden, Unavailable
from scim.leniency import Leniency
from scim.patch import Patch
from scim.profile import profile_of

GENERIC = profile_of("generic@1").tolerances
HERE = Directory(7, UUID(int=7), "acme", profile_of("generic@1"), bytes(32))
U, G, H = UUID(int=1), UUID(int=11), UUID(int=12)
STATES = (ACTIVE, PAUSED, CLOSED, DELETED)
OF_AN_IDP = [
    c.CreateUser(U, {"userName": "u"}, "u"), c.ReplaceUser(U, {"userName": "u"}, "u"), c.PatchUser(U, Patch((), ())), c.DeleteUser(U),
    c.CreateGroup(G, {"displayName": "g"}, "g", ()), c.ReplaceGroup(G, {"displayName": "g"}, "g", ()), c.PatchGroup(G, Patch((), ())),
    c.DeleteGroup(G),
]  # fmt: skip


def _when(state: str, command: c.Command) -> Decision:
    return decide(DirectoryState(directory=state), command, Leniency(GENERIC))


@pytest.mark.parametrize("command", OF_AN_IDP, ids=lambda command: type(command).__name__)
def test_a_paused_or_closed_directory_accepts_no_command_of_an_idp(command: c.Command) -> None:
    """This holds for every command and is checked first: also for a command that would be refused anyway, or would change
    nothing.
    """
    with pytest.raises(Unavailable, match="paused") as later:
        _when(PAUSED, command)
    assert (later.value.detail, later.value.retry_after) == (PAUSED_SAYS, 60)
    for state in (CLOSED, DELETED):
        with pytest.raises(Forbidden) as never:
            _when(state, command)
        assert never.value.detail == CLOSED_SAYS


def test_the_list_above_has_every_command() -> None:
    assert {type(command) for command in OF_AN_IDP} | {RecordFacts, CleanUp, c.Erase} == set(c.Command.__args__)


@pytest.mark.parametrize("state", STATES)
def test_acts_of_operators_go_on_but_the_profile_of_a_closed_directory_cannot_change(state: str) -> None:
    revoked = RecordFacts((Draft(TOKEN_REVOKED, U, TOKEN, cause=OPERATOR),))
    assert _when(state, revoked).drafts == revoked.drafts
    changed = RecordFacts((Draft(DIRECTORY_PROFILE_CHANGED, HERE.uuid, DIRECTORY, cause=OPERATOR),))
    if state in {CLOSED, DELETED}:
        with pytest.raises(Forbidden):
            _when(state, changed)
    else:
        assert _when(state, changed).drafts == changed.drafts


@pytest.mark.parametrize("state", STATES)
def test_an_act_makes_an_event_only_if_the_directory_is_in_a_state_that_it_leaves(state: str) -> None:
    """The state within the transaction counts: the operation has decided on the state that it read before."""
    acts = {
        "directory.paused": (paused(HERE, "r"), {ACTIVE}),
        "directory.resumed": (resumed(replace(HERE, state=PAUSED), "r"), {PAUSED}),
        "directory.closed": (closed(HERE, "r", "acme"), {ACTIVE, PAUSED}),
    }
    for topic, (act, leaves) in acts.items():
        assert act is not None
        assert needs_of(act).whole, "what comes after in its directory is decided by what it made of it"
        if state not in leaves:
            with pytest.raises(OvertakenError):
                _when(state, act)
            continue
        (draft,) = _when(state, act).drafts
        assert (draft.kind.topic, draft.cause, draft.body and draft.body.object["reason"]) == (topic, "operator", "r")


def test_a_clock_is_accepted_only_if_it_is_behind() -> None:
    """This is also checked within the transaction, so that two acceptances at the same time make one event."""
    behind = DirectoryTail(9, 1_700_000_000_000_000, 1_600_000_000_000_000)
    act = clock_accepted(HERE, behind, "r")
    assert act is not None
    assert needs_of(act).whole
    for clock in ("running", "frozen"):
        with pytest.raises(OvertakenError):
            decide(DirectoryState(clock=clock), act, Leniency(GENERIC))
    told = decide(DirectoryState(clock="behind"), act, Leniency(GENERIC)).drafts
    assert [draft.kind.topic for draft in told] == ["directory.clock_accepted"]
    assert clock_accepted(HERE, replace(behind, accepted=True), "r") is None
    with pytest.raises(StateError, match="writes go on"):
        clock_accepted(HERE, DirectoryTail(9, 5, 5), "r")
    with pytest.raises(StateError, match="closed for ever"):
        clock_accepted(replace(HERE, state=CLOSED), behind, "r")
    with pytest.raises(LifecycleError, match="never blocks"):
        clock_accepted(replace(HERE, slug="_system"), behind, "r")


def test_an_act_that_changes_nothing_makes_no_event() -> None:
    assert paused(replace(HERE, state=PAUSED), "r") is None
    assert resumed(HERE, "r") is None
    for state in (CLOSED, DELETED):
        assert closed(replace(HERE, state=state), "r", "acme") is None


def test_a_refused_act_says_why() -> None:
    system = replace(HERE, slug="_system")
    for act in (paused, resumed):
        with pytest.raises(LifecycleError, match="own directory"):
            act(system, "r")
        with pytest.raises(StateError, match="closed for ever"):
            act(replace(HERE, state=DELETED), "r")
    with pytest.raises(LifecycleError, match="own directory"):
        closed(system, "r", "_system")
    for confirm in ("", "Acme", "acme ", "other"):
        with pytest.raises(LifecycleError, match='"confirm": "acme"'):
            closed(HERE, "r", confirm)


def _cleaned(state: DirectoryState, **piece: object) -> list[tuple[object, ...]]:
    command = CleanUp(HERE.uuid, "acme", **piece)  # pyright: ignore[reportArgumentType]
    drafts = decide(state, command, Leniency(GENERIC)).drafts
    assert {draft.cause for draft in drafts} <= {"directory_closed"}
    return [(d.kind.topic, d.obj, d.mem or (d.body.object if d.body else None), d.eff, d.active) for d in drafts]


def test_a_piece_removes_the_remaining_memberships_without_a_second_effect() -> None:
    """Access ended with the closing, so a removal has `effective` false.

    Memberships that an earlier piece removed make no event.
    """
    state = DirectoryState(directory=CLOSED, edges={(G, U), (G, H)}, left={U: Last({"userName": "u"}, "u"), G: Last(None)})
    edges = ((G, U, "User"), (G, H, "Group"), (H, U, "User"))
    assert _cleaned(state, memberships=edges) == [
        ("group.member_removed", G, U, False, None), ("group.member_removed", G, H, False, None),
    ]  # fmt: skip
    assert _cleaned(state, users=(U, uuid4())) == [("user.deleted", U, {"userName": "u"}, None, False)]
    assert _cleaned(state, groups=(G, H)) == [("group.deleted", G, None, None, None)]
    last = {"id": str(HERE.uuid), "slug": "acme"}
    assert _cleaned(state, last=True) == [("directory.deleted", HERE.uuid, last, None, None)]
    assert needs_of(CleanUp(HERE.uuid, "acme")).whole


@pytest.mark.parametrize("state", [ACTIVE, PAUSED, DELETED])
def test_only_closed_directories_are_cleaned_up(state: str) -> None:
    standing = DirectoryState(directory=state, edges={(G, U)}, left={U: Last({}, "")})
    assert _cleaned(standing, memberships=((G, U, "User"),), users=(U,), last=True) == []
