"""What an erasure decides, and how far it reaches."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from ledger.commands import DirectoryState, Erasable, Erase, Needs, needs_of, of_the_idp
from ledger.decide import decide
from ledger.events import CLOSED, GROUP, USER
from ledger.horizon import NOT_SWITCHED, NOT_VACUUMED, Swept, horizon
from ledger.refused import HeldError
from scim.errors import NotFound
from scim.leniency import Leniency

U1, U2, G1, G2, HOLD, NUMBER = (UUID(int=n, version=4) for n in (1, 2, 11, 12, 21, 31))
COUNTS = {"bodies": 1}
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def told(state: DirectoryState, subject: UUID, ot: str, *, over_holds: bool = False) -> list[tuple[object, ...]]:
    decision = decide(state, Erase(subject, ot, NUMBER, over_holds=over_holds), Leniency())
    assert all(draft.body is None for draft in decision.drafts), "no ciphertext is made of somebody who is being erased"
    return [(draft.kind.topic, draft.obj, draft.mem, draft.cause, draft.eff, draft.active) for draft in decision.drafts]


def user(**more: object) -> DirectoryState:
    found = Erasable(USER, living=True, active=True, erased=False, hold=None, counts=COUNTS, groups=(G1,))
    return DirectoryState(erasable={U1: found._replace(**more)})


def test_the_end_of_a_living_user_comes_before_its_erasure() -> None:
    assert told(user(), U1, USER) == [
        ("group.member_removed", G1, U1, "user_erased", True, None),
        ("user.deleted", U1, None, "user_erased", None, False),
        ("user.erased", U1, None, "operator", None, False),
    ]


@pytest.mark.parametrize("more", [{"active": False}, {}])
def test_a_membership_that_gave_no_access_ends_without_effect(more: dict[str, bool]) -> None:
    state = user(**more)
    state.directory = CLOSED if not more else state.directory
    assert [eff for *_, eff, _ in told(state, U1, USER)] == [False, None, None]


def test_a_deleted_user_and_group_only_get_their_erasure() -> None:
    assert [topic for topic, *_ in told(user(living=False), U1, USER)] == ["user.erased"]
    group = Erasable(GROUP, living=False, active=True, erased=False, hold=None, counts=COUNTS)
    assert told(DirectoryState(erasable={G1: group}), G1, GROUP) == [("group.erased", G1, None, "operator", None, None)]


def test_the_memberships_of_a_group_end_with_it() -> None:
    group = Erasable(GROUP, living=True, active=True, erased=False, hold=None, counts=COUNTS, groups=(G2,), members=(U1, U2))
    state = DirectoryState(erasable={G1: group}, members={U1: (USER, True), U2: (USER, False)})
    assert told(state, G1, GROUP) == [
        ("group.member_removed", G1, U1, "group_deleted", True, None),
        ("group.member_removed", G1, U2, "group_deleted", False, None),
        ("group.member_removed", G2, G1, "group_deleted", True, None),
        ("group.deleted", G1, None, "operator", None, None),
        ("group.erased", G1, None, "operator", None, None),
    ]


def test_an_erased_user_gets_no_second_event() -> None:
    assert told(user(erased=True, living=False), U1, USER) == []


def test_a_hold_is_named_and_only_a_restore_goes_over_it() -> None:
    with pytest.raises(HeldError, match=str(HOLD)) as refused:
        told(user(hold=HOLD), U1, USER)
    assert (refused.value.code, refused.value.hold) == ("legal_hold", HOLD)
    assert told(user(hold=HOLD), U1, USER, over_holds=True)


@pytest.mark.parametrize(("subject", "ot"), [(U2, USER), (U1, GROUP)])
def test_an_unknown_subject_and_one_of_another_type_is_refused(subject: UUID, ot: str) -> None:
    with pytest.raises(NotFound):
        told(user(), subject, ot)


def test_erasures_of_users_share_batches_and_those_of_groups_do_not() -> None:
    assert needs_of(Erase(U1, USER, NUMBER)) == Needs(writes=frozenset({("user", U1)}))
    assert needs_of(Erase(G1, GROUP, NUMBER)).whole
    assert not of_the_idp(Erase(U1, USER, NUMBER)), "a pause of the IdP holds up no erasure"


# -- the horizon ----------------------------------------------------------------


def test_what_was_done_and_refused_on_the_server_stands_in_the_horizon() -> None:
    assert [horizon(1, 1, (), Swept())[part]["state"] for part in ("database", "wal")] == ["deleted", "open"]
    done = horizon(1, 1, (), Swept(NOW, NOW))
    assert [(done[part]["state"], done[part]["at"]) for part in ("database", "wal")] == [("vacuumed", NOW), ("switched", NOW)]
    refused = horizon(1, 1, (), Swept(refused=f"{NOT_VACUUMED},{NOT_SWITCHED}"))
    assert [refused[part]["state"] for part in ("database", "wal")] == ["not_allowed", "not_allowed"]
    assert "pg_switch_wal" in refused["wal"]["says"]
    assert "vacuum" in refused["database"]["says"]


def test_backups_are_unreadable_once_every_epoch_before_is_destroyed() -> None:
    first = horizon(1, 1, (), Swept())["backups"]
    assert (first["state"], first["epochs"]) == ("readable", [1])
    assert "`scim-ledger key rotate`, `scim-ledger key rewrap`, then `scim-ledger key destroy 1`" in first["says"]
    later = horizon(2, 3, {1}, Swept())["backups"]
    assert (later["state"], later["epochs"]) == ("readable", [2])
    assert "key rotate" not in later["says"]
    assert horizon(2, 3, {1, 2}, Swept())["backups"]["state"] == "unreadable"
