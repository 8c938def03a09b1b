"""Reason, message and retry delay of every category of cloud errors."""

import pytest

from kaito.cloud.errors import CloudError, ErrorCategory, Throttled
from kaito.provisioner.failures import MESSAGE_LIMIT, describe, retry_seconds
from kaito.provisioner.settings import ProvisionerSettings

SETTINGS = ProvisionerSettings()


@pytest.mark.parametrize("category", ErrorCategory)
@pytest.mark.parametrize("retry_after", [None, 0.0, 1.0])
def test_retry_delays_grow_up_to_a_cap(category: ErrorCategory, retry_after: float | None) -> None:
    error = CloudError("no", category=category, retry_after=retry_after)
    pauses = [retry_seconds(error, failures, SETTINGS) for failures in (1, 2, 3, 10, 100, 10**6)]
    assert pauses == sorted(pauses)
    assert pauses[0] > 0
    assert pauses[-1] <= 4 * 3600
    assert pauses[-1] >= 60, "an error that lasts for hours is not retried every few seconds"


@pytest.mark.parametrize("category", ErrorCategory)
def test_every_category_has_a_reason_and_the_message_of_the_cloud(category: ErrorCategory) -> None:
    found = describe(CloudError("its words", code="ItsCode", category=category), 1, SETTINGS)
    assert found.reason
    assert "ItsCode: its words" in found.message


def test_retry_after_is_a_lower_bound_up_to_a_limit() -> None:
    """A Retry-After of 1200 s."""
    assert retry_seconds(Throttled("slow down", retry_after=300), 1, SETTINGS) == 300
    assert retry_seconds(Throttled("slow down", retry_after=10**6), 1, SETTINGS) == 1800


def test_long_messages_are_cut_to_one_line() -> None:
    """A long message is repeated in several conditions."""
    message = describe(CloudError("first line\n\n  second\tline " + "x" * 5000), 1, SETTINGS).message
    assert message.startswith("first line second line xxx")
    assert message.endswith("...")
    assert len(message) <= MESSAGE_LIMIT + 3
