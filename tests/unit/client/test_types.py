"""The types of events narrow by `type` and by what `data` has. The type gate reads this module too (pyproject.toml)."""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

import json
import re
from pathlib import Path
from typing import assert_type, cast

from scim_ledger_client import Event
from scim_ledger_client.events import MemberReference, ReplayProgress, UserData

PAGE = Path(__file__).parents[3] / "docs" / "events.md"


def told(event: Event) -> str:
    """What a program does with events, each value with its exact type."""
    if event["type"] == "user.updated":
        if "object" in event["data"]:
            assert_type(event["data"], UserData)
            return f"{event['data']['object']['userName']}: {[change['path'] for change in event['data']['changes']]}"
        return "withheld" if "withheld" in event["data"] else "gone"
    if event["type"] == "group.member_added":
        assert_type(event["data"]["member"], MemberReference)
        assert_type(event["data"]["effective"], bool)
        return event["data"]["member"]["id"]
    if event["type"] == "replay.paused" and "object" in event["data"]:
        assert_type(event["data"]["object"], ReplayProgress)
        return f"{event['data']['object']['done']} of {event['data']['object']['total']}"
    return event["type"]


def _mistakes(event: Event) -> None:
    """Each line is a mistake that the type gate must find: an ignored line without one is an error of the gate."""
    print(event["type"] == "user.renamed")  # pyright: ignore[reportUnnecessaryComparison]
    print(event["nothing"])  # pyright: ignore[reportGeneralTypeIssues]
    print(event["data"]["object"])  # pyright: ignore[reportGeneralTypeIssues]
    print(event["seq"].upper())  # pyright: ignore[reportAttributeAccessIssue]


def test_documented_events_are_read_with_their_types() -> None:
    found = re.findall(r"^### `([\w.]+)`\n\n.*?```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    events = {topic: cast("Event", json.loads(text)) for topic, text in found}
    assert told(events["user.updated"]) == "ada@example.com: ['name.familyName']"
    assert told(events["group.member_added"]) == "dd8d0522-4abd-4f77-a807-30807f1af3da"
    assert told(events["replay.paused"]) == "0 of 3"
    assert told(events["user.created"]) == "user.created"
