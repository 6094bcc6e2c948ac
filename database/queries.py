"""Named SQL blocks: `queries.sql` beside its caller is the only place where SQL text lives."""

import re
from pathlib import Path
from typing import LiteralString, cast

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --\n", re.MULTILINE)


def load_queries(beside: str) -> dict[str, LiteralString]:
    """Give the named blocks of the `queries.sql` in the folder of the module file `beside`.

    A block begins with a line `-- name --`, then a comment that says what it is for. Placeholders are PostgreSQL's own
    ($1, $2), so that a block can be PREPAREd as it stands.
    """
    text = Path(beside).with_name("queries.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    # The files ship with the code and take no input, which is what LiteralString asks for.
    return {name: cast("LiteralString", body.strip().rstrip(";")) for name, body in zip(parts[::2], parts[1::2], strict=True)}
