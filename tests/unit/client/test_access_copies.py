"""The function that says what an event does to access stands in the client, in the page, in plain examples and in the demo: all say the same."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scim_ledger_client.access import access_change

from ledger.events import BY_TOPIC
from runtime import demo

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "consumers.md").read_text(encoding="utf-8")
PLAIN = ["pull_consumer.py", "access_list.py"]


def documented() -> str:
    found = re.search(r"```python\n(def access_change.*?)\n\n\n", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def function_of_page() -> Callable[[dict[str, Any]], Any]:
    namespace: dict[str, Any] = {}
    exec(documented(), namespace)
    return namespace["access_change"]


def event(topic: str, effective: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"withheld": True}
    if BY_TOPIC[topic].membership:
        data = {"group": {"id": "g"}, "member": {"type": "User", "id": "m"}, "effective": effective}
    return {"type": topic, "directory": "d", "data": data}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_examples_have_the_function_of_the_page(name: str) -> None:
    source = (ROOT / "examples" / name).read_text(encoding="utf-8")
    (found,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "access_change"]
    assert ast.get_source_segment(source, found) == documented()


@given(st.sampled_from(list(BY_TOPIC)), st.booleans())
def test_page_client_and_demo_say_the_same_of_each_event_type(topic: str, effective: bool) -> None:
    one: Any = event(topic, effective)
    assert function_of_page()(one) == access_change(one) == demo.access_change(one)


def test_who_uses_the_client_uses_its_function() -> None:
    for name in ("client_pull_consumer.py", "client_stream.py", "client_access_list.py"):
        assert "from scim_ledger_client.access import" in (ROOT / "examples" / name).read_text(encoding="utf-8"), name


SCRIPT = """
import { readFileSync } from "node:fs";
const { accessChange } = await import(process.argv[1]);
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(accessChange)));
"""


def test_the_example_in_javascript_says_the_same_of_each_event_type() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    events: list[Any] = [event(topic, effective) for topic in BY_TOPIC for effective in (True, False)]
    command = [node, "--input-type=module", "-e", SCRIPT, str(ROOT / "examples" / "stream.mjs")]
    done = subprocess.run(command, input=json.dumps(events), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = [None if change is None else list(change) for change in map(access_change, events)]
    assert json.loads(done.stdout) == said
