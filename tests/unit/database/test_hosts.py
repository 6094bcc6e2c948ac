"""Several hosts in one URL: the host that was chosen goes first, with its address and its port; the others follow."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from database.hosts import ConnectedHost, found_first, only_at

URL = "postgresql://u:secret@one:1,two:2,three:3/x?application_name=a"


def parts(url: str) -> tuple[object, object, object]:
    said = conninfo_to_dict(url)
    return said.get("host"), said.get("hostaddr"), said.get("port")


@pytest.mark.parametrize(
    ("url", "place", "expected"),
    [
        (URL, ConnectedHost("two", "10.0.0.2", 2), ("two,one,three", None, "2,1,3")),
        ("host=one,two", ConnectedHost("two", "10.0.0.2", 5432), ("two,one", None, None)),
        ("host=one,two port=7", ConnectedHost("two", "10.0.0.2", 7), ("two,one", None, "7")),
        ("host=one,two port=7,", ConnectedHost("two", "10.0.0.2", 5432), ("two,one", None, ",7")),
        ("host=one,one port=7,8", ConnectedHost("one", "10.0.0.1", 8), ("one,one", None, "8,7")),
        ("host=db,db hostaddr=10.0.0.1,10.0.0.2", ConnectedHost("db", "10.0.0.2", 5432), ("db,db", "10.0.0.2,10.0.0.1", None)),
        ("hostaddr=10.0.0.1,10.0.0.2", ConnectedHost("10.0.0.2", "10.0.0.2", 5432), (None, "10.0.0.2,10.0.0.1", None)),
        ("host=one,/tmp hostaddr=10.0.0.1,", ConnectedHost("/tmp", "", 5432), ("/tmp,one", ",10.0.0.1", None)),
    ],
)
def test_the_chosen_host_goes_first(url: str, place: ConnectedHost, expected: tuple[object, object, object]) -> None:
    put = found_first(url, place)
    assert parts(put) == expected
    rest = {name: value for name, value in conninfo_to_dict(put).items() if name not in ("host", "hostaddr", "port")}
    assert rest == {name: value for name, value in conninfo_to_dict(url).items() if name in rest}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (URL, ConnectedHost("one", "10.0.0.1", 1)),
        (URL, ConnectedHost("elsewhere", "10.0.0.9", 1)),
        (URL, ConnectedHost("two", "10.0.0.2", 1)),
        ("postgresql://u@one/x", ConnectedHost("one", "10.0.0.1", 5432)),
        ("dbname=x", ConnectedHost("/var/run/postgresql", "", 5432)),
    ],
)
def test_a_url_that_begins_with_the_chosen_host_or_lacks_it_is_unchanged(url: str, place: ConnectedHost) -> None:
    assert found_first(url, place) == url


def test_one_server_alone_has_its_name_and_its_address() -> None:
    assert parts(only_at(URL, ConnectedHost("two", "10.0.0.2", 2))) == ("two", "10.0.0.2", "2")
    assert parts(only_at("host=one,/tmp", ConnectedHost("/tmp", "", 5432)))[::2] == ("/tmp", "5432")
