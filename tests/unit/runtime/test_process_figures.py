"""The processes of a service give each other their figures: what each finds in the way, and what is left of killed services."""

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.exposition import Exposition
from database.deadlines import FIGURES
from runtime import local_socket, process_figures
from runtime.process_figures import BYTES_MAX, Process, figures_directory, named_processes


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory with a short path: those of pytest are too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="sl") as name:
        yield Path(os.path.realpath(name))


def figures_of(process: str) -> Exposition:
    return Exposition(process.encode(), b"named " * 100_000)


async def asked(directory: Path, others: tuple[str, ...]) -> dict[str, Exposition | None]:
    return await Process("serve-1", others, directory).ask_others()


def test_each_process_knows_the_others_and_a_replaced_one_has_the_same_name() -> None:
    serving, delivering = named_processes(2, 1, None)
    assert [process.name for process in (*serving, *delivering)] == ["serve-1", "serve-2", "deliver-1"]
    assert serving[1].others == ("serve-1", "deliver-1")


def test_a_process_gives_its_figures_and_so_does_the_one_that_replaces_it(data_dir: Path) -> None:
    async def story(directory: Path) -> None:
        async with contextlib.AsyncExitStack() as killed:
            await killed.enter_async_context(Process("serve-2", (), directory).answering(figures_of))
            async with Process("deliver-1", (), directory).answering(figures_of):
                found = await asked(directory, ("serve-2", "deliver-1"))
        assert found == {name: figures_of(name) for name in ("serve-2", "deliver-1")}
        assert (directory / "serve-2").exists(), "what a killed process leaves"
        assert await asked(directory, ("serve-2",)) == {"serve-2": None}
        async with Process("serve-2", (), directory).answering(figures_of):
            assert await asked(directory, ("serve-2",)) == {"serve-2": figures_of("serve-2")}

    with figures_directory(data_dir) as directory:
        assert directory is not None
        asyncio.run(story(directory))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the other gives up
    writer.close()


async def broken_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"# HELP half\0# HELP")
    writer.close()


async def too_long(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        for _ in range(3 * BYTES_MAX // 2**20):
            writer.write(b"x" * 2**20)
            await writer.drain()


@pytest.mark.parametrize("answer", [silent, broken_off, too_long])
def test_what_does_not_come_whole_and_in_time_counts_as_nothing(data_dir: Path, answer: Callable[..., object]) -> None:
    async def story(directory: Path) -> None:
        server = await asyncio.start_unix_server(answer, directory / "serve-2")  # pyright: ignore[reportArgumentType]
        began = asyncio.get_running_loop().time()
        async with Process("serve-3", (), directory).answering(figures_of):
            found = await asked(directory, ("serve-2", "serve-3"))
        assert found == {"serve-2": None, "serve-3": figures_of("serve-3")}
        assert asyncio.get_running_loop().time() - began < 2 * FIGURES.seconds
        server.close()

    with figures_directory(data_dir) as directory:
        assert directory is not None
        asyncio.run(story(directory))


def test_only_the_owner_may_enter_the_directory_and_it_is_removed_at_the_end(data_dir: Path) -> None:
    with figures_directory(data_dir) as directory:
        assert directory is not None
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "serve-1").touch()
    assert list(data_dir.iterdir()) == []


def test_what_a_killed_service_left_is_removed_and_what_a_running_one_has_is_not(data_dir: Path) -> None:
    left = data_dir / "figures-killed"
    left.mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(left / "serve-1"))
    with figures_directory(data_dir) as first, figures_directory(data_dir) as second:
        assert sorted(data_dir.iterdir()) == sorted([first, second])


def test_a_long_path_leads_to_the_temporary_directory(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket.tempfile, "gettempdir", lambda: str(data_dir))
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with figures_directory(deep) as directory:
        assert directory is not None
        assert data_dir in directory.parents
        assert len(os.fsencode(directory / "deliver-64")) < 104


def test_without_a_directory_or_a_socket_a_process_works_and_others_count_as_down(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(directory: Path | None) -> None:
        async with Process("serve-2", (), directory).answering(figures_of):
            assert await Process("serve-1", ("serve-2",), directory).ask_others() == {"serve-2": None}

    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(process_figures.tempfile, "mkdtemp", full)
    with figures_directory(data_dir) as directory:
        assert directory is None
        asyncio.run(story(directory))
    asyncio.run(story(data_dir / "missing"))
