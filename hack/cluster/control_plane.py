"""Starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and the DNS server.

The API server authorizes with Node and RBAC and admits with NodeRestriction, as kubeadm configures it, so that the
roles of `config/rbac` and the tokens of ServiceAccounts are tested as they are used.
"""

import subprocess

from hack.cluster import binaries
from hack.cluster.layout import ADDRESS, API_SERVER, CLUSTER_DOMAIN, PODS, SERVICES, Layout
from hack.cluster.network import inside
from hack.cluster.processes import Processes

_START_SECONDS = 120.0
_ETCD = "http://127.0.0.1:2379"

_DNS_ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
  - {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns"}]
"""


def start(layout: Layout, processes: Processes) -> None:
    """Starts what does not run, and waits until the API server is ready.

    Raises:
        StartFailed: a process ended or did not become ready.
    """
    _start_etcd(layout, processes)
    _start_api_server(layout, processes)
    processes.wait("kube-apiserver", lambda: is_ready(layout), _START_SECONDS)
    processes.start(
        "kube-controller-manager",
        [
            binaries.path("kube-controller-manager"),
            f"--kubeconfig={layout.kubeconfig_of('kube-controller-manager')}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={layout.certificates / 'sa.key'}",
            f"--root-ca-file={layout.certificates / 'ca.crt'}",
            f"--cluster-cidr={PODS}",
            "--bind-address=127.0.0.1",
        ],
    )
    processes.start(
        "kube-scheduler",
        [
            binaries.path("kube-scheduler"),
            f"--kubeconfig={layout.kubeconfig_of('kube-scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
    )


def start_dns(layout: Layout, processes: Processes) -> None:
    """Starts CoreDNS on the node's address, which pods use as their name server."""
    subprocess.run(
        [*inside(layout), "kubectl", f"--kubeconfig={layout.kubeconfig}", "apply", "--server-side", "-f", "-"],
        input=_DNS_ROLE,
        text=True,
        check=True,
        capture_output=True,
    )
    configuration = layout.state / "Corefile"
    configuration.write_text(_corefile(layout))
    processes.start("coredns", [binaries.path("coredns"), "-conf", configuration])


def _corefile(layout: Layout) -> str:
    # There is no forwarding: names outside of the cluster are refused at once, because nothing there is reachable.
    return f"""\
.:53 {{
    bind {ADDRESS}
    errors
    health 127.0.0.1:8053
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {layout.kubeconfig_of("coredns")}
        ttl 5
    }}
    cache 5
}}
"""


def is_ready(layout: Layout) -> bool:
    """Whether the API server reports readiness."""
    return (
        subprocess.run(
            [*inside(layout), "kubectl", f"--kubeconfig={layout.kubeconfig}", "get", "--raw", "/readyz"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


def _start_etcd(layout: Layout, processes: Processes) -> None:
    peer = "http://127.0.0.1:2380"
    processes.start(
        "etcd",
        [
            binaries.path("etcd"),
            f"--data-dir={layout.state / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={peer}",
        ],
    )


def _start_api_server(layout: Layout, processes: Processes) -> None:
    folder = layout.certificates
    processes.start(
        "kube-apiserver",
        [
            binaries.path("kube-apiserver"),
            f"--etcd-servers={_ETCD}",
            f"--bind-address={ADDRESS}",
            f"--advertise-address={ADDRESS}",
            f"--secure-port={API_SERVER.rpartition(':')[2]}",
            f"--tls-cert-file={folder / 'apiserver.crt'}",
            f"--tls-private-key-file={folder / 'apiserver.key'}",
            f"--client-ca-file={folder / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={folder / 'ca.crt'}",
            f"--kubelet-client-certificate={folder / 'admin.crt'}",
            f"--kubelet-client-key={folder / 'admin.key'}",
            f"--service-account-key-file={folder / 'sa.key'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
        ],
    )
