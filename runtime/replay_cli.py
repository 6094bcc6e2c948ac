"""`scim-ledger replay rebuild|verify`."""

import asyncio
import sys
from typing import Annotated

import orjson
import typer

from database.connections import connect
from ledger.directories import Directories, Directory
from ledger.sealing import Kek
from replay.fold import UnreadableEventError
from replay.rebuild import RebuildRefusedError, Result, rebuild
from replay.side import TABLES, heads, owner_pair
from replay.verify import Finding, verify_log, verify_read_models
from runtime.bootstrap import Urls
from runtime.progress import progress_bar
from runtime.serve import main_settings, running_urls
from runtime.wiring import read_kek

app = typer.Typer(no_args_is_help=True, help="Rebuild the read models from the log, or check them against it.")
EXIT_FINDING, EXIT_USAGE = 1, 2


@app.command("rebuild")
def rebuild_command(
    *,
    only: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(TABLES)}. Default: all.")] = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Rebuild the read models beside the live ones and swap them in. Interrupt it at will: the next run goes on."""
    wanted = tuple(name.strip() for name in only.split(",") if name.strip()) or TABLES
    unknown = set(wanted) - set(TABLES)
    if unknown:
        print(f"There is no read model {', '.join(sorted(unknown))}. Choose from {', '.join(TABLES)}.", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    settings = main_settings()
    with running_urls(settings) as urls:
        kek = asyncio.run(read_kek(urls.serve, settings.kek_path))
        try:
            result = asyncio.run(_rebuild(urls, kek, wanted))
        except (RebuildRefusedError, UnreadableEventError) as refused:
            print(refused, file=sys.stderr)
            raise SystemExit(EXIT_USAGE) from refused
        except KeyboardInterrupt:
            print("Interrupted. Run the same command again: it goes on where it was.", file=sys.stderr)
            raise SystemExit(130) from None
    if as_json:
        report = {
            "events": result.events,
            "resumed_at": result.resumed_at,
            "drifted": list(result.drifted),
            "locked_ms": result.locked_ms,
        }
        print(orjson.dumps(report).decode())
        return
    print(f"Rebuilt {', '.join(wanted)} from {result.events} events; directories were locked for {result.locked_ms} ms.")
    if result.drifted:
        print(f"The live {', '.join(result.drifted)} differed from the log and were replaced.")


async def _rebuild(urls: Urls, kek: Kek, only: tuple[str, ...]) -> Result:
    directories = await all_directories(urls, kek)
    async with owner_pair(urls.migrate) as (conn, reader):
        with progress_bar("rebuilding") as progress:
            return await rebuild(conn, reader, kek, directories, progress, only=only)


@app.command("verify")
def verify_command(*, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Recompute the log's hashes and columns and the read models; change nothing. Exit 1 names what differs."""
    settings = main_settings()
    with running_urls(settings) as urls:
        kek = asyncio.run(read_kek(urls.serve, settings.kek_path))
        findings, total = asyncio.run(_verify(urls, kek))
    if as_json:
        print(orjson.dumps({"events": total, "findings": [{"place": f.place, "problem": f.problem} for f in findings]}).decode())
    elif not findings:
        print(f"Verified {total} events and the read models that follow from them: no difference.")
    else:
        for finding in findings:
            print(f"{finding.place}: {finding.problem}")
        print("`scim-ledger replay rebuild` repairs read models. A difference in the log itself means somebody changed it.")
    if findings:
        raise SystemExit(EXIT_FINDING)


async def _verify(urls: Urls, kek: Kek) -> tuple[list[Finding], int]:
    directories = await all_directories(urls, kek)
    async with owner_pair(urls.migrate) as (conn, reader):
        total = sum((await heads(conn)).values())
        with progress_bar("checking the log") as progress:
            findings = await verify_log(conn, directories, progress, total)
        if findings:
            return findings, total  # read models recomputed from a changed log would only repeat the news
        with progress_bar("checking the read models") as progress:
            findings += await verify_read_models(conn, reader, kek, directories, progress)
        return findings, total


async def all_directories(urls: Urls, kek: Kek) -> list[Directory]:
    """Every directory of the ledger, `_system` included."""
    conn = await connect(urls.serve)
    try:
        return await Directories(kek).all(conn)
    finally:
        await conn.close()
