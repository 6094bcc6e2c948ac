"""Reads a small document at a URL that somebody else has chosen: the key set of an OAuth 2.0 client (`jwks_uri`)."""

import ssl
from typing import Final

import aiohttp

from delivery.consumers import Allowed
from delivery.transports.guarded import connecting_to, guarded_connector, word_of

DOCUMENT_BYTES_MAX: Final = 65_536
FETCH_S: Final = 5.0  # for everything: the look-up of the name, the connection and the answer
_HEADERS: Final = {"User-Agent": "scim-ledger/1", "Accept": "application/jwk-set+json, application/json"}


class FetchError(Exception):
    """The document cannot be had; the text is one word, without the address."""


async def fetch(allowed: Allowed, url: str) -> bytes:
    """The document at a URL. No redirect is followed, because it would lead where nobody checked. Raises FetchError."""
    session = aiohttp.ClientSession(
        connector=guarded_connector(allowed, limit=1),
        timeout=aiohttp.ClientTimeout(total=FETCH_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=_HEADERS,
    )
    try:
        connecting_to(url)
        async with session, session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response:
            if response.status != 200:
                raise FetchError("redirect" if 300 <= response.status < 400 else f"http_{response.status}")
            return await _whole(response.content)
    except TimeoutError as late:
        raise FetchError("timeout") from late
    except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as failed:
        raise FetchError(word_of(failed)) from failed


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """The body. Raises FetchError as soon as it is too large."""
    parts, size = list[bytes](), 0
    while part := await content.read(DOCUMENT_BYTES_MAX + 1 - size):
        parts.append(part)
        size += len(part)
        if size > DOCUMENT_BYTES_MAX:
            raise FetchError("too_large")
    return b"".join(parts)
