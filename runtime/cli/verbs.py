"""The route of each verb of the command line: method and path.

A test compares it with the routes of the application: each verb has a route, and each route a verb.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Route(NamedTuple):
    """A method and a path with its parameters."""

    method: str
    template: str


def _get(template: str) -> Route:
    return Route("GET", template)


def _post(template: str) -> Route:
    return Route("POST", template)


_DIRECTORY = "/v1/directories/{directory}"
_CONSUMER = "/v1/consumers/{name}"
_BLOCKED = f"{_CONSUMER}/blocked/{{event_id}}"
_PARKED = f"{_CONSUMER}/parked/{{event_id}}"
_REPLAY = "/v1/replays/{replay_id}"
_AUDIT = "/v1/audit/{directory}"

VERBS: Final[Mapping[str, Route]] = {
    "doctor": _get("/readyz"),  # and then the health of each directory and consumer
    "directory create": _post("/v1/directories"),
    "directory list": _get("/v1/directories"),
    "directory show": _get(_DIRECTORY),
    "directory pause": _post(f"{_DIRECTORY}/pause"),
    "directory resume": _post(f"{_DIRECTORY}/resume"),
    "directory close": _post(f"{_DIRECTORY}/close"),
    "directory accept-clock": _post(f"{_DIRECTORY}/accept-clock"),
    "directory doctor": _get(f"{_DIRECTORY}/health"),
    "directory snapshot": _get(f"{_DIRECTORY}/snapshot"),
    "directory profile list": _get("/v1/profiles"),
    "directory profile show": _get("/v1/profiles/{profile}"),
    "directory profile of": _get(f"{_DIRECTORY}/profile"),
    "directory profile set": Route("PUT", f"{_DIRECTORY}/profile"),
    "directory profile validate": _post("/v1/profiles/validate"),
    "directory profile try": _post("/v1/profiles/try"),
    "directory schema list": _get(f"{_DIRECTORY}/schemas"),
    "directory schema add": _post(f"{_DIRECTORY}/schemas"),
    "directory surge show": _get(f"{_DIRECTORY}/surge"),
    "directory surge set": Route("PUT", f"{_DIRECTORY}/surge"),
    "directory surge release": _post(f"{_DIRECTORY}/surge/release"),
    "directory rate-limit show": _get(f"{_DIRECTORY}/rate-limit"),
    "directory rate-limit set": Route("PUT", f"{_DIRECTORY}/rate-limit"),
    "directory rate-limit reset": Route("DELETE", f"{_DIRECTORY}/rate-limit"),
    "user list": _get(f"{_DIRECTORY}/users"),
    "user show": _get(f"{_DIRECTORY}/users/{{user}}"),
    "group list": _get(f"{_DIRECTORY}/groups"),
    "group show": _get(f"{_DIRECTORY}/groups/{{group}}"),
    "token issue": _post("/v1/tokens"),
    "token list": _get("/v1/tokens"),
    "token report": _get("/v1/tokens/report"),
    "token show": _get("/v1/tokens/{token}"),
    "token rotate": _post("/v1/tokens/{token}/rotate"),
    "token revoke": Route("DELETE", "/v1/tokens/{token}"),
    "client create": _post("/v1/clients"),
    "client list": _get("/v1/clients"),
    "client show": _get("/v1/clients/{client}"),
    "client rotate": _post("/v1/clients/{client}/rotate"),
    "client revoke": Route("DELETE", "/v1/clients/{client}"),
    "key list": _get("/v1/keys"),
    "events list": _get("/v1/events"),
    "events tail": _get("/v1/events"),
    "events get": _get("/v1/events/{event_id}"),
    "consumer create": Route("PUT", _CONSUMER),
    "consumer update": Route("PUT", _CONSUMER),
    "consumer list": _get("/v1/consumers"),
    "consumer show": _get(_CONSUMER),
    "consumer delete": Route("DELETE", _CONSUMER),
    "consumer pause": _post(f"{_CONSUMER}/pause"),
    "consumer resume": _post(f"{_CONSUMER}/resume"),
    "consumer close-fork": _post(f"{_CONSUMER}/forked/close"),
    "consumer rotate-secret": _post(f"{_CONSUMER}/rotate-secret"),
    "consumer ping": _post(f"{_CONSUMER}/ping"),
    "consumer pull": _get(f"{_CONSUMER}/events"),
    "consumer ack": _post(f"{_CONSUMER}/ack"),
    "consumer seek": _post(f"{_CONSUMER}/seek"),
    "consumer audit": _get(f"{_CONSUMER}/audit"),
    "blocked list": _get(f"{_CONSUMER}/blocked"),
    "blocked retry": _post(f"{_BLOCKED}/retry"),
    "blocked park": _post(f"{_BLOCKED}/park"),
    "blocked skip": _post(f"{_BLOCKED}/skip"),
    "parked list": _get(f"{_CONSUMER}/parked"),
    "parked retry": _post(f"{_PARKED}/retry"),
    "parked skip": _post(f"{_PARKED}/skip"),
    "replay plan": _post("/v1/replays"),
    "replay run": _post("/v1/replays"),
    "replay list": _get("/v1/replays"),
    "replay status": _get(_REPLAY),
    "replay pause": _post(f"{_REPLAY}/pause"),
    "replay resume": _post(f"{_REPLAY}/resume"),
    "replay cancel": _post(f"{_REPLAY}/cancel"),
    "audit population": _get(f"{_AUDIT}/population"),
    "audit user": _get(f"{_AUDIT}/users/{{user}}"),
    "audit access": _get(f"{_AUDIT}/users/{{user}}/access"),
    "audit members": _get(f"{_AUDIT}/groups/{{group}}/members"),
    "audit diff": _get(f"{_AUDIT}/diff"),
    "erase plan": _post(f"{_DIRECTORY}/erasures"),
    "erase run": _post(f"{_DIRECTORY}/erasures"),
    "erase list": _get(f"{_DIRECTORY}/erasures"),
    "erase receipt": _get(f"{_DIRECTORY}/erasures/{{erasure}}"),
    "hold place": _post(f"{_DIRECTORY}/holds"),
    "hold list": _get(f"{_DIRECTORY}/holds"),
    "hold show": _get(f"{_DIRECTORY}/holds/{{hold}}"),
    "hold release": Route("DELETE", f"{_DIRECTORY}/holds/{{hold}}"),
    "requests list": _get("/v1/requests"),
}
# Verbs that have no route because they work on the machine itself (docs/operations.md, "The command line").
LOCAL: Final = frozenset(
    {
        "serve",
        "migrate",
        "backup",
        "restore",
        "settings",
        "demo",
        "completion",
        "replay rebuild",
        "replay verify",
        "key rotate",
        "key rewrap",
        "key destroy",
        "erase scan",
    }
)
# Further routes of a verb, under a name that is no command -> the verb.
PART_OF_ANOTHER: Final[Mapping[str, str]] = {"directory profile of": "directory profile show"}
