"""The profiles of directories, and the act that changes one. Every event names the profile that its request was read with."""

from typing import Any

from database.connections import Connection
from database.queries import load_queries
from ledger.commands import RecordFacts
from ledger.directories import WAKE, Directory
from ledger.events import DIRECTORY, DIRECTORY_PROFILE_CHANGED, OPERATOR, Body, Draft
from ledger.extension_schemas import registered
from ledger.lifecycle import check_open
from ledger.refused import RefusedError, StateError
from scim.errors import ScimError
from scim.extension import read_extension
from scim.profile import (
    NAME_SHOWN_MAX,
    Profile,
    ProfileError,
    UnknownProfileError,
    as_stored,
    is_shipped,
    own_profile,
    profile_of,
    shipped,
)
from scim.strictness import check_extension

SQL = load_queries(__file__)


async def profiles(conn: Connection) -> dict[str, Profile]:
    """All profiles by `name@version`: those of the release, then the stored ones of operators."""
    found = {text: profile_of(text) for text in shipped()}
    for name, document in await (await conn.execute(SQL["profiles_own"])).fetchall():
        try:
            found[name] = own_profile(document)
        except ProfileError:
            continue  # stored by a newer release; this one cannot read it
    return found


async def known_profile(conn: Connection, text: str) -> Profile:
    """The profile `name@version`, or the newest of `name`. Raises RefusedError if it is neither shipped nor stored."""
    try:
        return profile_of(text)
    except UnknownProfileError as unknown:
        found = await profiles(conn)
        versions = [profile for profile in found.values() if text in {profile.file.name, profile.text}]
        if not versions:
            raise RefusedError(f"There is no profile {text[:NAME_SHOWN_MAX]} here. There are {', '.join(found)}.") from unknown
        return max(versions, key=lambda profile: profile.file.version)


async def profile_facts(conn: Connection, directory: Directory, profile: Profile) -> RecordFacts | None:
    """The act that gives a directory a profile; None if it has it already. The document of an own profile is stored with it.

    Raises StateError if the name belongs to the release or to another stored document, because events name their profile and a
    name must always mean the same document. Also raises it for a closed directory.
    """
    own = await _to_store(conn, profile)
    if directory.profile.text == profile.text:
        return None
    check_open(directory)
    _check_schemas(directory, profile)
    change = {"path": "profile", "from": directory.profile.text, "to": profile.text}
    facts = Body({"id": str(directory.uuid), "slug": directory.slug, "profile": profile.text}, [change], directory.slug)
    draft = Draft(DIRECTORY_PROFILE_CHANGED, directory.uuid, DIRECTORY, cause=OPERATOR, body=facts)
    update = (SQL["set_profile"], (directory.id, profile.text))
    stands = (SQL["profile_unchanged"], (directory.id, directory.profile.text))
    return RecordFacts((draft,), (*own, update, WAKE), stands=stands)


def _check_schemas(directory: Directory, profile: Profile) -> None:
    """Raises RefusedError where the directory has an extension schema that the profile does not take."""
    try:
        for known in registered(directory):
            check_extension(read_extension(known["schema"]), profile.strictness)
    except ScimError as refused:
        raise RefusedError(f"{profile.text} does not take the extension schemas of this directory. {refused.detail}") from refused


async def _to_store(conn: Connection, profile: Profile) -> tuple[Any, ...]:
    known = (await profiles(conn)).get(profile.text)
    if known is None and not is_shipped(profile.file.name):
        return ((SQL["insert_profile"], (profile.text, as_stored(profile.file))),)
    if known is None or known.file != profile.file:
        another = "a name" if is_shipped(profile.file.name) else "a version"
        raise StateError(f"{profile.text} would stand for two profiles. Give yours {another} of its own.", "name_taken")
    return ()
