"""Flags: environment variables of upstream's chart, defaults, and errors with the remedy."""

from pathlib import Path

import pytest

from kaito.provisioner.flags import parse
from kaito.provisioner.settings import NodeApi
from kaito.provisioner.upstream import ACCEPTED
from kaito.runtime.flags import duration

ENVIRONMENT = {
    "ARM_SUBSCRIPTION_ID": " sub ",
    "ARM_RESOURCE_GROUP": "group",
    "AZURE_CLUSTER_NAME": "cluster",
    "LOCATION": "eastus",
    "AZURE_CLIENT_ID": "client",
    "AZURE_TENANT_ID": "tenant",
}


def test_environment_of_the_chart_is_sufficient() -> None:
    invocation = parse([], ENVIRONMENT)
    azure = invocation.azure
    assert (azure.subscription_id, azure.resource_group, azure.cluster) == ("sub", "group", "cluster")
    assert (azure.location, azure.client_id, azure.tenant_id) == ("eastus", "client", "tenant")
    assert azure.credential_mode == "workload"
    assert azure.endpoint == "https://management.azure.com"
    assert invocation.manager.leader_elect, "two replicas must not both write"
    assert invocation.node_api is NodeApi.AUTO


def test_flags_override_the_environment() -> None:
    invocation = parse(
        [
            "--azure-cluster=other",
            "--node-api=machine",
            "--leader-elect=false",
            "--launch-timeout=1h30m",
            "--quota-retry=90s",
            "--gc-dry-run",
            "--metrics-bind-address=0",
        ],
        ENVIRONMENT,
    )
    assert invocation.azure.cluster == "other"
    assert invocation.node_api is NodeApi.MACHINE
    assert not invocation.manager.leader_elect
    assert invocation.manager.metrics_bind_address == "0"
    assert invocation.provisioner.launch_timeout_seconds == 5400
    assert invocation.provisioner.quota_retry_seconds == 90
    assert invocation.provisioner.gc_dry_run


@pytest.mark.parametrize(
    ("mode", "credential"), [("", "workload"), ("self-hosted", "workload"), ("managed", "managed")]
)
def test_deployment_mode_selects_the_credential(mode: str, credential: str) -> None:
    assert parse([], {**ENVIRONMENT, "DEPLOYMENT_MODE": mode}).azure.credential_mode == credential


def test_http_endpoint_requires_the_fake_credential() -> None:
    simulator = "--arm-endpoint=http://127.0.0.1:7443"
    assert parse([simulator, "--azure-credential=fake"], ENVIRONMENT).azure.endpoint == "http://127.0.0.1:7443"


@pytest.mark.parametrize(
    ("arguments", "missing", "words"),
    [
        (["--arm-endpoint=http://127.0.0.1:7443"], "", "--azure-credential fake"),
        ([], "ARM_SUBSCRIPTION_ID", "--azure-subscription-id or ARM_SUBSCRIPTION_ID"),
        ([], "ARM_RESOURCE_GROUP", "--azure-resource-group or ARM_RESOURCE_GROUP"),
        ([], "AZURE_CLUSTER_NAME", "--azure-cluster or AZURE_CLUSTER_NAME"),
        (["--node-api=byo"], "", "invalid choice"),
        (["--launch-timeout=soon"], "", "not a duration"),
        (["--leader-elect=perhaps"], "", "neither true nor false"),
        (["--concurrency=0"], "", "concurrency"),
        (["--metrics-bind-address=8080"], "", "--metrics-bind-address: '8080' is not a bind address"),
        (["--gc"], "", "unrecognized arguments"),
    ],
)
def test_invalid_flags_are_rejected_with_the_remedy(
    arguments: list[str], missing: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != missing}
    with pytest.raises(SystemExit) as refused:
        parse(arguments, environment)
    assert refused.value.code == 2
    assert words in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("500ms", 0.5), ("7", 7)])
def test_durations_have_the_format_of_go(text: str, seconds: float) -> None:
    assert duration(text) == seconds


CHART = {
    "KUBERNETES_MIN_VERSION": "1.19.0-0",
    "KARPENTER_SERVICE": "gpu-provisioner",
    "WEBHOOK_PORT": "8443",
    "METRICS_PORT": "8080",
    "HEALTH_PROBE_PORT": "8081",
    "SYSTEM_NAMESPACE": "gpu-provisioner",
    "MEMORY_LIMIT": "0",
    "LEADER_ELECT": "false",
    "E2E_TEST_MODE": "false",
}
"""Other variables that upstream's chart sets."""


def test_chart_of_upstream_starts_the_provisioner_without_changes() -> None:
    """input-R12."""
    invocation = parse([], ENVIRONMENT | CHART)

    assert (invocation.manager.metrics_bind_address, invocation.manager.health_probe_bind_address) == (":8080", ":8081")
    assert invocation.notes == ()
    moved = parse([], ENVIRONMENT | CHART | {"METRICS_PORT": "9090", "HEALTH_PROBE_PORT": "9091"}).manager
    assert (moved.metrics_bind_address, moved.health_probe_bind_address) == (":9090", ":9091")


@pytest.mark.parametrize("name", ACCEPTED)
def test_upstream_flag_without_effect_is_noted(name: str) -> None:
    assert parse([f"{name}=1"], ENVIRONMENT).notes == (f"{name} has no effect: {ACCEPTED[name]}",)


def test_upstream_flags_with_another_name_are_honored() -> None:
    arguments = ["--metrics-port=9000", "--health-probe-port=0", "--enable-profiling", "--disable-leader-election=true"]
    manager = parse(arguments, ENVIRONMENT | {"METRICS_PORT": "1", "ENABLE_PROFILING": "false"}).manager

    assert (manager.metrics_bind_address, manager.health_probe_bind_address) == (":9000", "0")
    assert manager.debug_endpoints
    assert not manager.leader_elect
    assert parse([], ENVIRONMENT | {"DISABLE_LEADER_ELECTION": "false"}).manager.leader_elect


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--metrics-port=many"], {}, "--metrics-port is 'many': use a port from 0 to 65535"),
        (["--health-probe-port=70000"], {}, "--health-probe-port is '70000'"),
        ([], {"METRICS_PORT": "eighty"}, "--metrics-port is 'eighty'"),
        (["--enable-profiling=perhaps"], {}, "--enable-profiling: 'perhaps' is neither true nor false"),
    ],
)
def test_upstream_flags_are_validated(
    arguments: list[str], environment: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments, ENVIRONMENT | environment)
    assert words in capsys.readouterr().err


def test_service_variable_is_not_a_port() -> None:
    assert parse([], ENVIRONMENT | {"METRICS_PORT": "tcp://10.0.0.7:80"}).manager.metrics_bind_address == ":8080"


def test_metrics_can_be_served_over_tls(capsys: pytest.CaptureFixture[str]) -> None:
    assert not parse([], ENVIRONMENT).manager.metrics_secure
    secured = parse(["--metrics-secure", "--metrics-cert-path=/certs"], ENVIRONMENT).manager
    assert secured.metrics_secure
    assert secured.metrics_cert_dir == Path("/certs")
    with pytest.raises(SystemExit):
        parse(["--metrics-cert-path=/certs"], ENVIRONMENT)
    assert "metrics_cert_dir has no effect without metrics_secure" in capsys.readouterr().err
