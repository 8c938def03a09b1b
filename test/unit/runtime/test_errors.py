"""Errors of the API server: whether a repeated request may succeed."""

import pytest

from kaito.runtime.errors import api_error


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (409, "Conflict", True),
        (409, "AlreadyExists", False),
        (429, "TooManyRequests", True),
        (500, "InternalError", True),
        (503, "ServiceUnavailable", True),
        (410, "Expired", False),
        (422, "Invalid", False),
        (404, "NotFound", False),
    ],
)
def test_an_error_reports_whether_a_repeated_request_may_succeed(code: int, reason: str, retryable: bool) -> None:
    assert api_error(code, {"reason": reason}).retryable is retryable
