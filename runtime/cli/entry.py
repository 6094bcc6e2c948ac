"""The command `scim-ledger`. Exit codes: runtime/exits.py."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from typer.completion import completion_init  # pyright: ignore[reportPrivateImportUsage]

from runtime.cli.nouns import NOUNS, PROGRAM, new_group
from runtime.cli.printing import plain
from runtime.cli.wording import in_commands
from runtime.exits import USAGE, CommandError

_TOKEN: Final = re.compile(r"sl_[a-z]+_[0-9a-f]{32}_[0-9a-f]{16}")
_SEEN: Final = (
    "A token stands on this command line, where every process of this machine can read it and the shell remembers it. No request was sent. "
    "Rotate or revoke it by its id; put tokens into LEDGER_TOKEN_FILE or LEDGER_TOKEN."
)

app = new_group("The provisioning ledger.", NOUNS)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(PROGRAM, version(PROGRAM))
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """The provisioning ledger.

    Beside a running service every command asks that service. With LEDGER_URL and LEDGER_TOKEN, or LEDGER_TOKEN_FILE, it asks one
    anywhere, with the rights of that token.
    """


def main() -> None:
    """Entry point: errors become one sentence and an exit code."""
    try:
        _refuse_tokens(sys.argv[1:])
        completion_init()
        app(prog_name=PROGRAM)
    except CommandError as ended:
        if ended.problem is not None and "--json" in sys.argv:
            print(json.dumps(ended.problem, ensure_ascii=False, separators=(",", ":")))
        typed = {word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--")}
        text = in_commands(ended.text, typed) if ended.problem is not None else ended.text
        print(plain(text), file=sys.stderr)
        raise SystemExit(ended.code) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the pipe has closed it
        raise SystemExit(0) from None


def _refuse_tokens(words: Sequence[str]) -> None:
    """Raises CommandError if a word is a token, which would get into URLs, sentences and logs."""
    if any(_TOKEN.search(word) for word in words):
        raise CommandError(_SEEN, USAGE)
