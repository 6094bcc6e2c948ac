"""Parts of pages that are written by `make docs`."""

_END = "<!-- end -->"


def with_table(text: str, name: str, table: str) -> str:
    """The page with this table between the marks of that name."""
    begin = f"<!-- generated: {name} -->\n"
    before, _, rest = text.partition(begin)
    return before + begin + table + _END + rest.partition(_END)[2]
