"""Acts of operators on a directory of a running service, and its log."""

from typing import Any

from tests.acceptance.conftest import Service

TRIES = 12  # of ten seconds each


def pause(service: Service) -> None:
    _act(service, "pause", "paused")


def resume(service: Service) -> None:
    _act(service, "resume", "active")


def close(service: Service) -> None:
    _act(service, "close", "closed", confirm="acme")


def _act(service: Service, verb: str, state: str, **more: str) -> None:
    with service.client("admin") as admin:
        headers = {"Content-Type": "application/json"}
        answer = admin.post(f"{service.base}/v1/directories/acme/{verb}", json={"reason": "a test", **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] in {state, "deleted"}, "a small directory is cleaned up within the deadline"


def events_of(service: Service, **params: Any) -> list[dict[str, Any]]:
    """All events of the directory."""
    found: list[dict[str, Any]] = []
    after = None
    with service.client("consumer") as reader:
        while True:
            asked = {"directory": "acme", "limit": 1000, **params} | ({"after": after} if after else {})
            answer = reader.get(service.base + "/v1/events", params=asked)
            assert answer.status_code == 200, answer.text
            found += answer.json()["data"]
            after = answer.json()["list_metadata"]["after"]
            if not answer.json()["has_more"]:
                return found


def arrives(service: Service, kind: str) -> None:
    """Wait until the directory's log has an event of a type."""
    with service.client("consumer") as reader:
        after = None
        for _ in range(TRIES):
            asked = {"directory": "acme", "types": kind, "wait": 10} | ({"after": after} if after else {})
            page = reader.get(service.base + "/v1/events", params=asked).json()
            if page["data"]:
                return
            after = page["list_metadata"]["after"]
    raise AssertionError(f"{kind} did not come")
