"""A serving process that is started again while the database is away."""

import asyncio
import gc
import os
import socket
import zlib
from pathlib import Path

import httpx
import pytest

from ledger.sealing import Kek
from runtime import serve
from runtime.bootstrap import Urls
from runtime.process_figures import Process
from runtime.settings import Settings

WELL_FORMED = f"sl_scim_0_0{zlib.crc32(b'sl_scim_0_0'):08x}"


def test_it_accepts_connections_and_says_what_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier, it ended before it accepted any connection, again and again: clients got no answer."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    key = os.urandom(32)
    settings = Settings(data_dir=tmp_path)
    away = f"host={tmp_path} dbname=x user=x"

    async def run() -> list[httpx.Response]:
        with socket.create_server(("127.0.0.1", 0)) as door:
            signals = serve.Signals()
            serving = asyncio.create_task(
                serve._served(settings, Urls(away, away), serve.Doors(door, None), signals, Kek.of(key), Process("serve-1"))
            )
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{door.getsockname()[1]}", timeout=8) as http:
                asked = asyncio.gather(
                    http.get("/readyz"), http.get("/scim/acme/v2/Users", headers={"Authorization": f"Bearer {WELL_FORMED}"})
                )
                await asyncio.wait([serving, asked], return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    await serving
                answers = await asked
            assert signals.server is not None
            signals.server.should_exit = True
            await serving
            return list(answers)

    ready, users = asyncio.run(run())
    assert (ready.status_code, ready.json()["part"], ready.json()["reason"]) == (503, "database", "no_answer")
    assert users.status_code == 503
