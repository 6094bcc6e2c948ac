"""Load named SQL blocks: the SQL of a module is in the `.sql` file of its name."""

import re
from pathlib import Path
from typing import LiteralString, cast

_NAME = re.compile(r"^-- ([a-z][a-z0-9_]*) --\n", re.MULTILINE)


def load_queries(beside: str) -> dict[str, LiteralString]:
    """The named blocks for the module file `beside`.

    A block begins with a line `-- name --` and a comment with its purpose. Placeholders are $1, $2 as in PostgreSQL, so that a block
    can be PREPAREd unchanged.
    """
    text = Path(beside).with_suffix(".sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    # The files are part of the code and contain no input, which is what LiteralString guarantees.
    return {name: cast("LiteralString", body.strip().rstrip(";")) for name, body in zip(parts[::2], parts[1::2], strict=True)}
