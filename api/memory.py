"""Giving memory back to the system after a giant request."""

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Final

GIANT_EVENTS: Final = 5_000  # a request that made more of them had tens of megabytes in its hands


def _trim() -> "Callable[[int], int] | None":
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc; musl has none


_malloc_trim = _trim()


def release() -> None:
    """Return free pages: glibc keeps them, so that one PUT of 100 000 members would count against the service for ever.

    Collected first, for 5 to 25 ms: what still hangs in cycles pins pages, and each giant request would add to them.
    """
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)
