"""Several hosts in one URL: find the host that a connection uses. Trying a silent host first would cost the whole of CONNECT."""

from typing import NamedTuple

from psycopg import ConnectionInfo
from psycopg.conninfo import conninfo_to_dict, make_conninfo


class ConnectedHost(NamedTuple):
    """The host of a connection as the URL names it, its address (empty for a Unix socket), its port."""

    host: str
    hostaddr: str
    port: int


def connected_host(info: ConnectionInfo) -> ConnectedHost:
    return ConnectedHost(info.host, info.hostaddr, info.port)


def only_at(url: str, place: ConnectedHost) -> str:
    """The URL with only this host."""
    return make_conninfo(url, host=place.host, hostaddr=place.hostaddr, port=str(place.port))


def found_first(url: str, place: ConnectedHost) -> str:
    """The URL with this host first. Unchanged if it has one host only, or not this one."""
    said = conninfo_to_dict(url)
    lists = {name: str(said[name]).split(",") for name in ("host", "hostaddr", "port") if said.get(name)}
    count = max(len(lists.get("host", [])), len(lists.get("hostaddr", [])))
    found = next((n for n in range(count) if _is(lists, n, place)), 0)
    if found == 0:
        return url
    order = [found, *(n for n in range(count) if n != found)]
    return make_conninfo(url, **{name: ",".join(each[n] for n in order) for name, each in lists.items() if len(each) == count})


def _is(lists: dict[str, list[str]], n: int, place: ConnectedHost) -> bool:
    """Whether the nth host is this one. A single port is the port of every host."""
    host, hostaddr = (lists[name][n] if name in lists else "" for name in ("host", "hostaddr"))
    ports = lists.get("port", [""])
    port = int(ports[n if len(ports) > 1 else 0] or 5432)
    return (host or hostaddr, port) == (place.host, place.port) and hostaddr in ("", place.hostaddr)
