"""Fixtures of the client's tests."""

import pytest

from kaito.runtime.client import http


@pytest.fixture(params=[True, False], ids=["direct", "aiohttp"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Runs a test with both implementations of unary requests."""
    chosen: bool = request.param
    monkeypatch.setattr(http, "DIRECT", chosen)
    return chosen
