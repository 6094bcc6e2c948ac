"""Decisions as given (state), when (command), then (events): state follows from events alone, and a no-op makes no event."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger import commands as c
from ledger.commands import Condition, DirectoryState, GroupState, Tags, UserState, needs_of, parse_id
from ledger.decide import Decision, Effort, RunsAloneError, TooHeavyError, decide
from ledger.events import USER_CREATED, Draft
from scim.apply import PATCH_STEPS
from scim.casefolding import casefold
from scim.errors import InvalidValue, NoTarget, NotFound, PreconditionFailed, TooMany, Uniqueness
from scim.leniency import Leniency
from scim.patch import read_patch
from scim.profile import profile_of
from scim.schema import GROUP, USER
from scim.work import Work

GENERIC = profile_of("generic@1").tolerances
CORE_USER = "urn:ietf:params:scim:schemas:core:2.0:User"
CORE_GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
U1, U2, U3 = (UUID(int=n, version=4) for n in (1, 2, 3))
G1, G2 = (UUID(int=n, version=4) for n in (11, 12))


def _user(
    user: UUID = U1, *, active: bool = True, groups: tuple[UUID, ...] | None = (), name: str = "Ann", **more: Any
) -> UserState:
    document = {"schemas": [CORE_USER], "id": str(user), "userName": name, "active": active, **more}
    return UserState(
        user, document, active, casefold(name), 3, 3, 10, 20, in_groups=groups is None or bool(groups), groups=groups
    )


def _group(group: UUID = G1, members: dict[UUID, str] | None = None, parents: tuple[UUID, ...] = ()) -> GroupState:
    document = {"schemas": [CORE_GROUP], "id": str(group), "displayName": "Crew"}
    return GroupState(group, document, 5, 10, 0, members, parents)


def _when(state: DirectoryState, command: c.Command) -> Decision:
    return decide(state, command, Leniency(GENERIC), Effort(Work(PATCH_STEPS), shared=False))


def _told(decision: Decision) -> list[tuple[str, ...]]:
    """The events in a short form: type, subject, member, cause, effect."""
    return [_short(draft) for draft in decision.drafts]


def _short(d: Draft) -> tuple[str, ...]:
    if d.kind.membership:
        return d.kind.topic, str(d.obj), str(d.mem), d.cause, "effective" if d.eff else "stored only"
    return d.kind.topic, str(d.obj), d.cause


def _patch(kind: Any, *operations: dict[str, Any]) -> Any:
    message = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": list(operations)}
    return read_patch(kind, message, Leniency(GENERIC))


def _set(path: str, value: Any) -> c.PatchUser:
    return c.PatchUser(U1, _patch(USER, {"op": "replace", "path": path, "value": value}))


# -- users ------------------------------------------------------------------


def test_a_created_user_is_active_unless_it_says_otherwise() -> None:
    made = _when(DirectoryState(), c.CreateUser(U1, {"schemas": [CORE_USER], "userName": "Ann"}, "ann"))
    assert _told(made) == [("user.created", str(U1), "idp")]
    assert made.drafts[0].active is True
    assert made.document == {"schemas": [CORE_USER], "userName": "Ann", "id": str(U1), "active": True}
    asleep = _when(DirectoryState(), c.CreateUser(U1, {"schemas": [CORE_USER], "userName": "Ann", "active": False}, "ann"))
    assert asleep.drafts[0].active is False


def test_a_taken_user_name_is_refused_on_every_write() -> None:
    state = DirectoryState(users={U1: _user()}, names={"bob": U2, "ann": U1})
    document = {"schemas": [CORE_USER], "userName": "BOB"}
    for command in (c.CreateUser(U3, document, "bob"), c.ReplaceUser(U1, document, "bob"), _set("userName", "BOB")):
        with pytest.raises(Uniqueness):
            _when(state, command)
    assert _told(_when(state, _set("userName", "ANN"))) == [("user.updated", str(U1), "idp")], "its own name in another case"


def test_an_attribute_change_is_one_update_with_its_changes() -> None:
    decision = _when(DirectoryState(users={U1: _user()}), _set("title", "Boss"))
    assert _told(decision) == [("user.updated", str(U1), "idp")]
    body = decision.drafts[0].body
    assert body is not None
    assert body.changes == [{"path": "title", "to": "Boss"}]
    assert body.object["title"] == "Boss"


@pytest.mark.parametrize(
    "command",
    [_set("active", True), _set("userName", "Ann"), c.ReplaceUser(U1, {"schemas": [CORE_USER], "userName": "Ann"}, "ann")],
)
def test_a_no_op_makes_no_event(command: c.Command) -> None:
    assert _when(DirectoryState(users={U1: _user()}), command).drafts == ()


def test_a_put_without_active_does_not_reactivate_a_leaver() -> None:
    state = DirectoryState(users={U1: _user(active=False)})
    decision = _when(state, c.ReplaceUser(U1, {"schemas": [CORE_USER], "userName": "Ann", "title": "T"}, "ann"))
    assert [d.active for d in decision.drafts] == [False]


def test_deactivation_revokes_each_membership_before_it_happens() -> None:
    state = DirectoryState(users={U1: _user(groups=(G1, G2))})
    command = c.PatchUser(U1, _patch(USER, {"op": "replace", "value": {"active": False, "title": "Gone"}}))
    decision = _when(state, command)
    assert _told(decision) == [
        ("user.updated", str(U1), "idp"),
        ("group.member_access_revoked", str(G1), str(U1), "user_deactivated", "effective"),
        ("group.member_access_revoked", str(G2), str(U1), "user_deactivated", "effective"),
        ("user.deactivated", str(U1), "idp"),
    ]
    assert [d.active for d in decision.drafts if d.body] == [True, False], "the update comes while still active"
    assert not any(d.moves_etag for d in decision.drafts if d.kind.membership)


def test_reactivation_restores_each_membership_after_it_happened() -> None:
    decision = _when(DirectoryState(users={U1: _user(active=False, groups=(G1,))}), _set("active", "True"))
    assert _told(decision) == [
        ("user.reactivated", str(U1), "idp"),
        ("group.member_access_restored", str(G1), str(U1), "user_reactivated", "effective"),
    ]


@pytest.mark.parametrize("active", [True, False])
def test_deletion_removes_each_membership_before_it_happens(active: bool) -> None:
    decision = _when(DirectoryState(users={U1: _user(active=active, groups=(G1,))}), c.DeleteUser(U1))
    effect = "effective" if active else "stored only"
    assert _told(decision) == [
        ("group.member_removed", str(G1), str(U1), "user_deleted", effect),
        ("user.deleted", str(U1), "idp"),
    ]
    assert decision.drafts[-1].active is False


@pytest.mark.parametrize("command", [_set("active", False), c.DeleteUser(U1)])
def test_a_command_that_fans_out_asks_to_run_alone_until_all_memberships_are_loaded(command: c.Command) -> None:
    with pytest.raises(RunsAloneError):
        _when(DirectoryState(users={U1: _user(groups=None)}), command)


def test_conditions_and_missing_resources() -> None:
    state = DirectoryState(users={U1: _user()}, groups={G1: _group(members={})})
    old, current = Condition(Tags(frozenset({2}))), Condition(Tags(frozenset({2, 3})), Tags(frozenset({2})))
    unwanted, new_only = Condition(none_match=Tags(frozenset({3, 5}))), Condition(none_match=Tags(any=True))
    user = {"schemas": [CORE_USER], "userName": "Ann"}
    group = {"schemas": [CORE_GROUP], "displayName": "Crew"}
    patch_user, patch_group = _set("title", "x").patch, _patch(GROUP, {"op": "replace", "path": "displayName", "value": "x"})
    for condition in (old, unwanted, new_only):
        for command in (
            c.ReplaceUser(U1, user, "ann", condition), c.PatchUser(U1, patch_user, (), condition), c.DeleteUser(U1, condition),
            c.ReplaceGroup(G1, group, "crew", (), condition), c.PatchGroup(G1, patch_group, condition), c.DeleteGroup(G1, condition),
        ):  # fmt: skip
            with pytest.raises(PreconditionFailed):
                _when(state, command)
    assert _when(state, c.PatchUser(U1, patch_user, (), current)).drafts
    assert _when(state, c.DeleteGroup(G1, Condition(Tags(any=True)))).drafts
    for command in (c.DeleteUser(U2), c.DeleteGroup(G2)):
        with pytest.raises(NotFound):
            _when(state, command)


# -- groups -----------------------------------------------------------------


def _members(*active: tuple[UUID, bool]) -> dict[UUID, tuple[str, bool]]:
    return {user: ("User", on) for user, on in active}


def test_a_created_group_adds_each_member_once_and_says_whether_it_changes_access() -> None:
    state = DirectoryState(members={**_members((U1, True), (U2, False)), G2: ("Group", True)})
    document = {"schemas": [CORE_GROUP], "displayName": "Crew"}
    decision = _when(state, c.CreateGroup(G1, document, "crew", c.as_members(map(str, (U1, U1, U2, G2)))))
    assert _told(decision) == [
        ("group.created", str(G1), "idp"),
        ("group.member_added", str(G1), str(U1), "idp", "effective"),
        ("group.member_added", str(G1), str(U2), "idp", "stored only"),
        ("group.member_added", str(G1), str(G2), "idp", "effective"),
    ]
    assert [d.mt for d in decision.drafts[1:]] == ["User", "User", "Group"]


@pytest.mark.parametrize("member", [str(U3), "no id at all", "x" * 100])
def test_an_unknown_member_is_refused_by_name(member: str) -> None:
    document = {"schemas": [CORE_GROUP], "displayName": "Crew"}
    with pytest.raises(InvalidValue, match=member[:20]):
        _when(DirectoryState(), c.CreateGroup(G1, document, "crew", c.as_members([member])))


def test_a_refusal_names_up_to_ten_unknown_members() -> None:
    ghosts = [f"ghost-{n}" for n in range(12)]
    document = {"schemas": [CORE_GROUP], "displayName": "Crew"}
    state = DirectoryState(groups={G1: _group(members={})}, members=_members((U1, True)))
    added = [{"op": "add", "path": "members", "value": [{"value": name}]} for name in [str(U1), *ghosts]]
    for command in (
        c.CreateGroup(G1, document, "crew", c.as_members([str(U1), *ghosts])),
        c.ReplaceGroup(G1, document, "crew", c.as_members([str(U1), *ghosts])),
        c.PatchGroup(G1, _patch(GROUP, *added)),
        c.PatchGroup(G1, _patch(GROUP, {"op": "remove", "path": "members", "value": [{"value": name} for name in ghosts]})),
    ):
        with pytest.raises(InvalidValue) as refused:
            _when(state, command)
        assert all(f'"{name}"' in refused.value.detail for name in ghosts[:10])
        assert "ghost-10" not in refused.value.detail
        assert " and 2 more. " in refused.value.detail
        assert str(U1) not in refused.value.detail


NO_IDS = ["ann@example.com", f" {U1}", f"{U1} ", str(U1)[:-1], "ann", f"{U1}\u200b"]


@pytest.mark.parametrize("name", NO_IDS)
def test_a_removal_of_a_value_that_cannot_be_an_id_is_refused(name: str) -> None:
    """It was answered 204, and the member stayed. An id that is only not a member counts as removed already."""
    state = DirectoryState(groups={G1: _group(members={U1: "User"})}, members=_members((U1, True)), edges={(G1, U1)})
    quoted = f'"{name}"'
    for operation in (
        {"op": "remove", "path": "members", "value": [{"value": name}]},
        {"op": "remove", "path": "members", "value": [{"value": str(U1)}, {"value": name}]},
        {"op": "remove", "path": "members", "value": name},
        {"op": "remove", "path": f"members[value eq {quoted}]"},
        {"op": "remove", "path": f'members[value eq "{U1}" or value eq {quoted}]'},
        {"op": "remove", "path": f'members[value eq {quoted} and type eq "User"]'},
        {"op": "remove", "path": f"members[not (value eq {quoted})]"},
        {"op": "remove", "path": f"members[value ne {quoted}]"},
    ):
        with pytest.raises(InvalidValue, match="no user or group of this directory has the id"):
            _when(state, c.PatchGroup(G1, _patch(GROUP, operation)))
    for absent in (str(U2), str(U1).replace("1", "2")):
        gone = _patch(GROUP, {"op": "remove", "path": "members", "value": [{"value": absent}]})
        assert _when(state, c.PatchGroup(G1, gone)).drafts == ()


SPACED = [" ann", "ann ", "\tann", "ann\n", "\u00a0ann", "ann\u3000", "\ufeffann", "ann\u200b"]


@pytest.mark.parametrize("name", SPACED)
def test_a_user_name_with_white_space_around_it_is_refused_but_one_that_is_stored_may_stay(name: str) -> None:
    document = {"schemas": [CORE_USER], "userName": name}
    state = DirectoryState(users={U1: _user(name="bob")})
    for command in (
        c.CreateUser(U3, document, casefold(name)), c.ReplaceUser(U1, document, casefold(name)), _set("userName", name),
    ):  # fmt: skip
        with pytest.raises(InvalidValue, match="white space"):
            _when(state, command)
    stored = DirectoryState(users={U1: _user(name=name)})
    assert _told(_when(stored, c.ReplaceUser(U1, {**document, "active": False}, casefold(name)))) == [
        ("user.deactivated", str(U1), "idp")
    ]
    assert _told(_when(stored, _set("userName", "ann"))) == [("user.updated", str(U1), "idp")]


def test_values_in_another_order_are_the_same_values() -> None:
    """RFC 7643 §2.4 gives the values of an attribute no order: the same values in another order are the stored list."""
    emails = [{"value": "a", "type": "work"}, {"value": "b", "type": "home"}]
    extension: dict[str, Any] = {
        "urn:x:hr:2.0:User": {"tags": ["1", "2"], "seats": [{"n": [1, 2]}, {"n": []}], "desk": {"l": ["x", "y"]}}
    }
    other: dict[str, Any] = {
        "urn:x:hr:2.0:User": {"tags": ["2", "1"], "seats": [{"n": []}, {"n": [2, 1]}], "desk": {"l": ["y", "x"]}}
    }
    user = _user(emails=emails, **extension)
    state = DirectoryState(users={U1: user}, names={"ann": U1})
    document: dict[str, Any] = {"schemas": [CORE_USER, "urn:x:hr:2.0:User"], "userName": "Ann", "emails": emails[::-1], **other}
    stored = DirectoryState(users={U1: replace(user, document={**user.document, "schemas": document["schemas"]})})
    assert _when(stored, c.ReplaceUser(U1, document, "ann")).drafts == ()
    assert _when(state, _set("emails", emails[::-1])).drafts == ()
    assert _when(state, _set("urn:x:hr:2.0:User:tags", ["2", "1"])).drafts == ()
    changed = _when(stored, c.ReplaceUser(U1, {**document, "title": "T"}, "ann"))
    assert changed.document is not None
    assert changed.document["emails"] == emails, "the event tells of the title alone"
    assert changed.drafts[0].body is not None
    assert [change["path"] for change in changed.drafts[0].body.changes] == ["title"]
    for more in ([*emails, emails[0]], emails[:1], [emails[0], {**emails[1], "primary": True}]):
        assert _told(_when(state, _set("emails", more))) == [("user.updated", str(U1), "idp")]


def test_a_group_cannot_be_a_member_of_itself() -> None:
    state = DirectoryState(groups={G1: _group()}, members={G1: ("Group", True)})
    with pytest.raises(InvalidValue, match="itself"):
        _when(state, c.PatchGroup(G1, _patch(GROUP, {"op": "add", "path": "members", "value": [{"value": str(G1)}]})))


def test_operations_on_the_same_edge_are_combined_in_their_order() -> None:
    state = DirectoryState(groups={G1: _group()}, members=_members((U1, True), (U2, True)), edges={(G1, U2)})
    operations = [
        {"op": "add", "path": "members", "value": [{"value": str(U1)}, {"value": str(U2)}]},
        {"op": "remove", "path": f'members[value eq "{U2}"]'},
        {"op": "remove", "path": f'members[value eq "{U1}"]'},
        {"op": "add", "path": "members", "value": [{"value": str(U1)}]},
    ]
    assert _told(_when(state, c.PatchGroup(G1, _patch(GROUP, *operations)))) == [
        ("group.member_removed", str(G1), str(U2), "idp", "effective"),
        ("group.member_added", str(G1), str(U1), "idp", "effective"),
    ]


def _replace_member(selected: object, value: object) -> Any:
    return _patch(GROUP, {"op": "replace", "path": f'members[value eq "{selected}"]', "value": value})


@pytest.mark.parametrize("selected", [U3, "nobody"])
@pytest.mark.parametrize("value", [{"value": str(U2)}, {"value": str(U3)}, None])
def test_a_filter_that_selects_no_member_gives_nobody_access(selected: object, value: object) -> None:
    """RFC 7644 §3.5.2.3 requires noTarget, also where the profile creates other missing values."""
    state = DirectoryState(groups={G1: _group()}, members=_members((U1, True), (U2, True), (U3, True)), edges={(G1, U1)})
    with pytest.raises(NoTarget):
        _when(state, c.PatchGroup(G1, _replace_member(selected, value)))


def test_a_selected_member_can_be_replaced_by_another_by_itself_and_by_null() -> None:
    state = DirectoryState(groups={G1: _group()}, members=_members((U1, True), (U2, True)), edges={(G1, U1)})
    other, itself, nobody = (
        _told(_when(state, c.PatchGroup(G1, _replace_member(U1, value))))
        for value in ({"value": str(U2)}, {"value": str(U1)}, None)
    )
    removed, added = ("group.member_removed", str(U1)), ("group.member_added", str(U2))
    assert [(t[0], t[2]) for t in other] == [removed, added]
    assert itself == []
    assert [(t[0], t[2]) for t in nobody] == [removed]


def test_clearing_and_removing_by_a_filter_need_all_members() -> None:
    members = {U1: "User", G2: "Group"}
    state = DirectoryState(
        groups={G1: _group(members=members)}, members={**_members((U1, False), (U2, True)), G2: ("Group", True)}, edges=set()
    )
    cleared = _patch(GROUP, {"op": "replace", "path": "members", "value": [{"value": str(U2)}]})
    assert [t[0::2] for t in _told(_when(state, c.PatchGroup(G1, cleared)))] == [
        ("group.member_removed", str(U1), "stored only"),
        ("group.member_removed", str(G2), "effective"),
        ("group.member_added", str(U2), "effective"),
    ]
    added = {"op": "add", "path": "members", "value": [{"value": str(U2)}]}
    by_type = _patch(GROUP, added, {"op": "remove", "path": 'members[type eq "User"]'})
    assert [t[0::2] for t in _told(_when(state, c.PatchGroup(G1, by_type)))] == [("group.member_removed", str(U1), "stored only")]


def test_a_rename_and_a_membership_change_are_two_events_and_a_repeated_name_is_none() -> None:
    state = DirectoryState(groups={G1: _group()}, members=_members((U1, True)))
    add = {"op": "add", "path": "members", "value": [{"value": str(U1)}]}
    echoed = _patch(GROUP, {"op": "replace", "value": {"id": str(G1), "displayName": "Crew"}}, add)
    assert [t[0] for t in _told(_when(state, c.PatchGroup(G1, echoed)))] == ["group.member_added"]
    renamed = _patch(GROUP, {"op": "replace", "path": "displayName", "value": "Team"}, add)
    assert [t[0] for t in _told(_when(state, c.PatchGroup(G1, renamed)))] == ["group.updated", "group.member_added"]


def test_the_replacement_of_a_group_makes_events_only_for_the_difference() -> None:
    state = DirectoryState(
        groups={G1: _group(members={U1: "User", U2: "User"})}, members=_members((U1, True), (U2, True), (U3, True))
    )
    document = {"schemas": [CORE_GROUP], "displayName": "Crew"}
    decision = _when(state, c.ReplaceGroup(G1, document, "crew", (U2, U3)))
    assert [t[0::2] for t in _told(decision)] == [
        ("group.member_removed", str(U1), "effective"),
        ("group.member_added", str(U3), "effective"),
    ]


def test_the_deletion_of_a_group_first_ends_its_memberships_in_both_directions() -> None:
    state = DirectoryState(groups={G1: _group(members={U1: "User"}, parents=(G2,))}, members=_members((U1, True)))
    assert _told(_when(state, c.DeleteGroup(G1))) == [
        ("group.member_removed", str(G1), str(U1), "group_deleted", "effective"),
        ("group.member_removed", str(G2), str(G1), "group_deleted", "effective"),
        ("group.deleted", str(G1), "idp"),
    ]


def test_a_damaged_resource_ends_without_its_last_state() -> None:
    """Otherwise somebody would keep access because the attributes cannot be read any more."""
    state = DirectoryState(users={U1: replace(_user(), document={})}, groups={G1: replace(_group(members={}), document={})})
    for command in (c.DeleteUser(U1), c.DeleteGroup(G1)):
        assert [draft.body for draft in _when(state, command).drafts] == [None]


def test_a_change_of_more_events_than_one_commit_holds_is_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.decide.COMMIT_EVENTS_MAX", 1)
    with pytest.raises(TooMany, match="Split it"):
        _when(DirectoryState(members=_members((U1, True))), c.CreateGroup(G1, {"displayName": "x"}, "x", (U1,)))


def test_a_new_group_with_too_many_members_is_refused_before_they_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.commands.COMMIT_EVENTS_MAX", 3)
    with pytest.raises(TooMany, match="would make 4 events"):
        needs_of(c.CreateGroup(G1, {"displayName": "x"}, "x", (U1, U2, G2, U1)))
    assert needs_of(c.CreateGroup(G1, {"displayName": "x"}, "x", (U1, U2, U1, U1))).members == (U1, U2, U1, U1)


@pytest.mark.parametrize(("cut", "said"), [(False, "and 2 more. "), (True, "and more. ")])
def test_a_refusal_counts_the_members_that_were_looked_up(cut: bool, said: str) -> None:
    state = DirectoryState(members=_members((U1, True)), cut=cut)
    with pytest.raises(InvalidValue, match=said):
        _when(state, c.CreateGroup(G1, {"displayName": "x"}, "x", (U1, *(uuid4() for _ in range(12)))))
    with pytest.raises(InvalidValue) as few:
        _when(state, c.CreateGroup(G1, {"displayName": "x"}, "x", (U1, uuid4())))
    assert " and " not in few.value.detail


def test_facts_are_recorded_unchanged() -> None:
    draft = Draft(USER_CREATED, U1, "User")
    assert _when(DirectoryState(), c.RecordFacts((draft,))).drafts == (draft,)


# -- which commands may share a batch ----------------------------------------


def _conflict(a: c.Command, b: c.Command) -> bool:
    x, y = needs_of(a), needs_of(b)
    return not (x.writes.isdisjoint(y.writes) and x.writes.isdisjoint(y.reads) and x.reads.isdisjoint(y.writes))


def _edge(group: UUID, member: UUID, op: str = "add") -> c.PatchGroup:
    return c.PatchGroup(group, _patch(GROUP, {"op": op, "path": "members", "value": [{"value": str(member)}]}))


def test_different_edges_of_one_group_share_a_batch_the_same_edge_does_not() -> None:
    assert not _conflict(_edge(G1, U1), _edge(G1, U2))
    assert not _conflict(_edge(G1, U1), _edge(G2, U1))
    assert _conflict(_edge(G1, U1), _edge(G1, U1, "remove"))


def test_the_same_user_and_the_same_name_never_share_a_batch() -> None:
    create = c.CreateUser(U2, {}, "ann")
    assert _conflict(create, c.CreateUser(U3, {}, "ann"))
    assert not _conflict(create, c.CreateUser(U3, {}, "bob"))
    assert _conflict(create, c.PatchUser(U1, _set("userName", "Ann").patch, ("ann",)))
    assert _conflict(create, c.ReplaceUser(U1, {}, "ann"))
    assert _conflict(c.DeleteUser(U1), _edge(G1, U1)), "whether an edge gives access depends on its user"
    assert _conflict(c.DeleteUser(U1), c.CreateGroup(G1, {}, "g", (U1,)))
    assert _conflict(_edge(G1, U1), c.DeleteGroup(G1))


def test_a_command_that_replaces_clears_or_changes_very_many_edges_runs_alone() -> None:
    many = {"op": "add", "path": "members", "value": [{"value": str(uuid4())} for _ in range(c.EDGES_SHARED_MAX + 1)]}
    assert needs_of(c.PatchGroup(G1, _patch(GROUP, many))).whole
    assert needs_of(c.PatchGroup(G1, _patch(GROUP, {"op": "replace", "path": "members", "value": []}))).whole
    assert needs_of(c.ReplaceGroup(G1, {}, "g", ())).whole
    assert needs_of(c.DeleteGroup(G1)).whole
    assert not needs_of(_edge(G1, U1)).whole
    assert needs_of(c.RecordFacts(())) == c.Needs()


@example("g" * 36)
@given(st.text(max_size=40) | st.uuids().map(str))
def test_only_texts_in_the_form_of_our_ids_are_parsed(text: str) -> None:
    parsed = parse_id(text)
    assert parsed is None or str(parsed) == text.lower() or text.replace("-", "") == parsed.hex


# -- completeness: state follows from events ----------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 4)), max_size=12),
    st.sets(st.integers(0, 4)),
    st.sets(st.integers(0, 4)),
)
def test_state_after_a_group_patch_is_the_fold_of_its_events(
    steps: list[tuple[str, int]], before: set[int], inactive: set[int]
) -> None:
    users = [UUID(int=n + 100, version=4) for n in range(5)]
    state = DirectoryState(
        groups={G1: _group()},
        members={user: ("User", n not in inactive) for n, user in enumerate(users)},
        edges={(G1, users[n]) for n in before},
    )
    operations = [{"op": op, "path": "members", "value": [{"value": str(users[n])}]} for op, n in steps]
    decision = _when(state, c.PatchGroup(G1, _patch(GROUP, *operations)))
    expected = set(before)
    for op, n in steps:
        (expected.add if op == "add" else expected.discard)(n)
    folded = {users[n] for n in before}
    for draft in decision.drafts:
        assert draft.mem is not None
        assert draft.eff is (users.index(draft.mem) not in inactive)
        if draft.kind.topic == "group.member_added":
            assert draft.mem not in folded
            folded.add(draft.mem)
        else:
            folded.remove(draft.mem)
    assert folded == {users[n] for n in expected}


# -- how much a decision may compute ---------------------------------------------------------------------------------------------


def _long_patch(operations: int) -> c.PatchUser:
    changes = [{"op": "replace", "path": f'emails[value eq "{n}@example.com"].type', "value": "home"} for n in range(operations)]
    return c.PatchUser(U1, _patch(USER, *changes))


def _with_emails(count: int) -> DirectoryState:
    return DirectoryState(users={U1: _user(emails=[{"value": f"{n}@example.com", "type": "work"} for n in range(count)])})


def test_a_patch_that_computes_much_runs_in_a_transaction_of_its_own():
    work = Work(PATCH_STEPS)
    with pytest.raises(TooHeavyError):
        decide(_with_emails(200), _long_patch(200), Leniency(GENERIC), Effort(work, shared=True))
    assert work.left == PATCH_STEPS, "it is decided again in its own transaction, and its steps count there"
    alone = decide(_with_emails(200), _long_patch(200), Leniency(GENERIC), Effort(work, shared=False))
    assert all(item["type"] == "home" for item in alone.document["emails"])
    assert work.left <= PATCH_STEPS - 200 * 200


def test_the_operations_of_a_request_share_one_budget():
    small = Effort(Work(1_000), shared=True)
    for _ in range(5):
        decide(_with_emails(20), _long_patch(10), Leniency(GENERIC), small)
    with pytest.raises(TooMany):
        decide(_with_emails(20), _long_patch(10), Leniency(GENERIC), small)
    with pytest.raises(TooMany):
        decide(_with_emails(200), _long_patch(200), Leniency(GENERIC), Effort(Work(500), shared=False))


def test_a_group_patch_has_the_same_budget():
    group = DirectoryState(groups={G1: _group(members={})})
    patch = c.PatchGroup(G1, _patch(GROUP, *[{"op": "replace", "path": "displayName", "value": "x"}] * 10))
    with pytest.raises(TooMany):
        decide(group, patch, Leniency(GENERIC), Effort(Work(5), shared=True))
    assert decide(group, patch, Leniency(GENERIC), Effort(Work(500), shared=True)).drafts


def test_a_command_runs_alone_if_it_fans_out_or_is_heavy():
    assert c.Needs(whole=True).alone
    assert c.Needs(heavy=True).alone
    assert not c.Needs().alone
