"""Settings from the environment: read once, refused in words."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager import Settings
from kaito.runtime.manager.settings import parse_bind_address


def test_fields_are_read_by_name() -> None:
    settings = Settings.from_env(
        environment={
            "KAITO_METRICS_BIND_ADDRESS": "127.0.0.1:9000",
            "KAITO_LEADER_ELECT": "false",
            "KAITO_NAMESPACES": "a, b",
            "KAITO_KUBECONFIG": "/etc/kubeconfig",
            "KAITO_GRACEFUL_SHUTDOWN_SECONDS": "7.5",
            "KAITO_SOMETHING_ELSE": "untouched",
            "METRICS_BIND_ADDRESS": "no prefix",
        }
    )
    assert settings.metrics_bind_address == "127.0.0.1:9000"
    assert settings.leader_elect is False
    assert settings.namespaces == ("a", "b")
    assert settings.kubeconfig == Path("/etc/kubeconfig")
    assert settings.graceful_shutdown_seconds == 7.5
    assert settings.health_probe_bind_address == ":8081"


def test_the_prefix_is_the_programs() -> None:
    assert Settings.from_env("OP_", {"OP_LOG_LEVEL": "debug", "KAITO_LOG_LEVEL": "error"}).log_level == "debug"


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"KAITO_WEBHOOK_PORT.*KAITO_LOG_FORMAT"):
        Settings.from_env(environment={"KAITO_WEBHOOK_PORT": "many", "KAITO_LOG_FORMAT": "yaml"})


def test_lease_times_must_fit_each_other() -> None:
    with pytest.raises(ValidationError, match="must hold"):
        Settings(lease_duration_seconds=5)
    with pytest.raises(ConfigurationError, match="must hold"):
        Settings.from_env(environment={"KAITO_RETRY_PERIOD_SECONDS": "9"})


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="metrics_address"):
        Settings(metrics_address=":80")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (":8080", (None, 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:81", ("::1", 81)),
        ("localhost:1", ("localhost", 1)),
        ("0", None),
        ("", None),
    ],
)
def test_bind_addresses(text: str, parsed: tuple[str | None, int] | None) -> None:
    assert parse_bind_address(text) == parsed


@pytest.mark.parametrize("text", ["8080", "::1:80", "host:", ":99999", "host:http"])
def test_what_is_no_bind_address(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a bind address"):
        Settings(metrics_bind_address=text)
