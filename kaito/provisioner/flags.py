"""The command line of the gpu-provisioner; the cloud's coordinates may also come from upstream's environment names.

`main` calls `parse`; everything else takes the typed result. Booleans are written `--flag`, `--flag=true` or
`--flag=false`, durations as Go writes them (`90s`, `15m`, `1h30m`). A flag that cannot be honored is refused with the
remedy; a flag of upstream's provisioner without effect here is accepted with a note (`upstream`). None is
ignored silently.
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
from kaito.runtime.flags import FlagParser, manager_settings

ENVIRONMENT = {
    "subscription_id": "ARM_SUBSCRIPTION_ID",
    "resource_group": "ARM_RESOURCE_GROUP",
    "cluster": "AZURE_CLUSTER_NAME",
    "location": "LOCATION",
    "client_id": "AZURE_CLIENT_ID",
    "tenant_id": "AZURE_TENANT_ID",
}
"""Names under which upstream's chart gives them."""

DEPLOYMENT_MODES: Mapping[str, CredentialMode] = {"": "workload", "self-hosted": "workload", "managed": "managed"}
"""Upstream's `DEPLOYMENT_MODE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    manager: Settings
    provisioner: ProvisionerSettings
    azure: AzureSettings
    node_api: NodeApi
    notes: tuple[str, ...] = ()
    """Flags of upstream's provisioner that have no effect here, each with the reason."""


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Every flag, with its default and meaning."""
    flags = FlagParser(
        prog="gpu-provisioner",
        description="Turns Karpenter Machines and NodeClaims into AKS agent pools of one node.",
    )
    flags.add_argument("--version", action="version", version=f"gpu-provisioner {version('kaito')}")
    flags.manager()
    _add_cloud_flags(flags, environ)
    _add_claim_flags(flags)
    upstream.add_flags(flags)
    return flags


def _add_cloud_flags(flags: FlagParser, environ: Mapping[str, str]) -> None:
    for field, variable in ENVIRONMENT.items():
        flag = f"--azure-{field.replace('_', '-')}"
        flags.add_argument(flag, default=environ.get(variable, ""), help=f"Azure {field} (environment {variable})")
    flags.add_argument("--arm-endpoint", default=PUBLIC_ARM, help="Azure Resource Manager, or a simulator of it")
    flags.add_argument("--arm-api-version", default=API_VERSION, help="version of Microsoft.ContainerService")
    flags.add_argument(
        "--azure-credential",
        choices=get_args(CredentialMode),
        default=DEPLOYMENT_MODES.get(environ.get("DEPLOYMENT_MODE", "").strip(), "workload"),
        help="who we are: fake is for a simulator (environment DEPLOYMENT_MODE)",
    )
    flags.add_argument(
        "--arm-qps",
        type=float,
        default=10.0,
        help="ARM requests a second, all kinds together",
    )
    flags.add_argument("--arm-burst", type=int, default=200, help="ARM requests at once above that rate")
    flags.duration("--arm-timeout", 60.0, "give up an ARM request after")


def _add_claim_flags(flags: FlagParser) -> None:
    defaults = ProvisionerSettings()
    flags.add_argument(
        "--node-api", choices=[api.value for api in NodeApi], default="auto", help="which claims are served"
    )
    flags.add_argument("--installation-id", default="", help="mark on our agent pools; empty: UID of kube-system")
    flags.add_argument("--concurrency", type=int, default=defaults.workers, help="claims worked on at the same time")
    flags.add_argument(
        "--default-disk-gib", type=int, default=0, help="disk of claims without a storage request; 0: refuse them"
    )
    flags.duration("--poll-interval", defaults.poll_interval, "between looks at an operation when ARM names no time")
    flags.duration(
        "--launch-timeout", defaults.launch_timeout, "delete a claim still being created after; 8 GPUs: twice"
    )
    flags.duration("--registration-timeout", defaults.registration_timeout, "delete a claim without a node after")
    flags.duration("--initialization-timeout", defaults.initialization_timeout, "report an unusable node after")
    flags.switch("--replace-uninitialized", default=False, help="and delete its claim")
    flags.duration("--quota-retry", defaults.quota_retry, "between attempts while the quota is exceeded")
    flags.duration("--capacity-retry", defaults.capacity_retry, "after an attempt without capacity; doubles")
    flags.duration("--default-termination-grace-period", defaults.default_grace_period, "drain at most; 0: for ever")
    flags.duration("--gc-interval", defaults.collect_every, "between scans for orphans")
    flags.duration("--gc-grace", defaults.orphan_grace, "an agent pool younger than this is no orphan")
    flags.add_argument("--gc-limit", type=int, default=defaults.orphans_at_once, help="orphans deleted in one scan")
    flags.switch("--gc-dry-run", default=False, help="only report orphans")


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Read the command line and the environment variables the provisioner knows.

    Raises:
        SystemExit: 2 on a wrong flag (the message is on stderr), 0 on `--help` and `--version`.
    """
    flags = parser(environ)
    args = flags.parse_args(argv)

    def refuse(problem: str) -> NoReturn:
        flags.error(problem)

    for field in ("subscription_id", "resource_group", "cluster"):
        if not getattr(args, f"azure_{field}").strip():
            refuse(f"which cluster? set --azure-{field.replace('_', '-')} or {ENVIRONMENT[field]}")
    try:
        notes = upstream.apply(args, environ)
        return Invocation(
            manager=Settings(**manager_settings(args)),
            provisioner=_provisioner(args),
            azure=_azure(args),
            node_api=NodeApi(args.node_api),
            notes=notes,
        )
    except ValidationError as invalid:
        refuse("; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in invalid.errors()))
    except ValueError as wrong:
        refuse(str(wrong))


def _provisioner(args: argparse.Namespace) -> ProvisionerSettings:
    return ProvisionerSettings(
        installation=args.installation_id,
        workers=args.concurrency,
        poll_interval=args.poll_interval,
        launch_timeout=args.launch_timeout,
        registration_timeout=args.registration_timeout,
        initialization_timeout=args.initialization_timeout,
        replace_uninitialized=args.replace_uninitialized,
        quota_retry=args.quota_retry,
        capacity_retry=args.capacity_retry,
        default_disk_gib=args.default_disk_gib,
        default_grace_period=args.default_termination_grace_period,
        collect_every=args.gc_interval,
        orphan_grace=args.gc_grace,
        orphans_at_once=args.gc_limit,
        collect_dry_run=args.gc_dry_run,
    )


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
        request_timeout=args.arm_timeout,
    )
