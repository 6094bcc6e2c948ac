"""The act that sets how many SCIM requests a directory may send (scim/profile.py, RateLimit). Counting is in api/rates.py."""

from typing import Any, Final

from database.queries import load_queries
from ledger.commands import RecordFacts
from ledger.directories import WAKE, Directory
from ledger.events import DIRECTORY, DIRECTORY_RATE_LIMIT_CHANGED, OPERATOR, Body, Draft
from ledger.lifecycle import check_open
from scim.profile import RateLimit

SQL: Final = load_queries(__file__)


def rate_limit_facts(directory: Directory, limit: RateLimit | None) -> RecordFacts | None:
    """The act that sets the limit of a directory, or with None leaves it to the profile. None if it is so already.

    Raises StateError for a closed directory.
    """
    before = directory.own_rate_limit
    if limit == before:
        return None
    check_open(directory)
    change = {"path": "rate_limit", "from": _shown(before), "to": _shown(limit)}
    about = {"id": str(directory.uuid), "slug": directory.slug, **(_shown(limit) or {})}
    draft = Draft(
        DIRECTORY_RATE_LIMIT_CHANGED, directory.uuid, DIRECTORY, cause=OPERATOR, body=Body(about, [change], directory.slug)
    )
    stands = (SQL["rate_limit_unchanged"], (directory.id, *_limit_row(before)))
    store = (SQL["set_rate_limit"], (directory.id, *_limit_row(limit))) if limit else (SQL["reset_rate_limit"], (directory.id,))
    return RecordFacts((draft,), (store, WAKE), stands=stands)


def _shown(limit: RateLimit | None) -> dict[str, Any] | None:
    return None if limit is None else {"per_second": limit.per_second, "burst": limit.burst}


def _limit_row(limit: RateLimit | None) -> tuple[int | None, int | None]:
    return (None, None) if limit is None else (limit.per_second, limit.burst)
