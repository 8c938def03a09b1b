"""A real kube-apiserver and etcd for tests, without Docker: found, or built once with Go and cached.

with ControlPlane() as control_plane:
    subprocess.run(["kubectl", "--kubeconfig", control_plane.kubeconfig, "get", "namespaces"])
"""

from hack.envtest.binaries import KUBERNETES_VERSION as KUBERNETES_VERSION, locate as locate
from hack.envtest.control_plane import ControlPlane as ControlPlane
from kaito.runtime.testing.envtest.binaries import Unavailable as Unavailable
