"""The client of the service.

With LEDGER_URL it is any service, with a token; else the service of this machine, through its local socket; else the same application
in this process.
"""

import json
import secrets
import stat
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from runtime.cli.verbs import VERBS
from runtime.client_settings import ClientSettings, client_settings
from runtime.exits import REFUSED, UNREACHABLE, USAGE, CommandError
from runtime.local_socket import answering

# httpx imports its own command line (click, rich, pygments) if these are installed, which takes a third of a second. None makes that
# import fail, and httpx handles the failure.
sys.modules.setdefault("httpx._main", None)  # pyright: ignore[reportArgumentType]

import httpx  # noqa: E402

CONNECT_S: Final = 5.0
READ_S: Final = 120.0  # seconds between two pieces of an answer; an audit may compute for long
ROWS_PAGE: Final = 1_000  # rows of one page of a list
LOCAL_NAME: Final = "http://localhost"
_NOT_UNDERSTOOD: Final = frozenset({400, 413, 414, 431})


@dataclass(frozen=True, slots=True)
class Service:
    """A service that commands send requests to."""

    http: httpx.Client
    place: str  # its address, for error sentences

    def ask(
        self,
        verb: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        condition: str | None = None,
        **places: str,
    ) -> Any:
        """Call the route of a verb. `condition`: a header whose value is `*`. Raises CommandError without an answer, and for any answer but 2xx."""
        request = self._request(verb, query, body, key, places)
        if condition is not None:
            request.headers[condition] = "*"
        with self._reaching():
            answer = self.http.send(request)
        return _read(answer)

    def lines(self, verb: str, *, query: Mapping[str, Any] | None = None, **places: str) -> Iterator[str]:
        """The lines of a streamed answer, as they come."""
        request = self._request(verb, query, None, None, places)
        with self._reaching():
            answer = self.http.send(request, stream=True)
            try:
                if not answer.is_success:
                    answer.read()
                    _read(answer)
                yield from answer.iter_lines()
            finally:
                answer.close()

    def pages(self, verb: str, *, query: Mapping[str, Any] | None = None, **places: str) -> Iterator[dict[str, Any]]:
        """The pages of a list. `seq:head` is resolved at the first page, and the next ones use that seq."""
        asked = dict(query or {})
        while True:
            page = self.ask(verb, query=asked, **places)  # pyright: ignore[reportArgumentType]  # no path parameter is called body
            yield page
            after = page.get("list_metadata", {}).get("after")
            if after is None:
                return
            asked["after"] = after
            if "as_of" in page:
                asked["as_of"] = f"seq:{page['as_of']['seq']}"

    def listed(
        self, verb: str, *, limit: int | None = None, query: Mapping[str, Any] | None = None, **places: str
    ) -> dict[str, Any]:
        """A list from its first page on, all of it or at most `limit` rows, in the form of one page."""
        rows, asked = list[Any](), dict(query or {})
        while True:
            if limit is not None:
                asked["limit"] = min(limit - len(rows), ROWS_PAGE)
            page = self.ask(verb, query=asked, **places)  # pyright: ignore[reportArgumentType]  # no path parameter is called body
            rows += page["data"]
            after = page.get("list_metadata", {}).get("after")
            more = page.get("has_more", after is not None)
            if not more or len(rows) == limit:
                return {"object": "list", "data": rows, "list_metadata": {"after": after}, "has_more": more}
            asked |= {"after": after, "from": None}  # the place where the first page began

    def _request(
        self,
        verb: str,
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        key: str | None,
        places: Mapping[str, str],
    ) -> httpx.Request:
        method, template = VERBS[verb]
        path = template.format_map({name: _segment(name, value) for name, value in places.items()})
        headers = {"Idempotency-Key": key or secrets.token_urlsafe(24)} if method == "POST" else {}
        params = {name: value for name, value in (query or {}).items() if value is not None}
        sent = {name: value for name, value in body.items() if value is not None} if body is not None else None
        return self.http.build_request(method, path, params=params, json=sent, headers=headers)

    @contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            with _an_address():
                yield
        except httpx.TimeoutException as slow:
            raise CommandError(f"{self.place} does not answer in time.", UNREACHABLE) from slow
        except httpx.TransportError as away:
            raise CommandError(f"{self.place} cannot be reached: {away}", UNREACHABLE) from away


@contextmanager
def _an_address() -> Generator[None]:
    try:
        yield
    except httpx.InvalidURL:
        text = "LEDGER_URL is not an address: it is like https://ledger.example.com:8000."
        raise CommandError(text, USAGE) from None  # httpx's sentence quotes parts of the URL, which may contain a password


def _segment(name: str, value: str) -> str:
    if value in {"", ".", ".."}:
        raise CommandError(f'"{value}" is no {name.replace("_", " ")}.', USAGE)
    return quote(value, safe="")


def _read(answer: httpx.Response) -> Any:
    try:
        found = json.loads(answer.content) if answer.content else None
    except ValueError:
        found = None
    if answer.is_success:
        return found
    problem: dict[str, Any] = found if isinstance(found, dict) else {"status": answer.status_code}
    text = problem.get("detail") or f"The service answered {answer.status_code}."
    raise CommandError(str(text), _exit_code(answer.status_code), problem)


def _exit_code(status: int) -> int:
    """The exit code of a status. 400 and 413 are usage errors."""
    if status >= 500:
        return UNREACHABLE
    return USAGE if status in _NOT_UNDERSTOOD else REFUSED


def is_running() -> bool:
    """Whether commands ask a service that runs already, and not a ledger that is opened for them. Raises OSError."""
    settings = client_settings()
    return settings.url is not None or answering(settings.data_dir, settings.database_url) is not None


@contextmanager
def service() -> Generator[Service]:
    """The service of this command, for the time of the block."""
    settings = client_settings()
    headers = _headers(settings)
    timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
    with ExitStack() as stack:
        if settings.url is not None:
            url = settings.url.rstrip("/")
            if not headers:
                raise CommandError("LEDGER_URL is set, but no token: set LEDGER_TOKEN, or LEDGER_TOKEN_FILE.", USAGE)
            if not url.startswith(("http://", "https://")):
                raise CommandError("LEDGER_URL is not understood: it begins with http:// or https://.", USAGE)
            if "@" in url:
                raise CommandError("LEDGER_URL carries a user name or password: leave it out, and set LEDGER_TOKEN_FILE.", USAGE)
            with _an_address():
                http = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=timeout))
            yield Service(http, url)
            return
        transport, place = _of_this_machine(settings, stack)
        http = stack.enter_context(
            httpx.Client(base_url=LOCAL_NAME, headers=headers, timeout=timeout, transport=transport, trust_env=False)
        )
        yield Service(http, place)


def ask(
    verb: str,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    key: str | None = None,
    condition: str | None = None,
    **places: str,
) -> Any:
    """Call the route of one verb."""
    with service() as found:
        return found.ask(verb, query=query, body=body, key=key, condition=condition, **places)


def _of_this_machine(settings: ClientSettings, stack: ExitStack) -> tuple[httpx.BaseTransport, str]:
    try:
        path = answering(settings.data_dir, settings.database_url)
    except OSError as closed:
        raise CommandError(f"The service of this machine cannot be reached: {closed}", UNREACHABLE) from closed
    if path is not None:
        return httpx.HTTPTransport(uds=str(path), verify=False), f"The service at {path}"
    from runtime.local import own_transport

    return stack.enter_context(own_transport()), "The ledger"


def _headers(settings: ClientSettings) -> dict[str, str]:
    token = settings.token or _token_of_file(settings)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token_of_file(settings: ClientSettings) -> str | None:
    path = settings.token_file
    if path is None:
        return None
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            print(f"Others can read {path}, the file with the token: chmod 600 {path}", file=sys.stderr)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as unreadable:
        raise CommandError(f"LEDGER_TOKEN_FILE {path} cannot be read.", USAGE) from unreadable
    if not token or len(token.split()) != 1:
        raise CommandError(f"LEDGER_TOKEN_FILE {path} holds no token.", USAGE)
    return token
