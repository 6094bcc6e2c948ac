"""Who may do what. An operation without a line in this table cannot be defined, and a route without an operation stops the start.

Columns: the roles of tokens (`stranger`: without a token), then what the token must reach besides (docs/permissions.md):

    -          nothing: the operation is about no directory
    all        every directory: the token is not narrowed
    within     the answer holds only what the token reaches
    directory  the named directory of an IdP; hidden and missing ones look alike (403)
    log        the same, and the ledger's own log `_system` too
    consumer   the named consumer: its name, all its directories and types (otherwise 404)
    replay     the consumer of the named run (otherwise 404)
    token      all that the named token reaches (otherwise 404)
    client     the directory of the named OAuth 2.0 client (otherwise 404)

What describes the interface (openapi, asyncapi, schemas of events, errors) is open to anybody: it holds the same in every installation, so it
tells nothing about this one, and who generates a client needs no token for it. At oauth.token the client authenticates itself; neither it
nor oauth.metadata tells which directories exist.

The command line on the machine itself (`sys`) may do the same as an admin whose token is not narrowed.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from ledger import tokens

Reach = Literal["-", "all", "within", "directory", "log", "consumer", "replay", "token", "client"]
ROLES: Final = ("stranger", *tokens.ROLES)

_GRID: Final = """
                          stranger scim consumer operator auditor admin  reach
probes.health             yes      yes  yes      yes      yes     yes    -
probes.ready              yes      yes  yes      yes      yes     yes    -
metrics.show              yes      yes  yes      yes      yes     yes    -
metrics.named             .        .    .        yes      .       yes    all
openapi                   yes      yes  yes      yes      yes     yes    -
docs.errors               yes      yes  yes      yes      yes     yes    -
asyncapi                  yes      yes  yes      yes      yes     yes    -
events.schemas            yes      yes  yes      yes      yes     yes    -
events.schema             yes      yes  yes      yes      yes     yes    -

scim.read                 .        yes  .        .        .       .      directory
scim.write                .        yes  .        .        .       .      directory

events.list               .        .    yes      yes      yes     yes    within
events.show               .        .    yes      yes      yes     yes    within
events.stream             .        .    yes      yes      yes     yes    within
snapshot.read             .        .    yes      yes      yes     yes    directory

consumers.list            .        .    yes      yes      .       yes    within
consumers.show            .        .    yes      yes      .       yes    consumer
consumers.pull            .        .    yes      yes      .       yes    consumer
consumers.acknowledge     .        .    yes      yes      .       yes    consumer
consumers.put             .        .    .        yes      .       yes    consumer
consumers.delete          .        .    .        yes      .       yes    consumer
consumers.pause           .        .    .        yes      .       yes    consumer
consumers.resume          .        .    .        yes      .       yes    consumer
consumers.seek            .        .    .        yes      .       yes    consumer
consumers.close_fork      .        .    .        yes      .       yes    consumer
consumers.rotate_secret   .        .    .        yes      .       yes    consumer
consumers.ping            .        .    .        yes      .       yes    consumer
consumers.audit           .        .    .        yes      yes     yes    consumer
deliveries.blocked        .        .    .        yes      .       yes    consumer
deliveries.parked         .        .    .        yes      .       yes    consumer
deliveries.act            .        .    .        yes      .       yes    consumer

replays.create            .        .    .        yes      .       yes    consumer
replays.list              .        .    .        yes      .       yes    within
replays.show              .        .    .        yes      .       yes    replay
replays.pause             .        .    .        yes      .       yes    replay
replays.resume            .        .    .        yes      .       yes    replay
replays.cancel            .        .    .        yes      .       yes    replay

surges.show               .        .    .        yes      yes     yes    directory
surges.set                .        .    .        yes      .       yes    directory
surges.release            .        .    .        yes      .       yes    directory

requests.list             .        .    .        yes      yes     yes    within
directories.health        .        .    .        yes      yes     yes    directory
schemas.list              .        .    .        yes      .       yes    directory
schemas.register          .        .    .        yes      .       yes    directory
profiles.list             .        .    .        yes      yes     yes    -
profiles.show             .        .    .        yes      yes     yes    -
profiles.validate         .        .    .        yes      yes     yes    -
profiles.try              .        .    .        yes      yes     yes    within
profiles.of_directory     .        .    .        yes      yes     yes    directory
profiles.set              .        .    .        .        .       yes    directory

rate_limits.show          .        .    .        yes      yes     yes    directory
rate_limits.set           .        .    .        .        .       yes    directory
rate_limits.reset         .        .    .        .        .       yes    directory

users.list                .        .    yes      yes      yes     yes    directory
users.show                .        .    yes      yes      yes     yes    directory
groups.list               .        .    yes      yes      yes     yes    directory
groups.show               .        .    yes      yes      yes     yes    directory

directories.list          .        .    yes      yes      yes     yes    within
directories.show          .        .    yes      yes      yes     yes    log
directories.create        .        .    .        .        .       yes    all
directories.pause         .        .    .        .        .       yes    directory
directories.resume        .        .    .        .        .       yes    directory
directories.close         .        .    .        .        .       yes    directory
directories.accept_clock  .        .    .        yes      .       yes    directory

erasures.create           .        .    .        .        .       yes    directory
erasures.list             .        .    .        .        yes     yes    directory
erasures.show             .        .    .        .        yes     yes    directory
holds.place               .        .    .        .        .       yes    directory
holds.list                .        .    .        .        yes     yes    directory
holds.show                .        .    .        .        yes     yes    directory
holds.release             .        .    .        .        .       yes    directory

tokens.issue              .        .    .        .        .       yes    within
tokens.list               .        .    .        .        .       yes    within
tokens.report             .        .    .        .        .       yes    within
tokens.show               .        .    .        .        .       yes    token
tokens.rotate             .        .    .        .        .       yes    token
tokens.revoke             .        .    .        .        .       yes    token

clients.create            .        .    .        .        .       yes    directory
clients.list              .        .    .        .        .       yes    within
clients.show              .        .    .        .        .       yes    client
clients.rotate            .        .    .        .        .       yes    client
clients.revoke            .        .    .        .        .       yes    client
oauth.token               yes      yes  yes      yes      yes     yes    -
oauth.metadata            yes      yes  yes      yes      yes     yes    -

keys.list                 .        .    .        yes      .       yes    all

audit.population          .        .    .        .        yes     yes    directory
audit.user                .        .    .        .        yes     yes    directory
audit.access              .        .    .        .        yes     yes    directory
audit.members             .        .    .        .        yes     yes    directory
audit.diff                .        .    .        .        yes     yes    directory
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    operation: str
    roles: frozenset[str]
    reach: Reach


def read_grid(grid: str) -> dict[str, Rule]:
    """Parse the table. Raises ValueError for a line with wrong columns or words, and for a repeated line."""
    header, *lines = (line.split() for line in grid.splitlines() if line.strip())
    if header != [*ROLES, "reach"]:
        raise ValueError(f"the columns are {', '.join(ROLES)}, reach")
    table: dict[str, Rule] = {}
    for operation, *cells in lines:
        grants, reach = cells[:-1], next((known for known in get_args(Reach) if [known] == cells[-1:]), None)
        if len(grants) != len(ROLES) or set(grants) - {"yes", "."} or reach is None or operation in table:
            raise ValueError(f"the line of {operation} is not understood, or stands twice")
        granted = frozenset(role for role, word in zip(ROLES, grants, strict=True) if word == "yes")
        table[operation] = Rule(operation, granted, reach)
    return table


TABLE: Final = read_grid(_GRID)


def allowed(role: str, operation: str) -> bool:
    """Whether a role may use an operation. What its token must reach is checked when the target is known."""
    return role in TABLE[operation].roles


def open_to_strangers(operation: str) -> bool:
    return "stranger" in TABLE[operation].roles
