"""The socket of the service on this machine: only its owner can open it, and the file of a killed service does not disturb the
next one.
"""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import local_socket
from runtime.local_socket import answering, socket_path


def open_door(data_dir: Path, url: str | None = None):
    return local_socket.local_socket(data_dir, url)


def test_only_its_owner_may_open_it_and_it_is_removed_at_the_end(tmp_path: Path) -> None:
    with open_door(tmp_path):
        path = answering(tmp_path, None)
        assert path == tmp_path / "service.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []
    assert answering(tmp_path, None) is None


def test_the_socket_of_a_killed_service_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "service.sock"))
    left.close()
    assert answering(tmp_path, None) is None, "a file that nobody listens at"
    with open_door(tmp_path):
        assert answering(tmp_path, None) is not None


def test_a_service_removes_only_its_own_socket(tmp_path: Path) -> None:
    """With two releases side by side, the one that started last gets the requests, also after the other one has ended."""
    first = open_door(tmp_path)
    first.__enter__()
    with open_door(tmp_path):
        first.__exit__(None, None, None)
        assert answering(tmp_path, None) is not None
    assert answering(tmp_path, None) is None


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A temporary directory with a short path: those of pytest are too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="sl") as name:
        monkeypatch.setattr(local_socket.tempfile, "gettempdir", lambda: name)
        yield


@pytest.mark.usefixtures("elsewhere")
def test_a_socket_with_a_long_path_is_put_into_a_private_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with open_door(deep):
        path = answering(deep, None)
        assert path is not None
        assert len(os.fsencode(path)) < 108
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("elsewhere")
def test_a_directory_that_others_may_enter_is_not_trusted(tmp_path: Path) -> None:
    """If another user created the directory first, the service must neither use it nor send requests to a socket in it."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    path = socket_path(deep, None)
    path.parent.mkdir(mode=0o700)
    path.parent.chmod(0o755)
    with pytest.raises(PermissionError), open_door(deep):
        pass
    trap = socket.socket(socket.AF_UNIX)
    trap.bind(str(path))
    trap.listen()
    assert answering(deep, None) is None
    trap.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://app:secret@db.example/ledger", "postgresql://app@db.example/ledger"),
        ("host=db.example dbname=ledger password=secret", "host=db.example dbname=ledger "),
    ],
)
def test_the_name_depends_on_the_database_but_not_on_its_password(tmp_path: Path, one: str, other: str) -> None:
    assert socket_path(tmp_path, one) == socket_path(tmp_path, other)
    assert socket_path(tmp_path, one) != socket_path(tmp_path, None)
    assert socket_path(tmp_path, one) != socket_path(tmp_path, one.replace("db.example", "db2.example"))


def test_two_spellings_of_a_path_give_one_socket(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert socket_path(tmp_path / "link", None) == socket_path(tmp_path / "data", None)
