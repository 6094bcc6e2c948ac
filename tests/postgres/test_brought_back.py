"""A retry by an operator never gives back access that has ended, no act names an instant in the future, and the hole that a seek
leaves has its reason.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest

from delivery.interventions import retried
from delivery.log_positions import PlaceError
from delivery.reports import BLOCKED, PARKED
from ledger.commands import DeleteGroup
from operations import consumers, deliveries, directories, replays
from operations.consumers import Changes
from operations.refusals import ConflictError
from operations.replays import Wanted
from runtime.bootstrap import machine
from scim.errors import ScimError
from tests.postgres.deliveries import LOOPBACK, Scene, scene
from tests.postgres.ledgers import id_of
from tests.postgres.test_delivery import OFF, ON, audited, run, why

Story = Callable[[Scene], Awaitable[str]]


async def created_then_deleted(s: Scene) -> str:
    await s.ledger.delete_user(id_of(await s.ledger.create_user("leaver")))
    return "user.created"


async def created_then_deactivated(s: Scene) -> str:
    await s.ledger.patch_user(id_of(await s.ledger.create_user("leaver")), OFF)
    return "user.created"


async def back_and_away_again(s: Scene) -> str:
    user = id_of(await s.ledger.create_user("leaver"))
    for patch in (OFF, ON, OFF):
        await s.ledger.patch_user(user, patch)
    return "user.reactivated"


async def member_then_removed(s: Scene) -> str:
    user = id_of(await s.ledger.create_user("leaver"))
    group = id_of(await s.ledger.create_group("team", (user,)))
    await s.ledger.patch_group(group, {"op": "remove", "path": f'members[value eq "{user}"]'})
    return "group.member_added"


async def member_then_deleted(s: Scene) -> str:
    user = id_of(await s.ledger.create_user("leaver"))
    await s.ledger.create_group("team", (user,))
    await s.ledger.delete_user(user)
    return "group.member_added"


async def created_then_closed(s: Scene) -> str:
    await s.ledger.create_user("leaver")
    await directories.close(s.ledger.services.ledger, machine(), "acme", "over", "acme")
    return "user.created"


STORIES = (created_then_deleted, created_then_deactivated, back_and_away_again, member_then_removed, member_then_deleted)


async def retry(s: Scene, event_id: str, *, of_parked: bool, superseded: Literal["skip", "include"] = "skip") -> None:
    ledger = s.ledger.services.ledger
    await deliveries.act(ledger, machine(), "app", event_id, "retry", "mended", of_parked=of_parked, superseded=superseded)


async def stuck(s: Scene, story: Story, *, park: bool) -> dict[str, Any]:
    """A grant whose delivery is blocked or parked; everything else that may be delivered is."""
    await s.make(retry_schedule=(0,), ordering="subject")
    refused = ["user.created", "user.reactivated", "group.member_added"]
    s.hook.verdict = lambda e: 500 if e["type"] in refused else None
    topic = await story(s)
    refused[:] = [topic]
    grant = (await s.wanted(topic))[0]

    async def is_blocked() -> bool:
        return (await s.states()).get(grant["position"]) == BLOCKED

    async with s.working():
        await s.until(is_blocked)
        if park:
            await deliveries.act(s.ledger.services.ledger, machine(), "app", grant["id"], "park", "later", of_parked=False)
            await s.settled()
    return grant


@pytest.mark.parametrize("story", [*STORIES, created_then_closed])
@pytest.mark.parametrize("park", [False, True])
def test_a_retry_of_a_revoked_grant_is_refused_unless_included(app_url: str, story: Story, *, park: bool) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            grant = await stuck(s, story, park=park)
            before = len(s.hook.tried)
            with pytest.raises(ConflictError, match="give access again") as refused:
                await retry(s, grant["id"], of_parked=park)
            assert refused.value.code == "superseded"
            assert await s.wanted("delivery.retried") == []
            s.hook.verdict = lambda _: None
            if park:
                async with s.working():
                    await s.settled()
                assert len(s.hook.tried) == before
            await retry(s, grant["id"], of_parked=park, superseded="include")
            async with s.working():
                await s.settled()
            assert grant["id"] in {e["id"] for e in s.hook.took}

    run(body())


Attack = Callable[[Scene, UUID, UUID], Awaitable[None]]


def remove(s: Scene, group: UUID, member: UUID) -> Awaitable[Any]:
    return s.ledger.patch_group(group, {"op": "remove", "path": f'members[value eq "{member}"]'})


async def group_deleted(s: Scene, _: UUID, group: UUID) -> None:
    await s.ledger.submit(DeleteGroup(group))


async def everybody_replaced(s: Scene, _: UUID, group: UUID) -> None:
    other = id_of(await s.ledger.create_user(str(uuid4())))
    await s.ledger.patch_group(group, {"op": "replace", "path": "members", "value": [{"value": str(other)}]})


async def emptied(s: Scene, _: UUID, group: UUID) -> None:
    await s.ledger.patch_group(group, {"op": "remove", "path": "members"})


async def away_and_back(s: Scene, user: UUID, _: UUID) -> None:
    await s.ledger.patch_user(user, OFF)
    await s.ledger.patch_user(user, ON)


async def removed_and_added(s: Scene, user: UUID, group: UUID) -> None:
    await remove(s, group, user)
    await s.ledger.add_member(group, user)


async def deactivated_and_deleted(s: Scene, user: UUID, _: UUID) -> None:
    await s.ledger.patch_user(user, OFF)
    await s.ledger.delete_user(user)


ATTACKS: tuple[Attack, ...] = (
    group_deleted, everybody_replaced, emptied, away_and_back, removed_and_added, deactivated_and_deleted,
)  # fmt: skip


def test_however_a_membership_was_revoked_its_grant_is_not_delivered_again(app_url: str) -> None:
    """It covers users, users who were reactivated, and groups in groups; whoever has access again has it by a later event."""

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make(retry_schedule=(0,))
            wanted: list[tuple[str, UUID, UUID]] = []  # type, group, member
            for attack in ATTACKS:
                user = id_of(await s.ledger.create_user(str(uuid4())))
                group = id_of(await s.ledger.create_group(str(uuid4()), (user,)))
                wanted.append(("group.member_added", group, user))
                await attack(s, user, group)
                # these also apply to a restored membership and to a group in the group
                if attack in {group_deleted, everybody_replaced, emptied}:
                    back, inner = (
                        id_of(await s.ledger.create_user(str(uuid4()))),
                        id_of(await s.ledger.create_group(str(uuid4()))),
                    )
                    group = id_of(await s.ledger.create_group(str(uuid4()), (back, inner)))
                    await away_and_back(s, back, group)
                    wanted += [("group.member_access_restored", group, back), ("group.member_added", group, inner)]
                    await attack(s, back, group)
            outer, inner = [id_of(await s.ledger.create_group(str(uuid4()))) for _ in range(2)]
            await s.ledger.add_member(outer, inner)
            wanted.append(("group.member_added", outer, inner))
            await s.ledger.submit(DeleteGroup(inner))
            kept, member = id_of(await s.ledger.create_group(str(uuid4()))), id_of(await s.ledger.create_user(str(uuid4())))
            held = id_of(await s.ledger.create_group(str(uuid4()), (member,)))
            await s.ledger.add_member(kept, held)
            await remove(s, held, member)
            grants: dict[tuple[str, UUID, UUID], dict[str, Any]] = {}
            # the first event for each membership
            for event in await s.wanted("group.member_added", "group.member_access_restored"):
                key = event["type"], UUID(event["data"]["group"]["id"]), UUID(event["data"]["member"]["id"])
                grants.setdefault(key, event)
            stands = grants["group.member_added", kept, held]
            aside = {grants[key]["id"]: grants[key] for key in wanted} | {stands["id"]: stands}
            s.hook.verdict = lambda e: 500 if e["id"] in aside else None

            async def all_blocked() -> bool:
                return list((await s.states()).values()).count(BLOCKED) == len(aside)

            async with s.working():
                await s.until(all_blocked)
                for grant in aside:
                    await deliveries.act(s.ledger.services.ledger, machine(), "app", grant, "park", "later", of_parked=False)
                await s.settled()
                s.hook.verdict = lambda _: None
                for grant in aside.keys() - {stands["id"]}:
                    with pytest.raises(ConflictError, match="give access again"):
                        await retry(s, grant, of_parked=True)
                # the group inside is still a member of the outer one, whoever is in it
                await retry(s, stands["id"], of_parked=True)
                await s.until(lambda: stands["id"] in {e["id"] for e in s.hook.took})
            assert set((await s.states()).values()) == {PARKED}
            assert not {e["id"] for e in s.hook.took} & (aside.keys() - {stands["id"]})

    run(body())


def test_a_grant_that_is_revoked_during_its_retry_is_not_delivered(app_url: str) -> None:
    """The revocation comes between the check and the commit, so the transaction of the act checks again."""

    async def body() -> None:
        async with scene(app_url) as s:
            grant = await stuck(s, created_then_deleted, park=True)
            with pytest.raises(ScimError):
                await s.act(retried(await s.consumer(), grant["position"], grant["id"], "mended", grant=True))
            assert await s.states() == {grant["position"]: PARKED}
            assert await s.wanted("delivery.retried") == []

    run(body())


def test_an_event_that_grants_nothing_or_was_not_revoked_can_be_retried(app_url: str) -> None:
    async def still_there(s: Scene) -> str:
        await s.ledger.create_user("stays")
        return "user.created"

    async def body() -> None:
        async with scene(app_url) as s:
            grant = await stuck(s, still_there, park=True)
            s.hook.verdict = lambda _: None
            await retry(s, grant["id"], of_parked=True)
            async with s.working():
                await s.settled()
            assert [e["id"] for e in s.hook.took] == [grant["id"]]

    run(body())


@pytest.mark.parametrize("tried", [False, True])
def test_a_paused_run_sends_no_grant_that_was_revoked_during_the_pause(app_url: str, *, tried: bool) -> None:
    """The deletion was delivered during the pause.

    A grant that the run had not sent yet, or had sent without success, would arrive after it.
    """

    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            users = [id_of(await s.ledger.create_user(f"u{n}")) for n in range(4)]
            async with s.working():
                await s.settled()
            before = len(s.hook.took)
            refusing = tried
            s.hook.verdict = lambda _: 500 if refusing else None
            ran = await s.replay(**({} if tried else {"rate": 1}))
            ledger = s.ledger.services.ledger
            if tried:
                async with s.working():
                    await s.until(lambda: _blocked(s, 4))
            await replays.pause(ledger, machine(), str(ran.id))
            refusing = False
            await s.ledger.delete_user(users[3])
            async with s.working():
                await s.until(lambda: any(e["type"] == "user.deleted" for e in s.hook.took))
                await replays.resume(ledger, machine(), str(ran.id))
                for position in await s.states() if tried else ():
                    await s.act(retried(await s.consumer(), position, "evt", "mended"))
                await s.until(lambda: len(s.hook.took) >= before + 1 + 3)
                await s.until(lambda: _state(s, str(ran.id), "finished"))
            last = [e["type"] for e in s.hook.took if e["subject"]["id"] == str(users[3])]
            assert last == ["user.created", "user.deleted"]

    run(body())


async def _blocked(s: Scene, count: int) -> bool:
    return list((await s.states()).values()) == [BLOCKED] * count


async def _state(s: Scene, number: str, state: str) -> bool:
    return (await replays.show(s.ledger.services.ledger, machine(), number)).state == state


def test_no_act_accepts_an_instant_in_the_future(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.make()
            await s.ledger.create_user("u")
            ledger, soon = s.ledger.services.ledger, (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
            past = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
            for text in (soon, f"time:{soon}"):
                for act in (
                    consumers.seek(ledger, machine(), "app", text, "mistyped", dry_run=False),
                    consumers.put(ledger, machine(), "new", Changes(directories=("acme",)), text, LOOPBACK),
                    replays.create(ledger, machine(), "app", _wanted(text, None), dry_run=True),
                    replays.create(ledger, machine(), "app", _wanted(past, text), dry_run=True),
                    consumers.audit(ledger, machine(), "app", None, text),
                ):
                    with pytest.raises(PlaceError, match="still to come"):
                        await act
            assert (await s.consumer()).epoch == 1
            assert (await consumers.seek(ledger, machine(), "app", past, "back", dry_run=False)).to_position < await s.head()

    run(body())


def _wanted(start: str, to: str | None) -> Wanted:
    return Wanted("again", start, to, None, None, None, None, "skip", "an outage")


def test_the_hole_that_a_seek_leaves_has_its_reason(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await asyncio.gather(*(s.ledger.create_user(f"u{n}") for n in range(8)))
            wanted = [e["position"] for e in await s.wanted()]
            await s.make(mode="pull", url=None, start=wanted[0])
            ledger = s.ledger.services.ledger
            for to, reason in ((wanted[3] + 1, "first"), (wanted[1] + 1, "back"), (wanted[5] + 1, "second")):
                await consumers.seek(ledger, machine(), "app", str(to), reason, dry_run=False)
            found = await audited(s)
            assert why(found) == {"sought_over": 5}
            assert [(hole.first, hole.last, hole.reason) for hole in found.holes] == [
                (wanted[1], wanted[1], "first"),
                (wanted[2], wanted[5], "second"),
            ]
            (sealed,) = await s.sql("select sealed_reason from consumer_epochs where epoch = 4")
            assert b"second" not in sealed[0]

    run(body())
