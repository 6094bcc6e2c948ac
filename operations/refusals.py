"""Why an operation was not carried out. The edge gives each kind its status; `code` is stable, `detail` a sentence for people."""


class OperationError(Exception):
    """Root of the refusals below."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.detail, self.code = detail, code


class ForbiddenError(OperationError):
    """The role of the caller, or what its token reaches, does not allow it."""

    def __init__(self, detail: str, code: str = "forbidden") -> None:
        super().__init__(detail, code)


class NotFoundError(OperationError):
    """There is no such thing, or the caller does not reach it: the answer is the same."""

    def __init__(self, detail: str, code: str = "not_found") -> None:
        super().__init__(detail, code)


class ConflictError(OperationError):
    """The thing is in a state that does not take this act."""


class InvalidError(OperationError):
    """What was asked is not understood, or cannot be."""

    def __init__(self, detail: str, code: str = "refused") -> None:
        super().__init__(detail, code)
