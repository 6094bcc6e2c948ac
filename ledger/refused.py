"""What an administrative act is refused with, whoever asks for it. The text says why and what to do instead."""


class RefusedError(Exception):
    """The act cannot be done."""


class OvertakenError(Exception):
    """What the act was decided upon has changed since it was read: nothing was done. Read again, and decide anew."""


class StateError(Exception):
    """The thing is in a state that does not take the act, which may be sound otherwise: a conflict, with a stable `code`."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code
