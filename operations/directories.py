"""Directories: create, list, pause, resume, close (docs/concepts.md, "A directory's life")."""

from ledger.commands import RecordFacts
from ledger.directories import PROFILE, SLUG, SYSTEM, Directory, insertion, next_number
from ledger.events import DIRECTORY, DIRECTORY_CREATED, OPERATOR, Body, Draft
from ledger.ids import DirectoryUuid, Slug
from ledger.lifecycle import clock_accepted, closed, paused, resumed
from ledger.profiles import known_profile
from ledger.sealing import KEY_SIZE, NONCE_SIZE, wrap_key
from ledger.state import tail_now
from operations.admin_commands import record_in
from operations.admission import on_directory, operation, reached_directory
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ConflictError, InvalidError


@operation("directories.list")
async def list_all(ledger: OpenLedger, caller: Caller) -> list[Directory]:
    """The directories that the caller reaches, in the order they were made."""
    async with ledger.connection() as conn:
        await ledger.directories.refresh(conn)
        return [found for found in await ledger.directories.all(conn) if caller.token.reaches_log(found.slug)]


@on_directory("directories.show")
async def show(_ledger: OpenLedger, _caller: Caller, directory: Directory) -> Directory:
    """One directory."""
    return directory


@operation("directories.create")
async def create(ledger: OpenLedger, caller: Caller, slug: str, profile: str = PROFILE) -> Directory:
    """Create a directory with its first event.

    Raises InvalidError for a malformed slug, ConflictError for a taken one, RefusedError for an unknown profile.
    """
    if not SLUG.fullmatch(slug):
        raise InvalidError("A directory's name is 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit.")
    await _make(ledger, caller, slug, profile)
    return await reached_directory(ledger, caller, slug)


async def found(ledger: OpenLedger, caller: Caller) -> None:
    """Create the ledger's own directory `_system` at the first start."""
    await _make(ledger, caller, SYSTEM, PROFILE)


async def _make(ledger: OpenLedger, caller: Caller, slug: str, profile: str) -> None:
    async with ledger.connection() as conn:
        if await ledger.directories.by_slug(conn, slug) is not None:
            raise ConflictError(
                f"There is a directory {slug} already, and names are never reused. Choose another one.", "name_taken"
            )
        chosen = await known_profile(conn, profile)
        number = await next_number(conn)
    uuid, entropy = DirectoryUuid(ledger.new_id()), ledger.entropy(KEY_SIZE + NONCE_SIZE)
    index_key = entropy[:KEY_SIZE]
    wrapped = wrap_key(ledger.kek, index_key, directory=uuid, obj=uuid, nonce=entropy[KEY_SIZE:])
    directory = Directory(number, uuid, Slug(slug), chosen, index_key)
    facts = Body({"id": str(uuid), "slug": slug, "profile": chosen.text}, [], slug)
    draft = Draft(DIRECTORY_CREATED, uuid, DIRECTORY, cause=OPERATOR, body=facts)
    await record_in(ledger, caller, directory, RecordFacts((draft,), (insertion(directory, wrapped),)))


@on_directory("directories.pause")
async def pause(ledger: OpenLedger, caller: Caller, directory: Directory, reason: str) -> Directory:
    """Refuse SCIM writes until resumed; reads go on. Raises StateError for a closed directory."""
    return await _record_state(ledger, caller, directory, paused(directory, reason))


@on_directory("directories.resume")
async def resume(ledger: OpenLedger, caller: Caller, directory: Directory, reason: str) -> Directory:
    """Accept SCIM writes again. Raises StateError for a closed directory."""
    return await _record_state(ledger, caller, directory, resumed(directory, reason))


@on_directory("directories.close")
async def close(ledger: OpenLedger, caller: Caller, directory: Directory, reason: str, confirm: str) -> Directory:
    """End all access of a directory at once and for ever; its resources are removed afterwards. Raises LifecycleError."""
    return await _record_state(ledger, caller, directory, closed(directory, reason, confirm))


@on_directory("directories.accept_clock")
async def accept_clock(ledger: OpenLedger, caller: Caller, directory: Directory, reason: str) -> Directory:
    """Let writes go on with the time of the last event until the clock has passed it. Raises StateError if it is not behind."""
    async with ledger.connection() as conn:
        tail = await tail_now(conn, directory)
    return await _record_state(ledger, caller, directory, clock_accepted(directory, tail, reason))


async def _record_state(ledger: OpenLedger, caller: Caller, directory: Directory, facts: RecordFacts | None) -> Directory:
    if facts is not None:
        await record_in(ledger, caller, directory, facts)
    return await reached_directory(ledger, caller, directory.slug)
