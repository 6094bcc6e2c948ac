"""Point reads of users. Concurrent requests share a query; a large user is read by a query of its own, so that others need not wait."""

from uuid import UUID

from api.services import Services
from ledger.directories import Directory
from ledger.events import USER
from projections import reads, user_groups
from projections.reads import Alone, Resource
from projections.user_groups import GroupOf
from scim.filter_index import Atom
from scim.work import Work


async def user_by_id(services: Services, directory: Directory, user: UUID, work: Work) -> Resource | None:
    """The user, or None. Raises as Work.spend does."""
    found = await services.reads.users.get((directory.id, user))
    return found if not isinstance(found, Alone) else await _by_itself(services, directory, [user], work)


async def user_by_name(services: Services, directory: Directory, name: str, work: Work) -> Resource | None:
    """The user with this casefolded userName, or None. Raises as Work.spend does."""
    found = await services.reads.names.get((directory.id, name))
    if not isinstance(found, Alone):
        return found
    async with services.ledger.turns.connection(directory.id) as conn:
        users = await reads.candidates(conn, directory, USER, [Atom("userName", name)])
    return await _by_itself(services, directory, users, work)


async def groups_of_user(services: Services, directory: Directory, user: UUID, work: Work) -> list[GroupOf] | None:
    """The groups that the user is in, direct ones first; None or empty where there are none. Raises as Work.spend does."""
    found = await services.reads.groups.get((directory.id, user))
    if not isinstance(found, Alone):
        return found
    turns, names = services.ledger.turns, services.group_names
    return (await user_groups.groups_of(turns, names, directory, [user], work, user_groups.as_it_is)).get(user)


async def _by_itself(services: Services, directory: Directory, users: list[UUID], work: Work) -> Resource | None:
    async with services.ledger.turns.connection(directory.id) as conn:
        rows, _ = await reads.page(conn, directory, USER, users)
    if not rows:
        return None
    return await services.ledger.turns.compute(
        directory.id, lambda: reads.unsealed(services.ledger.kek, directory, USER, rows[0], work)
    )
