"""Starts kubelet and kube-proxy: the node on which pods run.

kubelet serves and authenticates as on a real node: its certificate is signed by the cluster's authority, and requests
to it are authorized by the API server.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hack.cluster import binaries, identities
from hack.cluster.layout import ADDRESS, CLUSTER_DOMAIN, PODS, Layout
from hack.cluster.network import inside
from hack.cluster.processes import Processes, StartFailed

_READY_SECONDS = 180


@dataclass(frozen=True)
class NodeOptions:
    """Identity of the node.

    Args:
        name: Name of the Node object; the layout's name if empty.
        labels: Labels with which kubelet registers. NodeRestriction rejects some prefixes.
        taints: Taints with which kubelet registers, as `key=value:effect`.
        provider_id: `spec.providerID` of the Node object.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: Sequence[str] = ()
    provider_id: str = ""


def start(layout: Layout, processes: Processes, options: NodeOptions = NodeOptions()) -> None:
    """Starts what does not run, and waits until the node is Ready.

    Raises:
        StartFailed: a process ended, or the node did not become Ready.
    """
    name = options.name or layout.node_name
    identities.issue_kubelet(layout, name)
    configuration = write_configuration(layout, options)
    flags = [f"--node-labels={','.join(f'{key}={value}' for key, value in options.labels.items())}"]
    processes.start(
        layout.kubelet,
        [
            binaries.path("kubelet"),
            f"--config={configuration}",
            f"--kubeconfig={layout.kubeconfig_of(layout.kubelet)}",
            f"--hostname-override={name}",
            f"--node-ip={layout.node_address}",
            f"--root-dir={layout.node_state / 'kubelet'}",
            f"--cert-dir={layout.node_state / 'kubelet-pki'}",
            *(flags if options.labels else ()),
        ],
    )
    processes.start("kube-proxy", [binaries.path("kube-proxy"), *_proxy_flags(layout, name)])
    _wait_until_ready(layout, processes, name)


def remove(layout: Layout, processes: Processes) -> None:
    """Stops kubelet, and kube-proxy with the last one; pods keep running until `runtime.remove_containers`."""
    processes.stop(layout.kubelet)
    layout.kubeconfig_of(layout.kubelet).unlink(missing_ok=True)
    if not any(name.startswith("kubelet") for name in processes.running()):
        processes.stop("kube-proxy")


def _proxy_flags(layout: Layout, name: str) -> list[str]:
    return [
        f"--kubeconfig={layout.kubeconfig_of('kube-proxy')}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={PODS}",
        f"--hostname-override={name}",
        # These settings of the kernel belong to the machine.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def write_configuration(layout: Layout, options: NodeOptions) -> Path:
    """Writes kubelet's configuration and returns its path."""
    resolver = layout.state / "resolv.conf"
    resolver.write_text(f"nameserver {ADDRESS}\n")
    certificates = layout.certificates
    document: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.node_address,  # the nodes of a cluster share its network namespace, and so the ports
        "healthzBindAddress": layout.node_address,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "clusterDNS": [ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(resolver),
        "tlsCertFile": str(certificates / f"{layout.kubelet}-server.crt"),
        "tlsPrivateKeyFile": str(certificates / f"{layout.kubelet}-server.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(certificates / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        # The machine's cgroups are not kubelet's to arrange, and its disk and memory are shared.
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": str(layout.node_state / "pod-logs"),
        "volumePluginDir": str(layout.node_state / "volume-plugins"),
        # Pulls of several images run side by side, and a restart after a failure does not wait for minutes.
        "serializeImagePulls": False,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "20s"},
        "featureGates": {"KubeletCrashLoopBackOffMax": True},
    }
    if options.provider_id:
        document["providerID"] = options.provider_id
    if options.taints:
        document["registerWithTaints"] = [_taint(text) for text in options.taints]
    path = layout.node_state / "kubelet.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}


def _wait_until_ready(layout: Layout, processes: Processes, name: str) -> None:
    kubectl = [*inside(layout), "kubectl", f"--kubeconfig={layout.kubeconfig}"]

    def succeeds(*words: str) -> bool:
        return subprocess.run([*kubectl, *words], capture_output=True, check=False).returncode == 0

    condition = ("wait", "--for=condition=Ready", f"node/{name}", "--timeout=2s")
    processes.wait(layout.kubelet, lambda: succeeds(*condition), _READY_SECONDS)
    # No pod is admitted before its ServiceAccount exists.
    processes.wait(layout.kubelet, lambda: succeeds("get", "serviceaccount", "default"), _READY_SECONDS)
    if not processes.is_running("kube-proxy"):
        raise StartFailed(f"kube-proxy ended; the end of its log:\n{processes.log_end('kube-proxy')}")
