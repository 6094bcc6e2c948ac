"""Log lines of libraries never contain the values that an error quotes: values of a request, connection strings."""

import subprocess
import sys

import pytest

CANARY = "canary-3f9c"
ASYNCIO = """
async def fails():
    raise ValueError("canary-3f9c")
async def main():
    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
asyncio.run(main())
"""
UVICORN = """
try:
    raise ValueError("canary-3f9c") from KeyError("canary-3f9c")
except ValueError:
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application\\n")
"""


@pytest.mark.parametrize(("code", "name"), [(ASYNCIO, "asyncio"), (UVICORN, "uvicorn.error")])
def test_an_error_is_logged_by_its_type_and_places(code: str, name: str) -> None:
    start = "import asyncio, gc, logging\nfrom runtime.logs import configure_logs\nconfigure_logs('json')\n"
    said = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60, check=True).stderr
    assert CANARY not in said
    assert f"ERROR {name} " in said
    assert "ValueError <string>:" in said
