"""An application that pulls: who may enter, in a SQLite file of its own. Interrupt or kill it at will, it goes on where it was.

    LEDGER_TOKEN=sl_consumer_… python examples/pull_consumer.py http://127.0.0.1:8000 door door.sqlite

An event is applied in the transaction that notes its id; one that comes again (a crash before the acknowledgement) changes nothing.
Only the standard library. `--once` ends when there is nothing new.
"""

import json
import os
import sqlite3
import sys
import urllib.error
import urllib.request
from typing import Any

SCHEMA = """
create table if not exists applied (id text primary key);
create table if not exists people (id text primary key, name text, active int, directory text);
create table if not exists members (directory text, grp text, person text, primary key (directory, grp, person));
"""


def call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {os.environ['LEDGER_TOKEN']}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


def access_change(event: dict) -> tuple | None:
    """What an event does to access: (begins, directory, group, member), or None. Without a group: all of the directory ends."""
    kind, directory, data = event["type"], event["directory"], event["data"]
    if kind == "directory.closed":
        return False, directory, None, None
    if kind in {"group.member_added", "group.member_access_restored"} and data["effective"]:
        return True, directory, data["group"]["id"], data["member"]["id"]
    if kind in {"group.member_removed", "group.member_access_revoked"}:
        return False, directory, data["group"]["id"], data["member"]["id"]
    return None


def apply(db: sqlite3.Connection, event: dict[str, Any]) -> None:
    subject, data, directory = event["subject"]["id"], event["data"], event["directory"]
    match event["type"]:
        case "user.created" | "user.updated" | "user.deactivated" | "user.reactivated":
            name = data.get("user", {}).get("user_name")
            active = data.get("object", {}).get("active", False)
            db.execute("insert or replace into people values (?, ?, ?, ?)", (subject, name, active, directory))
        case "user.deleted":
            db.execute("delete from people where id = ?", (subject,))
        case "directory.closed":
            db.execute("update people set active = 0 where directory = ?", (directory,))
    match access_change(event):
        case False, _, None, None:
            db.execute("delete from members where directory = ?", (directory,))
        case True, *edge:
            db.execute("insert or ignore into members values (?, ?, ?)", edge)
        case False, *edge:
            db.execute("delete from members where (directory, grp, person) = (?, ?, ?)", edge)


def main(base: str, consumer: str, path: str, once: bool) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(SCHEMA)
    place = f"{base}/v1/consumers/{consumer}"
    while True:
        page = call(f"{place}/events?limit=500&wait={0 if once else 30}")
        db.execute("begin")
        for event in page["data"]:
            if db.execute("insert or ignore into applied values (?)", (event["id"],)).rowcount:
                apply(db, event)
        db.execute("commit")  # first kept, then acknowledged
        try:
            call(f"{place}/ack", {"through": page["list_metadata"]["after"]})
        except urllib.error.HTTPError as moved:  # 409: an operator moved the place meanwhile, the next page begins there
            if moved.code != 409:
                raise
        if once and not page["has_more"]:
            return


if __name__ == "__main__":
    main(*sys.argv[1:4], once="--once" in sys.argv)
