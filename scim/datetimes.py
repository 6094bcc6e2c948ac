"""Instants: the dateTime of RFC 7643 §2.3.5, read exactly."""

import re
from datetime import date
from functools import lru_cache

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12})\d*)?([Zz]|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_PICO = 10**12


@lru_cache(maxsize=4096)
def instant(text: str) -> int | None:
    """An xsd:dateTime (RFC 7643 §2.3.5) as picoseconds since the epoch, UTC where no offset is given; None if it is none."""
    read = _INSTANT.fullmatch(text)
    if read is None:
        return None
    year, month, day, hour, minute, second = map(int, read.group(1, 2, 3, 4, 5, 6))
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - _offset(read[8])
    return seconds * _PICO + int((read[7] or "").ljust(12, "0"))


def _offset(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return -seconds if zone[0] == "-" else seconds
