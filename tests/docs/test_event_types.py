"""The description of events for other programs: AsyncAPI is valid, the generated types are current and compile."""

from pathlib import Path

import orjson
import pytest

from api.asyncapi import asyncapi_document
from tests.docs.event_types import TYPESCRIPT, WRITTEN
from tests.node.programs import FOLDER, ran

STREAM = Path(__file__).parents[2] / "examples" / "stream.mjs"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_the_generated_types_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == WRITTEN[path](), "run `make docs`"


@pytest.mark.long
def test_the_checker_of_asyncapi_accepts_the_document(tmp_path: Path) -> None:
    path = tmp_path / "asyncapi.json"
    path.write_bytes(orjson.dumps(asyncapi_document()))
    checked = ran("asyncapi", "validate", path, "--fail-severity", "warn")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "asyncapi.json is valid" in checked.stdout + checked.stderr


@pytest.mark.long
def test_the_types_compile_with_a_program_that_uses_them() -> None:
    strict = [
        "--noEmit",
        "--strict",
        "--noUncheckedIndexedAccess",
        "--exactOptionalPropertyTypes",
        "--target",
        "es2022",
        "--moduleResolution",
        "bundler",
        "--module",
        "es2022",
    ]
    javascript = ["--allowJs", "--checkJs", "--skipLibCheck", "--lib", "es2022,dom,dom.asynciterable"]
    compiled = ran("tsc", *strict, *javascript, TYPESCRIPT, FOLDER / "reads_events.ts", STREAM)
    assert compiled.returncode == 0, compiled.stdout
