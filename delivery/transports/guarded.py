"""Connections to addresses that somebody else has chosen: URLs of webhooks and of key sets.

Every address is checked when the connection is made, not when the name is looked up, so no answer of a name server leads inside.
"""

import ipaddress
import socket
import ssl
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from delivery.consumers import Allowed

ADDRESS_REFUSED: Final = "address_refused"
_host: ContextVar[str] = ContextVar("host")


class AddressRefusedError(OSError):
    """The host leads to an address that may not be reached."""


def connecting_to(url: str) -> None:
    """Note in this context the host name for which connections are made; LEDGER_WEBHOOK_ALLOW can name it."""
    _host.set(urlsplit(url).hostname or "")


def guarded_connector(allowed: Allowed, *, limit: int, limit_per_host: int = 0) -> aiohttp.TCPConnector:
    """A connector whose sockets lead only to addresses that are allowed, literal addresses too."""

    def made(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        found = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if not allowed.reachable(_host.get(""), found):
            raise AddressRefusedError(ADDRESS_REFUSED)
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened

    return aiohttp.TCPConnector(limit=limit, limit_per_host=limit_per_host, socket_factory=made, ttl_dns_cache=30)


def word_of(failed: Exception) -> str:
    """One word for what went wrong; the exception's own text may hold addresses and is not kept."""
    for cause in _causes(failed):
        if ADDRESS_REFUSED in str(cause):  # several addresses that were all refused come as one error with their texts
            return ADDRESS_REFUSED
        if isinstance(cause, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
            return "tls"
        if isinstance(cause, (aiohttp.ClientConnectorDNSError, socket.gaierror)):
            return "name_not_found"
        if isinstance(cause, ConnectionRefusedError):
            return "connection_refused"
    return "connection_broken" if isinstance(failed, (aiohttp.ClientError, OSError)) else "not_sent"


def _causes(failed: BaseException) -> list[BaseException]:
    found: list[BaseException] = [failed]
    while (following := found[-1].__cause__ or found[-1].__context__) is not None and following not in found:
        found.append(following)
    if isinstance(failed, aiohttp.ClientConnectorError):
        found.append(failed.os_error)
    return found
