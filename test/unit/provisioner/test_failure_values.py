"""Reason, status and delays for every category of cloud error, and the defaults of the settings that they use."""

from itertools import pairwise

import pytest

from kaito.cloud.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    CloudError,
    CloudUnavailable,
    ClusterMissing,
    ErrorCategory,
    InstanceMissing,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    QuotaExceeded,
    Throttled,
)
from kaito.provisioner.failures import MESSAGE_LIMIT, REQUEST_FAILURES, describe, retry_seconds, shorten
from kaito.provisioner.settings import ProvisionerSettings

SETTINGS = ProvisionerSettings()
UNAVAILABLE = "all requested instance types were unavailable during launch: "

# error, category, reason, status, first delay, second, longest, the message states that no instance type was available
CATEGORIES: list[tuple[CloudError, str, str, str, float, float, float, bool]] = [
    (QuotaExceeded("no"), "quota", "QuotaExceeded", "False", 600, 1200, 1800, True),
    (InsufficientCapacity("no"), "capacity", "InsufficientCapacity", "False", 300, 600, 1800, True),
    (InstanceTypeUnavailable("no"), "size", "UnsupportedInstanceType", "False", 1800, 3600, 14400, True),
    (
        CloudError("no", category=ErrorCategory.ZONE),
        "zone",
        "UnsupportedInstanceType",
        "False",
        1800,
        3600,
        14400,
        True,
    ),
    (Busy("no"), "busy", "CloudBusy", "Unknown", 30, 60, 120, False),
    (CloudError("no", category=ErrorCategory.CONFLICT), "conflict", "CloudConflict", "False", 30, 60, 1800, False),
    (Throttled("no"), "throttled", "CloudThrottled", "Unknown", 15, 30, 120, False),
    (OperationCanceled("no"), "overridden", "OperationCanceled", "Unknown", 5, 10, 1800, False),
    (OperationFailed("no"), "failed", "LaunchFailed", "False", 300, 600, 1800, False),
    (CloudError("no", category=ErrorCategory.BLOCKED), "blocked", "BlockedByCloud", "False", 600, 1200, 3600, False),
    (InvalidRequest("no"), "invalid", "LaunchFailed", "False", 1800, 3600, 14400, False),
    (AccessDenied("no"), "denied", "Unauthorized", "False", 300, 600, 1800, False),
    (ClusterMissing("no"), "cluster missing", "ClusterNotFound", "False", 300, 600, 1800, False),
    (InstanceMissing("no"), "gone", "CloudUnavailable", "Unknown", 1, 2, 120, False),
    (AlreadyExists("no"), "exists", "AgentPoolCreating", "Unknown", 1, 2, 120, False),
    (CloudUnavailable("no"), "unavailable", "CloudUnavailable", "Unknown", 5, 10, 120, False),
]


def test_every_category_is_in_the_table() -> None:
    assert {row[1] for row in CATEGORIES} == {str(category) for category in ErrorCategory}


@pytest.mark.parametrize(
    ("error", "category", "reason", "status", "first", "second", "longest", "unavailable"),
    CATEGORIES,
    ids=[row[1] for row in CATEGORIES],
)
def test_a_category_decides_reason_status_and_delays(
    error: CloudError,
    category: str,
    reason: str,
    status: str,
    first: float,
    second: float,
    longest: float,
    *,
    unavailable: bool,
) -> None:
    assert str(error.category) == category
    found = describe(error, 1, SETTINGS)
    assert (found.reason, found.status, found.retry) == (reason, status, first)
    assert found.message == (f"{UNAVAILABLE}no" if unavailable else "no")
    assert [retry_seconds(error, failures, SETTINGS) for failures in (0, 1, 2, 30)] == [first, first, second, longest]


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (Busy("no", retry_after=29), 30),
        (Busy("no", retry_after=31), 31),
        (Busy("no", retry_after=1800), 1800),
        (Busy("no", retry_after=1801), 1800),
        (Throttled("no", retry_after=0), 1),
        (Throttled("no", retry_after=7), 7),
        (Throttled("no", retry_after=60), 60),
        (Throttled("no", retry_after=90), 90),
    ],
)
def test_retry_after_is_a_lower_bound_up_to_half_an_hour(error: CloudError, retry: float) -> None:
    assert retry_seconds(error, 1, SETTINGS) == retry


@pytest.mark.parametrize(
    ("retry_after", "delays"), [(7.0, [7, 14, 28, 56, 112, 120]), (60.0, [60, 120, 120]), (90.0, [90, 120, 120])]
)
def test_throttling_doubles_what_the_cloud_asked_for(retry_after: float, delays: list[float]) -> None:
    error = Throttled("no", retry_after=retry_after)
    assert [retry_seconds(error, n + 1, SETTINGS) for n in range(len(delays))] == delays


def test_a_first_delay_above_the_cap_is_kept() -> None:
    settings = ProvisionerSettings(capacity_retry_seconds=4000, capacity_retry_cap_seconds=1800)
    assert [retry_seconds(InsufficientCapacity("no"), n, settings) for n in (1, 2)] == [4000, 4000]


def test_only_failures_of_a_request_end_with_the_first_answer() -> None:
    assert {str(category) for category in REQUEST_FAILURES} == {
        "busy",
        "conflict",
        "throttled",
        "denied",
        "cluster missing",
        "gone",
        "exists",
        "unavailable",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 800, "x" * 800),
        ("x" * 801, "x" * 800 + "..."),
        ("  a\n\tb  ", "a b"),
        ("", ""),
    ],
)
def test_a_message_is_one_line_of_800_characters(text: str, expected: str) -> None:
    assert MESSAGE_LIMIT == 800
    assert shorten(text) == expected


def test_the_code_of_the_cloud_stands_before_its_words() -> None:
    assert describe(OperationFailed("its words", code="ItsCode"), 1, SETTINGS).message == "ItsCode: its words"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("installation_id", ""),
        ("concurrency", 20),
        ("poll_interval_seconds", 15.0),
        ("launch_timeout_seconds", 2700.0),
        ("registration_timeout_seconds", 900.0),
        ("initialization_timeout_seconds", 1200.0),
        ("replace_uninitialized", False),
        ("quota_retry_seconds", 600.0),
        ("capacity_retry_seconds", 300.0),
        ("capacity_retry_cap_seconds", 1800.0),
        ("deprioritize_seconds", 3600.0),
        ("denied_retry_seconds", 300.0),
        ("transient_retry_seconds", 5.0),
        ("default_disk_gib", 0),
        ("default_termination_grace_period_seconds", 1800.0),
        ("gc_interval_seconds", 120.0),
        ("gc_grace_seconds", 300.0),
        ("gc_limit", 5),
        ("gc_dry_run", False),
    ],
)
def test_the_defaults_are_those_of_the_reference(name: str, value: object) -> None:
    assert getattr(SETTINGS, name) == value


@pytest.mark.parametrize(
    ("name", "least", "refused"),
    [
        ("concurrency", 1, 0),
        ("poll_interval_seconds", 0.001, 0),
        ("launch_timeout_seconds", 0.001, 0),
        ("registration_timeout_seconds", 0.001, 0),
        ("initialization_timeout_seconds", 0.001, 0),
        ("quota_retry_seconds", 0.001, 0),
        ("capacity_retry_seconds", 0.001, 0),
        ("capacity_retry_cap_seconds", 0.001, 0),
        ("deprioritize_seconds", 0, -1),
        ("denied_retry_seconds", 0.001, 0),
        ("transient_retry_seconds", 0.001, 0),
        ("default_disk_gib", 0, -1),
        ("default_termination_grace_period_seconds", 0, -1),
        ("gc_interval_seconds", 0.001, 0),
        ("gc_grace_seconds", 0, -1),
        ("gc_limit", 1, 0),
    ],
)
def test_a_setting_below_its_least_value_is_refused(name: str, least: float, refused: float) -> None:
    assert getattr(ProvisionerSettings.model_validate({name: least}), name) == least
    with pytest.raises(ValueError, match=name):
        ProvisionerSettings.model_validate({name: refused})


def test_delays_never_shrink() -> None:
    for error, *_ in CATEGORIES:
        delays = [retry_seconds(error, failures, SETTINGS) for failures in range(1, 20)]
        assert all(earlier <= later for earlier, later in pairwise(delays))
