"""Takes the place of `tests/conftest.py` in vLLM's tests: keeps tests that send requests, and downloads nothing."""

from unittest.mock import patch

import pytest

SENDS_REQUESTS = ("server", "client", "server_fixture")
WITHOUT_FIXTURE = ("test_empty_prompt", "test_out_of_vocab_token_ids")
"""Tests that start their server in their body."""


def pytest_configure() -> None:
    """Replaces the download of adapters; the servers under test have none."""
    patch("huggingface_hub.snapshot_download", return_value="/nonexistent").start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Deselects unit tests of vLLM's own classes."""
    kept = [
        item
        for item in items
        if item.originalname in WITHOUT_FIXTURE or any(name in SENDS_REQUESTS for name in item.fixturenames)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
