"""Structured logs, for people (console) or machines (json). Data of requests is never logged."""

import logging
import sys
from contextlib import suppress
from typing import Literal, TextIO, cast

import orjson
import structlog


def configure_logs(style: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Send structlog (from `level` on) and the standard library's warnings the same way, to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _place_of_exception,
    ]
    if style == "json":
        last: structlog.typing.Processor = _as_json
    else:
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OfLibraries())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Its messages quote connection strings and parameters.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class _Forgiving:
    """A stream that ignores write errors: on a full disk the service must go on without its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _OfLibraries(logging.Formatter):
    """Formats log records of libraries: the first line, and types and places of an error. The rest may quote values or URLs."""

    def format(self, record: logging.LogRecord) -> str:
        lines = record.getMessage().splitlines() or [""]  # asyncio's second line is the repr of a task with its error
        error = record.exc_info[1] if record.exc_info else None
        said = [] if error is None else [type(error).__name__, *_places(error)]
        return " ".join([record.levelname, record.name, lines[0], *said])


def _place_of_exception(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace a traceback by its types and places, because messages and locals can quote a request."""
    if not event.pop("exc_info", None):
        return event
    error = sys.exc_info()[1]
    if error is not None:
        event["error"] = type(error).__name__
        event["where"] = _places(error)
    return event


def _places(error: BaseException) -> list[str]:
    """Where an error came from, innermost last."""
    trace, places = error.__traceback__, list[str]()
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno}:{code.co_name}")
        trace = trace.tb_next
    return places[-8:]


def _as_json(_logger: object, _name: str, event: structlog.typing.EventDict) -> str:
    return orjson.dumps(dict(event), default=str).decode()
