"""What an administrative act is refused with, whoever asks for it."""


class RefusedError(Exception):
    """The act cannot be done; the text says why and what to do instead."""
