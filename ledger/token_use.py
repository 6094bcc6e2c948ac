"""Where and when tokens and OAuth 2.0 clients are used: noted every few seconds, sealed, because an address is personal data."""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

import orjson

from database.arrays import byteas, uuids
from database.connections import Connection
from database.queries import load_queries
from ledger.sealing import Kek, open_note, seal_note
from proofs.keys import WrapError

SQL: Final = load_queries(__file__)
PREFIX_V4: Final = 24  # bits of an address that are kept: its network, not the host
PREFIX_V6: Final = 48


class Use(NamedTuple):
    """The last use of a token that a process saw. `route`: a template without ids; `address`: the client's, empty on this machine."""

    route: str
    address: str


class UsedFrom(TypedDict):
    """Where a token was used last: the route, and the network of the client (/24 of IPv4, /48 of IPv6; null on this machine)."""

    route: str
    network: str | None


def network_of(address: str) -> str | None:
    """The network of a client's address; None without an address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    bits = PREFIX_V6 if isinstance(found, IPv6Address) else PREFIX_V4
    return str(ip_network((found, bits), strict=False))


async def note_uses(conn: Connection, kek: Kek, used: Mapping[UUID, Use], random: Callable[[int], bytes]) -> None:
    """Note that these tokens and clients were used, and where."""
    places = [
        seal_note(kek, orjson.dumps([use.route, network_of(use.address)]).decode(), kind="use", owner=token, random=random)
        for token, use in used.items()
    ]
    await conn.execute(SQL["note_uses"], (uuids(list(used)), byteas(places)))


async def note_refusals(conn: Connection, hashes: Sequence[bytes]) -> None:
    """Note that those of these hashes that are of tokens were sent after the end of their token."""
    await conn.execute(SQL["note_refusals"], (byteas(hashes),))


async def last_uses(conn: Connection, kek: Kek, tokens: Sequence[UUID]) -> dict[UUID, UsedFrom]:
    """Where these tokens or clients were used last. Those that were not used since this is noted are left out, and damaged notes too."""
    found: dict[UUID, UsedFrom] = {}
    cursor = await conn.cursor(binary=True).execute(SQL["last_uses"], (uuids(list(tokens)),))
    for token, place in await cursor.fetchall():
        try:
            route, network = orjson.loads(open_note(kek, place, kind="use", owner=token))
        except (WrapError, ValueError):
            continue
        found[token] = {"route": route, "network": network}
    return found
