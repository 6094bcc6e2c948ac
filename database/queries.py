"""Named SQL blocks: SQL text lives beside its caller only, in a file of the module's own name (or in `queries.sql` of the package)."""

import re
from pathlib import Path
from typing import LiteralString, cast

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --\n", re.MULTILINE)


def load_queries(beside: str) -> dict[str, LiteralString]:
    """Give the named blocks for the module file `beside`: of the `.sql` file of its name, or of the `queries.sql` in its folder.

    A block begins with a line `-- name --`, then a comment that says what it is for. Placeholders are PostgreSQL's own
    ($1, $2), so that a block can be PREPAREd as it stands.
    """
    own = Path(beside).with_suffix(".sql")
    text = (own if own.exists() else own.with_name("queries.sql")).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    # The files ship with the code and take no input, which is what LiteralString asks for.
    return {name: cast("LiteralString", body.strip().rstrip(";")) for name, body in zip(parts[::2], parts[1::2], strict=True)}
