"""W3C Trace Context (https://www.w3.org/TR/trace-context/): the header `traceparent`, read, stored and written. Pure.

A stored context is 25 bytes: trace-id (16), parent-id (8), trace-flags (1). It stands beside the log, not in the leaf: no proof covers it.
"""

import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = "traceparent"
_SAMPLED: Final = 1
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def read_traceparent(text: str) -> bytes | None:
    """The context of a header; None for one that is not valid (§3.2), which is ignored as if it had not been sent.

    Of a version later than 00 only the parts that this version knows are kept (§4).
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not (int(trace_id, 16) and int(parent_id, 16)):
        return None
    return packed(int(trace_id, 16), int(parent_id, 16), int(flags, 16))


def packed(trace_id: int, parent_id: int, flags: int) -> bytes:
    """A context as it is stored. Of the flags only `sampled` is kept, the one that version 00 defines."""
    return trace_id.to_bytes(16) + parent_id.to_bytes(8) + bytes((flags & _SAMPLED,))


def unpacked(context: bytes) -> tuple[int, int, int]:
    """(trace-id, parent-id, trace-flags) of a stored context."""
    return int.from_bytes(context[:16]), int.from_bytes(context[16:24]), context[24]


def traceparent(context: bytes) -> str:
    """The header of a stored context, in version 00."""
    return f"00-{context[:16].hex()}-{context[16:24].hex()}-{context[24]:02x}"


def shared_context(contexts: Iterable[bytes | None]) -> bytes | None:
    """The context that all events of a batch have; None where they differ, because a request has one header."""
    found = set(contexts)
    return found.pop() if len(found) == 1 else None
