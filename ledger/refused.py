"""Errors that refuse an administrative act. Their text says why, and what to do instead."""

from uuid import UUID


class RefusedError(Exception):
    """The act is invalid as requested."""


class OvertakenError(Exception):
    """The rows that the act was decided on have changed. Nothing was done: read them again and decide again."""


class StateError(Exception):
    """The current state does not allow the act (409). `code` is stable."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class HeldError(StateError):
    """A legal hold keeps the user or group from being erased."""

    def __init__(self, hold: UUID) -> None:
        text = f"The legal hold {hold} keeps it from being erased; nothing was changed. DELETE the hold, or wait until it ends."
        super().__init__(text, "legal_hold")
        self.hold = hold
