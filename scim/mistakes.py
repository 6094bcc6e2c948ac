"""Mistakes in the URL or the token of a connection, which an IdP's admin makes before any request is served.

They are counted by directory, and explained in the journal and in the health of the directory. The IdP is told nothing of it: its
answer is the same as a stranger's.
"""

import re
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

_CLAIM: Final = re.compile(r"sl_[a-z]{1,10}_([0-9a-f]{32})(?![0-9a-f])")
_QUOTED: Final = re.compile(
    r"['\"`<\xab]|\xe2\x80|\xc2\xab"
)  # also typographic quotes, which arrive as the latin-1 of their UTF-8
_SHOWN: Final = 200  # characters of a header that are searched: a whole token is shorter


class Mistake(StrEnum):
    """One mistake. `detail` is what happened, `fix` what the admin does, `status` the answer that the IdP got."""

    detail: str
    fix: str
    status: int

    def __new__(cls, name: str, status: int, detail: str, fix: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.status, member.detail, member.fix = status, detail, fix
        return member

    NO_TOKEN = (
        "no_token",
        401,
        "Requests came without a token.",
        "Enter the token of role scim in the IdP, and choose the authentication by an HTTP header (Authorization: Bearer TOKEN).",
    )
    NOT_A_TOKEN = (
        "not_a_token",
        401,
        "Requests came with a text in the Authorization header that is no token of this service.",
        "Copy the whole token into the IdP, without quotes or spaces, and with Bearer before it where the IdP does not add it.",
    )
    WRONG_SECRET = (
        "wrong_secret",
        401,
        "Requests came with the id of this token and another secret.",
        "The token was cut or mistyped, or somebody tries to guess it: enter it again. If it is lost, rotate it and enter the new one.",
    )
    NO_BEARER = (
        "no_bearer",
        401,
        "Requests came with a token of this directory without the word Bearer before it.",
        "The header is Authorization: Bearer TOKEN. If the IdP sends the value as it is, enter Bearer, a space and the token.",
    )
    BEARER_TWICE = (
        "bearer_twice",
        401,
        "Requests came with a token of this directory and the word Bearer before it twice.",
        "The IdP adds the word Bearer: enter the token alone.",
    )
    IN_QUOTES = (
        "in_quotes",
        401,
        "Requests came with a token of this directory in quotes.",
        "Enter the token again, without quotes or other signs around it.",
    )
    NO_V2 = (
        "no_v2",
        404,
        "Requests came to a URL without /v2 after the directory.",
        "The base URL in the IdP ends in /scim/DIRECTORY/v2: correct it.",
    )
    NO_SCIM = (
        "no_scim",
        404,
        "Requests came to a URL without /scim before the directory.",
        "The base URL in the IdP ends in /scim/DIRECTORY/v2: correct it.",
    )
    WRONG_SLUG = (
        "wrong_slug",
        403,
        "Requests came with a token of this directory to the URL of another directory, or of one that does not exist.",
        "The base URL in the IdP has the name of this directory, /scim/DIRECTORY/v2: correct it.",
    )
    FOREIGN_TOKEN = (
        "foreign_token",
        403,
        "Requests came to the URL of this directory with a token of another directory.",
        "Enter a token of role scim of this directory in the IdP; or correct the URL, if the IdP belongs to the other directory.",
    )


_OF_A_TOKEN: Final = {Mistake.WRONG_SECRET, Mistake.NO_BEARER, Mistake.BEARER_TWICE, Mistake.IN_QUOTES}  # which has to exist


def mistake_in(authorization: str | None) -> tuple[Mistake, UUID | None]:
    """What is wrong with an Authorization header that was refused, and the id of the token that it claims to be."""
    if not authorization:
        return Mistake.NO_TOKEN, None
    claimed = _CLAIM.search(authorization[:_SHOWN])
    return (Mistake.NOT_A_TOKEN, None) if claimed is None else (_before(authorization[: claimed.start()]), UUID(hex=claimed[1]))


def _before(text: str) -> Mistake:
    """What is wrong with an Authorization header whose token has this text before it (RFC 9110 §11.4: a scheme and a space)."""
    if _QUOTED.search(text):
        return Mistake.IN_QUOTES
    words = text.lower().split()
    if words == ["bearer"] and text[-1] == " ":
        return Mistake.WRONG_SECRET
    return Mistake.BEARER_TWICE if words[:2] == ["bearer", "bearer"] else Mistake.NO_BEARER


def meant(mistake: Mistake, placed: int | None, owner: int | None) -> list[tuple[int, Mistake]]:
    """The directories that a request was meant for, each with its mistake.

    `placed`: the directory in the URL, `owner`: that of the token; None where there is no such one.
    """
    if owner is None:
        known = Mistake.NOT_A_TOKEN if mistake in _OF_A_TOKEN else mistake
        return [] if placed is None else [(placed, known)]
    if placed == owner:
        return [(owner, mistake)]
    if placed is None:
        return [(owner, mistake if mistake in {Mistake.NO_V2, Mistake.NO_SCIM} else Mistake.WRONG_SLUG)]
    return [(placed, Mistake.FOREIGN_TOKEN), (owner, Mistake.WRONG_SLUG)]


def known_mistake(name: str) -> Mistake | None:
    """The mistake of this name; None for one that only another release knows."""
    return Mistake.__members__.get(name.upper())
