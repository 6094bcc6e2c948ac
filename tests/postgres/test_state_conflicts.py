"""An act that the state of its target does not allow is answered 409 with its own code and a message that says what to do
(docs/events.md).
"""

from typing import Any
from uuid import uuid4

from tests.postgres.test_tokens_http import Edge, run

PULL: dict[str, Any] = {"directories": ["acme"], "start": "now"}
HOOK: dict[str, Any] = {**PULL, "mode": "webhook", "url": "https://93.184.215.14/hooks"}
SCHEMA: dict[str, Any] = {
    "id": "urn:example:badge", "name": "Badge",
    "attributes": [{"name": "number", "type": "string", "multiValued": False}],
}  # fmt: skip
PROFILE: dict[str, Any] = {"profile": {"name": "ours", "version": 1, "title": "Ours"}}
REPLAY: dict[str, Any] = {"from": "beginning", "reason": "r"}
REASON = {"reason": "r"}


async def prepare(edge: Edge) -> dict[str, str]:
    """Make things in states that refuse something; returns their ids by name."""

    async def done(method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await edge.ask(method, path, body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else {}

    ids = {name: (await edge.issue(role="auditor"))["id"] for name in ("rotated", "revoked", "expired")}
    await done("POST", f"/v1/tokens/{ids['rotated']}/rotate", {})
    await done("POST", f"/v1/tokens/{ids['expired']}/rotate", {"overlap_seconds": 0})
    await done("DELETE", f"/v1/tokens/{ids['revoked']}", REASON)
    await done("POST", "/v1/directories/other/close", {**REASON, "confirm": "other"})
    await done("PUT", "/v1/consumers/pulls", PULL)
    await done("PUT", "/v1/consumers/pushed", HOOK)
    ids["run"] = (await done("POST", "/v1/replays", {**REPLAY, "consumer": "pushed"}))["id"]
    await done("POST", f"/v1/replays/{ids['run']}/cancel")
    await done("POST", "/v1/directories/acme/schemas", {"schema": SCHEMA})
    return ids


def requests(ids: dict[str, str]) -> list[tuple[str, str, Any, str, str]]:
    """The requests, each with its code and a word of the advice."""
    token, run = "/v1/tokens/", f"/v1/replays/{ids['run']}"
    return [
        ("POST", "/v1/directories/other/pause", REASON, "directory_closed", "another"),
        ("POST", "/v1/directories/other/resume", REASON, "directory_closed", "another"),
        ("PUT", "/v1/directories/other/profile", {"profile": "okta"}, "directory_closed", "another"),
        ("POST", "/v1/directories/other/schemas", {"schema": SCHEMA}, "directory_closed", "another"),
        ("POST", "/v1/tokens", {"role": "scim", "name": "n", "directories": ["other"]}, "directory_closed", "another"),
        ("POST", token + ids["rotated"] + "/rotate", {}, "token_rotated", "successor"),
        ("POST", token + ids["expired"] + "/rotate", {}, "token_expired", "new one"),
        ("POST", token + ids["revoked"] + "/rotate", {}, "token_revoked", "new one"),
        ("POST", run + "/resume", None, "replay_ended", "another"),
        ("POST", run + "/pause", None, "replay_ended", "another"),
        ("POST", "/v1/replays", {**REPLAY, "consumer": "pulls"}, "not_a_webhook", "seek"),
        ("POST", "/v1/consumers/pulls/rotate-secret", {}, "not_a_webhook", "token"),
        ("POST", "/v1/consumers/pulls/ping", None, "not_a_webhook", "pull"),
        ("PUT", "/v1/consumers/pulls", HOOK, "mode_fixed", "another"),
        ("GET", "/v1/consumers/pushed/events", None, "not_a_pull_consumer", "feed"),
        ("POST", "/v1/directories/acme/schemas", {"schema": {**SCHEMA, "name": "Other"}}, "name_taken", "new id"),
        ("POST", "/v1/directories", {"slug": "acme"}, "name_taken", "another"),
    ]


def test_a_conflict_with_the_state_of_the_target_is_409_with_a_code_and_advice(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        wrong: list[str] = []
        for method, path, body, code, words in requests(await prepare(edge)):
            answer = await edge.ask(method, path, body)
            said = answer.json()
            if (answer.status_code, said.get("code")) != (409, code) or words not in said["detail"]:
                wrong.append(f"{method} {path}: {answer.status_code}, not {code} with {words!r}: {answer.text}")
        assert not wrong, "\n".join(wrong)

    run(app_url, check)


def test_an_act_whose_result_exists_already_is_no_conflict(app_url: str) -> None:
    """Two callers send the same act: the second finds the state that it wanted."""

    async def check(edge: Edge) -> None:
        ids = await prepare(edge)
        for method, path, body in (
            ("POST", "/v1/directories/other/close", {**REASON, "confirm": "other"}),
            ("DELETE", f"/v1/tokens/{ids['revoked']}", REASON),
            ("POST", f"/v1/replays/{ids['run']}/cancel", None),
            ("POST", "/v1/directories/acme/resume", REASON),
            ("POST", "/v1/directories/acme/schemas", {"schema": SCHEMA}),
        ):
            assert (await edge.ask(method, path, body)).status_code < 300, path
        assert (await edge.ask("POST", f"/v1/tokens/{uuid4()}/rotate", {})).status_code == 404

    run(app_url, check)


def test_runs_are_listed_page_by_page_newest_first(app_url: str) -> None:
    async def check(edge: Edge) -> None:
        async def made(path: str, body: Any) -> dict[str, Any]:
            answer = await edge.ask("PUT" if path.startswith("/v1/consumers") else "POST", path, body)
            assert answer.status_code < 300, answer.text
            return answer.json()

        for name, slug in (("ours", "acme"), ("theirs", "other")):
            await made(f"/v1/consumers/{name}", {**HOOK, "directories": [slug]})
        ids = [(await made("/v1/replays", {**REPLAY, "consumer": name}))["id"] for name in ("ours", "theirs", "ours", "ours")]
        narrowed = (await edge.issue(role="operator", directories=["acme"]))["token"]
        mine = [ids[n] for n in (3, 2, 0)]
        for token, query, expected in (
            ("", {}, ids[::-1]), ("", {"consumer": "ours"}, mine), (narrowed, {}, mine), (narrowed, {"consumer": "ours"}, mine),
        ):  # fmt: skip
            found: list[str] = []
            after: dict[str, str] = {}
            while True:
                page = (await edge.ask("GET", "/v1/replays", token=token, limit="1", **query, **after)).json()
                assert len(page["data"]) == 1
                found += [row["id"] for row in page["data"]]
                if not page["has_more"]:
                    break
                after = {"after": page["list_metadata"]["after"]}
            assert found == expected
        hidden, missing = [
            await edge.ask("GET", "/v1/replays", token=narrowed, after=number) for number in (ids[1], str(uuid4()))
        ]
        assert (hidden.status_code, hidden.json()["detail"]) == (missing.status_code, missing.json()["detail"])
        assert hidden.json()["errors"][0]["field"] == "after"

    run(app_url, check)
