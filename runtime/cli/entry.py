"""`scim-ledger`: every operator's verb. Exit codes: runtime/exits.py."""

import json
import sys

from runtime.cli.nouns import NOUNS, new_group
from runtime.cli.printing import plain
from runtime.exits import CommandError

app = new_group("The provisioning ledger.", NOUNS)


@app.callback()
def root() -> None:
    """The provisioning ledger.

    Beside a running service every command asks that service. With LEDGER_URL and LEDGER_TOKEN, or LEDGER_TOKEN_FILE, it asks one
    anywhere, with the rights of that token.
    """


def main() -> None:
    """Entry point: errors become one sentence and an exit code."""
    try:
        app()
    except CommandError as ended:
        if ended.problem is not None and "--json" in sys.argv:
            print(json.dumps(ended.problem, ensure_ascii=False, separators=(",", ":")))
        print(plain(ended.text), file=sys.stderr)
        raise SystemExit(ended.code) from None
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough
        raise SystemExit(0) from None
