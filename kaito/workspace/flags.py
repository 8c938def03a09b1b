"""The command line of the workspace controller, under upstream Kaito's flag names.

`main` calls `parse`; everything else takes the typed result. Booleans are written `--flag`, `--flag=true` or
`--flag=false`, durations as Go writes them (`90s`, `15m`, `1h30m`). A flag that cannot be honoured is refused with
the remedy, never ignored.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from kaito import __version__
from kaito.runtime.logging import LogFormat, LogLevel
from kaito.workspace.settings import NodeApi, WorkspaceSettings

FEATURE_GATES = {"vLLM": True, "disableNodeAutoProvisioning": False}
"""The gates this controller implements, with upstream's defaults."""

UPSTREAM_GATES = frozenset(
    {
        "gatewayAPIInferenceExtension",
        "enableInferenceSetController",
        "enableMIG",
        "enableAccelerator",
        "enableMultiRoleInferenceController",
        "ModelMirror",
        "ModelStreaming",
        "enableBaseImageAutoUpgrade",
    }
)
"""Gates of upstream Kaito v0.12 that may be named only to switch them off."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    workspace: WorkspaceSettings
    """The controller's own settings."""
    metrics_bind_address: str
    """`host:port` of `/metrics`; `0` switches it off."""
    health_probe_bind_address: str
    """`host:port` of `/healthz` and `/readyz`; `0` switches them off."""
    leader_elect: bool
    """Whether to hold a lease before acting."""
    leader_election_namespace: str
    """Namespace of that lease; empty is the pod's own."""
    webhook: bool
    """Whether to serve admission."""
    webhook_port: int
    """Port of the admission server."""
    webhook_cert_dir: Path | None
    """Directory with `tls.crt` and `tls.key`; without it the controller makes and rotates its own certificate."""
    webhook_hosts: tuple[str, ...]
    """Further names the API server reaches the admission server by, where there is no Service."""
    kubeconfig: Path | None
    """Cluster and credentials; without it the environment's, then the pod's."""
    context: str
    """Context of the kubeconfig; empty is its current one."""
    kube_client_qps: float
    """Requests a second; below 0 is unlimited."""
    kube_client_burst: int
    """Requests that may be sent at once above that rate."""
    log_format: LogFormat
    """`json` or `console`."""
    log_level: LogLevel
    """`debug`, `info`, `warning` or `error`."""


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


def feature_gates(text: str) -> dict[str, bool]:
    """Gates from `name=true,other=false`, on top of the defaults.

    Raises:
        argparse.ArgumentTypeError: an unknown gate, or one of upstream's that is not implemented and switched on.
    """
    gates = dict(FEATURE_GATES)
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = item.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError(f"feature gate {item!r} must be written name=true or name=false")
        enabled = boolean(value)
        if name in gates:
            gates[name] = enabled
        elif name not in UPSTREAM_GATES:
            raise argparse.ArgumentTypeError(f"unknown feature gate {name!r}; known: {', '.join(sorted(gates))}")
        elif enabled:
            raise argparse.ArgumentTypeError(f"feature gate {name} is not implemented by this controller: leave it off")
    return gates


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


class _Parser(argparse.ArgumentParser):
    def switch(self, name: str, *, default: bool, help: str) -> None:  # noqa: A002 - argparse's word
        self.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)


def parser() -> argparse.ArgumentParser:
    """Every flag, with its default and meaning."""
    flags = _Parser(
        prog="workspace-controller",
        description="Reconciles Kaito Workspaces: GPU nodes, inference and tuning workloads, status.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--version", action="version", version=f"workspace-controller {__version__}")
    _add_manager_flags(flags)
    _add_node_flags(flags)
    flags.add_argument("--default-inference-cpu", default="1", help="CPU request of preset workloads")
    flags.add_argument("--default-inference-memory", default="4Gi", help="memory request of preset workloads")
    flags.add_argument("--concurrency", type=int, default=32, help="Workspaces reconciled at the same time")
    return flags


def _add_manager_flags(flags: _Parser) -> None:
    flags.add_argument("--metrics-bind-address", default=":8080", help="address of /metrics; 0 is off")
    flags.add_argument("--health-probe-bind-address", default=":8081", help="address of /healthz, /readyz; 0 is off")
    flags.switch("--leader-elect", default=True, help="hold a lease before acting")
    flags.add_argument("--leader-election-namespace", default="", help="namespace of the lease; empty: the pod's")
    flags.switch("--webhook", default=True, help="serve validating admission")
    flags.add_argument("--webhook-port", type=int, default=9443, help="port of the admission server")
    flags.add_argument("--webhook-cert-dir", type=Path, default=None, help="tls.crt and tls.key; default: self-made")
    flags.add_argument("--webhook-hosts", type=_names, default=(), help="further names of the admission server, a,b")
    flags.add_argument("--kubeconfig", type=Path, default=None, help="kubeconfig file; default: environment, then pod")
    flags.add_argument("--context", default="", help="context of the kubeconfig")
    flags.add_argument("--kube-client-qps", type=float, default=-1.0, help="API requests a second; below 0: unlimited")
    flags.add_argument("--kube-client-burst", type=int, default=0, help="API requests at once above that rate")
    flags.add_argument("--feature-gates", type=feature_gates, default=dict(FEATURE_GATES), help="name=bool,name=bool")
    flags.add_argument("--log-format", choices=("json", "console"), default="json", help="form of the log")
    flags.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="least severe record logged"
    )


def _add_node_flags(flags: _Parser) -> None:
    flags.add_argument(
        "--node-api",
        type=NodeApi,
        choices=list(NodeApi),
        default=None,
        help="how nodes are asked for (default: machine)",
    )
    flags.add_argument(
        "--node-provisioner",
        choices=("azure-gpu-provisioner", "karpenter", "byo"),
        default=None,
        help="upstream's name of the same choice: byo is --node-api=byo, azure-gpu-provisioner leaves --node-api alone",
    )
    flags.add_argument(
        "--default-node-image-family", choices=("ubuntu", "azurelinux", ""), default="ubuntu", help="OS of new nodes"
    )
    flags.add_argument(
        "--node-provision-timeout", type=duration, default=900.0, help="replace an unlaunched claim after"
    )
    flags.add_argument(
        "--node-unhealthy-timeout", type=duration, default=600.0, help="replace a NotReady node after; 0: never"
    )
    flags.add_argument("--deletion-timeout", type=duration, default=1200.0, help="stop waiting for claims to go after")


def node_api(*, chosen: NodeApi | None, provisioner: str | None, auto_provisioning_off: bool) -> NodeApi:
    """The one answer of the three ways to say it.

    Raises:
        ValueError: they contradict each other, or ask for what is not implemented.
    """
    if provisioner == "karpenter":
        raise ValueError(
            "--node-provisioner=karpenter needs Karpenter NodePools, which are not implemented: "
            "use --node-api=nodeclaim with the gpu-provisioner"
        )
    byo = provisioner == "byo" or auto_provisioning_off
    if byo and chosen not in {None, NodeApi.BYO}:
        raise ValueError(
            f"--node-api={chosen} contradicts --node-provisioner=byo (or disableNodeAutoProvisioning=true)"
        )
    if provisioner == "azure-gpu-provisioner" and chosen is NodeApi.BYO:
        raise ValueError("--node-api=byo contradicts --node-provisioner=azure-gpu-provisioner")
    return NodeApi.BYO if byo else chosen or NodeApi.MACHINE


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Read the command line and the two environment variables the controller knows.

    Raises:
        SystemExit: 2 on a wrong flag (the message is on stderr), 0 on `--help` and `--version`.
    """
    flags = parser()
    args = flags.parse_args(argv)

    def refuse(problem: object) -> NoReturn:
        flags.error(str(problem))

    environment = {
        field: environ[name]
        for field, name in (("cloud", "CLOUD_PROVIDER"), ("registry", "PRESET_REGISTRY_NAME"))
        if environ.get(name)
    }
    try:
        workspace = WorkspaceSettings(
            node_api=node_api(
                chosen=args.node_api,
                provisioner=args.node_provisioner,
                auto_provisioning_off=args.feature_gates["disableNodeAutoProvisioning"],
            ),
            vllm=args.feature_gates["vLLM"],
            default_node_image_family=args.default_node_image_family or "ubuntu",
            node_provision_timeout=args.node_provision_timeout,
            node_unhealthy_timeout=args.node_unhealthy_timeout,
            deletion_timeout=args.deletion_timeout,
            default_inference_cpu=args.default_inference_cpu,
            default_inference_memory=args.default_inference_memory,
            concurrency=args.concurrency,
            **environment,  # pyright: ignore[reportArgumentType] # pydantic checks the environment's words
        )
    except ValidationError as invalid:
        refuse("; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in invalid.errors()))
    except ValueError as contradiction:
        refuse(contradiction)
    return Invocation(
        workspace=workspace,
        metrics_bind_address=args.metrics_bind_address,
        health_probe_bind_address=args.health_probe_bind_address,
        leader_elect=args.leader_elect,
        leader_election_namespace=args.leader_election_namespace,
        webhook=args.webhook,
        webhook_port=args.webhook_port,
        webhook_cert_dir=args.webhook_cert_dir,
        webhook_hosts=args.webhook_hosts,
        kubeconfig=args.kubeconfig,
        context=args.context,
        kube_client_qps=args.kube_client_qps,
        kube_client_burst=args.kube_client_burst,
        log_format=args.log_format,
        log_level=args.log_level,
    )
