"""Profiles: which there are, what one says, which a directory has."""

from typing import Any

import orjson

from ledger import profiles
from ledger.directories import Directory
from ledger.profiles import profile_facts
from ledger.refused import RefusedError
from ledger.turns import NO_DIRECTORY
from operations.admin_commands import record_in
from operations.admission import on_directory, operation, reached_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import NotFoundError
from scim.dry_run import dry_run
from scim.profile import Profile, read_profile
from scim.schema import RESOURCE_TYPES


@operation("profiles.list")
async def list_all(ledger: OpenLedger, _caller: Caller) -> dict[str, Profile]:
    """Every profile that a directory can be given, by `name@version`."""
    async with ledger.connection() as conn:
        return await profiles.profiles(conn)


@operation("profiles.show")
async def show(ledger: OpenLedger, _caller: Caller, name: str) -> Profile:
    """One of them, or the newest of a name. Raises NotFoundError."""
    async with ledger.connection() as conn:
        try:
            return await profiles.known_profile(conn, name)
        except RefusedError as unknown:
            raise NotFoundError(str(unknown)) from unknown


@on_directory("profiles.of_directory")
async def of_directory(_ledger: OpenLedger, _caller: Caller, directory: Directory) -> Profile:
    """How a directory's IdP is understood."""
    return directory.profile


@on_directory("profiles.set")
async def set_profile(ledger: OpenLedger, caller: Caller, directory: Directory, asked: str | Profile, *, weight: int) -> Profile:
    """Change how a directory's IdP is understood, from the next request on; nothing stored changes.

    A Profile is one of the operator's own, and is stored. The event itself carries the profile that it ends.
    `weight`: bytes of the request. Raises RefusedError for an unknown profile, StateError for a document under a
    name that is taken and for a closed directory.
    """
    async with ledger.connection() as conn:
        profile = await profiles.known_profile(conn, asked) if isinstance(asked, str) else asked
        facts = await profile_facts(conn, directory, profile)
    if facts is not None:
        await record_in(ledger, caller, directory, facts, weight=weight)
    return profile


@operation("profiles.validate")
async def validate(ledger: OpenLedger, _caller: Caller, document: Any) -> Profile:
    """The profile that a document is; nothing is stored. Raises ProfileError naming every place that is wrong."""
    return await ledger.turns.compute(  # a second, where it is all wrong
        NO_DIRECTORY, lambda: read_profile(orjson.dumps(document), json=True)
    )


@operation("profiles.try")
async def tried(
    ledger: OpenLedger, caller: Caller, asked: str | Profile, requests: list[dict[str, Any]], *, slug: str | None
) -> list[dict[str, Any]]:
    """What recorded requests would store under a profile, with the extension schemas of a directory where one is named.

    `asked` may be that directory's name: the profile that it has.
    """
    found = await reached_directory(ledger, caller, slug) if slug is not None else None
    await caller.admitted()
    if found is not None and asked == slug:
        profile = found.profile
    else:
        async with ledger.connection() as conn:
            profile = await profiles.known_profile(conn, asked) if isinstance(asked, str) else asked
    types = {kind: found.typed(of) for kind, of in RESOURCE_TYPES.items()} if found is not None else RESOURCE_TYPES
    return await ledger.turns.compute(NO_DIRECTORY, lambda: [dry_run(profile, step, types) for step in requests])
