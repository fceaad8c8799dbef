"""What a caller is told when there is no answer: a code, a sentence, and nothing from inside."""

from __future__ import annotations

from typing import Literal

ResponseCode = Literal[
    "CLIENT_ERROR", "UNAUTHORIZED", "FORBIDDEN", "RESOURCE_NOT_FOUND", "SERVER_ERROR"
]


class ApiError(Exception):
    """One answer that is an error: its HTTP status, `params.err` and `params.errmsg`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def response_code(self) -> ResponseCode:
        """The contract's class of the error."""
        if self.status >= 500:
            return "SERVER_ERROR"
        known: dict[int, ResponseCode] = {
            401: "UNAUTHORIZED",
            403: "FORBIDDEN",
            404: "RESOURCE_NOT_FOUND",
        }
        return known.get(self.status, "CLIENT_ERROR")


def invalid_request(message: str) -> ApiError:
    """400: the body is not what the contract says."""
    return ApiError(400, "INVALID_REQUEST", message)


def invalid_token(message: str) -> ApiError:
    """401: no token, or one that does not verify."""
    return ApiError(401, "INVALID_TOKEN", message)


def not_a_member() -> ApiError:
    """403: the caller may not see the group."""
    return ApiError(403, "NOT_A_MEMBER", "You are not an active member of the group.")


def group_not_found() -> ApiError:
    """404: nobody knows the group."""
    return ApiError(404, "GROUP_NOT_FOUND", "There is no such group.")


def too_large(what: str) -> ApiError:
    """413: more than a limit of ours."""
    return ApiError(413, "TOO_LARGE", what)


def unavailable(what: Literal["STORE", "GROUPS"]) -> ApiError:
    """503: what the answer needs does not answer now."""
    of = "scores" if what == "STORE" else "groups"
    return ApiError(503, f"{what}_UNAVAILABLE", f"The {of} cannot be read now; try again later.")


def internal_error() -> ApiError:
    """500: a mistake of ours."""
    return ApiError(500, "INTERNAL_ERROR", "Something went wrong here.")
