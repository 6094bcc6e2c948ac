"""Profiles: list, show, validate, try, and set that of a directory."""

from typing import Any

import orjson

from ledger import profiles
from ledger.directories import Directory, types_of
from ledger.ids import NO_DIRECTORY
from ledger.profiles import profile_facts
from ledger.refused import RefusedError
from operations.admin_commands import record_in
from operations.admission import on_directory, operation, reached_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import NotFoundError
from scim.dry_run import Trial, dry_run
from scim.profile import Profile, read_profile
from scim.schema import RESOURCE_TYPES


@operation("profiles.list")
async def list_all(ledger: OpenLedger, _caller: Caller) -> dict[str, Profile]:
    """Every profile that a directory can be given, by `name@version`."""
    async with ledger.connection() as conn:
        return await profiles.profiles(conn)


@operation("profiles.show")
async def show(ledger: OpenLedger, _caller: Caller, name: str) -> Profile:
    """One profile by `name@version`, or the newest of a name. Raises NotFoundError."""
    async with ledger.connection() as conn:
        try:
            return await profiles.known_profile(conn, name)
        except RefusedError as unknown:
            raise NotFoundError(str(unknown)) from unknown


@on_directory("profiles.of_directory")
async def of_directory(_ledger: OpenLedger, _caller: Caller, directory: Directory) -> Profile:
    """The profile of a directory."""
    return directory.profile


@on_directory("profiles.set")
async def set_profile(ledger: OpenLedger, caller: Caller, directory: Directory, asked: str | Profile, *, weight: int) -> Profile:
    """Set the profile of a directory, from the next request on; stored resources do not change.

    A Profile in `asked` is an operator's own, and is stored. The event `directory.profile_changed` still has the old profile in its
    `profile`. `weight`: bytes of the request. Raises RefusedError for an unknown profile, StateError for a document under a name that
    is taken and for a closed directory.
    """
    async with ledger.connection() as conn:
        profile = await profiles.known_profile(conn, asked) if isinstance(asked, str) else asked
        facts = await profile_facts(conn, directory, profile)
    if facts is not None:
        await record_in(ledger, caller, directory, facts, weight=weight)
    return profile


@operation("profiles.validate")
async def validate(ledger: OpenLedger, _caller: Caller, document: Any) -> Profile:
    """Parse the document of a profile; nothing is stored. Raises ProfileError, which names every wrong place."""
    return await ledger.turns.compute(  # may take a second for a document full of errors
        NO_DIRECTORY, lambda: read_profile(orjson.dumps(document), json=True)
    )


@operation("profiles.try")
async def tried(
    ledger: OpenLedger, caller: Caller, asked: str | Profile, requests: list[dict[str, Any]], *, slug: str | None
) -> list[Trial]:
    """What recorded requests would store under a profile, with the extension schemas of a directory if one is named.

    `asked` may be the slug of that directory, meaning the profile that it has.
    """
    found = await reached_directory(ledger, caller, slug) if slug is not None else None
    await caller.admitted()
    if found is not None and asked == slug:
        profile = found.profile
    else:
        async with ledger.connection() as conn:
            profile = await profiles.known_profile(conn, asked) if isinstance(asked, str) else asked
    types = dict(zip(RESOURCE_TYPES, types_of(found.schemas), strict=True)) if found is not None else RESOURCE_TYPES
    return await ledger.turns.compute(NO_DIRECTORY, lambda: [dry_run(profile, step, types) for step in requests])
