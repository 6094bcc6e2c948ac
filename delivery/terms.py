"""What a consumer gets, and how: as an operator says it. No IO."""

from dataclasses import dataclass
from typing import Literal

from delivery.backoff import SCHEDULE_S
from delivery.lanes import Ordering

Mode = Literal["pull", "webhook"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a consumer gets, and how. `directories` holds slugs or `*` (all but `_system`), `types` patterns such as `user.*`."""

    directories: tuple[str, ...] = ("*",)
    types: tuple[str, ...] = ("*",)
    mode: Mode = "pull"
    ordering: Ordering = "subject"
    batch_max: int = 1
    retry_schedule: tuple[int, ...] = SCHEDULE_S


@dataclass(frozen=True, slots=True)
class Definition(Terms):
    """What an operator says of a consumer: its terms, and where it is reached. A URL may hold a secret or a name: it is stored sealed."""

    url: str | None = None
