"""Every named SQL block can be parsed on the migrated schema, is described, used, and permitted to its role; frequent ones never
scan a table.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from database.connections import INDEXED_PLANS, OURS, PINNED_PLANS, SERVING
from database.queries import load_queries

PROJECT = Path(__file__).parents[2]
PACKAGES = ("api", "database", "delivery", "ledger", "operations", "projections", "replay", "runtime")
FILES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.sql") if path.with_suffix(".py").exists())
BLOCKS = {
    f"{'.'.join(path.relative_to(PROJECT).with_suffix('').parts)}:{name}": block
    for path in FILES
    for name, block in load_queries(str(path)).items()
}
OWNED = {
    "runtime.key_rotation", *(f"replay.{module}" for module in ("rebuild", "shadow_tables", "stretches", "verify")),
}  # fmt: skip  # the serving role may not swap tables, and not change keys
ERASING = {"ledger.erasing:delete_bodies_of", "ledger.erasing:delete_keys_of"}  # run as ledger_eraser
SWEEPING = {"operations.aftercare:switch_wal"}  # run as the owner, where the server allows it
SIDE_TABLES = ("directory_states", "groups", "memberships", "states", "users")

# Statements that the writer sends on its connection with pinned plans: locks, reads, inserts and the inline read models.
WRITTEN = {
    "ledger.transaction": ("try_lock_directories lock_directories live_tokens insert_events lock_ledger insert_commits"),
    "ledger.state": (
        "tails names_taken users_state groups_state stream_tails wrapped_keys edges_open members_known members_of_group "
        "groups_of_member lock_subjects erasable erased_tails"
    ),
    "ledger.erasing": "delete_requests_about forget_matters_about delete_bodies_of delete_keys_of insert_erasures",
    "ledger.writer": "commits_of_requests",
    "delivery.checkpoints": "share_consumers guard move_checkpoints delete_open insert_open update_open insert_revocation_acks move_replay_progress",
    "projections.current_state": (
        "close_states insert_states close_memberships insert_memberships delete_users delete_groups update_users "
        "insert_users update_groups insert_groups upsert_directory_states"
    ),
}
# Statements of requests and feed pages, planned without pins.
READ = {
    "ledger.tokens": "tokens_by_hash",
    "ledger.receipts": "erasure_of erasure_by_id erasures_after erasures_incomplete erased_since last_number erased_among",
    "ledger.directories": "directory_by_slug",
    "ledger.feed": (
        "head directory_head commits_from directory_commits_from events_in_ranges bodies_in_ranges event_at "
        "event_at_position commits_of subject_keys_of matches_in directory_matches_in"
    ),
    "delivery.audit": "epochs_of skips_of positions_matching gaps_between",
    "delivery.checkpoints": "places open_page open_at oldest_failing move_pull_checkpoint ack_revocations",
    "delivery.consumers": "consumer_named carry_open close_epoch begin_epoch_here forget_open_after",
    "delivery.dispatcher": "places_at epoch_start previous_matching matching_between",
    "delivery.log_positions": "position_of_seq",
    "delivery.losses": "losses_between",
    "delivery.status": "oldest_open_time open_counts revocation_seconds times_at matching_after",
    "delivery.worker": "claim_lease renew_leases release_leases",
    "replay.redeliver": "grant_flags taken_back replay_by_id replays_of",
    "projections.reads": (
        "users_by_id user_ids_by_key owners_of_user_names owners_of_external_ids ids_among group_ids_by_key "
        "open_members open_members_among"
    ),
    "projections.user_groups": "groups_above bodies_at",
    "projections.index_pages": "mark next_users next_few_changed next_by_change next_users_within next_groups",
    "projections.history": "point_at_time point_at_seq state_at members_at groups_at",
}
# Statements of a rebuild and a verification for each stretch of the log, with pinned plans.
RECOMPUTED = {"replay.stretches": "events_with_keys versions_before commits_between erased_of"}


def listed(names: dict[str, str]) -> list[str]:
    return [f"{module}:{name}" for module, text in names.items() for name in text.split()]


@pytest.fixture(scope="module")
def ledger_url(cluster: Any, admin_url: str, template: str) -> Iterator[str]:
    """A migrated and empty ledger, with the schema that a rebuild makes; no test here writes to it."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE test_queries TEMPLATE template_ledger OWNER ledger_owner")
        url = cluster.url("postgres", "test_queries")
        with psycopg.connect(make_conninfo(url, user="ledger_owner")) as owner:
            owner.execute("CREATE SCHEMA IF NOT EXISTS rebuild")
            for name, block in BLOCKS.items():
                if is_definition(block):
                    assert name.startswith("replay.rebuild:")
                    owner.execute(block)
            for table in SIDE_TABLES:
                owner.execute(cast("LiteralString", f"CREATE TABLE rebuild.{table} (LIKE ledger.{table})"))
        yield url
        connection.execute("DROP DATABASE test_queries WITH (FORCE)")


def is_definition(block: str) -> bool:
    """CREATE cannot be prepared with PREPARE; such blocks are run instead."""
    return re.sub(r"^--.*\n", "", block, flags=re.MULTILINE).lstrip().startswith("create")


def connect(ledger_url: str, block: str, settings: Mapping[str, str] = SERVING) -> Connection[TupleRow]:
    owned = block.partition(":")[0] in OWNED or block in SWEEPING
    if block in ERASING:
        settings = {**settings, "role": "ledger_eraser"}
    given = {name: value for name, value in settings.items() if not (owned and name == "role")}
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in given.items())
    return psycopg.connect(make_conninfo(ledger_url, user="ledger_owner" if owned else "ledger_app"), options=options)


def plan_of(connection: Connection[TupleRow], name: str) -> dict[str, Any]:
    """The generic plan; making it also checks the rights of the role."""
    raw = psycopg.RawCursor(connection)  # $1 is PostgreSQL's own placeholder
    raw.execute(cast("LiteralString", f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {BLOCKS[name]}"))
    row = raw.fetchone()
    assert row is not None
    found = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    return found[0]["Plan"]


def full_scans(plan: dict[str, Any], *, limited: bool = False) -> Iterator[str]:
    """Reads of a whole stored table: a Seq Scan, or an index without a condition and without a LIMIT above it.

    memberships_open is by edge; with a member or a group alone it is walked for a whole directory.
    """
    kind = plan["Node Type"]
    if "Relation Name" in plan and kind != "ModifyTable":
        conditioned = "Index Cond" in plan or "TID Cond" in plan or kind == "Bitmap Heap Scan"
        wrong_index = plan.get("Index Name") == "memberships_open" and not {"grp", "mem"} <= set(
            re.findall(r"grp|mem", str(plan.get("Index Cond")))
        )
        if kind == "Seq Scan" or wrong_index or not (conditioned or limited):
            yield f"{kind} on {plan['Relation Name']}"
    if kind == "Bitmap Index Scan" and "Index Cond" not in plan:
        yield f"{kind} on {plan['Index Name']}"
    for child in plan.get("Plans", ()):
        yield from full_scans(child, limited=limited or kind == "Limit")


def test_queries_are_found() -> None:
    """Without queries the tests below would pass."""
    assert {path.parent.name for path in FILES} == set(PACKAGES)
    assert len(BLOCKS) > 50


def test_every_package_with_sql_files_is_listed_here() -> None:
    """A new package with SQL must be named here, so that these tests cover it."""
    everywhere = {path for path in PROJECT.glob("*/**/*.sql") if not path.relative_to(PROJECT).parts[0].startswith(".")}
    assert {path for path in everywhere if re.match(r"-- [a-z0-9_]+ --\n", path.read_text(encoding="utf-8"))} == set(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_text_of_an_sql_file_is_in_a_named_block(path: Path) -> None:
    """A heading with a typing error would silently become part of the block above, and a second block of the same name would hide
    the first.
    """
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^--\s*\S+\s*--\s*$", text, re.MULTILINE)
    assert len(headings) == len(load_queries(str(path)))
    assert text.startswith(headings[0])


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_has_a_description(name: str) -> None:
    """SQL is read by people who do not know its caller."""
    assert BLOCKS[name].startswith("-- "), f"{name} has no description in the line after its name"


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_one_statement(name: str) -> None:
    """Two statements cannot be prepared, and the second would run unnoticed."""
    assert ";" not in re.sub(r"--.*", "", BLOCKS[name])


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_used(name: str) -> None:
    """A block is used if the module beside its file has its name as a string."""
    module, _, block = name.partition(":")
    assert block in quoted(module)


@cache
def quoted(module: str) -> set[str]:
    """Every string of one word in a module."""
    source = PROJECT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    return set(re.findall(r"""["'](\w+)["']""", source))


@pytest.mark.parametrize("name", [name for name, block in BLOCKS.items() if not is_definition(block)])
def test_every_block_can_be_prepared_and_is_permitted_to_its_role(ledger_url: str, name: str) -> None:
    """A renamed column or a forgotten grant is found here, not by the first request that needs the block."""
    with connect(ledger_url, name) as connection:
        psycopg.RawCursor(connection).execute(cast("LiteralString", f"PREPARE block AS {BLOCKS[name]}"))
        plan_of(connection, name)


@pytest.mark.parametrize("name", listed(WRITTEN))
def test_statements_of_the_writer_never_scan_a_table(ledger_url: str, name: str) -> None:
    """Their plans are made once, possibly while the tables are empty, and kept: a scan would become slower with every event."""
    with connect(ledger_url, name, {**SERVING, **PINNED_PLANS}) as connection:
        assert list(full_scans(plan_of(connection, name))) == []


@pytest.mark.parametrize("name", listed(RECOMPUTED))
def test_a_stretch_of_the_log_is_read_without_scanning_a_table(ledger_url: str, name: str) -> None:
    """A scan for each stretch would make a rebuild and a verification quadratic in the length of the log."""
    with connect(ledger_url, name, {**OURS, **PINNED_PLANS}) as connection:
        assert list(full_scans(plan_of(connection, name))) == []


@pytest.mark.parametrize("name", listed(READ))
def test_statements_of_requests_never_scan_a_table(ledger_url: str, name: str) -> None:
    """A plan that was prepared on a young ledger is kept by a connection of the pool for as long as the connection lives."""
    with connect(ledger_url, name, {**SERVING, **INDEXED_PLANS}) as connection:
        assert list(full_scans(plan_of(connection, name))) == []
