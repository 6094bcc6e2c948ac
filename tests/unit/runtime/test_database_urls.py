"""The URL of a database: it is accepted, or refused with a message that repeats no part of it."""

import traceback

import pytest
from pydantic import SecretStr

from runtime.bootstrap import StartError, configured_urls
from runtime.settings import Settings

WRONG = (
    "hunter2", "u hunter2", "postgresql://u:hunter2@[::1/x", "postgresql://u:hunter2@127.0.0.1:port/x", "postgresql://u:hunter2%zz@h/x",
    "postgres//u:hunter2@h/x", "postgresql+psycopg://u:hunter2@h/x", "mysql://u:hunter2@h/x", "postgresql://u:p@hunter2@h/x",
    "postgresql://u:hunter2/3@h/x", "postgresql://u:12/hunter2@h/x", "postgresql://u:p@h/x?hunter2=1", "host=h pasword=hunter2",
)  # fmt: skip
RIGHT = (
    "postgresql://u:hunter2@h/x", "postgresql://u%40server:hunter%402@h:1/x", "host=h port=1 password=hunter2", "postgresql:///x?host=/tmp",
    "postgresql://u:hunter2@one:1,two:2/x?target_session_attrs=read-write",
)  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("name", ["database_url", "migrate_url"])
def test_no_part_of_an_invalid_url_is_shown(url: str, name: str) -> None:
    settings = Settings(**{"database_url": SecretStr(RIGHT[0]), name: SecretStr(url)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(StartError, match=f"LEDGER_{name.upper()} is not understood") as refused:
        configured_urls(settings)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("url", RIGHT)
def test_a_valid_url_is_used_unchanged(url: str) -> None:
    urls = configured_urls(Settings(database_url=SecretStr(url)))  # pyright: ignore[reportCallIssue]
    assert urls is not None
    assert (urls.serve, urls.migrate) == (url, url)
    assert "hunter" not in repr(urls)
