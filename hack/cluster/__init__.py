"""A real Kubernetes node on this machine, without Docker and without an image registry on the internet.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler, CoreDNS, a registry, containerd, kubelet and kube-proxy
run in one network namespace that has no default route. `python -m hack.cluster` is the command line; `Cluster` is for
tests.
docs/internals/real-node.md describes it.
"""

from hack.cluster.cluster import Cluster as Cluster, CommandFailed as CommandFailed
from hack.cluster.gpus import Gpus as Gpus
from hack.cluster.layout import REGISTRY as REGISTRY
from hack.cluster.node import NodeOptions as NodeOptions
from kaito.runtime.testing.envtest.binaries import Unavailable as Unavailable
