"""The command line of the gpu-provisioner; the cloud's coordinates may also come from upstream's environment names.

`main` calls `parse`; everything else takes the typed result. Booleans are written `--flag`, `--flag=true` or
`--flag=false`, durations as Go writes them (`90s`, `15m`, `1h30m`). A flag that cannot be honoured is refused with the
remedy, never ignored.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, get_args

from pydantic import ValidationError

from kaito import __version__
from kaito.cloud.azure.credential import CredentialMode
from kaito.cloud.azure.settings import API_VERSION, PUBLIC_ARM, AzureSettings
from kaito.provisioner.settings import NodeApi, ProvisionerSettings
from kaito.runtime import Settings

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

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    manager: Settings
    provisioner: ProvisionerSettings
    azure: AzureSettings
    node_api: NodeApi


def boolean(text: str) -> bool:
    """`true` and `false` as Go's flag package reads them."""
    if text.lower() in {"true", "t", "1"}:
        return True
    if text.lower() in {"false", "f", "0"}:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def duration(text: str) -> float:
    """Seconds of a Go duration such as `15m` or `1h30m`; a bare number is seconds."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 15m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


class _Parser(argparse.ArgumentParser):
    def switch(self, name: str, *, default: bool, help: str) -> None:  # noqa: A002 - argparse's word
        self.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)

    def duration(self, name: str, default: float, help: str) -> None:  # noqa: A002 - argparse's word
        self.add_argument(name, type=duration, default=default, metavar="DURATION", help=help)


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Every flag, with its default and meaning."""
    flags = _Parser(
        prog="gpu-provisioner",
        description="Turns Karpenter Machines and NodeClaims into AKS agent pools of one node.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--version", action="version", version=f"gpu-provisioner {__version__}")
    _add_manager_flags(flags)
    _add_cloud_flags(flags, environ)
    _add_claim_flags(flags)
    return flags


def _add_manager_flags(flags: _Parser) -> None:
    flags.add_argument("--metrics-bind-address", default=":8080", help="address of /metrics; 0 is off")
    flags.add_argument("--health-probe-bind-address", default=":8081", help="address of /healthz, /readyz; 0 is off")
    flags.switch("--leader-elect", default=True, help="hold a lease before acting")
    flags.add_argument("--leader-election-namespace", default="", help="namespace of the lease; empty: the pod's")
    flags.add_argument("--kubeconfig", type=Path, default=None, help="kubeconfig file; default: environment, then pod")
    flags.add_argument("--context", default="", help="context of the kubeconfig")
    flags.add_argument("--kube-client-qps", type=float, default=-1.0, help="API requests a second; below 0: unlimited")
    flags.add_argument("--kube-client-burst", type=int, default=0, help="API requests at once above that rate")
    flags.add_argument("--log-format", choices=("json", "console"), default="json", help="form of the log")
    flags.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="least severe record logged"
    )


def _add_cloud_flags(flags: _Parser, environ: Mapping[str, str]) -> None:
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
    flags.add_argument("--arm-qps", type=float, default=8.0, help="ARM requests a second over all claims")
    flags.add_argument("--arm-burst", type=int, default=40, help="ARM requests at once above that rate")
    flags.duration("--arm-timeout", 60.0, "give up an ARM request after")


def _add_claim_flags(flags: _Parser) -> None:
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
    flags.duration("--launch-timeout", defaults.launch_timeout, "delete a claim still being created after")
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
        return Invocation(
            manager=_manager(args), provisioner=_provisioner(args), azure=_azure(args), node_api=NodeApi(args.node_api)
        )
    except ValidationError as invalid:
        refuse("; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in invalid.errors()))


def _manager(args: argparse.Namespace) -> Settings:
    return Settings(
        metrics_bind_address=args.metrics_bind_address,
        health_probe_bind_address=args.health_probe_bind_address,
        leader_elect=args.leader_elect,
        leader_election_namespace=args.leader_election_namespace,
        kubeconfig=args.kubeconfig,
        context=args.context,
        kube_client_qps=args.kube_client_qps,
        kube_client_burst=args.kube_client_burst,
        log_format=args.log_format,
        log_level=args.log_level,
    )


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
