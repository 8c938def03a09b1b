"""Parses the command line and the environment of the gpu-provisioner into settings.

`main` calls `parse`. Booleans are written `--flag`, `--flag=true` or `--flag=false`, durations as in Go (`90s`, `15m`,
`1h30m`). The cluster may also be given by the environment variables of upstream's chart. Flags that only upstream's
provisioner has are accepted with a note (`upstream`); an unknown flag or an invalid value is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from kaito.cloud.azure.settings import AzureSettings, CredentialMode
from kaito.provisioner import upstream
from kaito.provisioner.settings import NodeApi, ProvisionerSettings
from kaito.runtime import Settings
from kaito.runtime.flags import FlagParser

ENVIRONMENT = {
    "subscription_id": "ARM_SUBSCRIPTION_ID",
    "resource_group": "ARM_RESOURCE_GROUP",
    "cluster": "AZURE_CLUSTER_NAME",
    "location": "LOCATION",
    "client_id": "AZURE_CLIENT_ID",
    "tenant_id": "AZURE_TENANT_ID",
}
"""Environment variables of upstream's chart, by field of `AzureSettings`."""

AZURE_FLAGS: Final[Mapping[str, str]] = {
    **{field: f"--azure-{field.replace('_', '-')}" for field in ENVIRONMENT},
    "endpoint": "--arm-endpoint",
    "api_version": "--arm-api-version",
    "credential_mode": "--azure-credential",
    "requests_per_second": "--arm-qps",
    "request_burst": "--arm-burst",
    "request_timeout_seconds": "--arm-timeout",
}
"""Fields of `AzureSettings` that have a flag."""

PROVISIONER_FIELDS: Final = (
    "installation_id",
    "concurrency",
    "default_disk_gib",
    "poll_interval_seconds",
    "launch_timeout_seconds",
    "registration_timeout_seconds",
    "initialization_timeout_seconds",
    "replace_uninitialized",
    "quota_retry_seconds",
    "capacity_retry_seconds",
    "default_termination_grace_period_seconds",
    "gc_interval_seconds",
    "gc_grace_seconds",
    "gc_limit",
    "gc_dry_run",
)
"""Fields of `ProvisionerSettings` that have a flag."""

DEPLOYMENT_MODES: Mapping[str, CredentialMode] = {"": "workload", "self-hosted": "workload", "managed": "managed"}
"""Values of upstream's `DEPLOYMENT_MODE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """Settings from one command line."""

    manager: Settings
    provisioner: ProvisionerSettings
    azure: AzureSettings
    node_api: NodeApi
    notes: tuple[str, ...] = ()
    """Flags of upstream's provisioner without effect, each with the reason."""


def parser(environ: Mapping[str, str]) -> FlagParser:
    """Builds the parser with all flags."""
    flags = FlagParser(
        prog="gpu-provisioner",
        description="Creates one AKS agent pool per Karpenter Machine or NodeClaim.",
    )
    flags.add_argument("--version", action="version", version=f"gpu-provisioner {version('kaito')}")
    flags.add_manager_settings()
    _add_cloud_flags(flags, environ)
    _add_claim_flags(flags)
    upstream.add_flags(flags)
    return flags


def _add_cloud_flags(flags: FlagParser, environ: Mapping[str, str]) -> None:
    mode = DEPLOYMENT_MODES.get(environ.get("DEPLOYMENT_MODE", "").strip(), "workload")
    defaults = {field: environ.get(variable, "") for field, variable in ENVIRONMENT.items()}
    flags.add_settings(
        AzureSettings, fields=AZURE_FLAGS, names=AZURE_FLAGS, defaults={**defaults, "credential_mode": mode}
    )


def _add_claim_flags(flags: FlagParser) -> None:
    flags.add_argument(
        "--node-api", choices=[api.value for api in NodeApi], default="auto", help="kinds of claims to reconcile"
    )
    flags.add_settings(ProvisionerSettings, fields=PROVISIONER_FIELDS)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Parses the command line and the environment variables.

    Raises:
        SystemExit: 2 for an invalid flag, with the message on stderr; 0 for `--help` and `--version`.
    """
    flags = parser(environ)
    args = flags.parse_args(argv)
    for field in ("subscription_id", "resource_group", "cluster"):
        if not getattr(args, field).strip():
            flags.error(f"the cluster is not configured: set {AZURE_FLAGS[field]} or {ENVIRONMENT[field]}")
    try:
        notes = upstream.apply(args, environ)
    except ValueError as error:
        flags.error(str(error))
    return Invocation(
        manager=flags.manager_settings(args),
        provisioner=flags.settings(ProvisionerSettings, args),
        azure=flags.settings(AzureSettings, args, endpoint=args.endpoint.rstrip("/")),
        node_api=NodeApi(args.node_api),
        notes=notes,
    )
