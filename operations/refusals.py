"""Errors that refuse an operation. api/problems.py maps each class to a status. `code` is stable, `detail` is a sentence for people."""


class OperationError(Exception):
    """Base class of the errors below."""

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.detail, self.code = detail, code


class ForbiddenError(OperationError):
    """The role of the caller, or what its token reaches, does not allow it."""

    def __init__(self, detail: str, code: str = "forbidden") -> None:
        super().__init__(detail, code)


class NotFoundError(OperationError):
    """It does not exist, or the caller does not reach it; the answer is the same."""

    def __init__(self, detail: str, code: str = "not_found") -> None:
        super().__init__(detail, code)


class ConflictError(OperationError):
    """Its state does not allow this act."""


class InvalidError(OperationError):
    """The request is not understood, or its values are invalid."""

    def __init__(self, detail: str, code: str = "refused") -> None:
        super().__init__(detail, code)
