"""Requests with retries: what a network or a restart interrupts is sent again, and nothing is done twice."""

import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal, TypeAlias
from uuid import uuid4

import httpx

from scim_ledger_client.errors import RefusedError, UnreachableError, refusal
from scim_ledger_client.retries import PASSING, Retries, retry_after_s

Params: TypeAlias = Mapping[str, str | int]
Headers: TypeAlias = Mapping[str, str] | None
Expand: TypeAlias = Sequence[Literal["member", "group"]]
# A long poll of 30 s, and half a minute for a page of 8 MiB.
TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
# A stream says something every 15 s. After twice that its connection is dead.
SILENT: Final = httpx.Timeout(35.0, connect=10.0)
_IN_PROGRESS: Final = "idempotency_in_progress"


class Connection:
    """Sends requests to a ledger. `token` may be a function, which is asked before each request: so a token can be rotated."""

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str],
        *,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.retries = retries or Retries()
        self.sleep = sleep
        self._base = base_url.rstrip("/")
        self._token = token
        self._http = httpx.Client(timeout=TIMEOUT, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> Any:
        """The JSON of an answer. Raises RefusedError, or UnreachableError after the last attempt."""
        return self._sent("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The same for an act. All attempts have one `Idempotency-Key`, so the act is carried out once."""
        return self._sent("POST", path, body=body, headers={"Idempotency-Key": str(uuid4())})

    @contextmanager
    def lines(self, path: str, params: Params | None = None, headers: Headers = None) -> Generator[Iterator[str]]:
        """The lines of an answer as they come, from one attempt. Raises RefusedError; UnreachableError also in the middle."""
        with ExitStack() as opened:
            request = self._http.stream("GET", self._base + path, params=params, headers=self._headers(headers), timeout=SILENT)
            with _network():
                answer = opened.enter_context(request)
                if answer.status_code != 200:
                    raise _refused(answer, answer.read())
            yield _lines_of(answer)

    def recover(self, failures: int, error: UnreachableError | RefusedError) -> None:
        """Wait until the next attempt after so many failures. Raises `error` if another attempt would be refused again, or was the last one."""
        refused = error if isinstance(error, RefusedError) else None
        if refused is not None and refused.status not in PASSING and refused.code != _IN_PROGRESS:
            raise error
        seconds = self.retries.wait_s(failures, refused.retry_after_s if refused is not None else None, random.random())
        if seconds is None:
            raise error
        self.sleep(seconds)

    def _sent(self, method: str, path: str, **request: Any) -> Any:
        failures = 0
        while True:
            try:
                return self._attempt(method, path, **request)
            except (UnreachableError, RefusedError) as error:
                failures += 1
                self.recover(failures, error)

    def _attempt(self, method: str, path: str, *, params: Params | None = None, body: Any = None, headers: Headers = None) -> Any:
        with _network():
            answer = self._http.request(method, self._base + path, params=params, json=body, headers=self._headers(headers))
        if not answer.is_success:
            raise _refused(answer, answer.content)
        return answer.json()

    def _headers(self, more: Headers) -> dict[str, str]:
        token = self._token if isinstance(self._token, str) else self._token()
        return {"Authorization": f"Bearer {token}", **(more or {})}


def given(**params: str | int | None) -> Params:
    """Parameters without those that were not given: the service refuses empty ones."""
    return {name: value for name, value in params.items() if value is not None and value != ""}


@contextmanager
def _network() -> Generator[None]:
    """Turns errors of the network into UnreachableError."""
    try:
        yield
    except httpx.TransportError as broken:
        raise UnreachableError(_unanswered(broken)) from broken


def _unanswered(broken: httpx.TransportError) -> str:
    """Who did not answer, and why: host and port, never path and query, which have names in them."""
    try:
        where = f" at {broken.request.url.netloc.decode()}"
    except RuntimeError:  # the error came before there was a request
        where = ""
    return f"The ledger{where} did not answer: {str(broken) or type(broken).__name__}."


def _lines_of(answer: httpx.Response) -> Iterator[str]:
    """The lines of a body. `iter_lines` of httpx would also end a line at U+2028 and its like, which stand inside names of people."""
    rest = b""
    with _network():
        for piece in answer.iter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode()
    if rest:
        yield rest.decode()


def _refused(answer: httpx.Response, content: bytes) -> RefusedError:
    """The error for an answer. A proxy in between may answer with anything, which is not a problem of the ledger."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    found = problem if isinstance(problem, dict) else {"detail": f"HTTP {answer.status_code} without a problem document."}
    return refusal(answer.status_code, found, retry_after_s(answer.headers.get("Retry-After")))
