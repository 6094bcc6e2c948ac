"""Values that a shell completes: slugs of directories and names of consumers, asked of a service that runs already."""

import contextlib
import io
from typing import Annotated, Final, TypeAlias

import typer

ANSWER_S: Final = 2.0  # after which Tab completes nothing


def directory_slugs(incomplete: str) -> list[str]:
    """The slugs that begin like this."""
    return _found("directory list", "slug", incomplete)


def consumer_names(incomplete: str) -> list[str]:
    """The names that begin like this."""
    return _found("consumer list", "name", incomplete)


DirectorySlug: TypeAlias = Annotated[str, typer.Argument(autocompletion=directory_slugs)]
ConsumerName: TypeAlias = Annotated[str, typer.Argument(autocompletion=consumer_names)]


def _found(verb: str, field: str, incomplete: str) -> list[str]:
    """Nothing if anything is wrong: a shell that waits for Tab has no place for an error. No ledger is started for it."""
    from runtime.cli.client import is_running, service  # only here: it imports httpx, which `--help` does not need

    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        if is_running():
            with service() as asked:
                asked.http.timeout = ANSWER_S
                return [row[field] for row in asked.listed(verb)["data"] if row[field].startswith(incomplete)]
    return []
