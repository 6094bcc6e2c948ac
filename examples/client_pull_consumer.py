"""The same application as pull_consumer.py, with the client: who may enter, in a SQLite file of its own.

    LEDGER_TOKEN=sl_consumer_… python examples/client_pull_consumer.py http://127.0.0.1:8000 door door.sqlite

The client pulls, tries again and acknowledges; what is left is to apply events in a transaction that notes their ids. `--once` ends when there is
nothing new. Needs `pip install ./clients/python`.
"""

import os
import sqlite3
import sys

from scim_ledger_client import Event, Ledger
from scim_ledger_client.access import access_change

SCHEMA = """
create table if not exists applied (id text primary key);
create table if not exists members (directory text, grp text, person text, primary key (directory, grp, person));
"""


def apply(db: sqlite3.Connection, event: Event) -> None:
    match access_change(event):
        case False, directory, None, None:
            db.execute("delete from members where directory = ?", (directory,))
        case True, *edge:
            db.execute("insert or ignore into members values (?, ?, ?)", edge)
        case False, *edge:
            db.execute("delete from members where (directory, grp, person) = (?, ?, ?)", edge)


def main(base: str, consumer: str, path: str, once: bool) -> None:
    db = sqlite3.connect(path)
    db.executescript(SCHEMA)

    def handle(events: list[Event]) -> None:
        with db:  # one transaction
            for event in events:
                if db.execute("insert or ignore into applied values (?)", (event["id"],)).rowcount:
                    apply(db, event)

    with Ledger(base, os.environ["LEDGER_TOKEN"]) as ledger:
        ledger.consumer(consumer).process(handle, once=once)


if __name__ == "__main__":
    main(*sys.argv[1:4], once="--once" in sys.argv)
