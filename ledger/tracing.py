"""The interface of a tracer: spans of requests, commits and deliveries. Without one, contexts are only passed on. Pure.

A span's attributes are codes, counts and the names that operators gave, never ids of persons or values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

Kind = Literal["server", "internal", "producer"]
Attribute = str | int
NOTHING: Final[Mapping[str, Attribute]] = {}


class Span(Protocol):
    """One timed piece of work. `context` is what it passes on (trace_context); None without a trace."""

    @property
    def context(self) -> bytes | None: ...

    def end(self, error: str = "", attributes: Mapping[str, Attribute] = NOTHING, /) -> None:
        """End the span, once. `error`: one word of ours for what failed; empty where nothing did."""
        ...


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, name: str, kind: Kind, parent: bytes | None, links: Sequence[bytes] = (), /) -> Span:
        """A span below `parent`, or the first of a new trace. `links`: other contexts that led to it."""
        ...


@dataclass(frozen=True, slots=True)
class PassedOn:
    """The span of a service that does not trace: it passes on the context that it was given."""

    context: bytes | None

    def end(self, _error: str = "", _attributes: Mapping[str, Attribute] = NOTHING, /) -> None:
        """Do nothing: nobody collects it."""


class Untraced:
    """The tracer of a service that does not trace."""

    def begin(self, _name: str, _kind: Kind, parent: bytes | None, _links: Sequence[bytes] = (), /) -> Span:
        """A span that only passes on `parent`."""
        return PassedOn(parent)


UNTRACED: Final = Untraced()
