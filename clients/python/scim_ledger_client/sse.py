"""Server-Sent Events: from lines to messages. Pure; https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from typing import NamedTuple


class Message(NamedTuple):
    """One event of a stream."""

    id: str
    event: str
    data: str


class MessageDecoder:
    """Takes the lines of a stream one after the other. `retry_s`: after how long the server wants a client to reconnect."""

    def __init__(self) -> None:
        self.retry_s = 1.0
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def take(self, line: str) -> Message | None:
        """Take a line without its end. Returns the message that an empty line ends; one without data is dropped, as the standard says."""
        if not line:
            return self._ended()
        field, _, value = line.partition(":")  # a comment is a field without a name
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1_000
        return None

    def _ended(self) -> Message | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Message(self._id, event, "\n".join(data)) if data else None
