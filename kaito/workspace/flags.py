"""The command line of the workspace controller, under upstream Kaito's flag names.

`main` calls `parse`; everything else takes the typed result. Booleans are written `--flag`, `--flag=true` or
`--flag=false`, durations as Go writes them (`90s`, `15m`, `1h30m`). A flag that cannot be honoured is refused with
the remedy, never ignored.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from kaito import __version__
from kaito.runtime.flags import FlagParser, boolean, manager_settings
from kaito.runtime.manager import Settings
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    workspace: WorkspaceSettings
    """The controller's own settings."""
    manager: Settings
    """What every manager is told."""
    webhook: bool
    """Whether to serve admission."""


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


def parser() -> argparse.ArgumentParser:
    """Every flag, with its default and meaning."""
    flags = FlagParser(
        prog="workspace-controller",
        description="Reconciles Kaito Workspaces: GPU nodes, inference and tuning workloads, status.",
    )
    flags.add_argument("--version", action="version", version=f"workspace-controller {__version__}")
    flags.manager()
    _add_admission_flags(flags)
    _add_node_flags(flags)
    flags.add_argument("--feature-gates", type=feature_gates, default=dict(FEATURE_GATES), help="name=bool,name=bool")
    flags.add_argument("--default-inference-cpu", default="1", help="CPU request of preset workloads")
    flags.add_argument("--default-inference-memory", default="4Gi", help="memory request of preset workloads")
    flags.add_argument("--concurrency", type=int, default=32, help="Workspaces reconciled at the same time")
    return flags


def _add_admission_flags(flags: FlagParser) -> None:
    flags.switch("--webhook", default=True, help="serve validating admission")
    flags.add_argument("--webhook-port", type=int, default=9443, help="port of the admission server")
    flags.add_argument("--webhook-cert-dir", type=Path, default=None, help="tls.crt and tls.key; default: self-made")
    flags.add_argument("--webhook-hosts", type=_names, default=(), help="further names of the admission server, a,b")


def _add_node_flags(flags: FlagParser) -> None:
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
    flags.duration("--node-provision-timeout", 900.0, "replace an unlaunched claim after")
    flags.duration("--node-unhealthy-timeout", 600.0, "replace a NotReady node after; 0: never")
    flags.duration("--deletion-timeout", 1200.0, "stop waiting for claims to go after")


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
        manager = Settings(
            **manager_settings(args),
            webhook_port=args.webhook_port,
            webhook_cert_dir=args.webhook_cert_dir,
            webhook_hosts=args.webhook_hosts,
        )
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
    return Invocation(workspace=workspace, manager=manager, webhook=args.webhook)
