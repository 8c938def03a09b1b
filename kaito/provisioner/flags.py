"""Parses the command line and the environment of the gpu-provisioner into settings.

`main` calls `parse`. Booleans are written `--flag`, `--flag=true` or `--flag=false`, durations as in Go (`90s`, `15m`,
`1h30m`). The cluster may also be given by the environment variables of upstream's chart. Flags that only upstream's
provisioner has are accepted with a note (`upstream`); an unknown flag or an invalid value is an error.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NoReturn, get_args

from pydantic import ValidationError

from kaito.cloud.azure.settings import API_VERSION, PUBLIC_ARM, AzureSettings, CredentialMode
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
    for field, variable in ENVIRONMENT.items():
        flag = f"--azure-{field.replace('_', '-')}"
        flags.add_argument(flag, default=environ.get(variable, ""), help=f"Azure {field} (environment {variable})")
    flags.add_argument("--arm-endpoint", default=PUBLIC_ARM, help="URL of Azure Resource Manager or a simulator")
    flags.add_argument("--arm-api-version", default=API_VERSION, help="API version of Microsoft.ContainerService")
    flags.add_argument(
        "--azure-credential",
        choices=get_args(CredentialMode),
        default=DEPLOYMENT_MODES.get(environ.get("DEPLOYMENT_MODE", "").strip(), "workload"),
        help="credential type; fake only for the simulator (environment DEPLOYMENT_MODE)",
    )
    flags.add_argument(
        "--arm-qps",
        type=float,
        default=10.0,
        help="sustained rate of all ARM requests per second",
    )
    flags.add_argument("--arm-burst", type=int, default=200, help="ARM requests at once above that rate")
    flags.duration("--arm-timeout", 60.0, "timeout of an ARM request")


def _add_claim_flags(flags: FlagParser) -> None:
    defaults = ProvisionerSettings()
    flags.add_argument(
        "--node-api", choices=[api.value for api in NodeApi], default="auto", help="kinds of claims to reconcile"
    )
    flags.add_argument("--installation-id", default="", help="name in tags of agent pools; empty: UID of kube-system")
    flags.add_argument(
        "--concurrency", type=int, default=defaults.concurrency, help="claims reconciled at the same time"
    )
    flags.add_argument(
        "--default-disk-gib", type=int, default=0, help="disk of claims without a storage request; 0: reject them"
    )
    flags.duration("--poll-interval", defaults.poll_interval_seconds, "poll interval of operations without Retry-After")
    flags.duration(
        "--launch-timeout",
        defaults.launch_timeout_seconds,
        "delete a claim without an instance after; 8 GPUs: twice",
    )
    flags.duration("--registration-timeout", defaults.registration_timeout_seconds, "delete a claim without node after")
    flags.duration("--initialization-timeout", defaults.initialization_timeout_seconds, "report an unusable node after")
    flags.switch("--replace-uninitialized", default=False, help="delete claims whose node never initializes")
    flags.duration("--quota-retry", defaults.quota_retry_seconds, "retry delay while the quota is exceeded")
    flags.duration("--capacity-retry", defaults.capacity_retry_seconds, "retry delay without capacity; doubles")
    flags.duration(
        "--default-termination-grace-period",
        defaults.default_termination_grace_period_seconds,
        "longest drain; 0: no limit",
    )
    flags.duration("--gc-interval", defaults.gc_interval_seconds, "interval of garbage collection")
    flags.duration("--gc-grace", defaults.gc_grace_seconds, "minimum age of an agent pool for garbage collection")
    flags.add_argument("--gc-limit", type=int, default=defaults.gc_limit, help="agent pools deleted at once")
    flags.switch("--gc-dry-run", default=False, help="report orphaned agent pools without deleting them")


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Parses the command line and the environment variables.

    Raises:
        SystemExit: 2 for an invalid flag, with the message on stderr; 0 for `--help` and `--version`.
    """
    flags = parser(environ)
    args = flags.parse_args(argv)

    def fail(message: str) -> NoReturn:
        flags.error(message)

    for field in ("subscription_id", "resource_group", "cluster"):
        if not getattr(args, f"azure_{field}").strip():
            fail(f"the cluster is not configured: set --azure-{field.replace('_', '-')} or {ENVIRONMENT[field]}")
    try:
        notes = upstream.apply(args, environ)
        return Invocation(
            manager=flags.manager_settings(args),
            provisioner=_provisioner(args),
            azure=_azure(args),
            node_api=NodeApi(args.node_api),
            notes=notes,
        )
    except ValidationError as invalid:
        fail("; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in invalid.errors()))
    except ValueError as error:
        fail(str(error))


def _provisioner(args: argparse.Namespace) -> ProvisionerSettings:
    """Settings whose name is that of a flag."""
    fields = {name: name.removesuffix("_seconds") for name in ProvisionerSettings.model_fields}
    return ProvisionerSettings(**{name: getattr(args, flag) for name, flag in fields.items() if hasattr(args, flag)})


def _azure(args: argparse.Namespace) -> AzureSettings:
    return AzureSettings(
        subscription_id=args.azure_subscription_id,
        resource_group=args.azure_resource_group,
        cluster=args.azure_cluster,
        location=args.azure_location,
        client_id=args.azure_client_id,
        tenant_id=args.azure_tenant_id,
        endpoint=args.arm_endpoint.rstrip("/"),
        api_version=args.arm_api_version,
        credential_mode=args.azure_credential,
        requests_per_second=args.arm_qps,
        request_burst=args.arm_burst,
        request_timeout_seconds=args.arm_timeout,
    )
