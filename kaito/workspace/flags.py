"""Parses the command line of the workspace controller, with upstream Kaito's flag names.

`main` calls `parse`; all other modules receive typed settings. Booleans are written `--flag`, `--flag=true` or
`--flag=false`, durations as in Go (`90s`, `15m`, `1h30m`). The table in `upstream` decides for each flag and feature
gate of upstream that this controller does not implement: it is rejected, or accepted with a note that `main` logs. No
flag is ignored silently.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from kaito.api.workspace import PodOptions
from kaito.models.preset import UPSTREAM_REGISTRY
from kaito.prices.table import PriceTable, read_table
from kaito.runtime.flags import FlagParser, boolean, comma_separated
from kaito.runtime.manager import Settings
from kaito.workspace.node_class import KAITO, NodeClassSettings
from kaito.workspace.pod_options import read_defaults
from kaito.workspace.settings import DEFAULT_HUB, DEFAULT_REGISTRY, NodeApi, WorkspaceSettings
from kaito.workspace.tracing import ENDPOINT_ENV
from kaito.workspace.upstream import FLAGS, GATES_BY_NAME, Flag, Support, log_level

_WEBHOOK_PORT = 9443

FEATURE_GATES = {"vLLM": True, "disableNodeAutoProvisioning": False}
"""Feature gates that this controller implements, with upstream's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A parsed command line."""

    workspace: WorkspaceSettings
    """Settings of the controller."""
    manager: Settings
    """Settings of its manager."""
    webhook: bool
    """Whether to serve the admission webhook."""
    prices: PriceTable | None = None
    """The user's table of prices."""
    notes: tuple[str, ...] = ()
    """Upstream's flags and feature gates that are set and have no effect, each with the reason."""


def feature_gates(text: str) -> dict[str, bool]:
    """Parses `name=true,other=false`; gates that are not listed keep their defaults.

    Raises:
        argparse.ArgumentTypeError: a gate is unknown, or is enabled and rejected.
    """
    gates = dict(FEATURE_GATES)
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = item.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError(f"feature gate {item!r} must be written name=true or name=false")
        gate = GATES_BY_NAME.get(name.strip())
        if gate is None:
            raise argparse.ArgumentTypeError(
                f"unknown feature gate {name!r}; known: {', '.join(sorted(GATES_BY_NAME))}"
            )
        enabled = boolean(value.strip())
        if enabled and gate.support is Support.REJECTED:
            raise argparse.ArgumentTypeError(
                f"feature gate {gate.name} is not implemented by this controller: {gate.reason}: leave it off"
            )
        if enabled or gate.name in gates:
            gates[gate.name] = enabled
    return gates


SETTINGS_FIELDS: Final = (
    "region",
    "mig_strategy",
    "image_registry",
    "serving_image",
    "vllm_image",
    "model_registry",
    "hub_endpoint",
    "weights_source",
    "node_cache_directory",
    "default_inference_cpu",
    "default_inference_memory",
    "activator_port",
    "installation_guard",
    "inference_gateway",
    "endpoint_picker",
    "allow_in_cluster_data_urls",
    "concurrency",
    "node_provision_timeout_seconds",
    "node_unhealthy_timeout_seconds",
    "deletion_timeout_seconds",
)
"""Fields of `WorkspaceSettings` that have one flag each. The others are computed from several flags and variables."""


def parser() -> FlagParser:
    """Returns the parser with every flag of the controller."""
    flags = FlagParser(
        prog="workspace-controller",
        description="Reconciles Kaito Workspaces: GPU nodes, inference and tuning workloads, status.",
    )
    flags.add_argument("--version", action="version", version=f"workspace-controller {version('kaito')}")
    flags.add_manager_settings()
    _add_webhook_flags(flags)
    _add_node_flags(flags)
    flags.add_argument(
        "--feature-gates", type=feature_gates, default=dict(FEATURE_GATES), help="comma-separated name=bool pairs"
    )
    flags.add_settings(NodeClassSettings)
    # Without a default: the environment is read if the flag is not set.
    flags.add_settings(
        WorkspaceSettings,
        fields=SETTINGS_FIELDS,
        defaults={"image_registry": None, "model_registry": None, "hub_endpoint": None},
    )
    flags.add_argument(
        "--pod-defaults",
        type=Path,
        default=None,
        metavar="FILE",
        help="YAML file with defaults of podOptions for the pods of all presets",
    )
    flags.add_argument(
        "--price-table",
        type=Path,
        default=None,
        metavar="FILE",
        help="YAML file with prices of nodes, which have precedence over those that Kaito contains",
    )
    for flag in FLAGS:
        # Go programs accept boolean flags without a value.
        short = ("-v",) if flag.name == "--v" else ()
        flags.add_argument(flag.name, *short, nargs="?", const="true", default=None, help=_upstream_help(flag))
    return flags


def _upstream_help(flag: Flag) -> str:
    return f"upstream's flag, {flag.support}: {flag.reason}".replace("%", "%%")


def _attribute(flag: Flag) -> str:
    return flag.name.removeprefix("--").replace("-", "_")


def _notes(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns one note for each flag and gate that is set and has no effect."""
    notes = [
        f"feature gate {name} has no effect: {GATES_BY_NAME[name].reason}"
        for name, enabled in args.feature_gates.items()
        if enabled and GATES_BY_NAME[name].support is Support.ACCEPTED
    ]
    for flag in FLAGS:
        value: str | None = getattr(args, _attribute(flag))
        if flag.support is Support.ACCEPTED and value and value != flag.default:
            notes.append(f"{flag.name} has no effect: {flag.reason}")
    return tuple(notes)


def _image_registry(environ: Mapping[str, str]) -> str:
    """Returns the registry of the images from the environment; empty for the default.

    Upstream's chart sets PRESET_REGISTRY_NAME to upstream's registry, which does not contain the images of this
    project: that value is not used.
    """
    given = environ.get("PRESET_REGISTRY_NAME", "")
    return environ.get("IMAGE_REGISTRY", "") or ("" if given == UPSTREAM_REGISTRY else given)


def _environment_notes(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("PRESET_REGISTRY_NAME") == UPSTREAM_REGISTRY:
        yield (
            f"PRESET_REGISTRY_NAME={UPSTREAM_REGISTRY} has no effect: upstream's images have another command line; "
            "name the registry of kaito-serving and kaito-vllm in IMAGE_REGISTRY or --image-registry"
        )


def _apply_log_flags(args: argparse.Namespace) -> None:
    """Sets `log_format` and `log_level` from upstream's log flags; the most specific flag wins.

    Raises:
        ValueError: upstream rejects the value, too.
    """
    if args.v is not None and args.v not in {"0", ""}:
        if not args.v.lstrip("-").isdigit():
            raise ValueError(f"--v={args.v}: use a whole number")
        args.log_level = "debug"
    if args.zap_devel is not None and boolean(args.zap_devel):
        args.log_format, args.log_level = "console", "debug"
    if args.zap_encoder is not None:
        if args.zap_encoder not in {"json", "console"}:
            raise ValueError(f"--zap-encoder={args.zap_encoder}: use json or console")
        args.log_format = args.zap_encoder
    if args.zap_log_level is not None:
        args.log_level = log_level(args.zap_log_level)


def _add_webhook_flags(flags: FlagParser) -> None:
    flags.add_switch("--webhook", default=True, help="serve the validating admission webhook")
    flags.add_argument(
        "--webhook-port",
        type=int,
        default=None,
        help=f"port of the webhook server (environment variable WEBHOOK_PORT, else {_WEBHOOK_PORT})",
    )
    flags.add_argument(
        "--webhook-cert-dir", type=Path, default=None, help="directory with tls.crt and tls.key (default: self-signed)"
    )
    flags.add_argument(
        "--webhook-hosts",
        type=comma_separated,
        default=(),
        metavar="A,B",
        help="additional DNS names in the certificate, comma-separated",
    )


def _add_node_flags(flags: FlagParser) -> None:
    flags.add_argument(
        "--node-api",
        type=NodeApi,
        choices=list(NodeApi),
        default=None,
        help="kind of object that requests nodes: machine, nodeclaim, or karpenter for one NodePool per Workspace; byo "
        "uses existing nodes (default: machine)",
    )
    flags.add_argument(
        "--node-provisioner",
        choices=("azure-gpu-provisioner", "karpenter", "byo"),
        default=None,
        help="upstream's flag for --node-api: byo is --node-api=byo; karpenter is --node-api=karpenter; "
        "azure-gpu-provisioner is --node-api=nodeclaim unless --node-api=machine is set",
    )
    flags.add_argument(
        "--default-node-image-family",
        choices=("ubuntu", "azurelinux", ""),
        default="ubuntu",
        help="operating system of new nodes for Workspaces without the annotation",
    )


def node_api(
    *, chosen: NodeApi | None, provisioner: str | None, auto_provisioning_off: bool, karpenter: bool = False
) -> NodeApi:
    """Resolves four overlapping flags and gates to one NodeApi.

    Upstream has `--node-provisioner` only since its claims are NodeClaims, and its chart installs no CRD for Machines.
    So azure-gpu-provisioner means NodeClaims unless `--node-api` is set to another kind.

    Raises:
        ValueError: they contradict each other.
    """
    byo = provisioner == "byo" or auto_provisioning_off
    if byo and chosen not in {None, NodeApi.BYO}:
        raise ValueError(
            f"--node-api={chosen} contradicts --node-provisioner=byo (or disableNodeAutoProvisioning=true)"
        )
    if provisioner == "azure-gpu-provisioner" and chosen is NodeApi.BYO:
        raise ValueError("--node-api=byo contradicts --node-provisioner=azure-gpu-provisioner")
    if byo:
        return NodeApi.BYO
    if provisioner == "karpenter":
        if chosen not in {None, NodeApi.KARPENTER}:
            raise ValueError(f"--node-api={chosen} contradicts --node-provisioner=karpenter, which creates NodePools")
        return NodeApi.KARPENTER
    if provisioner == "azure-gpu-provisioner" and chosen is NodeApi.KARPENTER:
        raise ValueError("--node-api=karpenter contradicts --node-provisioner=azure-gpu-provisioner")
    return chosen or (NodeApi.NODECLAIM if provisioner or karpenter else NodeApi.MACHINE)


_UPSTREAM_NODE_CLASS: Final = NodeClassSettings(
    karpenter_node_class_group="karpenter.azure.com",
    karpenter_node_class_kind="AKSNodeClass",
    karpenter_node_class_version="v1beta1",
    karpenter_node_class_resource_name="aksnodeclasses",
)
"""Upstream's defaults, which have an effect only with `--node-provisioner=karpenter`."""


def _node_class(
    given: NodeClassSettings, *, nodes: NodeApi, provisioner: str | None, cloud: str
) -> tuple[NodeClassSettings, tuple[str, ...]]:
    """Returns the node class of claims, and a note if one is set for nodes that have none.

    Raises:
        ValueError: a node class is set for Machines, or that of gpu-provisioner for NodePools.
    """
    default = NodeClassSettings()
    if nodes is NodeApi.KARPENTER:
        return _pool_class(given, cloud), ()
    if given == default:
        return default, ()
    if provisioner == "azure-gpu-provisioner" or nodes is NodeApi.BYO:
        reason = f"--node-api={nodes}" if nodes is NodeApi.BYO else "--node-provisioner=azure-gpu-provisioner"
        note = f"--karpenter-node-class-* has no effect with {reason}"
        return default, () if given == _UPSTREAM_NODE_CLASS else (note,)
    if nodes is NodeApi.MACHINE:
        raise ValueError("--karpenter-node-class-* needs --node-api=nodeclaim: Machines have no node class")
    return given, ()


def _pool_class(given: NodeClassSettings, cloud: str) -> NodeClassSettings:
    """Returns the node class of NodePools; upstream's default on Azure.

    Raises:
        ValueError: it is the class of gpu-provisioner, which does not fulfill NodePools.
    """
    if given.is_default and given.kind_on(cloud) == KAITO:
        return _UPSTREAM_NODE_CLASS.model_copy(update={"karpenter_node_class_name": given.karpenter_node_class_name})
    if given.kind_on(cloud).group == KAITO.group:
        raise ValueError(
            f"--karpenter-node-class-group={KAITO.group} is the class of gpu-provisioner, which does not fulfill "
            "NodePools: name that of a Karpenter provider, or use --node-api=nodeclaim"
        )
    return given


def _webhook_hosts(given: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Adds the DNS name of the Service that upstream's chart creates for the webhook."""
    service, namespace = environ.get("WEBHOOK_SERVICE", ""), environ.get("SYSTEM_NAMESPACE", "")
    return (*given, f"{service}.{namespace}.svc") if service and namespace else given


def _webhook_port(given: int | None, environ: Mapping[str, str]) -> int:
    """Returns the port of the flag, else of upstream's environment variable, else the default.

    Raises:
        ValueError: the variable does not contain a port.
    """
    if given is not None:
        return given
    text = environ.get("WEBHOOK_PORT", "")
    if not text or text.startswith("tcp://"):  # set by Kubernetes if the namespace has a Service `webhook`
        return _WEBHOOK_PORT
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"environment variable WEBHOOK_PORT is {text!r}: use a port from 1 to 65535")
    return int(text)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Parses the command line and the environment variables that upstream's chart sets.

    Raises:
        SystemExit: status 2 for a wrong flag (the message is on stderr), 0 for `--help` and `--version`.
    """
    flags = parser()
    args = flags.parse_args(argv)
    environment = {"cloud": environ["CLOUD_PROVIDER"]} if environ.get("CLOUD_PROVIDER") else {}
    environment["image_registry"] = args.image_registry or _image_registry(environ) or DEFAULT_REGISTRY
    environment["hub_endpoint"] = (
        (environ.get("HF_ENDPOINT") or DEFAULT_HUB) if args.hub_endpoint is None else args.hub_endpoint
    )
    environment["namespace"] = environ.get("POD_NAMESPACE", "").strip()
    environment["model_registry"] = args.model_registry or environ.get("MODEL_REGISTRY", "")
    gates: dict[str, bool] = args.feature_gates
    try:
        _apply_log_flags(args)
        prices = None if args.price_table is None else read_table(args.price_table)
        pod_defaults = PodOptions() if args.pod_defaults is None else read_defaults(args.pod_defaults)
        webhook_port = _webhook_port(args.webhook_port, environ)
        nodes = node_api(
            chosen=args.node_api,
            provisioner=args.node_provisioner,
            auto_provisioning_off=gates["disableNodeAutoProvisioning"],
            karpenter=gates.get("Karpenter", False),
        )
        node_class, class_notes = _node_class(
            flags.settings(NodeClassSettings, args),
            nodes=nodes,
            provisioner=args.node_provisioner,
            cloud=environment.get("cloud", "azure"),
        )
    except (ValueError, argparse.ArgumentTypeError) as error:
        flags.error(str(error))
    manager = flags.manager_settings(
        args,
        webhook_port=webhook_port,
        webhook_cert_dir=args.webhook_cert_dir,
        webhook_hosts=_webhook_hosts(args.webhook_hosts, environ),
    )
    workspace = flags.settings(
        WorkspaceSettings,
        args,
        node_api=nodes,
        node_class=node_class,
        vllm=gates["vLLM"],
        default_node_image_family=args.default_node_image_family or "ubuntu",
        pod_defaults=pod_defaults,
        tracing_endpoint=manager.tracing_endpoint or environ.get(ENDPOINT_ENV, ""),
        **environment,
    )
    notes = (*_notes(args), *_environment_notes(environ), *class_notes)
    return Invocation(workspace=workspace, manager=manager, webhook=args.webhook, prices=prices, notes=notes)
