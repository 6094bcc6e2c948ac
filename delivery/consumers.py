"""Consumers: what they are, and the acts that make and change them. Each act is one commit in `_system`, with its event."""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, get_args
from urllib.parse import urlsplit
from uuid import UUID

from database.arrays import int4s
from database.connections import Connection
from database.queries import load_queries
from delivery.backoff import ATTEMPTS_MAX, whole_schedule
from delivery.lanes import Ordering
from delivery.terms import Definition, Mode, Terms
from ledger.commands import RecordFacts, Statement
from ledger.directories import SYSTEM, Directory
from ledger.events import (
    CONSUMER,
    CONSUMER_CREATED,
    CONSUMER_DELETED,
    CONSUMER_DISABLED,
    CONSUMER_PAUSED,
    CONSUMER_RESUMED,
    CONSUMER_SECRET_ROTATED,
    CONSUMER_SOUGHT,
    CONSUMER_UPDATED,
    DELIVERY_RETRIED,
    OPERATOR,
    Body,
    Draft,
    EventType,
    type_mask,
)
from ledger.feed import Selection, reached
from ledger.ids import DirectoryNumber
from ledger.refused import StateError
from ledger.sealing import Kek, open_note, open_optional, seal_note

SQL: Final = load_queries(__file__)
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
SECRET_OVERLAP_S: Final = 86_400  # for how long the old secret still signs beside the new one, if the operator does not say
SECRET_OVERLAP_S_MAX: Final = 30 * 86_400  # each delivery carries both signatures meanwhile
URL_LENGTH_MAX: Final = 2_000
ALL: Final = 2**62  # a position beyond every log
CHANGES: Final = frozenset(  # events after which deliveries of a consumer must begin anew
    kind.number
    for kind in (
        CONSUMER_UPDATED,
        CONSUMER_SOUGHT,
        CONSUMER_PAUSED,
        CONSUMER_RESUMED,
        CONSUMER_DISABLED,
        CONSUMER_DELETED,
        CONSUMER_SECRET_ROTATED,
        DELIVERY_RETRIED,
    )
)


BATCH_EVENTS_MAX: Final = 100  # events of one request to a webhook


class ConsumerRefusedError(Exception):
    """The act on a consumer cannot be done; the text says why and what to send instead."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer as it stands. `epoch` counts its seeks and changes of filter, `version` every change."""

    id: int
    uuid: UUID
    name: str
    definition: Terms
    state: str
    epoch: int
    version: int
    created_at: datetime
    sealed_secrets: tuple[bytes, ...] = field(
        default=(), repr=False
    )  # the newest first; an older one follows as long as it is still valid
    sealed_url: bytes | None = field(default=None, repr=False)

    @property
    def mask(self) -> int:
        """The bits of the event types it wants."""
        return type_mask(self.definition.types) or 0

    def secrets(self, kek: Kek) -> list[str]:
        """The secrets that its deliveries are signed with, the newest first."""
        return [open_note(kek, sealed, kind="secret", owner=self.uuid) for sealed in self.sealed_secrets]

    def url(self, kek: Kek) -> str | None:
        """Where its webhooks go; None for one that pulls."""
        return open_optional(kek, self.sealed_url, kind="url", owner=self.uuid)

    def defined(self, kek: Kek) -> Definition:
        """Its definition as an operator gave it."""
        d = self.definition
        return Definition(
            d.directories, d.types, d.mode, d.ordering, d.batch_max, d.retry_schedule, self.url(kek)
        )  # fmt: skip

    def reach(self, directories: Sequence[Directory]) -> list[DirectoryNumber]:
        """The directories it reads, of all there are now."""
        return reach_of(self.definition.directories, directories)

    def selection(self, directories: Sequence[Directory], *, bodies: bool = True) -> Selection:
        """The part of the feed that it gets; `*` includes directories that are created later."""
        some, without = reached(self.definition.directories, directories)
        return Selection(directories=some, without=without, mask=self.mask, bodies=bodies)


def reach_of(slugs: Sequence[str], directories: Sequence[Directory]) -> list[DirectoryNumber]:
    """The numbers of directories by their names, of all there are now."""
    some, without = reached(slugs, directories)
    return [d.id for d in directories if (d.id not in without if some is None else d.id in some)]


def check_definition(asked: Definition, known: Sequence[str], allowed: "Allowed") -> None:
    """Check that deliveries by this definition are possible.

    Raises ConsumerRefusedError for an unknown directory or type, and for a missing or forbidden URL.
    """
    missing = [slug for slug in asked.directories if slug != "*" and slug not in known]
    if missing or not asked.directories:
        raise ConsumerRefusedError('`directories` names one that does not exist. Give names of directories, or ["*"] for all.')
    if type_mask(asked.types) is None or not asked.types:
        raise ConsumerRefusedError("`types` names an event type that does not exist. See docs/events.md for the list.")
    if asked.mode not in get_args(Mode) or asked.ordering not in get_args(Ordering):
        raise ConsumerRefusedError(f"`mode` is {' or '.join(get_args(Mode))}, `ordering` {' or '.join(get_args(Ordering))}.")
    if not 1 <= asked.batch_max <= BATCH_EVENTS_MAX:
        raise ConsumerRefusedError(f"`batch_max` is 1 to {BATCH_EVENTS_MAX} events.")
    if any(delay < 0 or delay > 7 * 86_400 for delay in asked.retry_schedule) or len(asked.retry_schedule) > ATTEMPTS_MAX:
        raise ConsumerRefusedError(f"`retry_schedule` is a list of at most {ATTEMPTS_MAX} delays in seconds, each up to 7 days.")
    if asked.mode == "webhook":
        if asked.url is None:
            raise ConsumerRefusedError(_NO_URL)
        check_reachable("url", asked.url, allowed)
    elif asked.url is not None:
        raise ConsumerRefusedError(
            "A consumer that pulls has no `url`. Leave it out, or make a new consumer with `mode` webhook."
        )


_NO_URL: Final = "A webhook needs a `url` of at most 2 000 characters, such as https://app.example.com/hooks."


def check_reachable(field: str, url: str, allowed: "Allowed") -> None:
    """Check a URL that this service will send requests to. Raises ConsumerRefusedError, which names the field."""
    if len(url) > URL_LENGTH_MAX:
        raise ConsumerRefusedError(_NO_URL if field == "url" else f"`{field}` is longer than 2 000 characters.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ConsumerRefusedError(f"`{field}` is not an http or https URL.")
    if parts.username is not None or parts.fragment:
        raise ConsumerRefusedError(
            f"`{field}` must not carry a user name, a password or a fragment: requests are signed or need none."
        )
    literal = _address(host)
    named = allowed.host(host) if literal is None else allowed.address(literal)
    if literal is not None and not named and not _public(literal):
        raise ConsumerRefusedError(
            f"`{field}` leads to a private or loopback address. Start the service with LEDGER_WEBHOOK_ALLOW naming those that webhooks may reach."
        )
    if parts.scheme == "http" and not named:
        raise ConsumerRefusedError(
            f"`{field}` is not encrypted: use https, or start the service with LEDGER_WEBHOOK_ALLOW naming the host."
        )


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.IPv6Network(
    "64:ff9b::/96"
)  # RFC 6052: carries an IPv4 address; 64:ff9b:1::/48 is a network's own, and refused
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # all that is given out to be reached from everywhere (RFC 4291 §2.4)
# Ranges inside 2000::/3 that are not public: IETF protocol assignments with Teredo and ORCHID, documentation. In IPv4: protocol
# assignments (is_global of Python 3.11 knows only a part of them), the relays of 6to4.
_NOBODYS: Final = tuple(
    ipaddress.ip_network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20", "192.0.0.0/24", "192.88.99.0/24")
)


def _address(host: str) -> Address | None:
    """The address that a host is, also in the old spellings that resolvers read (2130706433, 0x7f.1); None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Allowed:
    """LEDGER_WEBHOOK_ALLOW: networks and hosts that a webhook may reach although they are private or loopback."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def read(cls, text: str) -> "Allowed":
        """From words separated by commas or spaces, each a network, an address or a host name."""
        networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        hosts: list[str] = []
        for word in text.replace(",", " ").split():
            try:
                networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                hosts.append(word.casefold())
        return cls(tuple(networks), frozenset(hosts))

    def host(self, name: str) -> bool:
        return name.casefold() in self.hosts

    def address(self, address: Address) -> bool:
        """Whether the setting names the address. An IPv4 address that is written as an IPv6 address counts as the IPv4 address."""
        plain = _carried_ipv4(address)
        return any(plain in network for network in self.networks if network.version == plain.version)

    def reachable(self, host: str, address: Address) -> bool:
        """Whether a connection to this address may be made for that host name."""
        return self.host(host) or self.address(address) or _public(address)


def _carried_ipv4(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _public(address: Address) -> bool:
    """Whether an address is public. For an IPv6 address that carries an IPv4 address, the IPv4 address decides: packets go there."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if carried is None and address in _NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return _public(carried)
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOBODYS)


# -- reading ----------------------------------------------------------------


async def filters_of(conn: Connection, consumers: Sequence[int]) -> list[tuple[int, list[str], list[str]]]:
    """Every filter that consumers have or had: (consumer, directories, types)."""
    return await (await conn.cursor(binary=True).execute(SQL["filters_of"], (int4s(consumers),))).fetchall()


async def left_over(conn: Connection, consumers: Sequence[int]) -> list[tuple[int, DirectoryNumber, int]]:
    """Events that consumers still have to deliver although their filter changed: (consumer, directory, bits of the types)."""
    return await (await conn.cursor(binary=True).execute(SQL["left_over"], (int4s(consumers),))).fetchall()


async def consumer_named(conn: Connection, name: str) -> Consumer | None:
    """The consumer of a name, or None where there is none (any more)."""
    row = await (await conn.cursor(binary=True).execute(SQL["consumer_named"], (name,))).fetchone()
    return _consumer(row) if row else None


async def consumers(conn: Connection) -> list[Consumer]:
    """Every consumer that was not deleted, by name."""
    return [_consumer(row) for row in await (await conn.cursor(binary=True).execute(SQL["consumers_all"])).fetchall()]


async def consumers_ever(conn: Connection) -> list[Consumer]:
    """Every consumer that there is or was, by name."""
    return [_consumer(row) for row in await (await conn.cursor(binary=True).execute(SQL["consumers_ever"])).fetchall()]


def _consumer(row: tuple[Any, ...]) -> Consumer:
    (
        number, uuid, name, mode, ordering, directories, types, batch_max, url, schedule, secret, before, state, epoch, version, created,
    ) = row  # fmt: skip
    terms = Terms(tuple(directories), tuple(types), mode, ordering, batch_max, tuple(schedule))
    secrets = tuple(sealed for sealed in (secret, before) if sealed is not None)
    return Consumer(number, uuid, name, terms, state, epoch, version, created, secrets, url)


# -- acts -------------------------------------------------------------------


async def reserve_id(conn: Connection) -> int:
    """Reserve the number of a consumer before it is made: its first event and its rows carry the number."""
    row = await (await conn.execute(SQL["next_consumer_id"])).fetchone()
    assert row is not None
    return row[0]


def creation(
    number: int,
    uuid: UUID,
    name: str,
    asked: Definition,
    start: int,
    *,
    kek: Kek,
    secret: str | None,
    random: Callable[[int], bytes],
) -> RecordFacts:
    """The act of making a consumer that reads everything after position `start`."""
    sealed = seal_note(kek, secret, kind="secret", owner=uuid, random=random) if secret is not None else None
    row = (
        number, uuid, name, asked.mode, asked.ordering, list(asked.directories), list(asked.types), asked.batch_max,
        _sealed_url(uuid, asked, kek, random), list(whole_schedule(asked.retry_schedule)), sealed,
    )  # fmt: skip
    epoch = (number, 1, start, list(asked.directories), list(asked.types))
    facts = {**_facts(uuid, name, asked), "start_position": start}
    return _consumer_act(CONSUMER_CREATED, uuid, name, facts, (SQL["insert_consumer"], row), (SQL["insert_epoch"], epoch))


def _sealed_url(uuid: UUID, asked: Definition, kek: Kek, random: Callable[[int], bytes]) -> bytes | None:
    return None if asked.url is None else seal_note(kek, asked.url, kind="url", owner=uuid, random=random)


def change(consumer: Consumer, asked: Definition, *, kek: Kek, random: Callable[[int], bytes]) -> RecordFacts | None:
    """The act of giving a consumer another definition; None if it has that definition already. A new filter applies from the next undelivered event on."""
    asked_schedule = whole_schedule(asked.retry_schedule)
    before, after = consumer.defined(kek), replace(asked, retry_schedule=asked_schedule)
    if before == after:
        return None
    if before.mode != after.mode:
        why = "The mode of a consumer cannot be changed. Make another one; it can start where this one is."
        raise StateError(why, "mode_fixed")
    facts = {**_facts(consumer.uuid, consumer.name, after), "before": _facts(consumer.uuid, consumer.name, before)}
    row = (
        consumer.id, after.ordering, list(after.directories), list(after.types), after.batch_max,
        _sealed_url(consumer.uuid, after, kek, random), list(after.retry_schedule),
    )  # fmt: skip
    filtered = (before.directories, before.types) != (after.directories, after.types)
    epoch: tuple[Statement, ...] = (
        carry_open(consumer.id, ALL),
        (SQL["close_epoch"], (consumer.id,)),
        (SQL["begin_epoch_here"], (consumer.id, list(after.directories), list(after.types))),
        _read_again(consumer, after),
    )
    update = (SQL["update_consumer"], row)
    return _act_on(
        CONSUMER_UPDATED, consumer, facts, lock(consumer.id), update, *(epoch if filtered else ())
    )  # fmt: skip


def sought(consumer: Consumer, start: int, reason: str, *, kek: Kek, random: Callable[[int], bytes]) -> RecordFacts:
    """The act of moving a consumer: it reads everything after position `start` again, or for the first time."""
    d = consumer.definition
    facts = {**_name(consumer), "position": start, "reason": reason}
    sealed = seal_note(kek, reason, kind="sought", owner=consumer.uuid, random=random)
    return _act_on(
        CONSUMER_SOUGHT, consumer, facts, lock(consumer.id),
        carry_open(consumer.id, start),
        (SQL["leave_open"], (consumer.id, start)),
        forget_open_after(consumer.id, start),
        (SQL["begin_epoch_at"], (consumer.id, start, list(d.directories), list(d.types), sealed)),
        _read_again(consumer, d),
    )  # fmt: skip


def _read_again(consumer: Consumer, filtered: Terms) -> Statement:
    """Forget skips of events that the consumer reads again in the epoch that just began."""
    return SQL["forget_skips_read_again"], (consumer.id, type_mask(filtered.types) or 0, SYSTEM)


def deletion(consumer: Consumer) -> RecordFacts:
    """The act of ending a consumer. What it acknowledged stays on record; its name becomes free."""
    delete = (SQL["delete_consumer"], (consumer.id,))
    return _act_on(CONSUMER_DELETED, consumer, _name(consumer), lock(consumer.id), delete)


def paused(consumer: Consumer) -> RecordFacts | None:
    """The act of pausing; None where it is not active."""
    return _state(consumer, "paused", CONSUMER_PAUSED, "") if consumer.state == "active" else None


def resumed(consumer: Consumer) -> RecordFacts | None:
    """The act of resuming a paused or disabled consumer; None where it is active."""
    return _state(consumer, "active", CONSUMER_RESUMED, "") if consumer.state != "active" else None


def disabled(consumer: Consumer, reason: str) -> RecordFacts:
    """The act of ending deliveries because the receiver said that it is gone (410)."""
    return _state(consumer, "disabled", CONSUMER_DISABLED, reason)


def secret_rotated(consumer: Consumer, secret: str, overlap_s: int, *, kek: Kek, random: Callable[[int], bytes]) -> RecordFacts:
    """The act of giving a webhook another secret; both sign for `overlap_s` seconds."""
    if not 0 <= overlap_s <= SECRET_OVERLAP_S_MAX:
        raise ConsumerRefusedError(f"`overlap_seconds` is 0 to {SECRET_OVERLAP_S_MAX}.")
    if consumer.definition.mode != "webhook":
        raise StateError("Only webhooks have a secret; who pulls presents a token: rotate that.", "not_a_webhook")
    sealed = seal_note(kek, secret, kind="secret", owner=consumer.uuid, random=random)
    facts = {**_name(consumer), "overlap_seconds": overlap_s}
    rotate = (SQL["rotate_secret"], (consumer.id, sealed, overlap_s))
    return _act_on(CONSUMER_SECRET_ROTATED, consumer, facts, rotate)


def _state(consumer: Consumer, state: str, kind: EventType, reason: str) -> RecordFacts:
    facts = {**_name(consumer), **({"reason": reason} if reason else {})}
    return _act_on(kind, consumer, facts, (SQL["set_consumer_state"], (consumer.id, state)))


def lock(consumer: int) -> Statement:
    """Wait for whoever records deliveries of a consumer; the next one who does sees the change."""
    return SQL["lock_consumer"], (consumer,)


def touch(consumer: int) -> Statement:
    """Say that a consumer changed: whoever delivers to it begins anew."""
    return SQL["touch_consumer"], (consumer,)


def wake() -> Statement:
    """Wake the delivery processes when the commit is through."""
    return SQL["wake_consumers"], ()


def carry_open(consumer: int, through: int) -> Statement:
    """Give what a consumer's place leaves open up to `through` a row of its own each: the place moves away from them."""
    return SQL["carry_open"], (consumer, through)


def forget_open_after(consumer: int, position: int) -> Statement:
    """Forget the exceptions of a consumer after a position: it reads those events again, or they are gone."""
    return SQL["forget_open_after"], (consumer, position)


def _consumer_act(kind: EventType, uuid: UUID, name: str, facts: dict[str, Any], *statements: Statement) -> RecordFacts:
    draft = Draft(kind, uuid, CONSUMER, cause=OPERATOR, body=Body(facts, [], name))
    return RecordFacts((draft,), (*statements, wake()))


def _act_on(kind: EventType, consumer: Consumer, facts: dict[str, Any], *statements: Statement) -> RecordFacts:
    """An act on a consumer as it was read."""
    return replace(_consumer_act(kind, consumer.uuid, consumer.name, facts, *statements), stands=unchanged(consumer))


def touched(consumer: int, *statements: Statement) -> tuple[Statement, ...]:
    """Wrap statements that change deliveries of a consumer: they wait for a report under way, and then its deliveries begin anew."""
    return (lock(consumer), *statements, touch(consumer), wake())


def unchanged(consumer: Consumer) -> Statement:
    """Ask whether a consumer is still in the version that was read, for an act that was decided upon that version."""
    return SQL["consumer_unchanged"], (consumer.id, consumer.version)


def reads_on(consumer: Consumer) -> Statement:
    """Whether it is still there, at its place and with its filter: what a plan of a run depends on."""
    return SQL["consumer_reads_on"], (consumer.id, consumer.epoch)


def _name(consumer: Consumer) -> dict[str, Any]:
    return {"id": str(consumer.uuid), "name": consumer.name}


def _facts(uuid: UUID, name: str, d: Definition) -> dict[str, Any]:
    host = urlsplit(d.url).hostname if d.url else None  # a URL may carry a secret in its path; an event lives for ever
    facts = {
        "id": str(uuid), "name": name, "directories": list(d.directories), "types": list(d.types), "mode": d.mode,
        "ordering": d.ordering, "batch_max": d.batch_max, "url_host": host,
    }  # fmt: skip
    return {key: value for key, value in facts.items() if value is not None}
