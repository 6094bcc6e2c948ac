"""Return memory to the system after a giant request."""

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Final

GIANT_EVENTS: Final = 5_000  # a request with more events used tens of megabytes


def _trim() -> "Callable[[int], int] | None":
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc; musl has none


_malloc_trim = _trim()


def release() -> None:
    """Return free pages, which glibc keeps: after one PUT of 100 000 members the process would stay large for ever.

    Runs the garbage collector first (5 to 25 ms), because objects in reference cycles keep pages in use.
    """
    gc.collect()
    if _malloc_trim is not None:
        _malloc_trim(0)
