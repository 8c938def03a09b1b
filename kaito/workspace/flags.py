"""The command line of the workspace controller, under upstream Kaito's flag names.

`main` calls `parse`; everything else takes the typed result. Booleans are written `--flag`, `--flag=true` or
`--flag=false`, durations as Go writes them (`90s`, `15m`, `1h30m`). What upstream has and this controller has not is
refused, or accepted with a note that `main` logs, as `upstream` decides for each flag and gate; none is ignored
silently.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from kaito.runtime.flags import FlagParser, boolean, manager_settings
from kaito.runtime.manager import Settings
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.upstream import FLAGS, GATES_BY_NAME, Answer, Flag, log_level

_WEBHOOK_PORT = 9443

FEATURE_GATES = {"vLLM": True, "disableNodeAutoProvisioning": False}
"""The gates this controller implements, with upstream's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One parsed command line."""

    workspace: WorkspaceSettings
    """The controller's own settings."""
    manager: Settings
    """What every manager is told."""
    webhook: bool
    """Whether to serve admission."""
    notes: tuple[str, ...] = ()
    """Flags and gates of upstream that have no effect here, each with the reason."""


def feature_gates(text: str) -> dict[str, bool]:
    """Gates from `name=true,other=false`, on top of the defaults of those that this controller has.

    Raises:
        argparse.ArgumentTypeError: an unknown gate, or one that is switched on and refused.
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
        if enabled and gate.answer is Answer.REFUSED:
            raise argparse.ArgumentTypeError(
                f"feature gate {gate.name} is not implemented by this controller: {gate.reason}: leave it off"
            )
        if enabled or gate.name in gates:
            gates[gate.name] = enabled
    return gates


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def parser() -> argparse.ArgumentParser:
    """Every flag, with its default and meaning."""
    flags = FlagParser(
        prog="workspace-controller",
        description="Reconciles Kaito Workspaces: GPU nodes, inference and tuning workloads, status.",
    )
    flags.add_argument("--version", action="version", version=f"workspace-controller {version('kaito')}")
    flags.manager()
    _add_admission_flags(flags)
    _add_node_flags(flags)
    flags.add_argument("--feature-gates", type=feature_gates, default=dict(FEATURE_GATES), help="name=bool,name=bool")
    flags.add_argument("--default-inference-cpu", default="1", help="CPU request of preset workloads")
    flags.add_argument("--default-inference-memory", default="4Gi", help="memory request of preset workloads")
    flags.switch(
        "--installation-guard", default=True, help="refuse the deletion of the installation while Workspaces exist"
    )
    flags.switch(
        "--allow-in-cluster-data-urls", default=False, help="tuning data may come from addresses inside the cluster"
    )
    flags.add_argument("--concurrency", type=int, default=32, help="Workspaces reconciled at the same time")
    for flag in FLAGS:
        # Flags of Go's packages may stand alone when they are booleans.
        short = ("-v",) if flag.name == "--v" else ()
        flags.add_argument(flag.name, *short, nargs="?", const="true", default=None, help=_upstream_help(flag))
    return flags


def _upstream_help(flag: Flag) -> str:
    return f"upstream's flag, {flag.answer}: {flag.reason}".replace("%", "%%")


def _attribute(flag: Flag) -> str:
    return flag.name.removeprefix("--").replace("-", "_")


def _notes(args: argparse.Namespace) -> tuple[str, ...]:
    """Flags and gates that were given and have no effect, as notes for the log."""
    notes = [
        f"feature gate {name} has no effect: {GATES_BY_NAME[name].reason}"
        for name, enabled in args.feature_gates.items()
        if enabled and GATES_BY_NAME[name].answer is Answer.ACCEPTED
    ]
    for flag in FLAGS:
        value: str | None = getattr(args, _attribute(flag))
        if flag.answer is Answer.ACCEPTED and value and value != flag.default:
            notes.append(f"{flag.name} has no effect: {flag.reason}")
    return tuple(notes)


def _apply_log_flags(args: argparse.Namespace) -> None:
    """Write what upstream's log flags mean into ours; the most specific flag wins.

    Raises:
        ValueError: a value that upstream refuses, too.
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


def _add_admission_flags(flags: FlagParser) -> None:
    flags.switch("--webhook", default=True, help="serve validating admission")
    flags.add_argument(
        "--webhook-port", type=int, default=None, help=f"port of the admission server (WEBHOOK_PORT, {_WEBHOOK_PORT})"
    )
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
        help="upstream's name of the same choice: byo is --node-api=byo; azure-gpu-provisioner is "
        "--node-api=nodeclaim, as in upstream, unless --node-api=machine is given",
    )
    flags.add_argument(
        "--default-node-image-family", choices=("ubuntu", "azurelinux", ""), default="ubuntu", help="OS of new nodes"
    )
    flags.duration("--node-provision-timeout", 900.0, "replace an unlaunched claim after")
    flags.duration("--node-unhealthy-timeout", 600.0, "replace a NotReady node after; 0: never")
    flags.duration("--deletion-timeout", 1200.0, "stop waiting for claims to go after")


def node_api(
    *, chosen: NodeApi | None, provisioner: str | None, auto_provisioning_off: bool, karpenter: bool = False
) -> NodeApi:
    """Resolves four overlapping flags and gates to one NodeApi.

    Upstream has `--node-provisioner` only since its claims are NodeClaims, and its chart installs no CRD for Machines.
    So azure-gpu-provisioner means NodeClaims unless `--node-api` is set to another kind.

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
    if byo:
        return NodeApi.BYO
    return chosen or (NodeApi.NODECLAIM if provisioner or karpenter else NodeApi.MACHINE)


def _webhook_hosts(given: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the admission server, with the Service that upstream's chart creates for it."""
    service, namespace = environ.get("WEBHOOK_SERVICE", ""), environ.get("SYSTEM_NAMESPACE", "")
    return (*given, f"{service}.{namespace}.svc") if service and namespace else given


def _webhook_port(given: int | None, environ: Mapping[str, str]) -> int:
    """The flag's port, else that of upstream's environment variable.

    Raises:
        ValueError: the variable is not a port.
    """
    if given is not None:
        return given
    text = environ.get("WEBHOOK_PORT", "")
    if not text or text.startswith("tcp://"):  # Kubernetes sets that for pods beside a Service called `webhook`
        return _WEBHOOK_PORT
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"environment variable WEBHOOK_PORT is {text!r}: use a port from 1 to 65535")
    return int(text)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Read the command line and the environment variables that upstream's chart sets.

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
        _apply_log_flags(args)
        manager = Settings(
            **manager_settings(args),
            webhook_port=_webhook_port(args.webhook_port, environ),
            webhook_cert_dir=args.webhook_cert_dir,
            webhook_hosts=_webhook_hosts(args.webhook_hosts, environ),
        )
        workspace = WorkspaceSettings(
            node_api=node_api(
                chosen=args.node_api,
                provisioner=args.node_provisioner,
                auto_provisioning_off=args.feature_gates["disableNodeAutoProvisioning"],
                karpenter=args.feature_gates.get("Karpenter", False),
            ),
            vllm=args.feature_gates["vLLM"],
            default_node_image_family=args.default_node_image_family or "ubuntu",
            node_provision_timeout=args.node_provision_timeout,
            node_unhealthy_timeout=args.node_unhealthy_timeout,
            deletion_timeout=args.deletion_timeout,
            default_inference_cpu=args.default_inference_cpu,
            default_inference_memory=args.default_inference_memory,
            concurrency=args.concurrency,
            installation_guard=args.installation_guard,
            allow_in_cluster_data_urls=args.allow_in_cluster_data_urls,
            **environment,  # pyright: ignore[reportArgumentType] # pydantic checks the environment's words
        )
    except ValidationError as invalid:
        refuse("; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in invalid.errors()))
    except (ValueError, argparse.ArgumentTypeError) as contradiction:
        refuse(contradiction)
    return Invocation(workspace=workspace, manager=manager, webhook=args.webhook, notes=_notes(args))
