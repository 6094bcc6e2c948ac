"""Errors that refuse an administrative act. Their text says why, and what to do instead."""


class RefusedError(Exception):
    """The act is invalid as requested."""


class OvertakenError(Exception):
    """The rows that the act was decided on have changed. Nothing was done: read them again and decide again."""


class StateError(Exception):
    """The current state does not allow the act (409). `code` is stable."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code
