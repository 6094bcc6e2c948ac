"""Who may enter, in memory and up to date within milliseconds: a snapshot, then the stream. Prints each change.

    LEDGER_TOKEN=sl_consumer_… python examples/client_stream.py http://127.0.0.1:8000 acme

Nothing is stored: each start begins with a snapshot. The client makes the connection again when it breaks, and continues after the last event.
Needs `pip install ./clients/python`.
"""

import os
import sys

from scim_ledger_client import Ledger
from scim_ledger_client.access import Edge, access_of, apply


def tell(sign: str, edges: set[Edge]) -> None:
    for _, group, member in sorted(edges):
        print(sign, group, member, flush=True)


def main(base: str, directory: str) -> None:
    with Ledger(base, os.environ["LEDGER_TOKEN"]) as ledger:
        with ledger.snapshot(directory) as snapshot:
            access = access_of(directory, snapshot)
        tell("+", access)
        for streamed in ledger.stream(snapshot.after, directory=directory):
            if streamed.event is not None:
                before = set(access)
                apply(access, streamed.event)
                tell("+", access - before)
                tell("-", before - access)


if __name__ == "__main__":
    main(*sys.argv[1:3])
